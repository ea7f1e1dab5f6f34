<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Response;
use SharedState\Tests\Support\TestCase;

/** Workers come and go; what they share does not. */
final class WorkersTest extends TestCase
{
    public function test_ondemand_workers_that_start_in_the_burst_share_one_mint(): void
    {
        $host = $this->host('north', [], ['pm' => 'ondemand', 'pm.max_children' => 16, 'pm.process_idle_timeout' => '1s']);
        $first = $this->burst($host, 30);
        $token = $this->assertOneToken($first);
        // Long enough for the idle workers to be gone: the table must not go with the last of them.
        sleep(3);
        self::assertSame($token, $this->assertOneToken($this->burst($host, 30)));
        self::assertSame(1, $this->mints->mints());
    }

    public function test_workers_that_end_after_five_requests_neither_lose_the_token_nor_a_request(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 8, 'pm.max_requests' => 5]);
        $crowd = new Crowd();
        $responses = $crowd->load(12, 3.0, 0.0, fn () => $crowd->send($host->socket(), $this->page('token.php'), ['name' => 'crm']));
        $this->assertAllServed($responses);
        $this->assertOneToken($responses);
        self::assertSame(1, $this->mints->mints());
        $pids = array_unique(array_map(static fn ($response) => $response->pid(), $responses));
        self::assertGreaterThan(8, count($pids), 'workers were replaced during the test');
        self::assertStringNotContainsString('SIGSEGV', $host->logged());
    }

    /** PHP ends a request by a jump over our frames: what they own is given back all the same. */
    public function test_a_worker_grows_by_nothing_when_requests_end_at_the_memory_limit(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 1], ['memory_limit' => '16M', 'display_errors' => '0', 'log_errors' => '1']);
        file_put_contents("$this->folder/limit.php", '<?php
            require ' . var_export($this->page('mint.php'), true) . ';
            if (isset($_GET["fill"])) {
                for ($i = 0; $i < 800; $i++) { shared_token_get("tenant:$i", fn () => ["access_token" => "T", "expires_in" => 3600, "kept" => str_repeat("k", 300)], ["keep" => ["kept"]]); }
                fx_rate("EUR", "USD", fn () => ["base" => "EUR", "timestamp" => time(), "rates" => ["USD" => "1.1", "CHF" => "0.9"]]);
            } elseif (isset($_GET["rss"])) {
                preg_match("/^RssAnon:\s+(\d+)/m", file_get_contents("/proc/self/status"), $found);
                answer(fn () => ["kb" => (int) $found[1]]);
            } else {
                $hog = [];
                while (memory_get_usage() < 14_500_000) { $hog[] = str_repeat("x", 30_000); }
                count(sharedstate_entries());
                echo "not at the limit";
            }');
        $ask = function (array $query) use ($host): Response {
            $crowd = new Crowd();
            $crowd->send($host->socket(), "$this->folder/limit.php", $query);
            return array_values($crowd->finish())[0];
        };
        $ask(['fill' => 1]);
        for ($i = 0; $i < 200; $i++) {
            $ended = $ask([]);
            self::assertSame(500, $ended->status, $ended->describe());
        }
        $before = $ask(['rss' => 1])->json()['kb'];
        for ($i = 0; $i < 400; $i++) {
            $ask([]);
        }
        self::assertLessThan(1000, $ask(['rss' => 1])->json()['kb'] - $before, 'KB in 400 requests');
        self::assertStringContainsString('Allowed memory size', $host->logged());
    }

    public function test_a_reload_under_load_costs_no_request_and_no_mint(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()]);
        $crowd = new Crowd();
        $reloads = 0;
        $responses = $crowd->load(
            8,
            5.0,
            0.01,
            fn () => $crowd->send($host->socket(), $this->page('token.php'), ['name' => 'crm']),
            function (float $elapsed) use ($host, &$reloads): void {
                if ($elapsed > 1.5 * ($reloads + 1) && $reloads < 2) {
                    $host->signal(SIGUSR2);
                    $reloads++;
                }
            },
        );
        self::assertSame(2, $reloads);
        self::assertTrue($host->isRunning());
        self::assertSame(3, substr_count($host->logged(), 'ready to handle connections'), 'the master really reloaded twice');
        $this->assertAllServed($responses);
        $this->assertOneToken($responses);
        self::assertSame(1, $this->mints->mints());
    }

    public function test_a_worker_does_not_collect_descriptors(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 1]);
        $use = function (int $from, int $to) use ($host): int {
            for ($i = $from; $i < $to; $i++) {
                $this->assertAllServed([$this->get($host, 'token.php', ['name' => "crm:$i", 'ms' => 0])]);
            }
            return $this->get($host, 'status.php', [])->json()['descriptors'];
        };
        $before = $use(0, 20);
        self::assertLessThanOrEqual($before + 1, $use(20, 220));
    }

    public function test_the_status_shows_hits_misses_and_mints_of_all_workers(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 4]);
        $this->burst($host, 40);
        $status = $this->get($host, 'status.php', [])->json()['status'];
        self::assertSame(1, $status['token_mint_count']);
        self::assertGreaterThanOrEqual(1, $status['token_cache_misses']);
        self::assertGreaterThanOrEqual(20, $status['token_cache_hits']);
        self::assertSame(40, $status['token_cache_hits'] + $status['token_cache_misses'], 'each call is a hit or a miss');
    }

    private function burst($host, int $clients): array
    {
        $crowd = new Crowd();
        for ($i = 0; $i < $clients; $i++) {
            $crowd->send($host->socket(), $this->page('token.php'), ['name' => 'crm']);
        }
        $responses = $crowd->finish();
        $this->assertAllServed($responses);
        return $responses;
    }
}
