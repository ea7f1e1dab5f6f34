<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** Prometheus's own reader and linter. */
final class Promtool
{
    public static function isThere(): bool
    {
        return trim((string) shell_exec('command -v promtool')) !== '';
    }

    /** What its reader and its linter have against an OpenMetrics text; empty when nothing. */
    public static function complaints(string $metrics, string $folder): string
    {
        return self::read($metrics, $folder) . self::lint($metrics, $folder);
    }

    /** Its strict reader of OpenMetrics is in the import, which wants a time with every sample. */
    private static function read(string $metrics, string $folder): string
    {
        file_put_contents("$folder/metrics", preg_replace('/^[^#].*$/m', '$0 1700000000', $metrics));
        $result = Cli::command(['promtool', 'tsdb', 'create-blocks-from', 'openmetrics', "$folder/metrics", "$folder/tsdb"]);
        return $result->status === 0 ? '' : $result->all();
    }

    /** Its linter knows the older format, in which a counter is called in full in its head, too. */
    private static function lint(string $metrics, string $folder): string
    {
        preg_match_all('/^# TYPE (\S+) counter$/m', $metrics, $counters);
        $pattern = '/^# (HELP|TYPE|UNIT) (' . implode('|', $counters[1]) . ') /m';
        file_put_contents("$folder/metrics", preg_replace($pattern, '# $1 $2_total ', $metrics));
        $result = Cli::command(['sh', '-c', 'promtool check metrics <"$0"', "$folder/metrics"]);
        return $result->status === 0 ? '' : $result->all();
    }
}
