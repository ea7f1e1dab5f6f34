<?php

declare(strict_types=1);

use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** A user that may do what the extension does, and nothing else. */
final class AclTest extends TestCase
{
    /** What docs/OPERATIONS.md tells people to grant. */
    private const KEYS = '~{sharedstate}:*';
    private const COMMANDS = [
        'evalsha', 'script|load', 'xrevrange', 'xread', 'hmget', 'time',
        // Inside the scripts.
        'hget', 'hset', 'hdel', 'get', 'set', 'del', 'pttl', 'pexpire', 'xadd',
    ];
    private const USER = ['redis.username' => 'sharedstate', 'redis.password' => 'secret'];

    /** @param list<string> $commands */
    private function grant(RedisServer $redis, string $keys, array $commands): void
    {
        $granted = array_map(static fn (string $command): string => "+$command", array_values($commands));
        $redis->command('ACL', 'SETUSER', 'sharedstate', 'reset', 'on', '>secret', 'resetchannels', $keys, ...$granted);
    }

    /** @return list<string> what the user was denied: commands by their name, keys as "key" */
    private function denied(RedisServer $redis): array
    {
        $denied = [];
        foreach ($redis->command('ACL', 'LOG') as $flat) {
            $entry = array_column(array_chunk($flat, 2), 1, 0);
            $denied[] = $entry['reason'] === 'command' ? $entry['object'] : $entry['reason'];
        }
        // A connection has a name where it may have one.
        return array_values(array_unique(array_diff($denied, ['client|setname'])));
    }

    public function test_a_fleet_works_with_no_more_than_these_rights(): void
    {
        $redis = $this->redis();
        $this->grant($redis, self::KEYS, self::COMMANDS);
        $settings = self::USER + ['redis.dsn' => $redis->dsn()];
        $this->assertAFleetWorks(fn (string $name) => $this->host($name, $settings, ['pm.max_children' => 2]), $redis);
        self::assertSame([], $this->denied($redis));
    }

    public function test_without_any_one_of_them_it_does_not_and_says_so(): void
    {
        $redis = $this->redis();
        foreach ([...self::COMMANDS, 'key'] as $lacking) {
            $redis->command('ACL', 'LOG', 'RESET');
            $redis->command('FLUSHALL');
            $redis->command('SCRIPT', 'FLUSH');
            $keys = $lacking === 'key' ? '~{other}:*' : self::KEYS;
            $this->grant($redis, $keys, array_diff(self::COMMANDS, [$lacking]));
            $table = "$this->folder/host-$lacking";
            mkdir($table);
            $result = $this->cli(
                <<<'PHP'
                $mint = static fn (): array => mint($_SERVER['argv'][0], 0, 3600.0);
                for ($i = 0; $i < 2; $i++) {
                    $first = shared_token_get("crm:$i", $mint);
                    shared_token_get("crm:$i", $mint, ['rejected' => $first]);
                    // Meanwhile this process leads its host.
                    usleep(400_000);
                }
                return sharedstate_status()['store_last_failure'] ?? 'none';
                PHP,
                self::USER + ['redis.dsn' => $redis->dsn(), 'host.dir' => $table],
            );
            self::assertSame([$lacking], $this->denied($redis), "without $lacking: " . $result->all());
            self::assertStringContainsString('ACL LOG', $result->all(), "without $lacking");
        }
    }
}
