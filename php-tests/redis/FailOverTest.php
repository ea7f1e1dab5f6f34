<?php

declare(strict_types=1);

use SharedState\Tests\Support\Authority;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisCluster;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\SentinelSet;
use SharedState\Tests\Support\TestCase;

/** Another server takes over, and what the hosts know decides what it lacks. Under load: see FaultTableTest. */
final class FailOverTest extends TestCase
{
    public function test_a_fleet_works_through_sentinels_of_which_one_is_dead(): void
    {
        $set = new SentinelSet($this->folder);
        $dsn = $set->dsn();
        $set->killSentinel();
        $this->assertTwoHostsAreOne($dsn);
    }

    public function test_a_fleet_works_in_a_cluster(): void
    {
        $this->assertTwoHostsAreOne((new RedisCluster($this->folder))->dsn());
    }

    public function test_a_fleet_works_through_sentinels_that_ask_for_certificates(): void
    {
        $authority = new Authority("$this->folder/authority");
        $set = new SentinelSet($this->folder, authority: $authority);
        self::assertStringStartsWith('rediss+sentinel://', $set->dsn());
        $this->assertTwoHostsAreOne($set->dsn(), $authority->hostSettings());
    }

    public function test_a_fleet_works_in_a_cluster_that_asks_for_certificates(): void
    {
        $authority = new Authority("$this->folder/authority");
        $cluster = new RedisCluster($this->folder, $authority);
        self::assertStringStartsWith('rediss+cluster://', $cluster->dsn());
        $this->assertTwoHostsAreOne($cluster->dsn(), $authority->hostSettings());
    }

    public function test_an_unknown_master_is_said_by_its_name(): void
    {
        $dsn = str_replace('/shop', '/shed', (new SentinelSet($this->folder))->dsn());
        $host = $this->host('north', ['redis.dsn' => $dsn], ['pm.max_children' => 1]);
        $this->tokenOf($host);
        $said = $this->statusOf($host)['store_last_failure'];
        self::assertStringContainsString('knows no master of the name shed', $said);
        self::assertStringNotContainsString(SentinelSet::PASSWORD, $said);
    }

    /** The master dies with a token and a rejection that no replica has heard of. */
    public function test_a_fail_over_that_lost_the_last_writes_brings_nothing_older_back(): void
    {
        $set = new SentinelSet($this->folder);
        $settings = ['redis.dsn' => $set->dsn()];
        $hosts = [$this->host('north', $settings), $this->host('south', $settings)];
        $old = $this->tokenOf($hosts[0]);
        self::assertSame($old, $this->tokenOf($hosts[1]));
        $this->cutReplication($set);

        $new = $this->tokenOf($hosts[0], 'crm', ['rejected' => $old]);
        $this->until('south heard of it', fn (): bool => $this->tokenOf($hosts[1]) === $new);
        $lost = $set->master();
        $lost->kill();
        // Whatever the promoted server believes, nobody gets the rejected token again.
        $this->until('fail-over', function () use ($set, $hosts, $lost, $new): bool {
            foreach ($hosts as $host) {
                self::assertSame($new, $this->tokenOf($host));
            }
            return $set->master() !== $lost && str_contains($this->rows($set->master()), "/$new/");
        }, 20.0);
        self::assertSame($new, $this->tokenOf($this->host('east', $settings)), 'a host that knew nothing');
        self::assertSame(2, $this->mints->mints('crm'));
    }

    /** @param array<string, string> $settings */
    private function assertTwoHostsAreOne(string $dsn, array $settings = []): void
    {
        $settings += ['redis.dsn' => $dsn];
        $hosts = [$this->host('north', $settings), $this->host('south', $settings)];
        $first = $this->tokenOf($hosts[0]);
        self::assertSame($first, $this->tokenOf($hosts[1]));
        $fresh = $this->tokenOf($hosts[1], 'crm', ['rejected' => $first]);
        $this->until('north heard of the rejection', fn (): bool => $this->tokenOf($hosts[0]) === $fresh);
        self::assertSame(2, $this->mints->mints());
        self::assertArrayNotHasKey('store_last_failure', $this->statusOf($hosts[0]));
    }

    /** The replica is up, and what it has grows old. */
    private function cutReplication(SentinelSet $set): void
    {
        [$master, $replica] = array_values($set->servers);
        $replica->authenticated(SentinelSet::PASSWORD, ['CONFIG', 'SET', 'masterauth', 'wrong']);
        $master->authenticated(SentinelSet::PASSWORD, ['CLIENT', 'KILL', 'TYPE', 'replica']);
        usleep(200_000);
    }

    /** What a server holds of the token, between slashes. */
    private function rows(RedisServer $server): string
    {
        $login = ['AUTH', SentinelSet::PASSWORD];
        try {
            [, $body] = RedisServer::converse($server->dsn(), [$login, ['HGET', '{sharedstate}:v:t:-:crm', 'body']]);
        } catch (RuntimeException) {
            return '';
        }
        return '/' . (json_decode((string) $body, true)['value'] ?? '') . '/';
    }
}
