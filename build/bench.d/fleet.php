<?php

/** fleet.php: what a growing fleet costs its Redis. Each host is a php-fpm master with a table of its own. */

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\MintLog;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\Temp;

require dirname(__DIR__, 2) . '/php-tests/bootstrap.php';

const TTL_S = 5;
const SECONDS = 16.0;

/** @return array<string, int> commands of clients; what scripts call is not among them */
function commands(RedisServer $redis): array
{
    preg_match_all('/^cmdstat_(evalsha|xread|xrevrange|script\|load):calls=(\d+)/m', (string) $redis->command('INFO', 'commandstats'), $found);
    return array_map('intval', array_combine($found[1], $found[2])) + ['evalsha' => 0, 'xread' => 0];
}

echo "\n| hosts | workers each | requests | lifetimes | mints | commands per lifetime | of them per host | `XREAD` of a leader, a second | connections |\n";
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
foreach ([[2, 10], [5, 10], [10, 10], [20, 2], [20, 10]] as [$hosts, $workers]) {
    $folder = Temp::folder();
    $redis = new RedisServer($folder);
    $mints = new MintLog("$folder/mints");
    $masters = [];
    for ($i = 0; $i < $hosts; $i++) {
        mkdir("$folder/host-$i");
        $masters[] = new Fpm($folder, "host-$i", ['www' => [
            'pm.max_children' => $workers, 'env[TEST_HOST]' => "host-$i", 'env[MINT_LOG]' => $mints->file,
            'php_admin_value[sharedstate.host.dir]' => "$folder/host-$i", 'php_admin_value[sharedstate.redis.dsn]' => $redis->dsn(),
            'php_admin_value[sharedstate.token.expiry_margin_s]' => '1',
        ]]);
    }
    $crowd = new Crowd();
    $page = dirname(__DIR__, 2) . '/php-tests/pages/token.php';
    $load = static fn (float $seconds): array => $crowd->load(2 * $hosts, $seconds, 0.02, static fn (int $client) => $crowd->send(
        $masters[$client % $hosts]->socket(), $page, ['name' => 'crm', 'ms' => 50, 'ttl' => TTL_S]));
    $load(3.0);
    [$minted, $before] = [$mints->mints(), commands($redis)];
    $responses = $load(SECONDS);
    [$minted, $after] = [$mints->mints() - $minted, commands($redis)];
    $tokens = array_unique(array_map(static fn ($response) => $response->token() ?? exit("failed: {$response->describe()}\n"), $responses));
    $lifetimes = count($tokens) - 1;
    // What a leader asks once a second, whatever happens, is not of a lifetime.
    $of = static fn (array $all): int => array_sum($all) - $all['xread'] - ($all['xrevrange'] ?? 0);
    $sent = $of($after) - $of($before);
    printf("| %d | %d | %d | %d | %d | %.1f | %.1f | %.1f | %d |\n", $hosts, $workers, count($responses), $lifetimes, $minted, $sent / $lifetimes,
        $sent / $lifetimes / $hosts, ($after['xread'] - $before['xread']) / SECONDS / $hosts,
        substr_count((string) $redis->command('CLIENT', 'LIST'), ' name=sharedstate '));
    foreach ($masters as $master) {
        $master->stop();
    }
    $redis->stop();
    Temp::remove($folder);
}
