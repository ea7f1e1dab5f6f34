<?php

/**
 * The shop page of build/demo --fx: reads the rate from euro to dollar, flat out, for so many seconds.
 *
 *   ?cache=naive    the incident: the cache ends on the hour, and the provider's new sheet comes at minute four
 *   ?cache=shared   fx_rate
 *   &pause_us=…     less than flat out: so long after each read
 */

declare(strict_types=1);

require __DIR__ . '/counted.php';

/** As it was found: the sheet says until when it is valid, and so long it is kept. */
function naive_rate(Redis $store): float
{
    $kept = $store->get('rates');
    if ($kept === false) {
        $kept = file_get_contents(getenv('PROVIDER') . '/naive.json');
        count_up('calls');
        apcu_store('count:called_at', microtime(true));
        $sheet = json_decode($kept, true, flags: JSON_THROW_ON_ERROR);
        $validFor = $sheet['timestamp'] + (float) getenv('HOUR_S') - microtime(true);
        // Between the full hour and minute four the provider still has the sheet of the hour before: it has expired
        // when it arrives, the store forgets it at once, and the next read is here again.
        $store->set('rates', $kept, ['px' => max(1, (int) (1000 * $validFor))]);
    }
    return (float) json_decode($kept, true)['rates']['USD'];
}

if ($_GET['cache'] === 'naive') {
    $store = new Redis();
    $store->connect(getenv('REDIS_SOCKET'));
    $rate = static fn (): float => naive_rate($store);
} else {
    $rate = static fn (): float => fx_rate('EUR', 'USD');
}
$end = microtime(true) + (float) $_GET['seconds'];
$pause = (int) ($_GET['pause_us'] ?? 0);
$reads = $failed = 0;
while (microtime(true) < $end) {
    try {
        $rate();
        $reads++;
    } catch (Throwable $thrown) {
        $failed++;
        $first ??= $thrown->getMessage();
    }
    if ($pause > 0) {
        usleep($pause);
    }
}
header('Content-Type: application/json');
echo json_encode(['reads' => $reads, 'failed' => $failed, 'first' => $first ?? null]);
