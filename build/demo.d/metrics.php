<?php

/**
 * What Prometheus scrapes in build/demo --alarms.
 *
 *   ?cache=shared    what sharedstate has counted
 *   ?cache=naive     what the naive caches have counted of themselves, under the same names
 */

declare(strict_types=1);

require __DIR__ . '/counted.php';

header('Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8');
if ($_GET['cache'] === 'shared') {
    echo sharedstate_metrics();
    return;
}
$series = [
    'sharedstate_token_cache_hits_total{family="shop",tier="table"}' => counted('hits'),
    'sharedstate_token_mint_count_total{family="shop",reason="cold"}' => counted('mints'),
    'sharedstate_token_lifetime_seconds_total{family="shop"}' => counted('lifetime_ms') / 1000,
    // Names, as sharedstate counts them: every process has a token of its own for the same one.
    'sharedstate_tokens_usable{family="shop"}' => min(1, counted('mints')),
    'sharedstate_fx_provider_calls_total{source="provider"}' => counted('calls'),
    'sharedstate_fx_refresh_total{source="provider",result="taken"}' => counted('calls'),
];
if (counted('calls') > 0) {
    $series['sharedstate_fx_confirmed_age_seconds{sheet="default",source="provider"}'] = (int) (microtime(true) - apcu_fetch('count:called_at'));
}
// The plan: once an hour.
$series['sharedstate_fx_refresh_interval_seconds'] = (int) getenv('HOUR_S');
foreach ($series as $name => $value) {
    preg_match('/^\w+?(?=_total\b|\{|$)/', $name, $metric);
    echo "# TYPE $metric[0] ", str_contains($name, '_total{') ? 'counter' : 'gauge', "\n$name $value\n";
}
echo "# EOF\n";
