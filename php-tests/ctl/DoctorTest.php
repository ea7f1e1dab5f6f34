<?php

declare(strict_types=1);

use SharedState\Tests\Support\Authority;
use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\CliResult;
use SharedState\Tests\Support\Ctl;
use SharedState\Tests\Support\RedisCluster;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\SentinelSet;
use SharedState\Tests\Support\TestCase;

/** Each fault is planted, found, and comes with what to do; a healthy system has none. */
final class DoctorTest extends TestCase
{
    private const PASSWORD = 'hunter2-of-redis';
    private const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';
    /** What docs/OPERATIONS.md tells people to grant; AclTest shows that each is needed. */
    private const RIGHTS = ['evalsha', 'script|load', 'xrevrange', 'xread', 'hmget', 'time', 'hget', 'hset', 'hdel', 'get', 'set', 'del', 'pttl', 'pexpire', 'xadd'];

    /** @var array<string, string|int> */
    private array $settings = [];

    protected function setUp(): void
    {
        parent::setUp();
        $this->settings = ['host.dir' => $this->folder];
    }

    /** @param array<string, string|int> $settings on top of this test's */
    private function doctor(array $settings = [], array $words = [], array $environment = []): CliResult
    {
        $result = Ctl::run(['doctor', ...$words], $settings + $this->settings, $environment);
        $this->assertNoSecret($result);
        return $result;
    }

    private function assertNoSecret(CliResult $result): void
    {
        self::assertStringNotContainsString(self::PASSWORD, $result->all());
        self::assertDoesNotMatchRegularExpression('/Warning: |Notice: |Deprecated: |Stack trace/', $result->all());
    }

    private function assertHealthy(CliResult $result): void
    {
        self::assertDoesNotMatchRegularExpression('/^(warn|fail)/m', $result->output);
        self::assertSame([0, ''], [$result->status, $result->errors], $result->output);
        self::assertMatchesRegularExpression('/^\d+ ok, \d+ notes, 0 warnings, 0 failures$/m', $result->output);
    }

    /** Exactly this, and what to do. */
    private function assertFound(string $level, string $what, CliResult $result): void
    {
        $found = preg_grep('/^(warn|fail)/', explode("\n", $result->output));
        self::assertCount(1, $found, $result->all());
        self::assertMatchesRegularExpression("/^$level +.*$what/", (string) reset($found));
        self::assertMatchesRegularExpression("/^$level .*\n      → ..../m", $result->output);
        self::assertSame(1, $result->status);
    }

    /** @param list<string> $rights */
    private function grant(RedisServer $redis, array $rights, string $keys = '~{sharedstate}:*'): void
    {
        $redis->command('ACL', 'SETUSER', 'sharedstate', 'reset', 'on', '>' . self::PASSWORD, 'resetchannels', $keys, ...array_map(static fn (string $right): string => "+$right", $rights));
    }

    private function leastPrivileged(string ...$more): RedisServer
    {
        $redis = $this->redis();
        $this->grant($redis, [...self::RIGHTS, ...$more]);
        $file = "$this->folder/password";
        file_put_contents($file, self::PASSWORD . "\n");
        chmod($file, 0600);
        $this->settings += ['redis.dsn' => $redis->dsn(), 'redis.username' => 'sharedstate', 'redis.password_file' => $file];
        return $redis;
    }

    public function test_a_healthy_system_has_neither_warnings_nor_failures_and_is_left_as_it_was(): void
    {
        $redis = $this->leastPrivileged('info');
        $this->php("return shared_token_get('crm', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", $this->settings);
        $keys = $redis->command('KEYS', '*');
        $result = $this->doctor();
        $this->assertHealthy($result);
        foreach (['Redis at .* answers', 'a round trip to Redis takes', 'the clocks .* differ by 0\.0', 'it is (Redis|Valkey) \d', 'maxmemory-policy noeviction',
            'all that is needed', 'is in memory', 'password_file can be read'] as $said) {
            self::assertMatchesRegularExpression("/^ok +.*$said/m", $result->output);
        }
        self::assertSame($keys, $redis->command('KEYS', '*'), 'it leaves nothing behind');
        $denied = array_map(static fn (array $flat): string => $flat[7], $redis->command('ACL', 'LOG'));
        self::assertSame([], array_diff($denied, ['client|setname']), 'the extension works without that');
    }

    public function test_without_redis_it_is_healthy_and_says_what_that_means(): void
    {
        $result = $this->doctor();
        $this->assertHealthy($result);
        self::assertStringContainsString('note  there is no Redis', $result->output);
        self::assertSame([], glob("$this->folder/sharedstate-*"), 'no table is left of looking for one');
    }

    public function test_with_the_least_rights_it_says_what_it_could_not_look_at(): void
    {
        $this->leastPrivileged();
        $result = $this->doctor();
        $this->assertHealthy($result);
        self::assertStringContainsString('note  this Redis user may not ask INFO', $result->output);
    }

    // --- Redis -----------------------------------------------------------------------------------

    public function test_each_right_that_lacks_is_named(): void
    {
        $redis = $this->leastPrivileged('info');
        foreach (self::RIGHTS as $lacking) {
            $this->grant($redis, [...array_diff(self::RIGHTS, [$lacking]), 'info']);
            $this->assertFound('fail', 'the Redis user lacks \+' . preg_quote($lacking) . '$', $this->doctor());
        }
        self::assertSame([], $redis->command('KEYS', '*'), 'whatever it may not do, it leaves nothing behind');
        $this->grant($redis, array_merge(array_diff(self::RIGHTS, ['hset', 'xread']), ['info']));
        $this->assertFound('fail', 'lacks \+xread \+hset', $this->doctor());
        $this->grant($redis, [...self::RIGHTS, 'info'], '~{other}:*');
        $this->assertFound('fail', 'may not touch the keys of this prefix', $this->doctor());
    }

    public function test_a_wrong_password_is_found_and_shown_nowhere(): void
    {
        $this->leastPrivileged();
        file_put_contents("$this->folder/password", 'not-' . self::PASSWORD);
        $this->assertFound('fail', 'Redis refuses the login: WRONGPASS', $this->doctor());
        file_put_contents("$this->folder/password", '');
        self::assertMatchesRegularExpression('/^fail .*password_file .* is empty$/m', $this->doctor()->output);
        unlink("$this->folder/password");
        self::assertMatchesRegularExpression('/^fail .*password_file .* cannot be read by /m', $this->doctor()->output);
    }

    public function test_a_password_file_for_everybody_is_found(): void
    {
        $this->leastPrivileged();
        chmod("$this->folder/password", 0644);
        $this->assertFound('warn', 'password_file .* can be read by everybody', $this->doctor());
    }

    public function test_a_password_that_is_wanted_and_not_set_is_found(): void
    {
        $redis = $this->redis('--requirepass', self::PASSWORD);
        $this->assertFound('fail', 'NOAUTH|refuses', $this->doctor(['redis.dsn' => $redis->dsn()]));
        foreach ([['redis.dsn' => 'unix://:' . self::PASSWORD . '@' . $redis->socket()], ['redis.dsn' => $redis->dsn(), 'redis.password' => self::PASSWORD]] as $settings) {
            $this->assertHealthy($this->doctor($settings));
        }
        $this->assertHealthy($this->doctor([], [], ['SHAREDSTATE_REDIS_DSN' => $redis->dsn(), 'SHAREDSTATE_REDIS_PASSWORD' => self::PASSWORD]));
    }

    public function test_a_redis_that_is_down_and_one_that_hangs_are_found(): void
    {
        $redis = $this->leastPrivileged('info');
        $redis->signal(SIGSTOP);
        $result = $this->doctor();
        $this->assertFound('fail', 'does not answer', $result);
        self::assertLessThan(5.0, $result->elapsed);
        $redis->kill();
        $this->assertFound('fail', 'cannot be reached', $this->doctor());
    }

    public function test_a_replica_is_found(): void
    {
        $port = RedisServer::freePort();
        $redis = $this->redis('--replicaof', "127.0.0.1 $port");
        self::assertMatchesRegularExpression('/^fail +it is a slave and takes no writes/m', $this->doctor(['redis.dsn' => $redis->dsn()])->output);
    }

    public function test_an_eviction_policy_that_may_forget_invalidations_is_found(): void
    {
        $redis = $this->redis('--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru');
        $this->assertFound('warn', 'allkeys-lru: it may evict', $this->doctor(['redis.dsn' => $redis->dsn()]));
    }

    public function test_a_clock_that_is_wrong_is_found(): void
    {
        self::assertFileExists(self::FAKETIME, 'the Debian package libfaketime');
        $redis = $this->redis();
        // PHP binds an extension to libc before anything preloaded, unless it has been preloaded as well.
        $late = ['env', 'LD_PRELOAD=' . self::FAKETIME . ' ' . Build::extension(), 'DONT_FAKE_MONOTONIC=1', 'FAKETIME=-90'];
        $result = Cli::command([...$late, ...Ctl::command(['doctor'], ['redis.dsn' => $redis->dsn()] + $this->settings)]);
        $this->assertFound('warn', 'the clock of this host is (89|90)\.\d s behind that of Redis', $result);
    }

    public function test_a_certificate_that_nobody_vouches_for_is_found(): void
    {
        $authority = new Authority("$this->folder/authority");
        $port = RedisServer::freePort();
        $this->redis('--tls-port', (string) $port, ...$authority->serverOptions('server'));
        $settings = ['redis.dsn' => "rediss://localhost:$port"] + $authority->hostSettings();
        chmod($settings['redis.tls_key'], 0600);
        $this->assertHealthy($this->doctor($settings));
        unset($settings['redis.tls_ca']);
        $this->assertFound('fail', 'certificate verify failed', $this->doctor($settings));
    }

    public function test_it_finds_the_server_that_the_extension_asks_by_sentinel_and_in_a_cluster(): void
    {
        $set = new SentinelSet($this->folder);
        $this->assertHealthy($this->doctor(['redis.dsn' => $set->dsn()]));
        foreach ($set->servers as $server) {
            $server->stop();
        }
        $cluster = new RedisCluster($this->folder);
        [[$holder], [$another]] = $cluster->masters();
        $result = $this->doctor(['redis.dsn' => "redis+cluster://127.0.0.1:$another"]);
        $this->assertHealthy($result);
        self::assertMatchesRegularExpression("/^ok +Redis at 127\.0\.0\.1:$holder answers/m", $result->output);
    }

    // --- Settings --------------------------------------------------------------------------------

    public function test_a_misspelled_setting_is_found_wherever_it_is_written(): void
    {
        file_put_contents("$this->folder/php.ini", "sharedstate.redis_dsn = x\nsharedstate.prefix = shop\nshared_state.prefix = x\n");
        $command = Ctl::command(['doctor'], $this->settings);
        array_splice($command, 1, 1, ['-c', "$this->folder/php.ini"]);
        $result = Cli::command($command, ['PHP_INI_SCAN_DIR' => '']);
        self::assertMatchesRegularExpression("~^fail +sharedstate.redis_dsn in $this->folder/php.ini is no setting.*\n +→ did you mean sharedstate.redis.dsn\?~m", $result->output);
        self::assertMatchesRegularExpression('~^fail +shared_state.prefix .*\n +→ did you mean sharedstate.prefix\?~m', $result->output);
        self::assertStringContainsString('2 failures', $result->output);

        $this->assertFound('fail', 'sharedstate.token.lease in -d is no setting', $this->doctor([], ['-d', 'sharedstate.token.lease=1']));
    }

    public function test_settings_that_are_refused_are_found(): void
    {
        $this->assertFound('fail', 'the settings cannot be used: sharedstate.token.lease_ms is "1h"', $this->doctor(['token.lease_ms' => '1h']));
        $this->assertFound('fail', 'redis.dsn', $this->doctor(['redis.dsn' => 'redis://:' . self::PASSWORD . 'x/@h']));
    }

    /** @return array<string, array{array<string, string|int>, string}> */
    public static function incidents(): array
    {
        return [
            'no margin' => [['token.expiry_margin_s' => 0], 'expiry_margin_s is 0'],
            'a renewal at the last moment' => [['token.refresh_ratio' => '0.99'], 'refresh_ratio is 0.99'],
            'no pause after a failure' => [['token.failure_backoff_ms' => 1], 'failure_backoff_ms is 1'],
            'served for long after it was dropped' => [['max_staleness_ms' => 600_000], 'max_staleness_ms is 600000'],
            'Easter' => [['fx.sources' => 'ecb', 'fx.max_age_s' => 300_000], 'fx.max_age_s is 300000'],
        ];
    }

    /** @dataProvider incidents */
    #[\PHPUnit\Framework\Attributes\DataProvider('incidents')]
    public function test_a_legal_setting_that_an_incident_begins_with_is_found(array $settings, string $said): void
    {
        $this->assertFound('warn', $said, $this->doctor($settings));
    }

    public function test_a_wait_that_php_fpm_cuts_short_is_found(): void
    {
        foreach (['5s' => 'warn', '6' => 'warn', '1m' => null] as $limit => $level) {
            file_put_contents("$this->folder/pool.conf", "[www]\nrequest_terminate_timeout = $limit\n");
            $result = $this->doctor([], ['--pool', "$this->folder/pool.conf"]);
            $level === null ? $this->assertHealthy($result) : $this->assertFound($level, 'request_terminate_timeout of the pool', $result);
        }
    }

    // --- The machine -----------------------------------------------------------------------------

    public function test_a_memory_file_system_that_is_too_small_is_found(): void
    {
        mkdir("$this->folder/tiny");
        exec('mount -t tmpfs -o size=8m none ' . escapeshellarg("$this->folder/tiny") . ' 2>&1', $_, $status);
        if ($status !== 0) {
            self::markTestSkipped('only who may mount can make one');
        }
        try {
            $this->assertFound('warn', 'tiny has room for 8\.0 MB and sharedstate.host.memory is 32\.0 MB', $this->doctor(['host.dir' => "$this->folder/tiny"]));
        } finally {
            exec('umount ' . escapeshellarg("$this->folder/tiny"));
        }
    }

    public function test_a_folder_that_is_missing_or_on_a_disk_is_found(): void
    {
        self::assertMatchesRegularExpression('/^fail .*nowhere is no folder/m', $this->doctor(['host.dir' => "$this->folder/nowhere"])->output);
        // The sources are on one.
        $disk = dirname(__DIR__, 2) . '/target';
        $type = trim((string) shell_exec('stat -f -c %T ' . escapeshellarg($disk)));
        if ($type === 'tmpfs') {
            self::markTestSkipped('everything here is in memory');
        }
        $folder = "$disk/doctor-" . bin2hex(random_bytes(4));
        mkdir($folder, recursive: true);
        try {
            $this->assertFound('warn', 'and not in memory', $this->doctor(['host.dir' => $folder]));
        } finally {
            exec('rm -rf ' . escapeshellarg($folder));
        }
    }

    public function test_the_environment_of_a_pool_is_seen(): void
    {
        $redis = $this->redis('--requirepass', self::PASSWORD);
        $pool = "$this->folder/pool.conf";
        file_put_contents($pool, "[www]\nenv[SHAREDSTATE_REDIS_DSN] = {$redis->dsn()}\n");
        $this->assertFound('fail', 'NOAUTH', $this->doctor([], ['--pool', $pool]));
        file_put_contents($pool, "[www]\nenv[SHAREDSTATE_REDIS_DSN] = {$redis->dsn()}\nenv[SHAREDSTATE_REDIS_PASSWORD] = \$HANDED_ON\n");
        $healthy = $this->doctor([], ['--pool', $pool], ['HANDED_ON' => self::PASSWORD]);
        $this->assertHealthy($healthy);
        self::assertStringContainsString($redis->socket(), $healthy->output);
    }

    public function test_another_user_than_the_pools_is_found(): void
    {
        if (posix_geteuid() !== 0) {
            self::markTestSkipped('only root can be two users');
        }
        chmod($this->folder, 0777);
        copy(Build::extension(), "$this->folder/extension.so");
        copy(Ctl::script(), "$this->folder/ctl");
        $this->php('return sharedstate_status()["version"];');
        $result = Cli::command(['setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups', '--',
            ...Ctl::command(['doctor'], $this->settings, "$this->folder/extension.so", "$this->folder/ctl")]);
        self::assertSame(1, $result->status);
        self::assertMatchesRegularExpression('/^fail +nobody .* has no table here; those that have one: root/m', $result->output);
        self::assertMatchesRegularExpression('/^warn +root .* and nobody .* use the same settings on this host/m', $result->output);
    }

    public function test_a_log_that_cannot_be_written_is_found(): void
    {
        $this->assertFound('fail', 'sharedstate.log .* cannot be written', $this->doctor(['log' => "$this->folder/nowhere/log"]));
    }

    public function test_a_preloaded_script_that_calls_the_extension_is_found(): void
    {
        file_put_contents("$this->folder/preload.php", '<?php shared_token_get("crm");');
        $this->assertFound('warn', 'calls shared_token_get\(\)', $this->doctor([], ['-d', "opcache.preload=$this->folder/preload.php"]));
    }

    public function test_a_table_that_is_too_small_is_found(): void
    {
        $settings = ['host.slots' => 64] + $this->settings;
        $this->php('for ($i = 0; $i < 100; $i++) { shared_token_get("t$i", fn () => ["access_token" => "x", "expires_in" => 3600]); } return 0;', $settings);
        $this->assertFound('warn', 'usable entries were evicted', $this->doctor($settings));
    }

    public function test_sources_are_asked_only_when_told_to(): void
    {
        $settings = ['fx.sources' => 'json:http://127.0.0.1:' . RedisServer::freePort() . '/rates.json'];
        $this->assertHealthy($this->doctor($settings));
        $this->assertFound('fail', 'the rates were not renewed', $this->doctor($settings, ['--fetch']));
    }
}
