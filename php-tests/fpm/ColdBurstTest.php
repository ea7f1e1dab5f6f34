<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\TestCase;

/** Incident one: everybody asks at once, and nobody has a token. */
final class ColdBurstTest extends TestCase
{
    private const MINT_MS = 200;
    private const LEASE_MS = 4000;

    public static function crowds(): array
    {
        return ['30 clients' => [30], '200 clients' => [200]];
    }

    /** @dataProvider crowds */
    public function test_two_hosts_of_16_workers_mint_once(int $clients): void
    {
        $redis = $this->redis();
        $hosts = [
            $this->host('north', ['redis.dsn' => $redis->dsn()]),
            $this->host('south', ['redis.dsn' => $redis->dsn()]),
        ];
        $this->burstRepeatedly($hosts, $clients, Build::full() ? 20 : 5);
    }

    /** @dataProvider crowds */
    public function test_one_host_without_a_server_mints_once(int $clients): void
    {
        $this->burstRepeatedly([$this->host('alone')], $clients, Build::full() ? 20 : 5);
    }

    private function burstRepeatedly(array $hosts, int $clients, int $repeats): void
    {
        $all = [];
        for ($round = 1; $round <= $repeats; $round++) {
            $crowd = new Crowd();
            for ($i = 0; $i < $clients; $i++) {
                $crowd->send($hosts[$i % count($hosts)]->socket(), $this->page('token.php'), ['name' => "crm:$round", 'ms' => self::MINT_MS]);
            }
            $responses = $crowd->finish();
            self::assertCount($clients, $responses);
            $this->assertAllServed($responses, "round $round:");
            self::assertSame(1, $this->mints->mints("crm:$round"), "mints in round $round");
            $this->assertOneToken($responses);
            array_push($all, ...$responses);
        }
        $this->printTimes(sprintf('cold burst, %d clients, %d host(s), mint %d ms', $clients, count($hosts), self::MINT_MS), $all);
        // Waiters sleep at most 10 ms at a time and nobody waits for a lease.
        foreach ($all as $response) {
            self::assertLessThan(self::LEASE_MS, $response->ms());
        }
    }
}
