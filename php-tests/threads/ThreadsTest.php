<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/**
 * Many threads of one PHP process, as FrankenPHP and a threaded Apache have them (threads.c): they share one table,
 * one pool of connections and one background thread. In every test PHP is shut down and started again under the
 * living threads, and threads give PHP's memory back in between.
 */
final class ThreadsTest extends TestCase
{
    private const THREADS = 16;
    private const RUNS = 2;

    protected function setUp(): void
    {
        parent::setUp();
        if (!getenv('THREADS_SAPI')) {
            self::markTestSkipped('needs a thread-safe PHP: build/test --zts');
        }
    }

    public static function stores(): array
    {
        return ['this host' => [false], 'Redis' => [true]];
    }

    /** @dataProvider stores */
    public function test_threads_that_find_nothing_at_once_mint_once(bool $redis): void
    {
        $requests = Build::full() ? 100 : 20;
        $settings = $redis ? ['redis.dsn' => $this->redis()->dsn()] : [];
        $answers = $this->serve(<<<'PHP'
            meet();
            return [
                shared_token_get("crm:$run:$request", fn () => mint("crm:$run:$request", 20, 60.0)),
                fx_rate('USD', 'CHF', function () use ($run, $request) {
                    note('start', "sheet:$run:$request");
                    return ['base' => 'EUR', 'rates' => ['USD' => '1.25', 'CHF' => '0.9' . random_int(1, 999_999)]];
                }, ['sheet' => "$run:$request"]),
            ];
            PHP, $requests, $settings);
        for ($run = 0; $run < self::RUNS; $run++) {
            for ($request = 0; $request < $requests; $request++) {
                self::assertCount(1, array_unique(array_column($answers[$run][$request], 0)), "one token in run $run, request $request");
                self::assertCount(1, array_unique(array_column($answers[$run][$request], 1)), "one rate in run $run, request $request");
                self::assertSame(1, $this->mints->mints("crm:$run:$request"));
                self::assertSame(1, $this->mints->mints("sheet:$run:$request"));
            }
        }
    }

    public function test_mints_of_different_names_run_side_by_side(): void
    {
        // Whoever minted one after the other would never meet in there.
        $answers = $this->serve(<<<'PHP'
            return shared_token_get("crm:$run:$request:$thread", function () use ($thread) { meet(); return "T$thread"; }, ['ttl' => 60]);
            PHP, 3);
        foreach ($answers as $requests) {
            foreach ($requests as $tokens) {
                self::assertSame(array_map(fn (int $thread): string => "T$thread", range(0, self::THREADS - 1)), $tokens);
            }
        }
    }

    public function test_threads_share_one_pool_of_connections(): void
    {
        $redis = $this->redis();
        $before = $this->connectionsTo($redis);
        // More threads than places, all with a name of their own: they take turns.
        $this->serve(<<<'PHP'
            meet();
            return shared_token_get("crm:$run:$request:$thread", fn () => "T$thread", ['ttl' => 60]);
            PHP, 10, ['redis.dsn' => $redis->dsn(), 'redis.pool_max' => 3]);
        // Every run has a pool and a follower of the change log; the one more is this question.
        self::assertLessThanOrEqual($before + self::RUNS * (3 + 1) + 1, $this->connectionsTo($redis));
        self::assertCount(self::THREADS * 10 * self::RUNS, $redis->command('KEYS', '*:v:*'));
    }

    public function test_an_invalidation_by_one_thread_ends_what_the_others_remember(): void
    {
        $answers = $this->serve(<<<'PHP'
            $get = fn () => shared_token_get("crm:$run:$request", fn () => mint("crm:$run:$request", 5, 60.0));
            $first = $get();
            $again = $get();
            meet();
            if ($thread === 0) {
                shared_token_invalidate("crm:$run:$request", $first);
            }
            meet();
            return [$first, $again, $get()];
            PHP, 5);
        foreach ($answers as $run => $requests) {
            foreach ($requests as $request => $tokens) {
                self::assertCount(2, array_unique(array_merge(...$tokens)));
                self::assertSame(array_column($tokens, 0), array_column($tokens, 1));
                self::assertNotSame($tokens[1][0], $tokens[1][2]);
                self::assertSame(2, $this->mints->mints("crm:$run:$request"));
            }
        }
    }

    public function test_a_thread_that_dies_in_its_mint_hands_it_to_another(): void
    {
        $answers = $this->serve(<<<'PHP'
            if ($thread > 0) {
                meet();
                return shared_token_get("crm:$run:$request", fn () => mint("crm:$run:$request", 5, 60.0), ['wait_ms' => 5000]);
            }
            return shared_token_get("crm:$run:$request", function () use ($request) {
                meet();
                usleep(20_000);
                match ($request % 3) {
                    0 => trigger_error('fatal in the callable', E_USER_ERROR),
                    1 => exit,
                    2 => ini_set('memory_limit', (string) (memory_get_usage() + 100_000)) && str_repeat('x', 4_000_000),
                };
            });
            PHP, 6, ['token.failure_backoff_ms' => 100]);
        foreach ($answers as $run => $requests) {
            foreach ($requests as $request => $tokens) {
                self::assertCount(self::THREADS - 1, $tokens, 'the one that died says nothing');
                self::assertCount(1, array_unique($tokens));
                self::assertSame(1, $this->mints->mints("crm:$run:$request"));
            }
        }
    }

    public function test_a_failed_mint_is_one_attempt_for_all_threads(): void
    {
        $answers = $this->serve(<<<'PHP'
            meet();
            return caught(fn () => shared_token_get("crm:$run:$request", function () use ($run, $request) {
                note('start', "crm:$run:$request");
                usleep(20_000);
                throw new RuntimeException('the endpoint said no');
            }))['class'] ?? null;
            PHP, 5, ['token.failure_backoff_ms' => 60_000]);
        foreach ($answers as $run => $requests) {
            foreach ($requests as $request => $classes) {
                self::assertSame(array_fill(0, self::THREADS, 'SharedState\\MintFailed'), $classes);
                self::assertSame(1, $this->mints->mints("crm:$run:$request"));
            }
        }
    }

    /** @return array<string, array{string, string}> a setting, and how another value of it begins */
    public static function ofOneRequest(): array
    {
        return ['a plain one' => ['prefix', 'other'], 'a secret' => ['redis.dsn', 'redis://127.0.0.1:']];
    }

    /**
     * As a virtual host's php_admin_value does in a threaded Apache.
     *
     * @dataProvider ofOneRequest
     */
    public function test_a_setting_changed_for_one_request_is_refused_in_that_request_alone(string $setting, string $value): void
    {
        $answers = $this->serve("[\$setting, \$value] = ['$setting', '$value'];\n" . <<<'PHP'
            shared_token_get("warm:$run:$request", fn () => 'T', ['ttl' => 60]);
            if ($request === 1 && $thread % 2) {
                set_here("sharedstate.$setting", "$value$thread");
            }
            return caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60]));
            PHP, 4);
        self::assertSame([], array_filter(array_merge(...array_merge(...$answers)), fn (array $said): bool => !isset($said['returned'])),
            'a request that has begun goes on with what it began with');
        $answers = $this->serve("[\$setting, \$value] = ['$setting', '$value'];\n" . <<<'PHP'
            if ($request === 1 && $thread % 2) {
                set_here("sharedstate.$setting", "$value$thread");
            }
            meet();
            return caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60]));
            PHP, 4);
        foreach ($answers as $requests) {
            foreach ($requests as $request => $threads) {
                foreach ($threads as $thread => $said) {
                    if ($request === 1 && $thread % 2) {
                        self::assertSame('SharedState\\ConfigError', $said['class'] ?? null, json_encode($said));
                        self::assertStringContainsString("sharedstate.$setting", $said['message']);
                    } else {
                        self::assertSame('T', $said['returned'] ?? null, json_encode($said));
                    }
                }
            }
        }
    }

    /** @dataProvider stores */
    public function test_after_a_reload_the_same_threads_work_with_the_new_settings(bool $redis): void
    {
        $settings = $redis ? ['redis.dsn' => $this->redis()->dsn()] : [];
        $answers = $this->serve(<<<'PHP'
            // A background thread of the former run may take a moment to end.
            for ($i = 0; $i < 500 && ($threads = count(glob('/proc/self/task/*'))) > 17; $i++) { usleep(10_000); }
            meet();
            $token = shared_token_get('crm', fn () => "T$run", ['ttl' => 60]);
            if ($thread === 0) {
                $ini = php_ini_loaded_file();
                file_put_contents($ini, str_replace('"before"', '"after"', file_get_contents($ini)));
            }
            return [$threads, $token, ini_get('sharedstate.prefix')];
            PHP, 1, $settings + ['prefix' => 'before']);
        // The threads and the main one: no background thread of the former run is left.
        $expected = fn (string $token, string $prefix): array => array_fill(0, self::THREADS, [self::THREADS + 1, $token, $prefix]);
        self::assertSame([[$expected('T0', 'before')], [$expected('T1', 'after')]], $answers);
    }

    public function test_lines_of_all_threads_go_to_the_log_that_is_set(): void
    {
        $log = "$this->folder/sharedstate-log";
        $this->serve(<<<'PHP'
            $options = ['ttl' => 60, 'refresh_ratio' => 0.001];
            shared_token_get("crm:$run:$request:$thread", fn () => 'T', $options);
            usleep(100_000);
            return shared_token_get("crm:$run:$request:$thread", function () { meet(); throw new RuntimeException('no'); }, $options);
            PHP, 10, ['log' => $log, 'log_level' => 'info']);
        $lines = file($log, FILE_IGNORE_NEW_LINES);
        // Warnings of one kind are cut when there are many.
        self::assertCount(self::THREADS * 10 * self::RUNS, preg_grep('/ info: token "crm:\S+" was not minted: RuntimeException: no$/', $lines));
        self::assertNotEmpty(preg_grep('/the old value is served: RuntimeException: no/', $lines));
    }

    private function connectionsTo(RedisServer $redis): int
    {
        preg_match('/total_connections_received:(\d+)/', (string) $redis->command('INFO', 'stats'), $found);
        return (int) $found[1];
    }

    /**
     * Lets every thread serve the code, again and again. The code has $run, $request and $thread.
     *
     * @param array<string, string|int> $settings sharedstate.*, without that prefix
     * @return list<list<array<int, mixed>>> what it returned, by run, request and thread
     */
    private function serve(string $code, int $requests, array $settings = []): array
    {
        $script = "$this->folder/served.php";
        file_put_contents($script, '<?php require ' . var_export($this->page('cli.php'), true) . ";\n"
            . "\$result = (static function (int \$run, int \$request, int \$thread) {\n$code\n})(...here());\n"
            . "echo json_encode([...array_values(here()), \$result], JSON_THROW_ON_ERROR) . \"\\n\";\n");
        $ini = "extension=\"" . Build::extension() . "\"\ndisplay_errors=0\nlog_errors=1\n";
        foreach ($settings + ['host.dir' => $this->folder] as $name => $value) {
            $ini .= "sharedstate.$name=\"$value\"\n";
        }
        file_put_contents("$this->folder/php.ini", $ini);
        $result = Cli::command(
            [getenv('THREADS_SAPI'), "$this->folder/php.ini", $script, (string) self::THREADS, (string) $requests, (string) self::RUNS],
            ['MINT_LOG' => $this->mints->file, 'TEST_HOST' => 'threads'],
            60.0,
        );
        self::assertSame(0, $result->status, "status $result->status: $result->output\n$result->errors");
        $answers = [];
        foreach (explode("\n", trim($result->output)) as $line) {
            [$run, $request, $thread, $said] = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
            $answers[$run][$request][$thread] = $said;
        }
        foreach ($answers as &$run) {
            foreach ($run as &$request) {
                ksort($request);
            }
            ksort($run);
        }
        self::assertCount(self::RUNS, $answers);
        return $answers;
    }
}
