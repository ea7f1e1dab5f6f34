<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Warnings and errors, to `sharedstate.log` or PHP's error log, in the extension's form. The polyfill says nothing else. */
final class Log
{
    public static function warn(string $sentence): void
    {
        if (!\in_array(Settings::current()->text('log_level'), ['off', 'error'], true)) {
            self::write('warning', LOG_WARNING, $sentence);
        }
    }

    public static function error(string $sentence): void
    {
        if (Settings::current()->text('log_level') !== 'off') {
            self::write('error', LOG_ERR, $sentence);
        }
    }

    private static function write(string $level, int $priority, string $sentence): void
    {
        $line = 'sharedstate[' . getmypid() . "]: $level: $sentence";
        $at = gmdate('Y-m-d\TH:i:s\Z');
        $written = match ($sink = Settings::current()->text('log')) {
            '' => false,
            'syslog' => syslog($priority, $line),
            default => @file_put_contents($sink === 'stderr' ? 'php://stderr' : $sink, "$at $line\n", FILE_APPEND) !== false,
        };
        $written ?: error_log($line);
    }
}
