<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\FaultRun;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\HostLeader;
use SharedState\Tests\Support\Network;
use SharedState\Tests\Support\RedisCluster;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\SentinelSet;
use SharedState\Tests\Support\TestCase;
use SharedState\Tests\Support\WrongClock;

/** One row of docs/FAULTS.md each: what it costs, measured, and what it may never cost, asserted. */
final class FaultTableTest extends TestCase
{
    private const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';

    private RedisServer $redis;
    private int $port;
    /** @var list<callable(): mixed> */
    private array $undo = [];

    protected function tearDown(): void
    {
        foreach (array_reverse($this->undo) as $undo) {
            $undo();
        }
        try {
            parent::tearDown();
        } finally {
            WrongClock::sweep();
        }
    }

    // --- Redis goes away -------------------------------------------------------------------------

    public function test_redis_killed_and_started_again_empty(): void
    {
        $this->fault('Redis SIGKILL, 3 s later started again, empty', $this->fleet(), 3.0, perHost: true,
            break: fn () => $this->redis->kill(), mend: fn () => $this->redis->start());
    }

    /** @group slow */
    public function test_redis_restarted_empty(): void
    {
        $this->fault('Redis restarted, empty', $this->fleet(), 0.0, break: function (): void {
            $this->redis->kill();
            $this->redis->start();
        });
    }

    /** @group slow */
    public function test_redis_restarted_with_its_data(): void
    {
        $hosts = $this->fleet(server: ['--appendonly', 'yes', '--appendfsync', 'always']);
        $this->fault('Redis restarted, with its data', $hosts, 0.0, break: function (): void {
            $this->redis->kill();
            $this->redis->start();
        });
    }

    /** @group slow */
    public function test_redis_stopped_for_five_seconds(): void
    {
        $this->fault('Redis SIGSTOP, 5 s', $this->fleet(), 5.0, perHost: true,
            break: fn () => $this->redis->signal(SIGSTOP), mend: fn () => $this->redis->signal(SIGCONT));
    }

    // --- The network -----------------------------------------------------------------------------

    /** @return array<string, array{string, string, bool}> */
    public static function networks(): array
    {
        return [
            'black hole' => ['black hole for 4 s: nothing is answered, nothing refused', 'hole', true],
            'slow' => ['every reply 200 ms late, 4 s, with timeouts of 1 s', 'slow', false],
            'drip' => ['replies drip, one byte in 20 ms, 4 s', 'drip', true],
        ];
    }

    /** @dataProvider networks */
    public function test_a_bad_network(string $row, string $mode, bool $perHost): void
    {
        $this->port = RedisServer::freePort();
        $network = new Network($this->folder, $this->port);
        // With the 250 ms of the default, what a busy machine adds would decide.
        $settings = $mode === 'slow' ? ['redis.connect_timeout_ms' => 1000, 'redis.response_timeout_ms' => 1000] : [];
        $this->fault($row, $this->fleet($settings, port: $network->port), 4.0, perHost: $perHost,
            break: fn () => $network->be($mode), mend: fn () => $network->be('pass'));
    }

    /** @group slow */
    public function test_connections_killed(): void
    {
        $this->fault('`CLIENT KILL` of every connection, every 100 ms for 3 s', $this->fleet(), 3.0,
            meanwhile: $this->every(0.1, fn () => $this->redis->command('CLIENT', 'KILL', 'TYPE', 'normal')));
    }

    // --- What Redis holds ------------------------------------------------------------------------

    public function test_flushall(): void
    {
        $this->fault('`FLUSHALL`, every 500 ms for 3 s', $this->fleet(), 3.0,
            meanwhile: $this->every(0.5, fn () => $this->redis->command('FLUSHALL')));
    }

    /** @group slow */
    public function test_rows_evicted(): void
    {
        $evict = function (): void {
            foreach ($this->redis->command('KEYS', '*:v:*') as $key) {
                $this->redis->command('DEL', $key);
            }
        };
        $this->fault('rows evicted, every 200 ms for 3 s', $this->fleet(), 3.0, meanwhile: $this->every(0.2, $evict));
    }

    /** @group slow */
    public function test_log_and_meta_evicted(): void
    {
        $evict = fn () => $this->redis->command('DEL', '{sharedstate}:log', '{sharedstate}:meta');
        $this->fault('log and `meta` evicted, every 500 ms for 3 s', $this->fleet(), 3.0, meanwhile: $this->every(0.5, $evict));
    }

    /** @group slow */
    public function test_scripts_flushed(): void
    {
        $this->fault('`SCRIPT FLUSH`, every 50 ms for 3 s', $this->fleet(), 3.0,
            meanwhile: $this->every(0.05, fn () => $this->redis->command('SCRIPT', 'FLUSH')));
    }

    // --- Redis refuses ---------------------------------------------------------------------------

    /** @group slow */
    public function test_a_read_only_replica(): void
    {
        $this->fault('master becomes a read-only replica, 3 s', $this->fleet(), 3.0, perHost: true,
            break: fn () => $this->redis->command('REPLICAOF', '127.0.0.1', '1'),
            mend: fn () => $this->redis->command('REPLICAOF', 'NO', 'ONE'));
    }

    /** @group slow */
    public function test_out_of_memory(): void
    {
        $this->fault('Redis out of memory (`noeviction`), 3 s', $this->fleet(), 3.0, perHost: true,
            break: fn () => $this->redis->command('CONFIG', 'SET', 'maxmemory', '1'),
            mend: fn () => $this->redis->command('CONFIG', 'SET', 'maxmemory', '0'));
    }

    public function test_a_wrong_password(): void
    {
        $hosts = $this->fleet(['redis.password' => 'first'], ['--requirepass', 'first']);
        $this->fault('password wrong for 3 s', $hosts, 3.0, perHost: true,
            break: function (): void {
                $this->redis->authenticated('first', ['CONFIG', 'SET', 'requirepass', 'second'], ['CLIENT', 'KILL', 'TYPE', 'normal']);
            },
            mend: fn () => $this->redis->authenticated('second', ['CONFIG', 'SET', 'requirepass', 'first']));
    }

    /** @group slow */
    public function test_a_rotated_password(): void
    {
        $file = "$this->folder/password";
        file_put_contents($file, "first\n");
        $hosts = $this->fleet(['redis.password_file' => $file], ['--requirepass', 'first']);
        $this->fault('password rotated: the file follows 1 s after the server', $hosts, 1.0, perHost: true,
            break: function (): void {
                $this->redis->authenticated('first', ['CONFIG', 'SET', 'requirepass', 'second'], ['CLIENT', 'KILL', 'TYPE', 'normal']);
            },
            mend: fn () => file_put_contents($file, "second\n"));
    }

    // --- Another server takes over ---------------------------------------------------------------

    public function test_a_fail_over_by_sentinel(): void
    {
        $set = new SentinelSet($this->folder);
        $this->fault('fail-over by Sentinel: master and one of three sentinels SIGKILL', $this->hosts(['redis.dsn' => $set->dsn()]), 3.0, perHost: true,
            break: function () use ($set): void {
                $set->master()->kill();
                $set->killSentinel();
            });
    }

    public function test_a_fail_over_in_a_cluster(): void
    {
        $cluster = new RedisCluster($this->folder);
        $this->fault('fail-over in a Cluster of six: the slot\'s master SIGKILL', $this->hosts(['redis.dsn' => $cluster->dsn()]), 3.0, perHost: true,
            break: fn () => $cluster->nodes[$cluster->masters()[0][0]]->kill());
    }

    /** @group slow */
    public function test_the_slot_moved(): void
    {
        $cluster = new RedisCluster($this->folder);
        $this->fault('the slot moved to another node of the Cluster, every second for 3 s', $this->hosts(['redis.dsn' => $cluster->dsn()]), 3.0,
            meanwhile: $this->every(1.0, fn () => $cluster->moveSlot()), perHost: true);
    }

    // --- Processes -------------------------------------------------------------------------------

    /** @return array<string, array{string, int}> */
    public static function minters(): array
    {
        return [
            'same host' => ['minter SIGSTOP beyond its lease, others on its host', 0],
            'another host' => ['minter SIGSTOP beyond its lease, others on another host', 1],
        ];
    }

    /** @dataProvider minters */
    public function test_a_minter_stopped_beyond_its_lease(string $row, int $others): void
    {
        $hosts = $this->fleet([]);
        $minter = null;
        $asked = null;
        $run = $this->fault($row, $hosts, FaultRun::LEASE_MS / 1000 + 1.5,
            break: fn (FaultRun $run) => $run->send($hosts[0], 'paused', 600),
            mend: function () use (&$minter): void {
                posix_kill((int) $minter, SIGCONT);
            },
            meanwhile: function (FaultRun $run) use (&$minter, &$asked, $hosts, $others): void {
                $started = $this->mints->events('start', 'paused');
                if ($minter === null && $started !== []) {
                    $minter = $started[0]['pid'];
                    posix_kill($minter, SIGSTOP);
                    $asked = $run->send($hosts[$others], 'paused', 20);
                }
            });
        $answers = $run->aside->finish();
        self::assertArrayHasKey($asked, $answers);
        $this->assertOneToken($answers);
        self::assertLessThanOrEqual(2, $this->mints->mints('paused'));
    }

    public function test_the_leader_killed(): void
    {
        $hosts = $this->fleet();
        $killed = 0;
        $kill = function () use ($hosts, &$killed): void {
            foreach ($hosts as $host) {
                $leader = HostLeader::of($host, $this->redis);
                $killed += $leader !== null && posix_kill($leader, SIGKILL) ? 1 : 0;
            }
        };
        $this->fault('leader of each host SIGKILL, every second for 4 s', $hosts, 4.0, meanwhile: $this->every(1.0, $kill), dying: 8);
        self::assertGreaterThanOrEqual(4, $killed);
    }

    public function test_the_leader_stopped(): void
    {
        $hosts = $this->fleet();
        $stopped = [];
        $this->fault('leader of each host SIGSTOP, 4 s', $hosts, 4.0,
            break: function () use ($hosts, &$stopped): void {
                foreach ($hosts as $host) {
                    $stopped[] = $leader = HostLeader::of($host, $this->redis);
                    self::assertNotNull($leader);
                    posix_kill($leader, SIGSTOP);
                }
            },
            mend: function () use (&$stopped): void {
                array_map(static fn (int $pid) => posix_kill($pid, SIGCONT), $stopped);
            },
            // A request that a stopped worker had begun waits as long as the worker does.
            held: 2);
    }

    public function test_all_workers_of_a_host_killed(): void
    {
        $hosts = $this->fleet();
        $kill = fn () => array_map(static fn (int $pid) => posix_kill($pid, SIGKILL), $hosts[0]->workers());
        $this->fault('all workers of a host SIGKILL, every second for 3 s', $hosts, 3.0, meanwhile: $this->every(1.0, $kill), dying: 16);
    }

    // --- The machine -----------------------------------------------------------------------------

    /** @group slow */
    public function test_a_host_whose_clock_is_five_minutes_ahead(): void
    {
        $hosts = $this->fleet(faketime: '+300');
        $its = $this->get($hosts[0], 'hold.php', ['ms' => 0])->json()['now'];
        self::assertEqualsWithDelta(microtime(true) + 300, $its, 5.0, 'the clock is wrong as it should be');
        $this->fault('clock of one host 5 minutes ahead', $hosts, 3.0);
    }

    public function test_a_host_whose_clock_steps(): void
    {
        $file = "$this->folder/clock";
        $hosts = $this->fleet(faketime: '+0', clock: $file);
        // Ahead, its own tokens count as older than they are; back, nothing becomes younger.
        $steps = ['+300', '+0', '-300', '+0'];
        $this->fault('clock of one host steps by 5 minutes, to and fro, each second', $hosts, 4.0, perHost: true,
            meanwhile: $this->every(1.0, function () use ($file, &$steps): void {
                file_put_contents($file, array_shift($steps) ?? '+0');
            }), extra: 4 * 4);
        self::assertGreaterThan(0, $this->get($hosts[0], 'status.php', [])->json()['status']['clock_jumps']);
    }

    /** @group slow */
    public function test_a_full_tmpfs(): void
    {
        $table = "$this->folder/host-north";
        mkdir($table);
        exec('mount -t tmpfs -o size=3m,mode=700 none ' . escapeshellarg($table) . ' 2>&1', $said, $status);
        if ($status !== 0) {
            $this->row('full tmpfs under the table of one host', array_fill(0, 7, 'not run: mount is not permitted'));
            self::markTestSkipped('mount is not permitted here: ' . implode(' ', $said));
        }
        $this->undo[] = static fn () => exec('umount -l ' . escapeshellarg($table));
        $this->fault('full tmpfs under the table of one host, 3 s', $this->fleet(['host.memory' => '2M', 'host.slots' => 256]), 3.0,
            break: fn () => exec("dd if=/dev/zero of=$table/full bs=4k 2>/dev/null"),
            mend: fn () => unlink("$table/full"));
    }

    // --- How a row is made -----------------------------------------------------------------------

    /**
     * @param array{Fpm, Fpm} $hosts
     * @param bool $perHost while it lasts, each host mints for itself
     * @param int $dying requests that may end with their worker
     * @param int $held requests that may wait as long as their worker is stopped
     * @param int $extra mints above one per lifetime
     */
    private function fault(string $row, array $hosts, float $seconds, ?callable $break = null, ?callable $mend = null, ?callable $meanwhile = null,
        bool $perHost = false, int $dying = 0, int $held = 0, int $extra = 0): FaultRun
    {
        $nothing = static fn () => null;
        $run = new FaultRun($hosts, $this->mints, $this->page('fault.php'));
        $run->through($seconds, $break ?? $nothing, $mend ?? $nothing, $meanwhile);

        $wrong = $run->wrong();
        $stuck = $run->stuck();
        $failed = $run->failed();
        $waits = $run->waits();
        $most = $run->lifetimes($perHost) + $extra;
        $longest = $waits[$held];
        $this->row($row, [
            $run->requests(), "{$run->mints()} of $most", sprintf('%.0f ms', $longest * 1000), count($failed), count($wrong), $stuck,
            $run->recovery() === null ? 'not' : sprintf('%.1f s', $run->recovery()),
        ]);

        self::assertSame([], array_slice($wrong, 0, 5), 'wrong or expired tokens');
        self::assertSame(0, $stuck, 'processes stuck');
        self::assertNotNull($run->recovery(), 'the fleet is one again');
        self::assertLessThanOrEqual($most, $run->mints());
        self::assertLessThanOrEqual($dying, count($failed), implode("\n", array_map(static fn ($response) => $response->describe(), array_slice($failed, 0, 5))));
        foreach ($failed as $response) {
            self::assertSame(0, $response->status, 'only a worker that was killed fails a request: ' . $response->describe());
        }
        // A caller waits for a lost lease, and a mint; beyond that something hangs.
        self::assertLessThan(FaultRun::LEASE_MS / 1000 + 4.0, $longest);
        return $run;
    }

    /** @param list<int|string> $figures */
    private function row(string $row, array $figures): void
    {
        $line = "| $row | " . implode(' | ', $figures) . " |\n";
        fwrite(STDERR, "    $line");
        if (getenv('FAULT_TABLE')) {
            file_put_contents(getenv('FAULT_TABLE'), $line, FILE_APPEND | LOCK_EX);
        }
    }

    private function every(float $seconds, callable $do): callable
    {
        $next = 0.0;
        return static function (FaultRun $run, float $elapsed) use ($seconds, $do, &$next): void {
            if ($elapsed >= $next) {
                $next += $seconds;
                $do();
            }
        };
    }

    /**
     * Two hosts on one Redis, reached through $port where that is another's.
     *
     * @param array<string, string|int> $settings
     * @param list<string> $server options of redis-server
     * @return array{Fpm, Fpm}
     */
    private function fleet(array $settings = [], array $server = [], ?int $port = null, ?string $faketime = null, ?string $clock = null): array
    {
        $this->port ??= RedisServer::freePort();
        $this->redis = $this->redis('--port', (string) $this->port, ...$server);
        return $this->hosts($settings + ['redis.dsn' => 'redis://127.0.0.1:' . ($port ?? $this->port)], $faketime, $clock);
    }

    /**
     * With $faketime the northern host's clock is off by so many seconds, or by what the file $clock says.
     *
     * @param array<string, string|int> $settings
     * @return array{Fpm, Fpm}
     */
    private function hosts(array $settings, ?string $faketime = null, ?string $clock = null): array
    {
        $settings += ['token.lease_ms' => FaultRun::LEASE_MS, 'token.wait_timeout_ms' => 8000] + self::LIMITS_AS_SHIPPED;
        $wrapper = [];
        $north = ['pm.max_children' => FaultRun::WORKERS];
        if ($faketime !== null) {
            self::assertFileExists(self::FAKETIME, 'the Debian package libfaketime');
            // PHP binds an extension to libc before anything preloaded, unless it has been preloaded as well.
            $wrapper = ['env', 'LD_PRELOAD=' . self::FAKETIME . ' ' . Build::extension(), 'DONT_FAKE_MONOTONIC=1', 'FAKETIME_NO_CACHE=1'];
            $wrapper[] = $clock === null ? "FAKETIME=$faketime" : "FAKETIME_TIMESTAMP_FILE=$clock";
            if ($clock !== null) {
                file_put_contents($clock, $faketime);
            }
            // A worker without the variables has the right time again.
            $north['clear_env'] = 'no';
        }
        $south = ['pm.max_children' => FaultRun::WORKERS];
        return [$this->host('north', $settings, $north, wrapper: $wrapper), $this->host('south', $settings, $south)];
    }
}
