<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RatesServer;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** Rates from configured sources: how often a provider is asked depends on the age of the sheet and on nothing else. */
final class RatesTest extends TestCase
{
    private RatesServer $provider;

    protected function setUp(): void
    {
        parent::setUp();
        $this->provider = new RatesServer($this->folder);
    }

    /** @param array<string, string|int> $settings */
    private function shop(string $name, array $settings = [], int $workers = 4, ?string $sources = null): Fpm
    {
        $settings += ['fx.sources' => $sources ?? $this->provider->json(), 'fx.refresh_interval_s' => 3600];
        return $this->host($name, $settings, ['pm.max_children' => $workers]);
    }

    private function rate(Fpm $host, string $to = 'USD', array $options = []): array
    {
        return $this->get($host, 'rates.php', ['to' => $to, 'options' => json_encode((object) $options)])->json();
    }

    private function info(Fpm $host): array
    {
        return $this->get($host, 'rates.php', ['do' => 'info'])->json()['info'];
    }

    private function refresh(Fpm $host): array
    {
        return $this->get($host, 'rates.php', ['do' => 'refresh'])->json()['refresh'];
    }

    private function play(float $usd, array $more = [], string $path = '*'): void
    {
        $this->provider->play([$path => $more + ['rates' => ['USD' => sprintf('%.4F', $usd), 'GBP' => '0.8338', 'JPY' => '175.68']]]);
    }

    // Store empty.

    public function test_an_empty_store_costs_one_fetch_of_the_fleet_and_everybody_is_served(): void
    {
        $this->provider->play(['*' => ['delay_ms' => 300]]);
        $redis = $this->redis();
        $hosts = [$this->shop('north', ['redis.dsn' => $redis->dsn()], 16), $this->shop('south', ['redis.dsn' => $redis->dsn()], 16)];
        $crowd = new Crowd();
        for ($i = 0; $i < 40; $i++) {
            $crowd->send($hosts[$i % 2]->socket(), $this->page('rates.php'), []);
        }
        $responses = $crowd->finish();
        foreach ($responses as $response) {
            self::assertSame(1.1172, $response->json()['rate'] ?? null, $response->describe());
        }
        self::assertCount(1, $this->provider->asked());
        $this->printTimes('store empty, a fetch takes 300 ms', $responses);
    }

    public function test_an_empty_store_with_a_dead_provider_says_what_is_wrong_and_asks_little(): void
    {
        $this->provider->play(['*' => ['status' => 503]]);
        $host = $this->shop('north', [], 8);
        $crowd = new Crowd();
        $responses = $crowd->load(8, 2.5, 0.01, fn (int $client) => $crowd->send($host->socket(), $this->page('rates.php'), []));
        foreach ($responses as $response) {
            self::assertSame('SharedState\RateUnavailable', $response->json()['error'] ?? null, $response->describe());
            self::assertStringContainsString('503', $response->json()['message']);
        }
        self::assertGreaterThan(200, count($responses));
        // At once, and after pauses of 1 and 2 s with their jitter.
        self::assertLessThanOrEqual(3, count($this->provider->asked()));
    }

    // The age alone.

    /** @group slow */
    public function test_without_any_traffic_the_sheet_is_renewed_once_an_interval_whatever_is_deployed(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.refresh_interval_s' => 2];
        $hosts = [$this->shop('north', $settings), $this->shop('south', $settings)];
        $this->rate($hosts[0]);
        $start = microtime(true);
        // Two deployments within the first interval; a worker exists again when somebody asked it for a page.
        foreach ([0.5, 1.0] as $after) {
            usleep((int) (1e6 * max(0, $start + $after - microtime(true))));
            foreach ($hosts as $host) {
                $host->signal(SIGUSR2);
            }
        }
        $this->until('the reload', fn (): bool => substr_count($hosts[0]->logged() . $hosts[1]->logged(), 'ready to handle connections') >= 4);
        self::assertCount(1, $this->provider->asked(), 'a deployment fetches nothing');
        foreach ($hosts as $host) {
            for ($i = 0; $i < 4; $i++) {
                $this->rate($host);
            }
        }
        usleep((int) (1e6 * max(0, $start + 10.9 - microtime(true))));
        $calls = count($this->provider->asked());
        fprintf(STDERR, "\n    10.9 s at an interval of 2 s, no traffic, two deployments: %d calls\n", $calls);
        self::assertGreaterThanOrEqual(5, $calls);
        self::assertLessThanOrEqual(7, $calls);
        self::assertFalse($this->info($hosts[0])['stale']);
    }

    /** @group slow */
    public function test_traffic_flat_out_on_two_hosts_makes_no_call_and_no_store_write_of_its_own(): void
    {
        // A day of 24 hours, each compressed to three seconds, and then two without the provider.
        [$hours, $hour] = getenv('FULL') ? [24, 3] : [6, 2];
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.refresh_interval_s' => $hour, 'fx.max_stale_s' => 72 * $hour];
        $hosts = [$this->shop('north', $settings, 16), $this->shop('south', $settings, 16)];
        $this->rate($hosts[0]);
        $this->rate($hosts[1]);
        $written = fn (): int => (int) $redis->command('XLEN', '{sharedstate}:log');
        $scripts = fn (): int => preg_match('/cmdstat_evalsha:calls=(\d+)/', (string) $redis->command('INFO', 'commandstats'), $found) ? (int) $found[1] : 0;
        [$calls, $writes, $sent] = [count($this->provider->asked()), $written(), $scripts()];
        $crowd = new Crowd();
        $read = fn (float $seconds): array => $crowd->load(32, $seconds, 0.0, fn (int $client) => $crowd->send($hosts[$client % 2]->socket(), $this->page('rates.php'), ['do' => 'read', 'ms' => 400]));
        $start = microtime(true);
        $responses = $read((float) $hours * $hour);
        $intervals = (microtime(true) - $start) / $hour;
        [$calls, $writes, $sent] = [count($this->provider->asked()) - $calls, $written() - $writes, $scripts() - $sent];
        $this->provider->play(['*' => ['status' => 500]]);
        array_push($responses, ...$read(2.0 * $hour));
        $reads = 0;
        foreach ($responses as $response) {
            self::assertSame(['1.1172'], $response->json()['rates'] ?? null, $response->describe());
            $reads += $response->json()['reads'];
        }
        fprintf(STDERR, "\n    %.1f intervals, %s reads by 32 workers on two hosts: %d provider calls, %d store writes, %d scripts\n",
            $intervals, number_format($reads), $calls, $writes, $sent);
        self::assertGreaterThanOrEqual((int) $intervals - 1, $calls);
        self::assertLessThanOrEqual((int) $intervals + 1, $calls);
        self::assertSame($calls, $writes, 'a write for each sheet that was fetched, and no other');
        // A claim and a commit, what the other host fetches, comparisons every five seconds, and who came second.
        self::assertLessThan(8 * $calls + 50, $sent, 'none of them by a read');
    }

    // Store down.

    public function test_with_the_store_down_the_hosts_sheet_is_served_and_each_host_fetches_after_two_intervals(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.refresh_interval_s' => 2];
        $hosts = [$this->shop('north', $settings), $this->shop('south', $settings)];
        $this->rate($hosts[0]);
        $this->rate($hosts[1]);
        $redis->kill();
        $before = count($this->provider->asked());
        $start = microtime(true);
        $crowd = new Crowd();
        $responses = $crowd->load(6, 9.0, 0.02, fn (int $client) => $crowd->send($hosts[$client % 2]->socket(), $this->page('rates.php'), []));
        foreach ($responses as $response) {
            self::assertSame(1.1172, $response->json()['rate'] ?? null, $response->describe());
            self::assertLessThan(5.0, $response->elapsed);
        }
        $asked = array_slice($this->provider->asked(), $before);
        self::assertGreaterThanOrEqual(2, count($asked), 'one of each host');
        // Fetched for itself at 4 s, a host is due again at 6 and stale, and so worth another call, at 8.
        self::assertLessThanOrEqual(6, count($asked));
        self::assertGreaterThan(1.5, $asked[0]['time'] - $start);
    }

    // Refresh failing.

    public function test_while_refreshing_fails_the_last_sheet_is_served_until_max_stale_and_then_no_wrong_number(): void
    {
        $host = $this->shop('north', ['fx.refresh_interval_s' => 1, 'fx.max_stale_s' => 4]);
        $this->rate($host);
        $this->provider->play(['*' => ['status' => 500]]);
        $end = microtime(true) + 2.8;
        while (microtime(true) < $end) {
            self::assertSame(1.1172, $this->rate($host)['rate'] ?? null);
            usleep(20_000);
        }
        self::assertTrue($this->info($host)['stale'], 'two intervals after it was confirmed');
        $this->until('the end of it', fn (): bool => ($this->rate($host)['error'] ?? '') === 'SharedState\RateUnavailable', 4.0);
        self::assertMatchesRegularExpression('/confirmed [4-6] s ago/', $this->rate($host)['message']);
        $this->provider->play([]);
        $this->until('the provider is asked again', fn (): bool => isset($this->rate($host)['rate']), 5.0);
    }

    public function test_a_provider_that_says_retry_after_is_left_alone_for_so_long(): void
    {
        $host = $this->shop('north', ['fx.refresh_interval_s' => 1, 'fx.max_stale_s' => 60]);
        $this->rate($host);
        $this->provider->play(['*' => ['status' => 429, 'retry_after' => 4]]);
        sleep(4);
        $asked = array_values(array_filter($this->provider->asked(), static fn (array $one): bool => $one['status'] === 429));
        self::assertCount(1, $asked);
        $this->until('another attempt', fn (): bool => count($this->provider->asked()) > 2, 4.0);
        self::assertGreaterThan(3.9, $this->provider->asked()[2]['time'] - $asked[0]['time']);
    }

    public function test_the_next_source_stands_in_for_one_that_fails(): void
    {
        $this->provider->play(['/first.json' => ['status' => 500]]);
        $host = $this->shop('north', [], 2, $this->provider->json('/first.json') . ', ' . $this->provider->ecb());
        self::assertSame(1.1172, $this->rate($host)['rate']);
        self::assertSame('ecb', $this->info($host)['source']);
        self::assertSame(gmmktime(14, 15, 0), $this->info($host)['as_of'], 'a date without a time means 14:15 UTC');
    }

    public function test_an_unchanged_sheet_costs_a_304_and_is_confirmed(): void
    {
        $this->provider->play(['*' => ['etag' => '"one"', 'as_of' => time() - 3600]]);
        $host = $this->shop('north', ['fx.refresh_interval_s' => 1]);
        $this->rate($host);
        $before = $this->info($host);
        $this->until('a 304', fn (): bool => in_array(304, array_column($this->provider->asked(), 'status'), true));
        $this->until('its confirmation', fn (): bool => $this->info($host)['confirmed_at'] > $before['confirmed_at']);
        self::assertSame($before['as_of'], $this->info($host)['as_of']);
    }

    // Guard.

    public function test_a_jump_is_held_back_until_a_later_sheet_confirms_it(): void
    {
        $then = time() - 600;
        $this->play(1.10, ['as_of' => $then]);
        $host = $this->shop('north', ['fx.refresh_interval_s' => 1, 'fx.max_stale_s' => 600]);
        self::assertSame(1.1, $this->rate($host)['rate']);
        $this->play(1.65, ['as_of' => $then + 60]);
        $this->until('it is noticed', fn (): bool => $this->statusOf($host)['fx_quarantined'] > 0);
        sleep(3);
        self::assertSame(1.1, $this->rate($host)['rate'], 'the same sheet again confirms nothing');
        $this->play(1.66, ['as_of' => $then + 120]);
        $this->until('the later one', fn (): bool => $this->rate($host)['rate'] === 1.66, 5.0);
    }

    public function test_a_jump_is_confirmed_at_once_by_another_source(): void
    {
        file_put_contents("$this->folder/app-id", 'id');
        $then = time() - 600;
        $this->play(1.10, ['as_of' => $then]);
        $host = $this->shop('north', ['fx.refresh_interval_s' => 1, 'fx.max_stale_s' => 600, 'fx.openexchangerates.app_id_file' => "$this->folder/app-id"], 4,
            $this->provider->json() . ', ' . $this->provider->openExchangeRates());
        self::assertSame(1.1, $this->rate($host)['rate']);
        $this->play(1.65, ['as_of' => $then + 60]);
        $this->until('the new rate', fn (): bool => $this->rate($host)['rate'] === 1.65, 5.0);
        self::assertSame('openexchangerates', $this->info($host)['source']);
    }

    // Everything down.

    public function test_a_cold_start_with_everything_down_answers_from_the_state_folder_and_tells_no_store(): void
    {
        mkdir("$this->folder/state");
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.state_dir' => "$this->folder/state"];
        $host = $this->shop('north', $settings);
        $this->rate($host);
        $this->until('the file', fn (): bool => glob("$this->folder/state/*.sheet") !== []);
        $host->stop();
        $this->provider->play(['*' => ['status' => 500]]);
        $redis->command('FLUSHALL');

        // Another host, for this one's table is as good as the file.
        $cold = $this->shop('south', $settings);
        self::assertSame(1.1172, $this->rate($cold)['rate']);
        self::assertTrue($this->info($cold)['stale']);
        self::assertNull($redis->command('HGET', '{sharedstate}:v:s:-:default', 'ver'), 'what came from a file goes to no store');

        $redis->kill();
        $alone = $this->shop('west', $settings);
        self::assertSame(1.1172, $this->rate($alone)['rate'], 'and without Redis, too');

        $this->provider->play([]);
        $redis->start();
        $this->until('a fresh sheet', fn (): bool => $this->info($alone)['stale'] === false, 20.0);
    }

    // Quota.

    /** @group slow */
    public function test_two_hosts_together_ask_as_often_as_the_quota_allows(): void
    {
        file_put_contents("$this->folder/app-id", "s3cret-app-id\n");
        $this->provider->play(['*' => ['status' => 500]]);
        $settings = ['redis.dsn' => $this->redis()->dsn(), 'fx.openexchangerates.app_id_file' => "$this->folder/app-id",
            'fx.refresh_interval_s' => 2678400, 'fx.max_stale_s' => 5356801, 'fx.max_age_s' => 5356801, 'fx.monthly_quota' => 2];
        $hosts = [$this->shop('north', $settings, 2, $this->provider->openExchangeRates()), $this->shop('south', $settings, 2, $this->provider->openExchangeRates())];
        $end = microtime(true) + 6;
        for ($i = 0; microtime(true) < $end; $i++) {
            $said = $this->rate($hosts[$i % 2]);
            usleep(50_000);
        }
        self::assertCount(2, $this->provider->asked());
        self::assertStringContainsString('2 calls of this month are used up', $said['message']);
        self::assertStringContainsString('s3cret-app-id', $this->provider->asked()[0]['authorization']);
        self::assertStringNotContainsString('s3cret', $said['message'] . $hosts[0]->logged() . $hosts[1]->logged());
    }

    // Cron.

    public function test_cron_jobs_everywhere_at_once_fetch_once_and_say_what_happened(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.refresh_interval_s' => 4];
        $hosts = [$this->shop('north', $settings), $this->shop('south', $settings)];
        $first = $this->refresh($hosts[0]);
        self::assertSame([true, 'due'], [$first['refreshed'], $first['reason']]);
        self::assertSame("json:127.0.0.1:{$this->provider->port}", $first['source']);
        self::assertSame([false, 'fresh'], [$this->refresh($hosts[1])['refreshed'], $this->refresh($hosts[1])['reason']]);
        $this->provider->play(['*' => ['delay_ms' => 300]]);
        // Older than half the interval: an hourly job refreshes every hour.
        usleep(2_200_000);
        $crowd = new Crowd();
        for ($i = 0; $i < 8; $i++) {
            $crowd->send($hosts[$i % 2]->socket(), $this->page('rates.php'), ['do' => 'refresh']);
        }
        $reasons = array_map(static fn ($response): string => $response->json()['refresh']['reason'], $crowd->finish());
        sort($reasons);
        self::assertSame(1, array_count_values($reasons)['due'] ?? 0, json_encode($reasons));
        self::assertSame([], array_diff($reasons, ['due', 'busy', 'fresh']));
        self::assertCount(2, $this->provider->asked());
        $this->provider->play(['*' => ['status' => 500]]);
        usleep(2_200_000);
        self::assertSame([false, 'failed'], array_values(array_intersect_key($this->refresh($hosts[0]), ['refreshed' => 0, 'reason' => 0])));
        self::assertSame('backoff', $this->refresh($hosts[1])['reason']);
    }
}
