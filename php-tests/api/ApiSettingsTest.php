<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

final class ApiSettingsTest extends TestCase
{
    /** @return array<string, array{array<string, string|int>, string}> settings, and the one that the sentence names */
    public static function bad(): array
    {
        return [
            'lease longer than the wait' => [['token.lease_ms' => 6000, 'token.wait_timeout_ms' => 6500], 'token.lease_ms'],
            'ratio of 1' => [['token.refresh_ratio' => '1'], 'token.refresh_ratio'],
            'ratio above 1' => [['token.refresh_ratio' => '1.2'], 'token.refresh_ratio'],
            'ratio of words' => [['token.refresh_ratio' => 'often'], 'token.refresh_ratio'],
            'stale before a second refresh' => [['fx.max_stale_s' => 7200, 'fx.refresh_interval_s' => 3600], 'fx.max_stale_s'],
            'a brace in the prefix' => [['prefix' => 'a{b}'], 'prefix'],
            'no such mode' => [['store_down' => 'panic'], 'store_down'],
            'a size without sense' => [['host.memory' => 'lots'], 'host.memory'],
            'a relative folder' => [['host.dir' => 'relative/path'], 'host.dir'],
        ];
    }

    /** @dataProvider bad */
    public function test_a_bad_setting_is_refused_with_a_sentence_that_names_it(array $settings, string $named): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', function () { note('start', 'crm'); return 'T'; }, ['ttl' => 60]));", $settings);
        self::assertSame('SharedState\\ConfigError', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString("sharedstate.$named", $caught['message']);
        self::assertSame(0, $this->mints->mints());
    }

    public function test_settings_are_system_settings(): void
    {
        self::assertFalse($this->php("return ini_set('sharedstate.prefix', 'other');"));
    }

    /** @group extension */
    public function test_who_only_reports_makes_no_table(): void
    {
        foreach ([['--ri', 'sharedstate'], ['-i'], ['-r', 'phpinfo();']] as $arguments) {
            $told = Cli::run($arguments, ['sharedstate.host.dir' => $this->folder]);
            self::assertSame(0, $told->status, $told->all());
            self::assertStringContainsString('sharedstate.host.dir', $told->output);
            self::assertSame([], glob("$this->folder/sharedstate-*"), implode(' ', $arguments));
        }
        $this->php("shared_token_get('crm', fn () => ['access_token' => 'T', 'expires_in' => 60]);");
        self::assertStringContainsString("$this->folder/sharedstate-", Cli::run(['--ri', 'sharedstate'], ['sharedstate.host.dir' => $this->folder])->output);
    }

    /** @group extension */
    public function test_secrets_are_masked_wherever_settings_are_shown(): void
    {
        $ini = ['sharedstate.redis.password' => 'hunter-2-secret', 'sharedstate.redis.dsn' => 'redis://user:hunter-3-secret@127.0.0.1:1/0',
            'sharedstate.host.dir' => $this->folder];
        $ri = Cli::run(['--ri', 'sharedstate'], $ini);
        self::assertSame(0, $ri->status, $ri->all());
        self::assertStringContainsString('sharedstate.host.dir', $ri->output);
        self::assertStringNotContainsString('hunter', $ri->all());

        foreach (['phpinfo();', 'var_dump(ini_get_all("sharedstate"), sharedstate_status());', 'try { shared_token_get("x"); } catch (Throwable $e) { echo $e; }'] as $code) {
            $shown = Cli::run(['-r', $code], $ini + ['zend.exception_ignore_args' => 0]);
            // phpinfo() also prints the command line of this very test.
            $lines = preg_grep('/_SERVER|argv|^\s*\[?\d+\]? =>|Command/', explode("\n", $shown->output), PREG_GREP_INVERT);
            self::assertStringNotContainsString('hunter', implode("\n", $lines), $code);
        }
    }

    /** @group extension */
    public function test_the_environment_fills_in_what_is_not_set(): void
    {
        $redis = $this->redis();
        $token = $this->php("return shared_token_get('crm', fn () => 'T', ['ttl' => 60]);", [], ['SHAREDSTATE_REDIS_DSN' => $redis->dsn()]);
        self::assertSame('T', $token);
        self::assertNotSame(0, $redis->command('DBSIZE'), 'the token went to that Redis');
    }

    /** @group extension */
    public function test_a_password_and_a_database_number_work(): void
    {
        $redis = $this->redis('--requirepass', 'open-sesame');
        $settings = ['redis.dsn' => $redis->dsn() . '?db=3', 'redis.password' => 'open-sesame'];
        $this->php("return shared_token_get('crm', fn () => 'T', ['ttl' => 60]);", $settings);
        mkdir("$this->folder/other");
        $other = $this->php("return shared_token_get('crm', fn () => 'other', ['ttl' => 60]);", ['host.dir' => "$this->folder/other"] + $settings);
        self::assertSame('T', $other, 'a host of its own finds it in Redis');
    }

    /** @group extension */
    public function test_php_ini_can_name_a_password_file(): void
    {
        $redis = $this->redis('--requirepass', 'open-sesame');
        file_put_contents("$this->folder/password", "open-sesame\n");
        $this->php("return shared_token_get('crm', fn () => 'T', ['ttl' => 60]);",
            ['redis.dsn' => $redis->dsn(), 'redis.password_file' => "$this->folder/password"]);
        mkdir("$this->folder/other");
        self::assertSame('T', $this->php("return shared_token_get('crm', fn () => 'other', ['ttl' => 60]);",
            ['host.dir' => "$this->folder/other", 'redis.dsn' => $redis->dsn(), 'redis.password_file' => "$this->folder/password"]));
    }

    public function test_the_status_counts(): void
    {
        $status = $this->php(<<<'PHP'
            for ($i = 0; $i < 10; $i++) { shared_token_get('crm', fn () => 'T', ['ttl' => 60]); }
            return sharedstate_status();
            PHP);
        self::assertSame(1, $status['token_mint_count']);
        self::assertSame(9, $status['token_cache_hits']);
        self::assertSame(1, $status['token_cache_misses']);
    }

    /** @group extension */
    public function test_the_status_names_the_table_that_only_its_user_may_read(): void
    {
        $status = $this->php('return sharedstate_status();');
        self::assertStringStartsWith("$this->folder/sharedstate-" . posix_geteuid() . '-', $status['host_table']);
        self::assertSame(0700, fileperms(dirname($status['host_table'])) & 0777);
        self::assertSame(0600, fileperms($status['host_table']) & 0777);
    }

    /** @group extension */
    public function test_loading_the_extension_opens_nothing(): void
    {
        $result = Cli::run(['-r', 'echo count(glob("/proc/self/task/*"));'], ['sharedstate.host.dir' => $this->folder]);
        self::assertSame('1', $result->output, $result->errors);
        self::assertSame([], glob("$this->folder/sharedstate-*"));
    }
}
