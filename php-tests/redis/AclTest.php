<?php

declare(strict_types=1);

use SharedState\Tests\Support\RedisCluster;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\SentinelSet;
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
    private const WITH_SENTINEL = ['role'];
    private const IN_A_CLUSTER = ['cluster|keyslot', 'cluster|slots'];
    private const USER = ['redis.username' => 'sharedstate', 'redis.password' => 'secret'];

    /** @param list<string> $commands */
    private function grant(RedisServer $redis, string $keys, array $commands): void
    {
        $redis->command(...self::granting($keys, $commands));
    }

    /**
     * @param list<string> $commands
     * @return list<string>
     */
    private static function granting(string $keys, array $commands): array
    {
        $granted = array_map(static fn (string $command): string => "+$command", array_values($commands));
        return ['ACL', 'SETUSER', 'sharedstate', 'reset', 'on', '>secret', 'resetchannels', $keys, ...$granted];
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

    /** @group slow */
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

    public function test_with_sentinel_a_right_is_needed_on_top_of_these(): void
    {
        $set = new SentinelSet($this->folder);
        $this->assertNeeded(self::WITH_SENTINEL, $set->dsn(), static function (array $commands) use ($set): void {
            foreach ($set->servers as $server) {
                $server->authenticated(SentinelSet::PASSWORD, self::granting(self::KEYS, $commands));
            }
        });
    }

    public function test_in_a_cluster_two_rights_are_needed_on_top_of_these(): void
    {
        $cluster = new RedisCluster($this->folder);
        $this->assertNeeded(self::IN_A_CLUSTER, $cluster->dsn(), function (array $commands) use ($cluster): void {
            foreach ($cluster->nodes as $node) {
                $this->grant($node, self::KEYS, $commands);
            }
        });
    }

    /**
     * @param list<string> $further
     * @param callable(list<string>): void $grant on every server
     */
    private function assertNeeded(array $further, string $dsn, callable $grant): void
    {
        $settings = self::USER + ['redis.dsn' => $dsn];
        foreach ($further as $lacking) {
            $grant([...self::COMMANDS, ...array_diff($further, [$lacking])]);
            $host = $this->host(strtr("without-$lacking", '|', '-'), $settings, ['pm.max_children' => 1]);
            $this->tokenOf($host);
            self::assertStringContainsString('ACL LOG', $this->statusOf($host)['store_last_failure'] ?? 'no failure', "without $lacking");
            $host->stop();
        }
        $before = $this->mints->mints();
        $grant([...self::COMMANDS, ...$further]);
        $hosts = [$this->host('north', $settings, ['pm.max_children' => 1]), $this->host('south', $settings, ['pm.max_children' => 1])];
        self::assertSame($this->tokenOf($hosts[0]), $this->tokenOf($hosts[1]));
        self::assertSame($before + 1, $this->mints->mints());
        foreach ($hosts as $host) {
            self::assertSame(0, $this->statusOf($host)['store_errors']);
        }
    }
}
