<?php

/**
 * ?do=rate|read|info|refresh[&from=EUR][&to=USD][&ms=…][&options=JSON]: one rate; rates for so many milliseconds, flat out; what
 * is known of one; or what a cron job does.
 */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    [$from, $to, $options] = [$_GET['from'] ?? 'EUR', $_GET['to'] ?? 'USD', json_decode($_GET['options'] ?? '[]', true)];
    switch ($_GET['do'] ?? 'rate') {
        case 'rate':
            return ['rate' => fx_rate($from, $to, null, $options)];
        case 'read':
            $end = microtime(true) + $_GET['ms'] / 1000;
            $reads = 0;
            $rates = [];
            do {
                $rates[(string) fx_rate($from, $to)] = true;
                $reads++;
            } while (microtime(true) < $end);
            return ['reads' => $reads, 'rates' => array_keys($rates)];
        case 'info':
            return ['info' => fx_rate_info($from, $to, $options)];
        case 'refresh':
            return ['refresh' => fx_refresh(null, $options)];
    }
});
