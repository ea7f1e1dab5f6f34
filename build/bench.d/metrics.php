<?php

/** metrics.php: milliseconds of `sharedstate_metrics()` and `sharedstate_entries()` on a host with a thousand names of a hundred families. */

declare(strict_types=1);

$mint = static fn (): array => ['access_token' => str_repeat('x', 1200), 'expires_in' => 3600];
for ($n = 0; $n < 1000; $n++) {
    shared_token_get('family' . $n % 100 . ":$n", $mint);
}
foreach (['sharedstate_metrics' => 2, 'sharedstate_entries' => null] as $function => $aim) {
    $times = [];
    for ($round = 0; $round < 200; $round++) {
        $start = hrtime(true);
        $said = $function();
        $times[] = (hrtime(true) - $start) / 1e6;
    }
    sort($times);
    [$median, $p99] = [$times[100], $times[198]];
    printf("%s() of 1,000 names: %.2f ms, p99 %.2f ms, %s%s\n", $function, $median, $p99,
        is_string($said) ? sprintf('%d KB', strlen($said) >> 10) : count($said) . ' entries', $aim !== null && $median > $aim ? "  above the aim of $aim" : '');
}
