<?php

/** hole.php: what a hit costs while what is sent to Redis vanishes, beside what it costs otherwise; through php-fpm. */

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\MintLog;
use SharedState\Tests\Support\Network;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\Temp;

require dirname(__DIR__, 2) . '/php-tests/bootstrap.php';

const WORKERS = 8;
const SECONDS = 5.0;
/** A time limit is 250 ms. */
const WAITED_S = 0.1;

$folder = Temp::folder();
$port = RedisServer::freePort();
$redis = new RedisServer($folder, ['--port', (string) $port]);
$network = new Network($folder, $port);
$mints = new MintLog("$folder/mints");
mkdir("$folder/host");
$master = new Fpm($folder, 'www', ['www' => [
    'pm.max_children' => WORKERS, 'env[TEST_HOST]' => 'host', 'env[MINT_LOG]' => $mints->file,
    'php_admin_value[sharedstate.host.dir]' => "$folder/host", 'php_admin_value[sharedstate.redis.dsn]' => "redis://127.0.0.1:$network->port",
]]);
$crowd = new Crowd();
$page = dirname(__DIR__, 2) . '/php-tests/pages/token.php';
$load = static fn (float $seconds): array => $crowd->load(WORKERS, $seconds, 0.0, static fn (int $client) => $crowd->send(
    $master->socket(), $page, ['name' => 'crm', 'ms' => 0]));
$load(1.0);
echo "\n| a usable token, one read per request | requests | p50 | p99 | longest | waited for Redis |\n| --- | --- | --- | --- | --- | --- |\n";
foreach (['Redis answers' => 'pass', 'a black hole' => 'hole'] as $row => $mode) {
    $network->be($mode);
    $times = array_map(static fn ($response): float => $response->json()['took'], array_values($load(SECONDS)));
    sort($times);
    $at = static fn (float $share): float => 1e6 * $times[(int) ($share * (count($times) - 1))];
    printf("| %s | %d | %.0f µs | %.0f µs | %.0f ms | %d |\n", $row, count($times), $at(0.5), $at(0.99), $at(1.0) / 1000,
        count(array_filter($times, static fn (float $took): bool => $took > WAITED_S)));
}
$network->be('pass');
$master->stop();
$redis->stop();
Temp::remove($folder);
