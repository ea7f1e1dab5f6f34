<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/**
 * Who waits for another's mint hears signals meanwhile: a queue worker that is told to end does not wait to the end first.
 *
 * @group processes
 */
final class SignalsTest extends TestCase
{
    /** Another process is minting "crm" for two seconds, and this one is sent SIGTERM half a second into its wait. */
    private const SCENE = <<<'PHP'
        if (!function_exists('pcntl_fork')) {
            return 'no pcntl';
        }
        $mint = static fn (string $token, float $seconds): Closure => static function () use ($token, $seconds): array {
            usleep((int) (1e6 * $seconds));
            return ['access_token' => $token, 'expires_in' => 3600];
        };
        $parent = getmypid();
        if (pcntl_fork() === 0) {
            shared_token_get('crm', $mint('of.the.other', 2.0));
            pcntl_exec('/bin/true');
        }
        if (pcntl_fork() === 0) {
            usleep(700_000);
            exec("kill -TERM $parent");
            pcntl_exec('/bin/true');
        }
        usleep(200_000);
        $start = microtime(true);
        $seconds = static fn (): float => microtime(true) - $start;
        $heard = null;
        pcntl_async_signals(true);
        PHP;

    private function scene(string $code): mixed
    {
        $result = $this->php(self::SCENE . "\n$code");
        if ($result === 'no pcntl') {
            self::markTestSkipped('this PHP has no pcntl');
        }
        return $result;
    }

    /** @group timed */
    public function test_a_handler_runs_in_the_wait_and_the_wait_goes_on(): void
    {
        [$token, $heard, $served] = $this->scene(<<<'PHP'
            pcntl_signal(SIGTERM, function () use (&$heard, $seconds): void { $heard = $seconds(); });
            return [shared_token_get('crm', $mint('of.this.one', 0)), $heard, $seconds()];
            PHP);
        self::assertSame('of.the.other', $token);
        self::assertGreaterThan(0.4, $heard);
        self::assertLessThan($served - 0.5, $heard, 'long before the wait was over');
    }

    /** @group timed */
    public function test_what_a_handler_throws_ends_the_wait(): void
    {
        [$said, $after, $token] = $this->scene(<<<'PHP'
            pcntl_signal(SIGTERM, function (): void { throw new RuntimeException('told to end'); });
            try {
                $said = shared_token_get('crm', $mint('of.this.one', 0));
            } catch (RuntimeException $thrown) {
                [$said, $after] = [$thrown->getMessage(), $seconds()];
            }
            return [$said, $after ?? INF, shared_token_get('crm', $mint('of.this.one', 0))];
            PHP);
        self::assertSame('told to end', $said);
        self::assertLessThan(1.5, $after);
        self::assertSame('of.the.other', $token, 'nothing is held, and the next call waits again');
    }

    /** @group timed */
    public function test_a_handler_may_end_the_process(): void
    {
        $result = $this->cli(self::SCENE . "\n" . <<<'PHP'
            pcntl_signal(SIGTERM, function () use ($seconds): void { printf('ended after %.1f', $seconds()); exit(7); });
            return shared_token_get('crm', $mint('of.this.one', 0));
            PHP);
        if (str_contains($result->output, 'no pcntl')) {
            self::markTestSkipped('this PHP has no pcntl');
        }
        self::assertSame(7, $result->status, $result->output . $result->errors);
        self::assertLessThan(1.5, (float) substr($result->output, -3));
    }

    public function test_a_handler_may_ask_itself_also_for_what_is_waited_for(): void
    {
        [$token, $inner, $other] = $this->scene(<<<'PHP'
            pcntl_signal(SIGTERM, function () use (&$inner, &$other, $mint): void {
                $other = shared_token_get('other', $mint('quick', 0));
                $inner = shared_token_get('crm', $mint('of.the.handler', 0));
            });
            return [shared_token_get('crm', $mint('of.this.one', 0)), $inner, $other];
            PHP);
        self::assertSame(['of.the.other', 'of.the.other', 'quick'], [$token, $inner, $other]);
    }

    public function test_a_fatal_error_in_a_handler_ends_the_request_and_nobody_else_waits_for_it(): void
    {
        $result = $this->cli(self::SCENE . "\n" . <<<'PHP'
            pcntl_signal(SIGTERM, function (): void { trigger_error('of the handler', E_USER_ERROR); });
            register_shutdown_function(function () use ($mint): void { echo "\n", shared_token_get('crm', $mint('of.this.one', 0)); });
            return shared_token_get('crm', $mint('of.this.one', 0));
            PHP);
        if (str_contains($result->output, 'no pcntl')) {
            self::markTestSkipped('this PHP has no pcntl');
        }
        self::assertStringContainsString('of the handler', $result->errors);
        self::assertStringEndsWith("\nof.the.other", $result->output);
    }

    /**
     * After a method of PHP's own the engine runs handlers, too: not in the middle of what we read.
     *
     * @group extension
     */
    public function test_no_handler_runs_while_an_answer_is_read(): void
    {
        $said = $this->php(<<<'PHP'
            if (!function_exists('pcntl_fork')) {
                return 'no pcntl';
            }
            pcntl_async_signals(true);
            pcntl_signal(SIGUSR1, function () use (&$dates): void {
                $dates = null;
                for ($n = 0; $n < 1000; $n++) { $GLOBALS['others']["other$n"] = str_repeat('of the handler', 3); }
            });
            $parent = getmypid();
            if (($child = pcntl_fork()) === 0) {
                exec("timeout 3 sh -c 'while kill -USR1 $parent 2>/dev/null; do sleep 0.002; done'");
                pcntl_exec('/bin/true');
            }
            for ($i = 0, $end = microtime(true) + 3; microtime(true) < $end; $i++) {
                $all = [];
                for ($n = 0; $n < 1000; $n++) { $all["d$n"] = new DateTimeImmutable("@$n"); }
                $dates = $all;
                shared_token_get("t$i", static function () use (&$dates): array {
                    return ['access_token' => 'T', 'expires_in' => 60, 'x' => &$dates];
                }, ['keep' => ['x']]);
                $kept = shared_token_info("t$i")['kept']['x'] ?? null;
                if ($kept !== null && array_values($kept) !== range(0, 999)) {
                    $broken = substr(json_encode($kept), 0, 200);
                }
            }
            while (pcntl_waitpid($child, $status) !== $child) {
                // Interrupted.
            }
            return $broken ?? 'whole';
            PHP);
        if ($said === 'no pcntl') {
            self::markTestSkipped('this PHP has no pcntl');
        }
        self::assertSame('whole', $said);
    }

    /** @group extension */
    public function test_a_handler_may_fork(): void
    {
        [$token, $child] = $this->scene(<<<'PHP'
            $file = tempnam(sys_get_temp_dir(), 'fork');
            pcntl_signal(SIGTERM, function () use (&$child): void { $child = pcntl_fork(); });
            try {
                $token = shared_token_get('crm', $mint('of.this.one', 0));
            } catch (SharedState\WaitTimeout $timeout) {
                $told = strstr($timeout->getMessage(), 'in the child');
            }
            if ($child === 0) {
                file_put_contents($file, "$told: " . shared_token_get('crm', $mint('of.the.child', 0)));
                pcntl_exec('/bin/true');
            }
            pcntl_waitpid($child, $status);
            $of = file_get_contents($file);
            unlink($file);
            return [$token, $of];
            PHP);
        self::assertSame(['of.the.other', 'in the child, ask again: of.the.other'], [$token, $child]);
    }
}
