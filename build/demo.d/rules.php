<?php

/** The rules of build/prometheus/alerts.yml for a replay in which an hour takes 15 s: every duration is so much shorter. */

declare(strict_types=1);

const REPLAY_FASTER = 240;

/**
 * A host is scraped every second, and a second is four minutes of the replay. So a window is five scrapes at least, and what has
 * to last lasts for four: a host that restarts for two of our seconds is not one that was away for eight minutes.
 *
 * @return string the rules
 */
function rules_for_replay(string $rules): string
{
    $seconds = static fn (string $number, string $unit): int => (int) $number * ['s' => 1, 'm' => 60, 'h' => 3600, 'd' => 86400][$unit];
    return preg_replace_callback(
        '/(\[|^\s+for: )(\d+)([smhd])\b/m',
        static fn (array $m): string => $m[1] . max($m[1] === '[' ? 5 : 4, (int) round($seconds($m[2], $m[3]) / REPLAY_FASTER)) . 's',
        $rules,
    );
}
