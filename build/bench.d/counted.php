<?php

/**
 * counted.php LIBRARY LIBRARY ARGUMENT...: what counting a hit costs, from two libraries that differ in nothing else.
 *
 * Each measures in a process of its own, again and again in turn; the order changes, for whoever comes second finds
 * a warmer machine. A difference below what repeats differ by is noise, so that is printed, too.
 */

declare(strict_types=1);

const PAIRS = 15;

$measure = <<<'PHP'
    $mint = static fn (): array => ['access_token' => str_repeat('x', 1200), 'expires_in' => 3600];
    $fetch = static fn (): array => ['base' => 'EUR', 'rates' => ['USD' => '1.0876']];
    $times = [[], [], []];
    for ($round = 0; $round < 200; $round++) {
        shared_token_get('bench', $mint);
        fx_rate('EUR', 'USD', $fetch);
        $start = hrtime(true);
        for ($i = 0; $i < 1000; $i++) {
            shared_token_get('bench');
        }
        $middle = hrtime(true);
        for ($i = 0; $i < 1000; $i++) {
            fx_rate('EUR', 'USD');
        }
        $end = hrtime(true);
        for ($i = 0; $i < 1000; $i++) {
        }
        $times[0][] = $middle - $start;
        $times[1][] = $end - $middle;
        $times[2][] = hrtime(true) - $end;
    }
    foreach ($times as &$of) {
        sort($of);
        $of = $of[100] / 1000;
    }
    echo json_encode([$times[0] - $times[2], $times[1] - $times[2]]);
    PHP;

[, $counted, $uncounted] = $argv;
$arguments = array_slice($argv, 3);
$run = static function (string $library) use ($arguments, $measure): array {
    $command = implode(' ', array_map('escapeshellarg', [PHP_BINARY, '-n', '-d', "extension=$library", ...$arguments, '-r', $measure]));
    $said = json_decode((string) shell_exec($command), true);
    if (!is_array($said)) {
        fwrite(STDERR, "a measuring process failed: $command\n");
        exit(1);
    }
    return $said;
};
$with = $without = [];
for ($pair = 0; $pair < PAIRS; $pair++) {
    if ($pair % 2 === 0) {
        $with[] = $run($counted);
        $without[] = $run($uncounted);
    } else {
        $without[] = $run($uncounted);
        $with[] = $run($counted);
    }
}
/** @return array{float, float} the median, and half of what lies between the quartiles */
$middle = static function (array $values): array {
    sort($values);
    $at = static fn (float $share): float => $values[(int) round($share * (count($values) - 1))];
    return [$at(0.5), ($at(0.75) - $at(0.25)) / 2];
};
echo "\n";
foreach (['shared_token_get', 'fx_rate'] as $column => $title) {
    [$one, $two] = [$middle(array_column($with, $column)), $middle(array_column($without, $column))];
    $note = $one[0] - $two[0] > 3 ? '  above the aim of 3' : '';
    printf("%-18s a hit takes %.1f ns (±%.1f) with its counter and %.1f ns (±%.1f) without: %+.1f ns%s\n", $title, ...$one, ...$two, ...[$one[0] - $two[0], $note]);
}
