<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Warnings, to `sharedstate.log` or PHP's error log, in the extension's form. The polyfill says nothing else. */
final class Log
{
    public static function warn(string $sentence): void
    {
        $settings = Settings::current();
        if (\in_array($settings->text('log_level'), ['off', 'error'], true)) {
            return;
        }
        $line = 'sharedstate[' . getmypid() . "]: warning: $sentence";
        $at = gmdate('Y-m-d\TH:i:s\Z');
        $written = match ($sink = $settings->text('log')) {
            '' => false,
            'syslog' => syslog(LOG_WARNING, $line),
            default => @file_put_contents($sink === 'stderr' ? 'php://stderr' : $sink, "$at $line\n", FILE_APPEND) !== false,
        };
        $written ?: error_log($line);
    }
}
