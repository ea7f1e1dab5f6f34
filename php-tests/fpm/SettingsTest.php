<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Response;
use SharedState\Tests\Support\TestCase;

/** Settings are those of the pool, read once per process, and never mixed. */
final class SettingsTest extends TestCase
{
    public function test_pool_values_are_honoured(): void
    {
        $host = $this->host('north', ['token.expiry_margin_s' => 1, 'token.refresh_ratio' => '0.5']);
        $first = $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0, 'ttl' => 5])->token();
        sleep(1);
        self::assertSame($first, $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0, 'ttl' => 5])->token());
        // Due at 0.5 × (5 − 1) = 2 s; with the default ratio it would be 3.2 s.
        usleep(1_500_000);
        self::assertNotSame($first, $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0, 'ttl' => 5])->token());
        $path = $this->get($host, 'status.php', [])->json()['status']['host_table'];
        self::assertStringStartsWith("$this->folder/host-north/", $path);
    }

    /** What `env[…]` of a pool says goes before what the master was started with; what a script puts there counts for nothing. */
    public function test_the_environment_of_a_pool_is_that_of_its_workers(): void
    {
        file_put_contents("$this->folder/put.php", '<?php putenv("SHAREDSTATE_REDIS_DSN=redis://of.a.script");'
            . ' require ' . var_export($this->page('status.php'), true) . ';');
        $lines = ['env[SHAREDSTATE_REDIS_DSN]' => 'redis://of.the.pool', 'pm.max_children' => 1];
        $host = new Fpm($this->folder, 'north', [
            'own' => $this->pool('own') + $lines,
            'plain' => $this->pool('plain') + ['pm.max_children' => 1],
            'kept' => $this->pool('kept') + ['clear_env' => 'no'] + $lines,
            'set' => $this->pool('set', ['redis.dsn' => 'redis://of.the.setting']) + $lines,
        ], wrapper: ['env', 'SHAREDSTATE_REDIS_DSN=redis://of.the.master']);
        $crowd = new Crowd();
        foreach (['own' => 'pool', 'plain' => 'master', 'kept' => 'pool', 'set' => 'setting'] as $pool => $whose) {
            for ($i = 0; $i < 2; $i++) {
                $crowd->send($host->socket($pool), "$this->folder/put.php", []);
                $response = array_values($crowd->finish())[0];
                self::assertSame("redis://of.the.$whose", $response->json()['status']['store'], $pool);
            }
        }
    }

    /** @return array<string, array{string, string}> a setting, and a value that a site has for itself */
    public static function ofOneSite(): array
    {
        return ['a plain one' => ['prefix', 'other'], 'a secret' => ['redis.dsn', 'redis://127.0.0.1:1']];
    }

    /**
     * As for a virtual host of mod_php, PHP sets what php.ini says for one site when its request begins, and puts it back.
     *
     * @dataProvider ofOneSite
     */
    public function test_a_request_with_other_settings_is_refused_and_the_next_one_is_not(string $setting, string $value): void
    {
        $host = $this->hostOfTwoSites($setting, $value);
        $first = $this->ask($host, 'plain')->token();
        foreach ([1, 2] as $_) {
            $this->assertRefused($setting, $this->ask($host, 'other'));
            self::assertSame($first, $this->ask($host, 'plain')->token());
        }
        self::assertSame(1, $this->mints->mints());
    }

    /** @dataProvider ofOneSite */
    public function test_a_worker_that_began_with_the_settings_of_one_site_works_for_no_other(string $setting, string $value): void
    {
        $host = $this->hostOfTwoSites($setting, $value);
        $first = $this->ask($host, 'other')->token();
        self::assertNotNull($first);
        $this->assertRefused($setting, $this->ask($host, 'plain'));
        self::assertSame($first, $this->ask($host, 'other')->token());
        self::assertSame(1, $this->mints->mints());
    }

    /**
     * PHP-FPM never puts back what a web server sends ("SetEnv PHP_ADMIN_VALUE", fastcgi_param).
     *
     * @dataProvider ofOneSite
     */
    public function test_a_worker_to_which_a_web_server_sent_other_settings_is_refused_until_it_sends_the_first_again(string $setting, string $value): void
    {
        $host = $this->host('north', ['prefix' => 'north'], ['pm.max_children' => 1]);
        $send = fn (?string $value): Response => $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0],
            $value === null ? [] : ['PHP_ADMIN_VALUE' => "sharedstate.$setting=\"$value\""]);
        $first = $send(null)->token();
        self::assertNotNull($first);
        $this->assertRefused($setting, $send($value));
        $this->assertRefused($setting, $send(null));
        self::assertSame($first, $send($setting === 'prefix' ? 'north' : '')->token());
        self::assertSame(1, $this->mints->mints());
    }

    /** One worker for two names, of which "other" has a setting of its own. */
    private function hostOfTwoSites(string $setting, string $value): Fpm
    {
        $ini = "$this->folder/php.ini";
        file_put_contents($ini, "[HOST=other]\nsharedstate.$setting = \"$value\"\n");
        // After the -n of all tests, -c reads this file and no other.
        $wrapper = ['sh', '-c', 'exec "$@" -c ' . escapeshellarg($ini), 'sh'];
        return $this->host('north', [], ['pm.max_children' => 1], wrapper: $wrapper);
    }

    private function ask(Fpm $host, string $site): Response
    {
        return $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0], ['SERVER_NAME' => $site]);
    }

    private function assertRefused(string $setting, Response $response): void
    {
        self::assertSame('SharedState\\ConfigError', $response->error(), $response->describe());
        self::assertStringContainsString("sharedstate.$setting", $response->json()['message']);
    }

    public function test_two_pools_of_one_user_with_two_prefixes_share_nothing(): void
    {
        $redis = $this->redis();
        $table = "$this->folder/host-both";
        $pool = fn (string $name): array => $this->pool($name, [
            'host.dir' => $table, 'prefix' => $name, 'redis.dsn' => $redis->dsn(),
        ]) + ['pm.max_children' => 2];
        mkdir($table);
        $fpm = new Fpm($this->folder, 'both', ['one' => $pool('one'), 'two' => $pool('two')]);

        $get = fn (string $pool): string => $this->get($fpm, 'token.php', ['name' => 'crm', 'ms' => 0], [], $pool)->token();
        $one = $get('one');
        $two = $get('two');
        self::assertNotSame($one, $two);
        self::assertSame(2, $this->mints->mints());

        $rejected = $this->get($fpm, 'reject.php', ['name' => 'crm', 'old' => $one, 'ms' => 0], [], 'one');
        self::assertTrue($rejected->json()['dropped'] ?? null, $rejected->describe());
        self::assertSame($two, $get('two'), 'the other pool kept its token');

        $status = fn (string $pool): array => $this->get($fpm, 'status.php', [], [], $pool)->json()['status'];
        self::assertNotSame($status('one')['host_table'], $status('two')['host_table']);
        self::assertSame(1, $status('two')['token_mint_count']);
    }

    public function test_two_pools_with_two_databases_of_one_redis_share_nothing(): void
    {
        $redis = $this->redis();
        $table = "$this->folder/host-both";
        mkdir($table);
        $pool = fn (string $name, int $database): array => $this->pool($name, [
            'host.dir' => $table, 'redis.dsn' => $redis->dsn() . "?db=$database",
        ]) + ['pm.max_children' => 2];
        $fpm = new Fpm($this->folder, 'both', ['one' => $pool('one', 1), 'two' => $pool('two', 2)]);
        $responses = [
            $this->get($fpm, 'token.php', ['name' => 'crm', 'ms' => 0], [], 'one'),
            $this->get($fpm, 'token.php', ['name' => 'crm', 'ms' => 0], [], 'two'),
        ];
        $this->assertAllServed($responses);
        self::assertNotSame($responses[0]->token(), $responses[1]->token());
    }

    public function test_a_preloaded_script_gets_an_exception_and_nothing_is_opened_in_the_master(): void
    {
        $log = "$this->folder/preloaded";
        $ini = ['opcache.enable' => 1, 'opcache.preload' => $this->page('preload.php')];
        if (posix_geteuid() === 0) {
            // PHP refuses to preload as root unless it is told in so many words.
            $ini['opcache.preload_user'] = 'root';
        }
        putenv("PRELOAD_LOG=$log");
        try {
            $host = $this->host('north', [], ['pm.max_children' => 2], $ini, ['opcache']);
        } finally {
            putenv('PRELOAD_LOG');
        }
        self::assertStringEqualsFile($log, "SharedState\\ConfigError\n");
        self::assertSame([], glob("$this->folder/host-north/*"), 'no table before the first request');
        $this->assertAllServed([$this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0])]);
        self::assertNotSame([], glob("$this->folder/host-north/*"));
    }

    public function test_the_master_opens_no_socket_thread_or_table(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 1]);
        $this->assertAllServed([$this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0])]);
        $worker = $this->get($host, 'status.php', [])->pid();
        preg_match('/^PPid:\s+(\d+)/m', file_get_contents("/proc/$worker/status"), $match);
        $master = (int) $match[1];
        self::assertCount(1, glob("/proc/$master/task/*"), 'threads of the master');
        self::assertStringNotContainsString('sharedstate-', file_get_contents("/proc/$master/maps"), 'no table mapped by the master');
    }
}
