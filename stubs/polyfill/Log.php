<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Warnings, to `sharedstate.log` or PHP's error log. The polyfill says nothing else. */
final class Log
{
    public static function warn(string $sentence): void
    {
        $settings = Settings::current();
        if (\in_array($settings->text('log_level'), ['off', 'error'], true)) {
            return;
        }
        $file = $settings->text('log');
        if ($file === '') {
            error_log("sharedstate (polyfill): $sentence");
        } else {
            error_log(gmdate('Y-m-d\TH:i:s\Z') . " warning $sentence\n", 3, $file);
        }
    }
}
