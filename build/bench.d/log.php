<?php

/**
 * log.php REDIS-SOCKET HOST-DIR CHANGES: how long after the end of a mint another host serves the new token, through
 * the public functions. One process renews all the time, the other one, on a host of its own, reads all the time.
 */

declare(strict_types=1);

[, $socket, $folder, $changes] = $argv;

if (($argv[4] ?? '') === 'writer') {
    // Due a few milliseconds after each mint; the token is the time at which it was made.
    $mint = static fn (): string => (string) hrtime(true);
    while (true) {
        shared_token_get('bench:log', $mint, ['ttl' => 60, 'margin' => 0, 'refresh_ratio' => 0.0001]);
        usleep(1_000);
    }
}

$command = [PHP_BINARY, '-n', '-d', 'extension=' . getenv('SHAREDSTATE_SO'), '-d', "sharedstate.host.dir=$folder",
    '-d', "sharedstate.redis.dsn=unix://$socket", __FILE__, $socket, $folder, $changes, 'writer'];
$writer = proc_open($command, [], $pipes);
$last = null;
$took = [];
$give_up = hrtime(true) + 60_000_000_000;
while (count($took) < (int) $changes && hrtime(true) < $give_up) {
    try {
        $token = shared_token_get('bench:log');
    } catch (SharedState\NoSource) {
        usleep(10_000);
        continue;
    }
    if ($token !== $last) {
        // The first ones were there before this host followed.
        if ($last !== null) {
            $took[] = (hrtime(true) - (int) $token) / 1e6;
        }
        $last = $token;
    }
    // Two processors are for two processes and Redis.
    usleep(50);
}
proc_terminate($writer, SIGKILL);
sort($took);
$at = static fn (float $share): float => $took[(int) floor($share * (count($took) - 1))] ?? NAN;
printf("\nanother host serves the new token, of %d changes: p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n", count($took), $at(0.5), $at(0.99), $at(1.0));
