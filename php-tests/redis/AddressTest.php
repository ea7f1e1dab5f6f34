<?php

declare(strict_types=1);

use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** Every form of address of one server. */
final class AddressTest extends TestCase
{
    public static function addresses(): array
    {
        return [
            'name and port' => ['redis://localhost:%2$d'],
            'address, database' => ['redis://127.0.0.1:%2$d/3'],
            'unix socket' => ['unix://%1$s'],
            'unix socket, database' => ['redis+unix://%1$s?db=2'],
        ];
    }

    /** @dataProvider addresses */
    public function test_a_fleet_works_by_any_address(string $dsn): void
    {
        $port = RedisServer::freePort();
        $redis = $this->redis('--port', (string) $port, '--bind', '127.0.0.1');
        $settings = ['redis.dsn' => sprintf($dsn, $redis->socket(), $port)];
        $this->assertAFleetWorks(fn (string $name) => $this->host($name, $settings, ['pm.max_children' => 2]), $redis);
    }
}
