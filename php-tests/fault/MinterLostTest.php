<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\TestCase;

/** The worker that mints is killed, or stopped: who waits for it, and how long? */
final class MinterLostTest extends TestCase
{
    private const LEASE_S = 3.0;
    private const MINT_S = 0.2;
    private const MINT_MS = 200;

    /** Far longer than anything here may take: the lost minter would never have answered in time. */
    private const ENDLESS_MS = 30_000;

    /** Scheduling, polling with jitter and a busy machine; who waits for the lost minter waits twelve seconds. */
    private const SLACK_S = 5.0;

    private Fpm $north;
    private Fpm $south;
    private int $minter;
    private Crowd $crowd;

    /** Starts two hosts and a mint on the northern one that hangs. */
    private function startMint(): void
    {
        $settings = ['redis.dsn' => $this->redis()->dsn(), 'token.lease_ms' => (int) (self::LEASE_S * 1000), 'token.wait_timeout_ms' => 12_000];
        $this->north = $this->host('north', $settings, ['pm.max_children' => 8]);
        $this->south = $this->host('south', $settings, ['pm.max_children' => 8]);
        // Connections of both hosts are open, and the unrelated name is known to be cold.
        $this->assertAllServed([$this->token($this->north, 'warm', 0), $this->token($this->south, 'warm', 0)]);
        $this->crowd = new Crowd();
        $this->send($this->north, 'crm', self::ENDLESS_MS);
        $this->until('the mint', fn (): bool => $this->mints->mints('crm') === 1, 5.0, $this->crowd);
        $this->minter = $this->mints->events('start', 'crm')[0]['pid'];
    }

    protected function tearDown(): void
    {
        if (isset($this->minter)) {
            @posix_kill($this->minter, SIGCONT);
        }
        parent::tearDown();
    }

    public function test_after_sigkill_the_same_host_mints_at_once(): void
    {
        $this->startMint();
        posix_kill($this->minter, SIGKILL);
        $response = $this->token($this->north, 'crm');
        $this->assertAllServed([$response]);
        $this->assertBeforeTheLeaseEnds($response->started + $response->elapsed);
        self::assertSame(2, $this->mints->mints('crm'));
        $this->printTimes('SIGKILL, same host', [$response]);
    }

    public function test_after_sigkill_those_who_waited_on_the_same_host_get_one_token(): void
    {
        $this->startMint();
        $waiting = [];
        for ($i = 0; $i < 5; $i++) {
            $waiting[] = $this->send($this->north, 'crm');
        }
        $this->crowd->run(0.3);
        posix_kill($this->minter, SIGKILL);
        $responses = array_intersect_key($this->crowd->finish(), array_flip($waiting));
        $this->assertAllServed($responses);
        $this->assertOneToken($responses);
        $this->assertBeforeTheLeaseEnds(microtime(true));
        self::assertSame(2, $this->mints->mints('crm'));
    }

    public function test_after_sigkill_another_host_goes_on_within_the_lease(): void
    {
        $this->startMint();
        posix_kill($this->minter, SIGKILL);
        $response = $this->token($this->south, 'crm');
        $this->assertAllServed([$response]);
        self::assertLessThan(self::LEASE_S + self::MINT_S + self::SLACK_S, $response->elapsed);
        $this->printTimes('SIGKILL, other host', [$response]);
    }

    public function test_an_unrelated_name_is_not_delayed_on_either_host(): void
    {
        $this->startMint();
        $during = [$this->token($this->north, 'other:1', 0), $this->token($this->south, 'other:2', 0)];
        posix_kill($this->minter, SIGKILL);
        $after = [$this->token($this->north, 'other:3', 0), $this->token($this->south, 'other:4', 0), $this->token($this->north, 'warm', 0)];
        foreach ([...$during, ...$after] as $response) {
            $this->assertAllServed([$response]);
            $this->assertBeforeTheLeaseEnds($response->started + $response->elapsed);
        }
        $this->printTimes('unrelated names', [...$during, ...$after]);
    }

    public function test_after_sigstop_both_hosts_go_on_within_the_lease(): void
    {
        $this->startMint();
        posix_kill($this->minter, SIGSTOP);
        $requests = [$this->send($this->north, 'crm'), $this->send($this->south, 'crm')];
        $limit = microtime(true) + self::LEASE_S + self::MINT_S + self::SLACK_S;
        $done = [];
        while (count($done) < 2 && microtime(true) < $limit + 5) {
            $this->crowd->run(0.01);
            $done += array_intersect_key($this->crowd->take(), array_flip($requests));
        }
        self::assertCount(2, $done);
        $this->assertAllServed($done);
        self::assertLessThan($limit, microtime(true), 'a stopped minter costs the lease at most');
        $this->printTimes('SIGSTOP, both hosts', $done);

        // Whoever came first, afterwards there is one token.
        $this->settled('crm');
        self::assertLessThanOrEqual(3, $this->mints->mints('crm'));
    }

    /** A minter that was stopped beyond its lease and then finishes: its older token must not replace the newer one. */
    public function test_a_minter_that_wakes_up_after_its_lease_cannot_replace_the_newer_token(): void
    {
        $settings = ['redis.dsn' => $this->redis()->dsn(), 'token.lease_ms' => 1500, 'token.wait_timeout_ms' => 12_000];
        $this->north = $this->host('north', $settings, ['pm.max_children' => 4]);
        $this->south = $this->host('south', $settings, ['pm.max_children' => 4]);
        $this->crowd = new Crowd();
        $late = $this->send($this->north, 'crm', 1000);
        $this->until('the mint', fn (): bool => $this->mints->mints('crm') === 1, 5.0, $this->crowd);
        $this->minter = $this->mints->events('start', 'crm')[0]['pid'];
        posix_kill($this->minter, SIGSTOP);

        $newer = $this->token($this->south, 'crm');
        $this->assertAllServed([$newer]);
        posix_kill($this->minter, SIGCONT);
        $woken = $this->crowd->finish()[$late];
        $this->assertAllServed([$woken], 'the late minter adopts the winner:');
        self::assertSame($newer->token(), $woken->token());
        self::assertSame($newer->token(), $this->settled('crm'));
    }

    /** Whoever waited for the lost minter's lease would have been answered after it. */
    private function assertBeforeTheLeaseEnds(float $answered): void
    {
        self::assertLessThan($this->mints->events('start', 'crm')[0]['time'] + self::LEASE_S, $answered, 'no wait for the lease');
    }

    private function send(Fpm $host, string $name, int $ms = self::MINT_MS): int
    {
        return $this->crowd->send($host->socket(), $this->page('token.php'), ['name' => $name, 'ms' => $ms]);
    }

    private function token(Fpm $host, string $name, int $ms = self::MINT_MS)
    {
        return $this->get($host, 'token.php', ['name' => $name, 'ms' => $ms]);
    }

    /** The token that both hosts agree on, within twice max_staleness_ms and a bit. */
    private function settled(string $name): string
    {
        $pair = [];
        $this->until('agreement of the hosts', function () use ($name, &$pair): bool {
            $pair = [$this->token($this->north, $name)->token(), $this->token($this->south, $name)->token()];
            return $pair[0] !== null && $pair[0] === $pair[1];
        }, 5.0);
        return $pair[0];
    }
}
