<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Nginx;
use SharedState\Tests\Support\Process;
use SharedState\Tests\Support\Prometheus;
use SharedState\Tests\Support\RatesServer;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/**
 * A real Prometheus judges real hosts by build/prometheus/alerts.yml, in which an hour takes 15 s here. Each job is an
 * application with a fault of its own; all are well, then all have their faults, then all are mended.
 */
final class AlarmsTest extends TestCase
{
    /** The alerts that each fault is known by, and no other. `shared` has none: it does beside `naive` what that does. */
    private const EXPECTED = [
        'naive' => ['MintsAboveLifetimes', 'ProviderCallsAbovePlan'],
        'issuer' => ['MintsAboveLifetimes', 'MintsFailing', 'TokensRejected', 'WaitTimeouts'],
        'outage' => ['Degraded', 'RedisDown'],
        'provider' => ['RatesOld', 'RatesUnavailable'],
        // The sheet in force gets older meanwhile.
        'jump' => ['RatesOld', 'SheetHeldBack'],
        'apart' => ['HostApart'],
        'deaf' => ['RedisDown'],
        // Who cannot read what the others have is by himself.
        'keys' => ['Degraded', 'SealedUnreadable'],
        'small' => ['TableTooSmall'],
        'gone' => ['NotScraped'],
    ];
    private const TTL_S = 5;
    private const PROCESSES = 8;

    private Crowd $crowd;
    /** @var array<string, list<array{Fpm, string, array<string, scalar>}>> requests that are sent again when they are answered, by a name */
    private array $traffic = [];
    /** @var array<int, string> */
    private array $open = [];
    /** @var array<string, list<array{int, string, string}>> what Prometheus scrapes, by job */
    private array $targets = [];

    public function test_each_alert_fires_under_its_fault_and_clears_after_it_and_none_fires_for_what_is_well(): void
    {
        $this->crowd = new Crowd();
        [$break, $mend] = $this->everybody();
        $prometheus = new Prometheus($this->folder, $this->targets);

        $this->meanwhile('every target is scraped', fn (): bool => count($prometheus->ask('up == 1')) === array_sum(array_map('count', $this->targets)));
        $this->meanwhile('a while without faults', self::after(5.0));
        self::assertSame([], $prometheus->haveFired(), 'all are well');

        $expected = [];
        foreach (self::EXPECTED as $job => $alerts) {
            foreach ($alerts as $alert) {
                $expected[] = "$job: SharedState$alert";
            }
        }
        sort($expected);
        $began = microtime(true);
        foreach ($break as $one) {
            $one();
        }
        $fired = [];
        $this->meanwhile('each alert fires', function () use ($prometheus, $expected, $began, &$fired): bool {
            foreach ($prometheus->firing() as $alert) {
                $fired[$alert] ??= microtime(true) - $began;
            }
            return array_diff($expected, array_keys($fired)) === [];
        }, 75.0, function () use ($expected, &$fired): string {
            return 'missing: ' . implode(', ', array_diff($expected, array_keys($fired)));
        });

        $ended = microtime(true);
        foreach ($mend as $one) {
            $one();
        }
        $last = array_fill_keys(array_keys($fired), $ended);
        $this->meanwhile('each alert clears', function () use ($prometheus, &$last): bool {
            $firing = $prometheus->firing();
            foreach ($firing as $alert) {
                $last[$alert] = microtime(true);
            }
            return $firing === [];
        }, 75.0, fn (): string => 'still firing: ' . implode(', ', $prometheus->firing()));

        ksort($fired);
        fprintf(STDERR, "\n    %-48s %14s %16s\n", 'an hour takes 15 s', 'fires after', 'clears after');
        foreach ($fired as $alert => $seconds) {
            fprintf(STDERR, "    %-48s %12.0f s %14.0f s\n", $alert, $seconds, $last[$alert] - $ended);
        }
        $unexpected = array_diff($prometheus->haveFired(), $expected);
        self::assertSame($expected, $prometheus->haveFired(), 'these and no others: ' . implode(', ', $unexpected) . ' fired, too');
        self::assertStringNotContainsString('Evaluating rule failed', (string) file_get_contents("$this->folder/prometheus.log"));
    }

    public function test_prometheus_reads_what_php_says(): void
    {
        $host = $this->host('north', ['redis.dsn' => $this->redis()->dsn()], ['pm.max_children' => 2]);
        $this->scraped('shop', $host);
        for ($i = 0; $i < 7; $i++) {
            $this->tokenOf($host, "crm:$i");
        }
        $prometheus = new Prometheus($this->folder, $this->targets);
        $this->until('a scrape', fn (): bool => $prometheus->ask('up{job="shop"} == 1') !== []);
        $mints = 'sum by (family) (sharedstate_token_mint_count_total)';
        $this->until('the mints', fn (): bool => $prometheus->ask($mints) === ['{family="crm"}' => 7.0]);
        self::assertSame(7, $this->statusOf($host)['token_mint_count']);
        $this->tokenOf($host, 'crm:7');
        $this->until('one more', fn (): bool => $prometheus->ask($mints) === ['{family="crm"}' => 8.0]);
    }

    /**
     * Hosts, their ordinary traffic, and what breaks and mends each.
     *
     * @return array{array<string, callable>, array<string, callable>}
     */
    private function everybody(): array
    {
        $break = $mend = [];
        $small = ['pm.max_children' => 4];
        $crm = ['name' => 'crm', 'ms' => 20, 'ttl' => self::TTL_S];
        $well = function (string $job, Fpm $host) use ($crm): void {
            $this->scraped($job, $host);
            $this->traffic["$job crm"][] = [$host, $this->page('token.php'), $crm];
        };
        $redis = [];
        $newRedis = function (string $job) use (&$redis): array {
            @mkdir("$this->folder/$job");
            $redis[$job] = new RedisServer("$this->folder/$job");
            return ['redis.dsn' => $redis[$job]->dsn()];
        };
        $newProvider = function (string $job): RatesServer {
            @mkdir("$this->folder/$job");
            return new RatesServer("$this->folder/$job");
        };

        // The naive caches, and beside them ours, under the same load in the same workers.
        $issuer = RedisServer::freePort();
        touch("$this->folder/issuer.asked");
        file_put_contents("$this->folder/issuer.status", '200');
        Process::start([Build::php(), '-n', '-S', "127.0.0.1:$issuer", dirname(__DIR__) . '/support/issuer.php'], "$this->folder/issuer.log", [
            'ISSUER_LOG' => "$this->folder/issuer.asked", 'ISSUER_STATUS' => "$this->folder/issuer.status", 'ISSUER_TTL' => (string) self::TTL_S,
            'PHP_CLI_SERVER_WORKERS' => '4'] + getenv());
        $provider = $newProvider('shop');
        $provider->play(['/naive.json' => ['as_of' => time() - 100]]);
        $settings = $newRedis('storm') + ['fx.sources' => $provider->json('/shared.json'), 'fx.refresh_interval_s' => 15];
        $shop = $this->host('shop', $settings, ['pm.max_children' => self::PROCESSES, 'env[OAUTH_URL]' => "http://127.0.0.1:$issuer", 'env[HOUR_S]' => 15,
            'env[PROVIDER]' => "http://127.0.0.1:$provider->port", 'env[REDIS_SOCKET]' => $redis['storm']->socket()],
            ['extension' => ['apcu', 'igbinary', 'redis']]);
        $demo = dirname(__DIR__, 2) . '/build/demo.d';
        $this->scraped('shared', $shop, "$demo/metrics.php?cache=shared");
        $this->scraped('naive', $shop, "$demo/metrics.php?cache=naive");
        $break['naive'] = function () use ($shop, $demo): void {
            foreach (['process', 'shared'] as $cache) {
                $this->traffic["naive $cache"] = array_fill(0, 2 * self::PROCESSES, [$shop, "$demo/shop.php", ['cache' => $cache]]);
            }
            foreach (['naive', 'shared'] as $cache) {
                $this->traffic["naive rates $cache"] = [[$shop, "$demo/rates.php", ['cache' => $cache, 'seconds' => 0.2, 'pause_us' => 5000]]];
            }
        };
        $mend['naive'] = function (): void {
            unset($this->traffic['naive process'], $this->traffic['naive rates naive']);
        };

        // An issuer whose tokens the API refuses, that fails, and that hangs.
        $host = $this->host('issuer', ['token.wait_timeout_ms' => 6000], $small);
        $this->scraped('issuer', $host);
        for ($i = 0; $i < 6; $i++) {
            $this->tokenOf($host, "api:$i");
        }
        $break['issuer'] = function () use ($host): void {
            for ($i = 0; $i < 6; $i++) {
                $this->traffic['issuer api'][] = [$host, $this->page('reject.php'), ['name' => "api:$i", 'always' => 1, 'ms' => 0]];
                $this->traffic['issuer bad'][] = [$host, $this->page('misbehave.php'), ['name' => "bad:$i", 'do' => 'throw']];
            }
            // The second waits for the first, in vain.
            $slow = ['name' => 'slow', 'ms' => 1000, 'ttl' => 1, 'options' => '{"wait_ms": 100}'];
            $this->traffic['issuer slow'] = array_fill(0, 2, [$host, $this->page('token.php'), $slow]);
        };
        $mend['issuer'] = function (): void {
            unset($this->traffic['issuer api'], $this->traffic['issuer bad'], $this->traffic['issuer slow']);
        };

        $well('outage', $this->host('outage', $newRedis('outage'), $small));
        $break['outage'] = fn () => $redis['outage']->kill();
        $mend['outage'] = fn () => $redis['outage']->start();

        // Rates are old after five seconds, and gone after fifteen.
        foreach (['provider' => ['fx.max_stale_s' => 15], 'jump' => []] as $job => $settings) {
            $provider = $newProvider($job);
            $host = $this->host($job, $settings + ['fx.sources' => $provider->json(), 'fx.refresh_interval_s' => 2], $small);
            $this->scraped($job, $host);
            $this->traffic["$job rates"] = [[$host, $this->page('rates.php'), []]];
            $good = fn () => $provider->play([]);
            $break[$job] = fn () => $provider->play(['*' => $job === 'jump' ? ['rates' => ['USD' => '11.172', 'GBP' => '0.8338', 'JPY' => '175.68'], 'as_of' => time()] : ['status' => 503]]);
            $mend[$job] = $good;
        }

        // One and the same host, with other settings.
        $hosts = [];
        $again = function (string $name, array $settings) use ($small, &$hosts): Fpm {
            ($hosts[$name] ?? null)?->stop();
            return $hosts[$name] = $this->host($name, $settings, $small);
        };

        // A host that lost its DSN.
        $settings = $newRedis('apart');
        $well('apart', $this->host('near', $settings, $small));
        $well('apart', $again('far', $settings));
        $break['apart'] = fn () => $again('far', []);
        $mend['apart'] = fn () => $again('far', $settings);

        // Redis answers, and refuses to tell what changes.
        $well('deaf', $this->host('deaf', $newRedis('deaf'), $small));
        $break['deaf'] = function () use ($redis): void {
            $redis['deaf']->command('ACL', 'SETUSER', 'default', '-xread');
            $redis['deaf']->command('CLIENT', 'KILL', 'TYPE', 'normal');
        };
        $mend['deaf'] = fn () => $redis['deaf']->command('ACL', 'SETUSER', 'default', '+xread');

        foreach (['a', 'b'] as $key) {
            file_put_contents("$this->folder/key-$key", str_repeat($key, 64));
            chmod("$this->folder/key-$key", 0600);
        }
        $settings = $newRedis('keys');
        $well('keys', $this->host('lock', $settings + ['encryption_key_file' => "$this->folder/key-a"], $small));
        $well('keys', $again('other', $settings + ['encryption_key_file' => "$this->folder/key-a"]));
        $break['keys'] = fn () => $again('other', $settings + ['encryption_key_file' => "$this->folder/key-b"]);
        $mend['keys'] = fn () => $again('other', $settings + ['encryption_key_file' => "$this->folder/key-a"]);

        $host = $this->host('small', ['host.slots' => 64], $small);
        $this->scraped('small', $host);
        $this->tokenOf($host, 'tenant:0');
        $break['small'] = function () use ($host): void {
            for ($i = 1; $i < 200; $i++) {
                $this->tokenOf($host, "tenant:$i");
            }
        };

        $well('gone', $gone = $this->host('gone', [], $small));
        $break['gone'] = fn () => $gone->stop();
        $mend['gone'] = fn () => $gone->start();
        return [$break, $mend];
    }

    /** A host's page is one more target of a job. */
    private function scraped(string $job, Fpm $host, ?string $page = null): void
    {
        $folder = "$this->folder/nginx-" . bin2hex(random_bytes(4));
        mkdir($folder);
        [$file, $query] = explode('?', ($page ?? dirname(__DIR__, 2) . '/build/demo.d/metrics.php?cache=shared'));
        $this->targets[$job][] = [(new Nginx($folder, $host, dirname($file)))->port, '/' . basename($file), $query];
    }

    /** Traffic goes on until that is so. */
    private function meanwhile(string $what, callable $condition, float $seconds = 30.0, ?callable $why = null): void
    {
        $deadline = microtime(true) + $seconds;
        $asked = 0.0;
        while (true) {
            foreach ($this->traffic as $name => $requests) {
                foreach ($requests as $number => [$host, $page, $query]) {
                    if (!in_array("$name $number", $this->open, true) && file_exists($host->socket())) {
                        try {
                            $this->open[$this->crowd->send($host->socket(), $page, $query)] = "$name $number";
                        } catch (RuntimeException) {
                            // A host that is stopped in this moment.
                        }
                    }
                }
            }
            $until = microtime(true) + 0.1;
            while (microtime(true) < $until) {
                $this->crowd->run(0.02);
                foreach ($this->crowd->take() as $id => $response) {
                    unset($this->open[$id]);
                }
                usleep(2_000);
            }
            if (microtime(true) - $asked > 0.5) {
                $asked = microtime(true);
                if ($condition()) {
                    return;
                }
                self::assertLessThan($deadline, microtime(true), "$what: not within $seconds s" . ($why === null ? '' : "; {$why()}"));
            }
        }
    }

    private static function after(float $seconds): callable
    {
        $until = microtime(true) + $seconds;
        return static fn (): bool => microtime(true) >= $until;
    }
}
