<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Memory;
use SharedState\Tests\Support\Process;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** sharedstate.encryption_key_file: who reads what is kept of a token, outside the application, gets nothing. */
final class SealTest extends TestCase
{
    private function keyFile(string $name, string ...$digits): string
    {
        $file = "$this->folder/$name.key";
        file_put_contents($file, "# $name\n" . implode("\n", array_map(static fn (string $digit) => str_repeat($digit, 64), $digits)) . "\n");
        chmod($file, 0600);
        return $file;
    }

    /** @param ?string $keys the key file; in php.ini, as docs tell */
    private function sealed(string $name, RedisServer $redis, ?string $keys, array $settings = [], array $lines = []): Fpm
    {
        return $this->host($name, ['redis.dsn' => $redis->dsn(), 'host.slots' => 64] + $settings, ['pm.max_children' => 1] + $lines,
            $keys === null ? [] : ['sharedstate.encryption_key_file' => $keys]);
    }

    private function sum(Fpm $host, int $hold = 0): int
    {
        return $this->get($host, 'secret.php', ['name' => 'crm', 'hold' => $hold])->json()['sum'];
    }

    /** @return array<string, bool> where the token was found */
    private function places(?string $keys): array
    {
        // A dump that is compressed may hold the token in two pieces.
        $redis = $this->redis('--slowlog-log-slower-than', '0', '--appendonly', 'yes', '--rdbcompression', 'no');
        $monitor = Process::start(['redis-cli', '-s', $redis->socket(), 'monitor'], "$this->folder/monitor");
        $this->until('the monitor listens', fn (): bool => str_contains((string) file_get_contents("$this->folder/monitor"), 'OK'));
        $north = $this->sealed('north', $redis, $keys);
        $token = $this->tokenOf($north);
        // Another host, whose worker mints nothing: it reads the token from Redis, and then from its table.
        $south = $this->sealed('south', $redis, $keys);
        for ($i = 0; $i < 3; $i++) {
            self::assertSame(crc32($token), $this->sum($south));
        }
        [$worker] = $south->workers();
        self::assertSame(1, $this->mints->mints());
        $redis->command('SAVE');
        $found = fn (string $file): bool => str_contains((string) file_get_contents($file), $token);
        $places = [
            'table of the minter' => $found(glob("$this->folder/host-north/*/table")[0]),
            'table of the reader' => $found(glob("$this->folder/host-south/*/table")[0]),
            'Redis' => str_contains(json_encode($redis->command('HVALS', '{sharedstate}:v:t:-:crm'), JSON_INVALID_UTF8_SUBSTITUTE), substr($token, 0, 32)),
            'dump file' => $found("$this->folder/dump.rdb"),
            'append-only file' => $found(glob("$this->folder/appendonlydir/*.incr.aof")[0]),
            'slow log' => str_contains(json_encode($redis->command('SLOWLOG', 'GET', '-1'), JSON_INVALID_UTF8_SUBSTITUTE), substr($token, 0, 32)),
            'monitor' => $found("$this->folder/monitor"),
            'core of the reading worker between requests' => Memory::holds($worker, $token),
            'logs' => $found($north->log()) || $found($south->log()) || $found("$this->folder/redis.log"),
        ];
        $monitor->stop();
        return $places;
    }

    public function test_a_sealed_token_is_found_nowhere(): void
    {
        self::assertSame([], array_keys(array_filter($this->places($this->keyFile('keys', 'a')))));
    }

    public function test_the_same_search_finds_one_that_is_not_sealed(): void
    {
        $places = $this->places(null);
        self::assertFalse($places['logs']);
        unset($places['logs'], $places['core of the reading worker between requests']);
        self::assertSame([], array_keys(array_filter($places, static fn (bool $found): bool => !$found)));
    }

    public function test_a_core_file_holds_the_token_only_while_the_application_does(): void
    {
        $redis = $this->redis();
        $keys = $this->keyFile('keys', 'a');
        $token = $this->tokenOf($this->sealed('north', $redis, $keys));
        $south = $this->sealed('south', $redis, $keys);
        $crowd = new Crowd();
        $crowd->send($south->socket(), $this->page('secret.php'), ['name' => 'crm', 'hold' => 1500]);
        [$worker] = $south->workers();
        $this->until('the worker has the token', fn (): bool => Memory::holds($worker, $token), 5.0, $crowd);
        $crowd->finish();
        self::assertFalse(Memory::holds($worker, $token));
    }

    public function test_the_key_file_is_read_while_the_master_is_root(): void
    {
        if (posix_geteuid() !== 0) {
            self::markTestSkipped('only root can start workers as somebody else');
        }
        $redis = $this->redis('--unixsocketperm', '777');
        chmod($this->folder, 0711);
        chmod($this->mints->file, 0666);
        $keys = $this->keyFile('keys', 'a');
        $nobody = ['user' => 'nobody', 'group' => 'nogroup'];
        // A thread-safe PHP finds no user by name.
        $uid = (int) exec('id -u nobody');
        @mkdir("$this->folder/host-north");
        chown("$this->folder/host-north", $uid);
        $north = $this->sealed('north', $redis, $keys, [], $nobody);
        $token = $this->tokenOf($north);
        self::assertStringStartsWith('with key ', $this->statusOf($north)['values_sealed']);
        self::assertSame($token, $this->tokenOf($this->sealed('south', $redis, $keys)));
        file_put_contents("$this->folder/phpinfo.php", '<?php phpinfo();');
        $crowd = new Crowd();
        $crowd->send($north->socket(), "$this->folder/phpinfo.php", []);
        $shown = array_values($crowd->finish())[0]->body;
        self::assertStringContainsString('sharedstate.encryption_key_file', $shown);
        self::assertStringNotContainsString(str_repeat('a', 64), $shown);

        @mkdir("$this->folder/host-west");
        chown("$this->folder/host-west", $uid);
        $west = $this->sealed('west', $redis, null, ['encryption_key_file' => $keys], $nobody);
        $answer = $this->get($west, 'token.php', ['name' => 'crm'])->json();
        self::assertSame('SharedState\ConfigError', $answer['error']);
        self::assertStringContainsString("sharedstate.encryption_key_file $keys: cannot be read: Permission denied", $answer['message']);
        self::assertStringContainsString('php.ini', $answer['message']);
    }

    public function test_a_rotation_of_the_key_mints_nothing(): void
    {
        $redis = $this->redis();
        $files = ['north' => $this->keyFile('north', 'a'), 'south' => $this->keyFile('south', 'a')];
        $hosts = [];
        foreach ($files as $name => $file) {
            $hosts[$name] = $this->sealed($name, $redis, $file);
        }
        $token = $this->tokenOf($hosts['north']);
        $with = fn (string $name): string => $this->statusOf($hosts[$name])['values_sealed'];
        $old = $with('north');
        // Everybody can open the new one first; then it seals; host after host, and all of them meanwhile.
        foreach ([['a', 'b'], ['b', 'a']] as $keys) {
            foreach ($hosts as $name => $host) {
                $this->keyFile($name, ...$keys);
                [$before] = $host->workers();
                $host->signal(SIGUSR2);
                $this->until("$name is reloaded", static fn (): bool => !in_array($before, $host->workers(), true) && $host->workers() !== []);
                foreach ($hosts as $each) {
                    self::assertSame($token, $this->tokenOf($each));
                }
            }
        }
        self::assertNotSame($old, $with('north'));
        self::assertSame($with('north'), $with('south'));
        self::assertSame(1, $this->mints->mints());

        // What is minted from here on needs the old key no more.
        $fresh = $this->tokenOf($hosts['north'], 'crm', ['rejected' => $token]);
        self::assertSame($fresh, $this->tokenOf($this->sealed('east', $redis, $this->keyFile('east', 'b'))));
        self::assertSame(2, $this->mints->mints());
    }

    /** @group slow */
    public function test_a_host_with_another_key_mints_for_itself_and_is_in_nobodys_way(): void
    {
        $redis = $this->redis();
        $north = $this->sealed('north', $redis, $this->keyFile('north', 'a'));
        $south = $this->sealed('south', $redis, $this->keyFile('south', 'b'));
        $west = $this->sealed('west', $redis, null);
        $strict = $this->sealed('strict', $redis, null, ['store_down' => 'fail']);
        $token = $this->tokenOf($north);
        $alone = [$this->tokenOf($south), $this->tokenOf($west)];
        // Long enough for leaders to compare what they have with what Redis has.
        for ($end = microtime(true) + 7; microtime(true) < $end; usleep(50_000)) {
            self::assertSame($token, $this->tokenOf($north));
            self::assertSame($alone, [$this->tokenOf($south), $this->tokenOf($west)]);
        }
        self::assertSame(3, $this->mints->mints());
        self::assertGreaterThan(0, $this->statusOf($south)['sealed_unreadable']);
        self::assertSame(0, $this->statusOf($north)['sealed_unreadable']);
        self::assertSame(0, $this->statusOf($south)['store_errors'], 'Redis is well');
        $this->until('the log', static fn (): bool => str_contains($south->logged(), 'Redis has values sealed with key'));
        self::assertSame(1, substr_count($south->logged(), 'Redis has values sealed with key'));
        $answer = $this->get($strict, 'token.php', ['name' => 'crm'])->json();
        self::assertSame('SharedState\StoreUnavailable', $answer['error']);
        self::assertStringContainsString('this host has no sharedstate.encryption_key_file', $answer['message']);
    }

    public function test_tokens_that_travel_in_the_clear_are_warned_of_once(): void
    {
        // Nobody is at an address of a documentation network; the warning is about the setting.
        $fast = ['redis.connect_timeout_ms' => 20, 'max_staleness_ms' => 100];
        $said = function (int $times, string $name, string $dsn, array $ini = []) use ($fast): int {
            $host = $this->host($name, ['redis.dsn' => $dsn] + $fast, ['pm.max_children' => 3], $ini);
            for ($i = 0; $i < 6; $i++) {
                $this->tokenOf($host);
            }
            $count = static fn (): int => substr_count($host->logged(), 'tokens travel to Redis in the clear');
            $this->until('the log', static fn (): bool => $count() >= $times);
            return $count();
        };
        self::assertSame(1, $said(1, 'clear', 'redis://192.0.2.1'));
        self::assertSame(0, $said(0, 'tls', 'rediss://192.0.2.1'));
        self::assertSame(0, $said(0, 'here', 'redis://127.0.0.1:1'));
        self::assertSame(0, $said(0, 'sealed', 'redis://192.0.2.1', ['sharedstate.encryption_key_file' => $this->keyFile('keys', 'a')]));
    }

    public function test_two_keys_on_one_host_are_two_tables(): void
    {
        $hosts = [];
        foreach (['a', 'b'] as $digit) {
            $hosts[] = $this->host("master-$digit", ['host.dir' => $this->folder], ['pm.max_children' => 1],
                ['sharedstate.encryption_key_file' => $this->keyFile($digit, $digit)]);
        }
        $tokens = array_map(fn (Fpm $host): string => $this->tokenOf($host), $hosts);
        self::assertSame($tokens, array_map(fn (Fpm $host): string => $this->tokenOf($host), $hosts));
        self::assertSame(2, $this->mints->mints());
    }

    public function test_a_tampered_value_is_a_miss_and_counted(): void
    {
        $redis = $this->redis();
        $keys = $this->keyFile('keys', 'a');
        $token = $this->tokenOf($this->sealed('north', $redis, $keys));
        $row = '{sharedstate}:v:t:-:crm';
        $body = (string) $redis->command('HGET', $row, 'body');
        $at = strlen($body) - 20;
        $redis->command('HSET', $row, 'body', substr_replace($body, $body[$at] === 'A' ? 'B' : 'A', $at, 1));
        $south = $this->sealed('south', $redis, $keys);
        $fresh = $this->tokenOf($south);
        self::assertNotSame($token, $fresh);
        self::assertSame(2, $this->mints->mints());
        // Once for the claim, once for the leader that compared.
        self::assertGreaterThan(0, $this->statusOf($south)['sealed_unreadable']);
        self::assertSame($fresh, $this->tokenOf($this->sealed('east', $redis, $keys)));
    }
}
