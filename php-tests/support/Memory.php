<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** What a core file of a living process would hold. */
final class Memory
{
    /** Whether the text stands in it. */
    public static function holds(int $pid, string $text): bool
    {
        $memory = fopen("/proc/$pid/mem", 'r');
        foreach (self::dumped($pid) as [$start, $end]) {
            $before = '';
            for ($at = $start; $at < $end; $at += strlen($chunk)) {
                fseek($memory, $at);
                $chunk = @fread($memory, min(1 << 20, $end - $at));
                if ($chunk === false || $chunk === '') {
                    break;
                }
                if (str_contains($before . $chunk, $text)) {
                    return true;
                }
                $before = substr($chunk, -strlen($text));
            }
        }
        return false;
    }

    /** @return list<array{int, int}> what can be written to and was not taken out by madvise(MADV_DONTDUMP) */
    private static function dumped(int $pid): array
    {
        $ranges = [];
        foreach (file("/proc/$pid/smaps", FILE_IGNORE_NEW_LINES) as $line) {
            if (preg_match('/^([0-9a-f]+)-([0-9a-f]+) (..)/', $line, $found)) {
                $range = $found[3] === 'rw' ? [hexdec($found[1]), hexdec($found[2])] : null;
            } elseif (str_starts_with($line, 'VmFlags:') && $range !== null && !preg_match('/ dd( |$)/', $line)) {
                $ranges[] = $range;
            }
        }
        return $ranges;
    }
}
