<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\TestCase;

/** The API answered 401. Fifty workers notice at the same moment. */
final class RejectedTest extends TestCase
{
    private const WORKERS = 50;

    private function hosts(): array
    {
        $redis = $this->redis();
        return [
            $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => self::WORKERS / 2]),
            $this->host('south', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => self::WORKERS / 2]),
        ];
    }

    public function test_fifty_workers_that_reject_the_same_token_cause_one_mint_and_the_fresh_one_survives(): void
    {
        $hosts = $this->hosts();
        $old = [];
        foreach ($hosts as $host) {
            $old[] = $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0])->token();
        }
        self::assertSame($old[0], $old[1]);

        $crowd = new Crowd();
        for ($i = 0; $i < self::WORKERS; $i++) {
            $crowd->send($hosts[$i % 2]->socket(), $this->page('reject.php'), ['name' => 'crm', 'old' => $old[0]]);
        }
        $responses = $crowd->finish();
        $this->assertAllServed($responses);
        $fresh = $this->assertOneToken($responses);
        self::assertNotSame($old[0], $fresh);
        self::assertSame(2, $this->mints->mints(), 'the first one, and one for fifty rejections');

        // The straggler whose 401 comes when everybody has the new one.
        $late = $this->get($hosts[1], 'reject.php', ['name' => 'crm', 'old' => $old[0]]);
        self::assertFalse($late->json()['dropped'] ?? null, $late->describe());
        self::assertSame($fresh, $late->token());
        self::assertSame(2, $this->mints->mints());
        $this->printTimes('50 rejections at once', $responses);
    }

    /** @group slow */
    public function test_an_api_that_always_answers_401_does_not_become_a_mint_storm(): void
    {
        $seconds = Build::full() ? 60.0 : 8.0;
        $hosts = $this->hosts();
        $crowd = new Crowd();
        $responses = $crowd->load(self::WORKERS, $seconds, 0.2, fn (int $client) => $crowd->send(
            $hosts[$client % 2]->socket(),
            $this->page('reject.php'),
            ['name' => 'crm', 'always' => 1, 'ms' => 50],
        ));
        foreach ($responses as $response) {
            self::assertSame(200, $response->status, $response->describe());
            self::assertContains($response->error(), [null, 'SharedState\\MintFailed'], $response->describe());
        }
        // One cold, one at once, then after 1, 2, 4, 8, … seconds: seven within a minute.
        $allowed = 2 + (int) floor(log($seconds + 1, 2));
        $mints = $this->mints->mints();
        self::assertLessThanOrEqual($allowed, $mints);
        self::assertGreaterThanOrEqual(2, $mints);
        $this->printTimes("API always says 401 for $seconds s, $mints mints", $responses);
    }
}
