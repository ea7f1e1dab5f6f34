<?php

/**
 * A queue worker that runs for weeks: it asks for the token at every job, which costs nanoseconds, and never
 * keeps one of its own. Whoever of all workers and pages is first renews it; the others go on with the old one.
 *
 * It ends after the job in hand when a supervisor says SIGTERM.
 */

declare(strict_types=1);

require __DIR__ . '/../plain/crm.php';

/** @return Generator<int, string> stands in for your queue: a path to fetch, two hundred a second */
function jobs(): Generator
{
    while (true) {
        usleep(5_000);
        yield '/orders';
    }
}

$ending = false;
pcntl_async_signals(true);
pcntl_signal(SIGTERM, static function () use (&$ending): void {
    $ending = true;
});

$done = $failed = 0;
$versions = [];
$memory = memory_get_usage();
foreach (jobs() as $path) {
    try {
        crm_get($path);
        $done++;
    } catch (RuntimeException $e) {
        // This job goes back into the queue; the worker lives on.
        fwrite(STDERR, $e->getMessage() . "\n");
        $failed++;
    }
    if ($done === 100) {
        // What PHP loads at first use is there by now.
        $memory = memory_get_usage();
    }
    $versions[shared_token_info('crm')['version'] ?? 0] = true;
    if ($ending) {
        break;
    }
}
printf("%d jobs done, %d failed, %d tokens seen, %d bytes of memory more than after job 100\n",
    $done, $failed, count($versions), memory_get_usage() - $memory);
