<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** What a fleet costs its Redis: connections at rest, and commands by what they are for. */
final class CommandsTest extends TestCase
{
    private const WORKERS = 100;

    public function test_two_hundred_workers_at_rest_hold_one_connection_per_host(): void
    {
        $redis = $this->redis('--maxclients', '1000');
        $hosts = $this->hosts($redis, ['pm.max_children' => self::WORKERS]);
        $crowd = new Crowd();
        // A name each, so every worker has a flight of its own and they are all open at once.
        for ($i = 0; $i < 2 * self::WORKERS; $i++) {
            $crowd->send($hosts[$i % 2]->socket(), $this->page('token.php'), ['name' => "crm:$i", 'ms' => 1000]);
        }
        $most = 0;
        while ($crowd->countOpen() > 0) {
            $crowd->run(0.05);
            $open = $crowd->countOpen();
            $held = $this->connections($redis);
            // Who has just been answered lets go within a second.
            $open > self::WORKERS && self::assertLessThanOrEqual(2 + 2 * self::WORKERS, $held);
            $most = max($most, $held);
        }
        $responses = $crowd->take();
        $this->assertAllServed($responses);
        $workers = count(array_unique(array_map(static fn ($response) => $response->pid(), $responses)));
        self::assertGreaterThan(self::WORKERS, $workers, 'most workers had a flight');
        $this->until('rest', fn (): bool => $this->connections($redis) <= 2);
        $held = [];
        for ($end = microtime(true) + 2; microtime(true) < $end; usleep(50_000)) {
            $held[] = $this->connections($redis);
        }
        self::assertSame(2, min($held), 'the leaders, and they stay');
        self::assertLessThanOrEqual(4, max($held), 'a leader has a second one while it compares');
        fprintf(STDERR, "\n    %d workers on two hosts: at most %d connections, at rest 2\n", $workers, $most);
    }

    public function test_a_million_hits_send_nothing(): void
    {
        $redis = $this->redis();
        $hosts = $this->hosts($redis, ['pm.max_children' => 2]);
        foreach ($hosts as $host) {
            $this->tokenOf($host);
        }
        sleep(2);
        $before = $this->commands($redis);
        $crowd = new Crowd();
        for ($i = 0; $i < 10; $i++) {
            $crowd->send($hosts[$i % 2]->socket(), $this->page('hits.php'), ['name' => 'crm', 'times' => 100_000]);
        }
        foreach ($crowd->finish(60.0) as $response) {
            self::assertSame(0, $response->json()['different']);
        }
        $sent = $this->since($before, $this->commands($redis));
        // The leaders: a question every now and then, a look every second, and every five a comparison.
        unset($sent['xread'], $sent['xrevrange']);
        self::assertLessThanOrEqual(8, array_sum($sent), json_encode($sent));
    }

    /** @group slow */
    public function test_a_lifetime_costs_three_commands_on_a_host_however_many_workers_it_has(): void
    {
        $redis = $this->redis();
        $hosts = $this->hosts($redis, ['pm.max_children' => 8]);
        // Two lifetimes, and the first comparison of each host, so that most scripts have been needed.
        $this->load($hosts, 7.0);
        $mints = $this->mints->mints();
        $before = $this->commands($redis);
        $seconds = 10.0;
        $this->load($hosts, $seconds);
        $sent = $this->since($before, $this->commands($redis));
        $lifetimes = $this->mints->mints() - $mints;
        self::assertGreaterThanOrEqual(3, $lifetimes);
        $comparisons = 2 * (1 + intdiv((int) $seconds, 5));
        fprintf(STDERR, "\n    %d lifetimes on two hosts: %s\n", $lifetimes, json_encode($sent));
        self::assertLessThanOrEqual(3 * 2 * $lifetimes + $comparisons, $sent['evalsha'], json_encode($sent));
        // Once a second each leader looks whether the log still has its line, and where it ends.
        self::assertLessThanOrEqual(2 * 2 * ((int) $seconds + 1), $sent['xrevrange'] ?? 0, json_encode($sent));
        // A script that was not needed before is sent once, to a Redis that is as new as the test's.
        $known = ['evalsha', 'xread', 'xrevrange', 'script|load'];
        self::assertSame([], array_diff(array_keys($sent), $known), json_encode($sent));
        self::assertLessThanOrEqual(2, $sent['script|load'] ?? 0, json_encode($sent));
    }

    /** @group slow */
    public function test_workers_that_end_after_five_requests_hand_over_without_a_storm(): void
    {
        $redis = $this->redis();
        $hosts = $this->hosts($redis, ['pm.max_children' => 8, 'pm.max_requests' => 5]);
        $responses = $this->load($hosts, 5.0, 3600);
        $this->assertOneToken($responses);
        $sent = $this->commands($redis);
        $workers = count(array_unique(array_map(static fn ($response) => $response->pid(), $responses)));
        fprintf(STDERR, "\n    %d requests by %d workers: %s\n", count($responses), $workers, json_encode($sent));
        self::assertGreaterThan(100, $workers);
        // A new leader looks where the log ends and compares what is resident: two commands.
        self::assertLessThanOrEqual(2 * $sent['xrevrange'] + 30, $sent['evalsha'], json_encode($sent));
        self::assertLessThanOrEqual($workers, $sent['xrevrange'], 'no worker leads more than once');
        self::assertLessThan(count($responses) / 4, array_sum($sent));
        self::assertSame(1, $this->mints->mints());
    }

    /** @return array{Fpm, Fpm} */
    private function hosts(RedisServer $redis, array $lines): array
    {
        $settings = ['redis.dsn' => $redis->dsn(), 'token.expiry_margin_s' => 1];
        return [$this->host('north', $settings, $lines), $this->host('south', $settings, $lines)];
    }

    /**
     * @param array{Fpm, Fpm} $hosts
     * @return list<\SharedState\Tests\Support\Response>
     */
    private function load(array $hosts, float $seconds, int $ttl = 4): array
    {
        $crowd = new Crowd();
        $responses = $crowd->load(8, $seconds, 0.01, fn (int $client) => $crowd->send($hosts[$client % 2]->socket(), $this->page('token.php'),
            ['name' => 'crm', 'ms' => 50, 'ttl' => $ttl]));
        $this->assertAllServed($responses);
        return $responses;
    }

    private function connections(RedisServer $redis): int
    {
        return substr_count((string) $redis->command('CLIENT', 'LIST'), ' name=sharedstate ');
    }

    /** @return array<string, int> commands that clients sent, by name; what scripts call is not among them */
    private function commands(RedisServer $redis): array
    {
        preg_match_all('/^cmdstat_([a-z|]+):calls=(\d+)/m', (string) $redis->command('INFO', 'commandstats'), $found);
        return array_intersect_key(array_map('intval', array_combine($found[1], $found[2])), array_flip(['evalsha', 'xread', 'xrevrange', 'script|load', 'client|setname']));
    }

    /** @return array<string, int> */
    private function since(array $before, array $after): array
    {
        $since = [];
        foreach ($after as $name => $calls) {
            $since[$name] = $calls - ($before[$name] ?? 0);
        }
        // A connection for a mint says its name.
        unset($since['client|setname']);
        return array_filter($since);
    }
}
