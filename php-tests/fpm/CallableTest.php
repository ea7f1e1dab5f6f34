<?php

declare(strict_types=1);

use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Response;
use SharedState\Tests\Support\TestCase;

/**
 * A callable may end in any way PHP knows: the lease is freed, and the next request of the same worker goes on.
 * The lease is made long, so that a token soon afterwards proves that somebody freed it.
 */
final class CallableTest extends TestCase
{
    private const LEASE_MS = 15_000;
    private const SOON_S = 5.0;

    public static function endings(): array
    {
        $cases = [];
        foreach (['exit', 'throw', 'fatal', 'undefined', 'memory', 'time'] as $ending) {
            $cases["$ending, one host"] = [$ending, false];
            $cases["$ending, Redis"] = [$ending, true];
        }
        return $cases;
    }

    /** @dataProvider endings */
    public function test_the_lease_is_freed_when_the_callable_ends_by(string $ending, bool $redis): void
    {
        $host = $this->lonelyWorker($redis);
        $worker = $this->get($host, 'status.php', [])->pid();
        $bad = $this->get($host, 'misbehave.php', ['name' => 'crm', 'do' => $ending]);
        self::assertNull($bad->token(), $bad->describe());
        self::assertSame(1, $this->mints->mints('crm'), $bad->describe());
        if ($ending === 'throw') {
            self::assertSame('SharedState\\MintFailed', $bad->error(), $bad->describe());
        }
        if ($ending === 'undefined') {
            self::assertSame('Error', $bad->error(), 'an Error passes unchanged');
        }

        // Another name is not touched by any of it.
        $start = microtime(true);
        $this->assertAllServed([$this->get($host, 'token.php', ['name' => 'other', 'ms' => 0])]);
        self::assertLessThan(self::SOON_S, microtime(true) - $start);

        $response = $this->eventually($host, 'crm');
        self::assertSame($worker, $response->pid(), 'the same worker went on');
        self::assertStringNotContainsString('SIGSEGV', $host->logged());
        self::assertStringNotContainsString('SIGABRT', $host->logged());
    }

    public static function requestEnds(): array
    {
        return ['ends' => ['end', false], 'dies' => ['fatal', false], 'ends, Redis' => ['end', true], 'dies, Redis' => ['fatal', true]];
    }

    /** @dataProvider requestEnds */
    public function test_a_mint_suspended_in_a_fiber_is_given_up_when_its_request(string $then, bool $redis): void
    {
        $host = $this->lonelyWorker($redis);
        $this->get($host, 'suspend.php', ['name' => 'crm', 'then' => $then]);
        self::assertSame(1, $this->mints->mints('crm'));
        $this->eventually($host, 'crm');
    }

    public function test_a_failed_mint_is_not_tried_again_by_each_of_the_others(): void
    {
        $host = $this->host('north', ['token.failure_backoff_ms' => 3000], ['pm.max_children' => 4]);
        for ($i = 0; $i < 10; $i++) {
            $response = $this->get($host, 'misbehave.php', ['name' => 'crm', 'do' => 'throw']);
            self::assertSame('SharedState\\MintFailed', $response->error(), $response->describe());
            self::assertStringContainsString('the endpoint said no', $response->json()['message']);
        }
        self::assertSame(1, $this->mints->mints('crm'));
    }

    private function lonelyWorker(bool $redis): Fpm
    {
        $settings = ['token.lease_ms' => self::LEASE_MS, 'token.wait_timeout_ms' => self::LEASE_MS + 5000,
            'token.failure_backoff_ms' => 200];
        if ($redis) {
            $settings['redis.dsn'] = $this->redis()->dsn();
        }
        return $this->host('north', $settings, ['pm.max_children' => 1]);
    }

    /** A token, as soon as a back-off allows; a lease that was kept would take longer. */
    private function eventually(Fpm $host, string $name): Response
    {
        $deadline = microtime(true) + self::SOON_S;
        do {
            $response = $this->get($host, 'token.php', ['name' => $name, 'ms' => 0]);
            if ($response->token() !== null) {
                self::assertLessThan($deadline, microtime(true), 'waited for the lease');
                return $response;
            }
            self::assertSame('SharedState\\MintFailed', $response->error(), $response->describe());
            usleep(100_000);
        } while (microtime(true) < $deadline);
        self::fail('no token: ' . $response->describe());
    }
}
