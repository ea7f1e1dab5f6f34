<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\HostLeader;
use SharedState\Tests\Support\Network;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/**
 * One host changes the token again and again, the other reads it all the time, and whatever tells the other of
 * changes is broken in one way or another. While Redis can be reached, no read is older than twice
 * max_staleness_ms.
 */
final class StalenessTest extends TestCase
{
    private const MAX_STALENESS_MS = 500;
    private const SECONDS = 6.0;
    private const READERS = 6;

    private RedisServer $server;
    private Fpm $changing;
    private Fpm $reading;

    /** @return Network what is between the reading host and Redis */
    private function startHosts(bool $network = false): ?Network
    {
        $port = RedisServer::freePort();
        $this->server = $this->redis('--port', (string) $port);
        $between = $network ? new Network($this->folder, $port) : null;
        $settings = ['max_staleness_ms' => self::MAX_STALENESS_MS] + self::LIMITS_AS_SHIPPED;
        $this->changing = $this->host('changing', $settings + ['redis.dsn' => "redis://127.0.0.1:$port"], ['pm.max_children' => 2]);
        $this->reading = $this->host('reading', $settings + ['redis.dsn' => "redis://127.0.0.1:" . ($between->port ?? $port)], ['pm.max_children' => 4]);
        return $between;
    }

    /**
     * @param callable(int): mixed $disturb called four times a second, with the number of the call, and followed by a
     *     change on the other host
     */
    private function assertReadsStayYoung(callable $disturb): void
    {
        self::assertSame($first = $this->tokenOf($this->changing), $this->tokenOf($this->reading));
        /** @var array<string, ?float> $ended by token: when it was surely dropped */
        $ended = [$first => null];
        /** @var list<string> $dropping what was known when the change that is under way was asked for */
        $dropping = [];
        $changes = 0;
        $responses = [];
        [$readers, $changer] = [new Crowd(), new Crowd()];
        for ($start = microtime(true); ($elapsed = microtime(true) - $start) < self::SECONDS; $readers->run(0.002)) {
            while ($readers->countOpen() < self::READERS) {
                $readers->send($this->reading->socket(), $this->page('token.php'), ['name' => 'crm', 'ms' => 0]);
            }
            $changer->run(0.0);
            foreach ($changer->take() as $change) {
                $this->assertAllServed([$change]);
                foreach ($dropping as $token) {
                    $ended[$token] ??= microtime(true);
                }
                $ended += [$change->token() => null];
            }
            foreach ($readers->take() as $response) {
                $responses[] = $response;
                $ended += [$response->token() => null];
            }
            if ($elapsed > 0.25 * $changes && $changer->countOpen() === 0) {
                $disturb($changes++);
                $dropping = array_keys($ended);
                $changer->send($this->changing->socket(), $this->page('change.php'), ['name' => 'crm']);
            }
        }
        array_push($responses, ...$readers->finish());
        $changer->finish();
        $this->assertAllServed($responses);
        $oldest = 0.0;
        foreach ($responses as $response) {
            $oldest = max($oldest, $response->started - ($ended[$response->token()] ?? INF));
        }
        fprintf(STDERR, "\n    %d reads during %d changes: the oldest was %.0f ms behind\n", count($responses), $changes, 1000 * $oldest);
        self::assertGreaterThan(15, $changes);
        self::assertGreaterThan(500, count($responses));
        self::assertLessThan(2 * self::MAX_STALENESS_MS / 1000, $oldest);
    }

    public function test_reads_stay_young_while_the_leader_is_stopped(): void
    {
        $this->startHosts();
        $stopped = [];
        $this->assertReadsStayYoung(function (int $number) use (&$stopped): void {
            // The one that leads, and the one that takes over, as soon as there is one: on a busy machine that takes a while.
            if (count($stopped) < 2 && $number >= [3, 10][count($stopped)] && $number < 20) {
                $leader = HostLeader::of($this->reading, $this->server, $stopped);
                if ($leader !== null) {
                    posix_kill($stopped[] = $leader, SIGSTOP);
                }
            } elseif ($number === 20) {
                // What they had in hand is to be answered before the end.
                array_map(static fn (int $pid): bool => posix_kill($pid, SIGCONT), $stopped);
            }
        });
        self::assertCount(2, $stopped, 'two leaders, one after the other');
    }

    /** @group slow */
    public function test_reads_stay_young_while_connections_are_killed(): void
    {
        $this->startHosts();
        $this->assertReadsStayYoung(fn () => $this->server->command('CLIENT', 'KILL', 'TYPE', 'normal'));
    }

    /** Nothing closes them and nothing comes: a server that was switched off, a firewall that forgot. */
    public function test_reads_stay_young_while_open_connections_fall_silent(): void
    {
        $network = $this->startHosts(network: true);
        $this->assertReadsStayYoung(static fn (int $number) => $number % 6 === 3 ? $network->be("cut $number") : null);
    }
}
