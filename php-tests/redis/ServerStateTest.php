<?php

declare(strict_types=1);

use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/**
 * A Redis that answers, and refuses whatever it is asked, is as one that is away: it is said once and in its own words,
 * in the log, in the status and in exceptions, and nobody takes it for well because a connection could be opened.
 */
final class ServerStateTest extends TestCase
{
    private const USER = ['redis.username' => 'app', 'redis.password' => 'secret'];

    /** @return list<list<string>> how to make it so, and a word of what the server says then */
    public static function states(): array
    {
        return [
            'a password that the host does not have' => [['--requirepass', 's3cret'], [], [], 'NOAUTH'],
            'a user who may do nothing' => [[], [['ACL', 'SETUSER', 'app', 'reset', 'on', '>secret', '+ping', '+client|setname']], self::USER, 'NOPERM'],
            'a user who may do nothing, not even have a name' => [[], [['ACL', 'SETUSER', 'app', 'reset', 'on', '>secret']], self::USER, 'NOPERM'],
            'a server without scripts' => [['--rename-command', 'EVALSHA', '', '--rename-command', 'EVAL', ''], [], [], 'unknown command'],
            'a server without a clock' => [['--rename-command', 'TIME', ''], [], [], 'nknown '],
            'a replica' => [[], [['REPLICAOF', '127.0.0.1', '1']], [], 'READONLY'],
        ];
    }

    /**
     * @dataProvider states
     * @param list<string> $options
     * @param list<list<string>> $commands
     */
    public function test_what_a_server_says_to_everything_is_its_state(array $options, array $commands, array $settings, string $word): void
    {
        $redis = $this->redis(...$options);
        foreach ($commands as $command) {
            $redis->command(...$command);
        }
        $this->assertIsAnOutage($redis, $settings, $word);
    }

    public function test_a_server_that_has_no_room_is_heard_before_it_closes(): void
    {
        $redis = $this->redis();
        $redis->command('CONFIG', 'SET', 'maxclients', '1');
        $taken = stream_socket_client($redis->dsn());
        fwrite($taken, "PING\r\n");
        self::assertSame("+PONG\r\n", fgets($taken));
        $this->assertIsAnOutage($redis, [], 'max number of clients reached');
    }

    public function test_a_server_that_is_loading_what_it_has(): void
    {
        $redis = $this->redis('--enable-debug-command', 'yes', '--key-load-delay', '3000', '--loading-process-events-interval-bytes', '1024');
        $redis->command('DEBUG', 'POPULATE', '5000');
        $redis->command('SAVE');
        $redis->kill();
        $redis->start(loaded: false);
        self::assertStringContainsString("loading:1\r\n", $redis->command('INFO', 'persistence'), 'it loads for 15 s');
        $this->assertIsAnOutage($redis, [], 'LOADING');
    }

    /** Redis lets a script finish that has written, and ours begin by deleting what is not there. */
    public function test_a_server_that_is_full_is_well(): void
    {
        $redis = $this->redis('--maxmemory', '1');
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 1]);
        self::assertSame($this->tokenOf($host), $this->tokenOf($this->host('south', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 1])));
        self::assertSame(0, $this->statusOf($host)['served_degraded']);
    }

    /** @param array<string, string> $settings */
    private function assertIsAnOutage(RedisServer $redis, array $settings, string $word): void
    {
        $settings += ['redis.dsn' => $redis->dsn()];
        $host = $this->host('north', $settings, ['pm.max_children' => 1]);
        for ($i = 0, $end = microtime(true) + 2.0; microtime(true) < $end; $i++) {
            $this->tokenOf($host, "crm:$i");
            self::assertStringContainsString($word, $this->statusOf($host)['store_last_failure'] ?? '', "after {$i} requests");
            self::assertSame(0, $this->up($host), "after {$i} requests");
            usleep(200_000);
        }
        $status = $this->statusOf($host);
        self::assertSame($i, $status['served_degraded']);
        self::assertSame(1, $status['breaker_opened']);
        $lines = preg_grep('/Redis/', explode("\n", $host->logged()));
        self::assertCount(1, $lines, implode("\n", $lines));
        self::assertStringContainsString($word, implode($lines));

        $alone = $this->host('south', $settings + ['store_down' => 'fail'], ['pm.max_children' => 1]);
        $refused = $this->get($alone, 'token.php', ['name' => 'crm', 'ms' => 0]);
        self::assertStringContainsString($word, $refused->body);
    }

    private function up(Fpm $host): int
    {
        self::assertSame(1, preg_match('/^sharedstate_store_up(?:\{.*\})? (\d)$/m', $this->get($host, 'metrics.php', [])->json()['metrics'], $found));
        return (int) $found[1];
    }
}
