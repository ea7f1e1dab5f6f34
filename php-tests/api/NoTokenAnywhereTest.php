<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\TestCase;

/** One token goes through everything that can go wrong, and through everything that prints. */
final class NoTokenAnywhereTest extends TestCase
{
    public function test_a_token_is_in_no_log_exception_trace_phpinfo_status_metric_or_list(): void
    {
        $this->assertNoTokenAnywhere([]);
    }

    /** @group extension */
    public function test_a_token_in_redis_is_in_none_of_them_either(): void
    {
        $redis = $this->redis('--requirepass', 'SECRET.PASSWORD');
        $this->assertNoTokenAnywhere(['redis.dsn' => $redis->dsn(), 'redis.password' => 'SECRET.PASSWORD']);
        // Refused, and told of. A pause that Redis has told of is kept without it, so on a table of its own.
        $this->assertNoTokenAnywhere(['redis.dsn' => $redis->dsn(), 'redis.password' => 'SECRET.PASSWORD.of.yesterday', 'prefix' => 'yesterday']);
    }

    /** @param array<string, string> $settings */
    private function assertNoTokenAnywhere(array $settings): void
    {
        $log = "$this->folder/log";
        $ini = ['log' => $log, 'log_level' => 'debug'] + $settings;
        $printed = $this->php(<<<'PHP'
            ini_set('zend.exception_ignore_args', '0');
            ini_set('zend.exception_string_param_max_len', '1000');
            $token = 'SECRET.TOKEN.' . str_repeat('x', 20);
            $said = [];
            $note = static function (callable $call) use (&$said): void {
                try { $call(); } catch (\Throwable $e) { $said[] = (string) $e; $said[] = print_r($e->getPrevious()?->getMessage(), true); }
            };
            shared_token_get('crm', static fn () => ['access_token' => $token, 'expires_in' => 3600, 'instance_url' => 'https://x']);
            $note(static fn () => shared_token_get('crm', 'no such function', ['rejected' => $token]));
            $note(static fn () => shared_token_get('crm', static fn () => throw new \RuntimeException('no'), ['rejected' => $token, 'typo' => 1]));
            $note(static fn () => shared_token_get('crm', static fn () => throw new \RuntimeException('no'), ['rejected' => $token]));
            $note(static fn () => shared_token_get('crm', static fn () => ['access_token' => 'other']));
            $note(static fn () => shared_token_invalidate("bad\nname", $token));
            $note(static fn () => shared_token_invalidate('crm', $token, ['typo' => 1]));
            $note(static fn () => shared_token_get('big', static fn () => ['access_token' => str_repeat($token, 2000), 'expires_in' => 60]));
            $note(static fn () => shared_token_get('torn', static fn () => "$token\n", ['ttl' => 60]));
            $note(static fn () => shared_token_get('late', static fn () => ['access_token' => $token, 'expires_in' => 'soon']));
            shared_token_get('kept', static fn () => ['access_token' => $token, 'expires_in' => 3600, 'instance_url' => 'https://x'], ['keep' => ['instance_url']]);
            $fetch = ['fetch' => static fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.1']]];
            ob_start();
            phpinfo(INFO_MODULES);
            var_dump(shared_token_info('kept'), sharedstate_status(), sharedstate_metrics(), sharedstate_entries(),
                fx_rate_info('EUR', 'USD', $fetch), fx_quote('1', 'EUR', 'USD', $fetch), fx_refresh(null, $fetch));
            $note(static fn () => var_dump(shared_token_invalidate_all()));
            return [count($said), implode("\n", $said) . ob_get_clean()];
            PHP, $ini);
        self::assertGreaterThan(10, $printed[0], 'the provocations provoked');
        self::assertStringContainsString('instance_url', $printed[1]);
        self::assertStringNotContainsString('SECRET.TOKEN', $printed[1]);
        // The polyfill knows warnings only.
        $finest = Build::polyfill() === null ? 'info: token "crm" was minted' : 'warning: minting token "big"';
        self::assertStringContainsString($finest, file_get_contents($log), 'the log is as fine as it gets');
        self::assertStringNotContainsString('SECRET.', file_get_contents($log));
    }
}
