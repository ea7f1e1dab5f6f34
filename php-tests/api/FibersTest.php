<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/**
 * Fibers of one event loop share a thread: whoever waits in it must let the others go on.
 *
 * @group extension
 */
final class FibersTest extends TestCase
{
    /** The herd of a cold start, with a loop that resumes whatever is suspended. */
    public function test_fibers_that_want_the_same_name_wait_for_one_another(): void
    {
        [$tokens, $calls] = $this->php(<<<'PHP'
            $calls = 0;
            $mint = function () use (&$calls) { $calls++; Fiber::suspend(); return ['access_token' => 'T', 'expires_in' => 99]; };
            $tokens = $fibers = [];
            for ($i = 0; $i < 10; $i++) {
                $fibers[] = $fiber = new Fiber(function () use ($mint, &$tokens) { $tokens[] = shared_token_get('crm', $mint); });
                $fiber->start();
            }
            while ($fibers = array_filter($fibers, fn ($fiber) => !$fiber->isTerminated())) {
                array_map(fn ($fiber) => $fiber->resume(), $fibers);
            }
            return [$tokens, $calls];
            PHP);
        self::assertSame(array_fill(0, 10, 'T'), $tokens);
        self::assertSame(1, $calls);
    }

    public function test_who_waits_mints_when_the_fiber_that_minted_is_destroyed_or_fails(): void
    {
        [$destroyed, $failed] = $this->php(<<<'PHP'
            $first = fn (string $name, Closure $mint) => new Fiber(fn () => caught(fn () => shared_token_get($name, function () use ($mint) { Fiber::suspend(); return $mint(); })));
            $second = fn (string $name) => new Fiber(fn () => caught(fn () => shared_token_get($name, fn () => 'T', ['ttl' => 60, 'wait_ms' => 3000])));
            $finish = function (Fiber $fiber) { while (!$fiber->isTerminated()) { $fiber->resume(); usleep(1000); } return $fiber->getReturn(); };
            [$one, $two] = [$first('destroyed', fn () => 'never'), $second('destroyed')];
            $one->start();
            $two->start();
            unset($one);
            $destroyed = $finish($two);
            [$one, $two] = [$first('failed', fn () => throw new RuntimeException('no')), $second('failed')];
            $one->start();
            $two->start();
            $one->resume();
            $failed = $finish($two);
            return [$destroyed, $failed];
            PHP);
        self::assertSame('T', $destroyed['returned'] ?? null, json_encode($destroyed));
        self::assertStringContainsString('RuntimeException: no', $failed['message'] ?? '', json_encode($failed));
    }

    public function test_nobody_waits_longer_than_the_time_to_wait(): void
    {
        [$said, $took] = $this->php(<<<'PHP'
            $first = new Fiber(fn () => shared_token_get('crm', function () { Fiber::suspend(); return 'T'; }, ['ttl' => 60]));
            $first->start();
            $start = microtime(true);
            $second = new Fiber(function () use (&$said) { $said = caught(fn () => shared_token_get('crm', fn () => 'U', ['ttl' => 60, 'wait_ms' => 300])); });
            $second->start();
            while (!$second->isTerminated()) { $second->resume(); usleep(1000); }
            return [$said, microtime(true) - $start];
            PHP);
        self::assertSame('SharedState\\WaitTimeout', $said['class'] ?? null, json_encode($said));
        self::assertStringContainsString('suspended in another fiber', $said['message']);
        self::assertGreaterThan(0.25, $took);
    }

    /** What is thrown into a fiber that waits is its own affair. */
    public function test_a_fiber_that_waits_hears_what_is_thrown_into_it(): void
    {
        $said = $this->php(<<<'PHP'
            $first = new Fiber(fn () => shared_token_get('crm', function () { Fiber::suspend(); return 'T'; }, ['ttl' => 60]));
            $first->start();
            $second = new Fiber(function () use (&$said) { $said = caught(fn () => shared_token_get('crm', fn () => 'U', ['ttl' => 60])); });
            $second->start();
            $second->throw(new DomainException('cancelled'));
            $first->resume();
            return [$said['class'], shared_token_get('crm')];
            PHP);
        self::assertSame(['DomainException', 'T'], $said);
    }

    /** Its budget is for those who are called from within it. */
    public function test_a_fiber_that_is_suspended_in_a_mint_takes_nobody_elses_time(): void
    {
        [$said, $took] = $this->php(<<<'PHP'
            $fiber = new Fiber(fn () => shared_token_get('A', function () { Fiber::suspend(); return 'T'; }, ['ttl' => 60, 'wait_ms' => 200]));
            $fiber->start();
            usleep(300_000);
            $child = pcntl_fork();
            if ($child === 0) {
                shared_token_get('B', function () { usleep(700_000); return 'b'; }, ['ttl' => 60]);
                pcntl_exec('/bin/true');
            }
            usleep(200_000);
            $start = microtime(true);
            $said = caught(fn () => shared_token_get('B', fn () => 'mine', ['ttl' => 60]));
            pcntl_waitpid($child, $status);
            return [$said, microtime(true) - $start];
            PHP);
        self::assertSame('b', $said['returned'] ?? null, json_encode($said));
        self::assertGreaterThan(0.3, $took);
    }

    /** A fiber that is started within a mint is called from within it. */
    public function test_a_fiber_within_a_mint_has_half_of_its_time(): void
    {
        $said = $this->php(<<<'PHP'
            $child = pcntl_fork();
            if ($child === 0) {
                shared_token_get('B', function () { sleep(3); return 'b'; }, ['ttl' => 60]);
                pcntl_exec('/bin/true');
            }
            usleep(300_000);
            $said = null;
            shared_token_get('A', function () use (&$said) {
                (new Fiber(function () use (&$said) { $said = caught(fn () => shared_token_get('B', fn () => 'mine', ['ttl' => 60])); }))->start();
                return 'T';
            }, ['ttl' => 60, 'wait_ms' => 800]);
            exec("kill -9 $child");
            pcntl_waitpid($child, $status);
            return $said;
            PHP);
        self::assertStringContainsString("inside the callable of 'A'", $said['message'] ?? '', json_encode($said));
    }

    /**
     * AMPHP's loop resumes only who has asked for it. Debian has no package of it: what stands here for it does what its
     * documentation says of these three methods.
     */
    public function test_under_revolt_a_wait_is_a_timer_of_the_loop(): void
    {
        [$tokens, $calls] = $this->php(<<<'PHP'
            eval(<<<'REVOLT'
            namespace Revolt;
            final class Suspension {
                private bool $pending = false;
                private mixed $value = null;
                public function __construct(private ?\Fiber $fiber) {}
                public function suspend(): mixed {
                    if (\Fiber::getCurrent() !== $this->fiber) { throw new \Error('another fiber'); }
                    $this->pending = true;
                    if ($this->fiber) { return \Fiber::suspend(); }
                    while ($this->pending) { EventLoop::tick(); }
                    return $this->value;
                }
                public function resume(mixed $value = null): void {
                    if (!$this->pending) { throw new \Error('Must call suspend() before calling resume()'); }
                    $this->pending = false;
                    if ($this->fiber) { $this->fiber->resume($value); } else { $this->value = $value; }
                }
            }
            final class EventLoop {
                private static array $timers = [];
                public static function getSuspension(): Suspension { return new Suspension(\Fiber::getCurrent()); }
                public static function delay(float $delay, \Closure $closure): string { self::$timers[] = [microtime(true) + $delay, $closure]; return 'a'; }
                public static function tick(): void {
                    usleep(1000);
                    foreach (self::$timers as $n => [$at, $closure]) {
                        if ($at <= microtime(true)) { unset(self::$timers[$n]); (new \Fiber($closure))->start('a'); }
                    }
                }
                public static function run(): void { while (self::$timers) { self::tick(); } }
            }
            REVOLT);
            $calls = 0;
            $mint = function () use (&$calls) {
                $calls++;
                $suspension = Revolt\EventLoop::getSuspension();
                Revolt\EventLoop::delay(0.05, $suspension->resume(...));
                $suspension->suspend();
                return ['access_token' => 'T', 'expires_in' => 99];
            };
            $tokens = [];
            for ($i = 0; $i < 10; $i++) {
                (new Fiber(function () use ($mint, &$tokens) { $tokens[] = shared_token_get('crm', $mint); }))->start();
            }
            $tokens[] = shared_token_get('crm', $mint);
            Revolt\EventLoop::run();
            return [$tokens, $calls];
            PHP);
        self::assertSame([array_fill(0, 11, 'T'), 1], [$tokens, $calls]);
    }
}
