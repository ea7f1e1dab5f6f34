<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/**
 * Who minted what, written by the pages themselves (see pages/mint.php) and not by the extension under test:
 * one line per event, "start|end name host pid time".
 */
final class MintLog
{
    public function __construct(public readonly string $file)
    {
        touch($file);
    }

    /** @return list<array{event: string, name: string, host: string, pid: int, time: float}> */
    public function events(string $event = 'start', ?string $name = null, ?string $host = null): array
    {
        $events = [];
        foreach (file($this->file, FILE_IGNORE_NEW_LINES) as $line) {
            $entry = array_combine(['event', 'name', 'host', 'pid', 'time'], explode(' ', $line));
            if ($entry['event'] === $event && $entry['name'] === ($name ?? $entry['name']) && $entry['host'] === ($host ?? $entry['host'])) {
                $events[] = ['pid' => (int) $entry['pid'], 'time' => (float) $entry['time']] + $entry;
            }
        }
        return $events;
    }

    public function mints(?string $name = null, ?string $host = null): int
    {
        return count($this->events('start', $name, $host));
    }
}
