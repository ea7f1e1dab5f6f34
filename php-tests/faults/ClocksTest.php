<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;
use SharedState\Tests\Support\WrongClock;

/** Clocks that are wrong. Each host is one PHP process at a time, with a table of its own. */
final class ClocksTest extends TestCase
{
    private const TTL_S = 12;
    /** A fifth of such a life. */
    private const MARGIN_S = 2.4;

    protected function tearDown(): void
    {
        parent::tearDown();
        WrongClock::sweep();
    }

    /** @return array<string, array{float, float}> */
    public static function behind(): array
    {
        return [
            'by five minutes' => [-300.0, 0.0],
            'by five minutes, five seconds later' => [-300.0, 5.0],
            'by less than the token is old' => [-3.0, 5.0],
            'by years' => [-7e8, 2.0],
        ];
    }

    /** @dataProvider behind */
    public function test_a_fail_over_to_a_server_whose_clock_is_behind_lengthens_no_life(float $off, float $later): void
    {
        [$first, $second] = $this->servers($off);
        $minted = $this->token('north');
        $this->until('the replica has it', fn (): bool => $this->offset($first) === $this->offset($second), 20.0);
        usleep((int) ($later * 1e6));
        $first->kill();
        $second->command('REPLICAOF', 'NO', 'ONE');
        $this->pointTo($second);
        $this->assertNothingOutlivesItsEnd('south', $minted);
        self::assertSame(2, $this->mints->mints('crm'), 'it lived as long as it should');
    }

    public function test_a_fail_over_to_a_server_whose_clock_is_ahead_costs_a_mint_and_no_more(): void
    {
        [$first, $second] = $this->servers(300.0);
        $minted = $this->token('north');
        $this->until('the replica has it', fn (): bool => $this->offset($first) === $this->offset($second), 20.0);
        $first->kill();
        $second->command('REPLICAOF', 'NO', 'ONE');
        $this->pointTo($second);
        $fresh = $this->token('south');
        self::assertNotSame($minted, $fresh);
        for ($i = 0; $i < 5; $i++) {
            self::assertSame($fresh, $this->token(['south', 'east'][$i % 2]));
        }
        self::assertSame(2, $this->mints->mints('crm'));
    }

    public function test_a_server_whose_clock_is_set_back_lengthens_no_life(): void
    {
        $clock = WrongClock::ofServer("$this->folder/clock");
        mkdir("$this->folder/only");
        $this->pointTo(new RedisServer("$this->folder/only", wrapper: $clock->wrapper()));
        $minted = $this->token('north');
        $clock->set(-300.0);
        $this->assertNothingOutlivesItsEnd('south', $minted);
        self::assertSame(2, $this->mints->mints('crm'), 'it lived as long as it should');
    }

    public function test_a_host_whose_clock_is_wrong_costs_one_mint_and_not_one_each_time(): void
    {
        $clock = WrongClock::ofPhp("$this->folder/clock", 3600.0);
        mkdir("$this->folder/only");
        $this->pointTo(new RedisServer("$this->folder/only"));
        $minted = $this->token('north');
        $others = [];
        for ($i = 0; $i < 4; $i++) {
            $others[] = $this->token('south', $clock);
            $others[] = $this->token('east');
        }
        self::assertNotSame($minted, $others[0], 'by its clock the token has ended long ago');
        self::assertCount(1, array_unique($others), 'what it minted is good for all');
        self::assertSame(2, $this->mints->mints('crm'));
    }

    /** @return array<string, array{float}> */
    public static function steps(): array
    {
        return ['two hours ahead' => [7200.0], 'two hours back' => [-7200.0], 'half a second back' => [-0.5]];
    }

    /** One request that goes on for long, as a queue worker's, without Redis: nobody tells it. @dataProvider steps */
    public function test_a_clock_that_steps_within_a_request_lengthens_no_life(float $off): void
    {
        $clock = WrongClock::ofPhp("$this->folder/clock");
        $result = Cli::run(['-r', <<<'PHP'
            $made = [];
            $mint = function () use (&$made): array {
                $made[] = hrtime(true);
                return ['access_token' => 'token-' . count($made), 'expires_in' => 5];
            };
            $worst = 0;
            $look = function (float $seconds) use (&$made, &$worst, $mint): void {
                for ($end = hrtime(true) + $seconds * 1e9; hrtime(true) < $end;) {
                    $token = shared_token_get('crm', $mint);
                    $worst = max($worst, hrtime(true) - $made[(int) substr($token, 6) - 1]);
                }
            };
            $look(0.3);
            file_put_contents($argv[1], sprintf('%+.3f', $argv[2]));
            $look(0.002);
            $after = count($made);
            $look(7.0);
            echo json_encode(['worst' => $worst / 1e9, 'after' => $after, 'mints' => count($made)]);
            PHP, '--', "$this->folder/clock", (string) $off], ['sharedstate.host.dir' => $this->folder], wrapper: $clock->wrapper());
        self::assertSame(0, $result->status, $result->errors);
        $seen = json_decode($result->output, true);
        // Its life is 5 s and a fifth of it the margin; the rest is for a machine that is busy.
        self::assertLessThan(4.3, $seen['worst'], json_encode($seen));
        self::assertSame($off > 0 ? 2 : 1, $seen['after'], 'the first call after a sleep');
    }

    /** @return array{RedisServer, RedisServer} a master, and a replica whose clock is off */
    private function servers(float $off): array
    {
        $port = RedisServer::freePort();
        array_map(fn (string $name) => mkdir("$this->folder/$name"), ['first', 'second']);
        $first = new RedisServer("$this->folder/first", ['--port', (string) $port]);
        $clock = WrongClock::ofServer("$this->folder/clock", $off);
        $replica = ['--replicaof', '127.0.0.1', (string) $port];
        $second = new RedisServer("$this->folder/second", $replica, $clock->wrapper());
        $this->until('replication', fn (): bool => str_contains((string) $second->command('INFO', 'replication'), 'master_link_status:up'), 20.0);
        $time = $second->command('TIME');
        self::assertEqualsWithDelta(microtime(true) + $off, (int) $time[0], 5.0, 'its clock is wrong as it should be');
        $this->pointTo($first);
        return [$first, $second];
    }

    /** How far a server's data is. WAIT would not do: it waits for what its own connection has written. */
    private function offset(RedisServer $server): string
    {
        preg_match('/master_repl_offset:(\d+)/', (string) $server->command('INFO', 'replication'), $found);
        return $found[1];
    }

    /** The address of all hosts leads to this server. */
    private function pointTo(RedisServer $server): void
    {
        @unlink("$this->folder/redis.sock");
        symlink($server->socket(), "$this->folder/redis.sock");
    }

    private function token(string $host, ?WrongClock $clock = null): string
    {
        $table = "$this->folder/host-$host";
        @mkdir($table);
        $result = Cli::run(['-r', 'require $argv[1]; echo shared_token_get("crm", fn () => mint("crm", 20, ' . self::TTL_S . '));', '--', $this->page('mint.php')],
            ['sharedstate.host.dir' => $table, 'sharedstate.redis.dsn' => "unix://$this->folder/redis.sock"],
            ['TEST_HOST' => $host, 'MINT_LOG' => $this->mints->file], wrapper: $clock?->wrapper() ?? []);
        self::assertSame(0, $result->status, $result->errors);
        return $result->output;
    }

    /** A host that had nothing reads until the token has ended, and somewhat longer. */
    private function assertNothingOutlivesItsEnd(string $host, string $minted): void
    {
        [, $end] = explode('.', $minted, 2);
        [$had, $seen] = [false, []];
        while (microtime(true) < (float) $end + 1.0) {
            $token = $this->token($host);
            $left = (float) explode('.', $token, 2)[1] - microtime(true);
            // The call itself takes a moment on a machine that is busy.
            self::assertGreaterThan(self::MARGIN_S - 1.0, $left, 'a token is served past its margin');
            $had = $had || $token === $minted;
            $seen[] = [$token, microtime(true)];
            usleep(100_000);
        }
        self::assertTrue($had, "the token is served while it is good: $minted, then " . json_encode($seen));
    }
}
