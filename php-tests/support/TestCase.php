<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

abstract class TestCase extends \PHPUnit\Framework\TestCase
{
    /** What a production host has. A test of a Redis that hangs needs them. */
    protected const LIMITS_AS_SHIPPED = ['redis.connect_timeout_ms' => 250, 'redis.response_timeout_ms' => 250];
    /** In every other test, a Redis that answers late on a busy machine is not away. */
    private const PATIENT_LIMITS = ['redis.connect_timeout_ms' => 2000, 'redis.response_timeout_ms' => 2000];

    protected string $folder;
    protected MintLog $mints;

    protected function setUp(): void
    {
        $this->folder = Temp::folder();
        $this->mints = new MintLog("$this->folder/mints");
    }

    protected function tearDown(): void
    {
        Process::stopAll();
        $complaints = Complaints::inLogs($this->folder);
        Temp::remove($this->folder);
        self::assertSame([], $complaints, 'a log complains');
    }

    protected function page(string $name): string
    {
        return dirname(__DIR__) . "/pages/$name";
    }

    protected function redis(string ...$options): RedisServer
    {
        return new RedisServer($this->folder, $options);
    }

    /**
     * A php-fpm master that is a host of its own, with one pool.
     *
     * @param array<string, string|int> $settings sharedstate.* of the pool, without that prefix
     * @param array<string, string|int> $lines further lines of the pool
     * @param array<string, string|int> $ini for the whole master
     */
    protected function host(string $name, array $settings = [], array $lines = [], array $ini = [], array $zendExtensions = [],
        ?string $extension = null, array $wrapper = []): Fpm
    {
        return new Fpm($this->folder, $name, ['www' => $this->pool($name, $settings) + $lines], $ini, $zendExtensions, $extension, $wrapper);
    }

    /** @return array<string, string|int> the lines that make a pool part of host $name */
    protected function pool(string $name, array $settings = []): array
    {
        $table = "$this->folder/host-$name";
        @mkdir($table);
        $lines = ['env[TEST_HOST]' => $name, 'env[MINT_LOG]' => $this->mints->file];
        foreach ($settings + ['host.dir' => $table] + self::PATIENT_LIMITS as $key => $value) {
            $lines["php_admin_value[sharedstate.$key]"] = "\"$value\"";
        }
        return $lines;
    }

    /** One request, and its answer. */
    protected function get(Fpm $host, string $page, array $query, array $parameters = [], ?string $pool = null): Response
    {
        $crowd = new Crowd();
        $crowd->send($host->socket($pool), $this->page($page), $query, $parameters);
        return array_values($crowd->finish())[0];
    }

    /** The token that $host hands out, from a mint that takes no time if it has to. */
    protected function tokenOf(Fpm $host, string $name = 'crm', array $options = []): string
    {
        $response = $this->get($host, 'token.php', ['name' => $name, 'ms' => 0, 'options' => json_encode((object) $options)]);
        $this->assertAllServed([$response], $name);
        return (string) $response->token();
    }

    /**
     * All that a fleet does with its Redis: a mint, a hit elsewhere, a rejection that is heard of, and a Redis that lost
     * everything and gets it back.
     *
     * @param callable(string): Fpm $start a host of the fleet, by its name
     */
    protected function assertAFleetWorks(callable $start, RedisServer $redis): void
    {
        [$north, $south] = [$start('north'), $start('south')];
        $first = $this->tokenOf($north);
        self::assertSame($first, $this->tokenOf($south));
        // A leader that attaches later finds out by comparing, and hears nothing.
        $this->until('north follows the change log', fn (): bool => $this->get($north, 'status.php', [])->json()['coherent']);
        $fresh = $this->tokenOf($south, 'crm', ['rejected' => $first]);
        self::assertNotSame($first, $fresh);
        $this->until('north heard of the rejection', fn (): bool => $this->tokenOf($north) === $fresh);
        self::assertGreaterThan(0, $this->statusOf($north)['changes_heard'], 'the change log is followed');

        // A leader whose connection was lost compares at once, and not within five seconds.
        $redis->command('FLUSHALL');
        $redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
        $this->until('Redis got it back', fn (): bool => str_contains((string) $redis->command('INFO', 'keyspace'), 'keys='));
        self::assertSame($fresh, $this->tokenOf($start('east')), 'a host that knew nothing');
        self::assertSame(2, $this->mints->mints('crm'));
    }

    /** @return array<string, mixed> */
    protected function statusOf(Fpm $host): array
    {
        return $this->get($host, 'status.php', [])->json()['status'];
    }

    /** Waits for something that happens in another process. */
    protected function until(string $what, callable $condition, float $seconds = 10.0, ?Crowd $crowd = null): void
    {
        $deadline = microtime(true) + $seconds;
        while (!$condition()) {
            self::assertLessThan($deadline, microtime(true), "$what did not happen within $seconds s");
            $crowd?->run(0.002);
            usleep(1_000);
        }
    }

    /** @param iterable<Response> $responses */
    protected function assertAllServed(iterable $responses, string $about = ''): void
    {
        foreach ($responses as $response) {
            self::assertTrue($response->status === 200 && $response->token() !== null, trim("$about " . $response->describe()));
        }
    }

    /** @param iterable<Response> $responses */
    protected function assertOneToken(iterable $responses): string
    {
        $tokens = [];
        foreach ($responses as $response) {
            $tokens[$response->token()] = true;
        }
        self::assertCount(1, $tokens, 'every caller gets the same token');
        return (string) array_key_first($tokens);
    }

    /**
     * Times are printed and not asserted tightly: this may be a busy machine. build/bench measures.
     *
     * @param iterable<Response> $responses
     */
    protected function printTimes(string $what, iterable $responses): void
    {
        $times = [];
        foreach ($responses as $response) {
            $times[] = $response->ms();
        }
        sort($times);
        fprintf(STDERR, "\n    %s: %d requests, p50 %.0f ms, p99 %.0f ms, max %.0f ms\n", $what, count($times),
            $times[intdiv(count($times), 2)], $times[(int) floor(0.99 * (count($times) - 1))], end($times));
    }

    /**
     * Runs code in a command line process of its own and returns what the code returned.
     * The code may use caught(), pages/cli.php has it; host.dir is this test's folder.
     *
     * @param array<string, string|int|float> $settings sharedstate.*, without that prefix
     */
    protected function php(string $code, array $settings = [], array $environment = []): mixed
    {
        $result = $this->cli($code, $settings, $environment);
        $answer = json_decode(substr(strrchr("\n" . trim($result->output), "\n"), 1), true);
        self::assertTrue($result->status === 0 && is_array($answer), "status $result->status: $result->output\n$result->errors");
        return $answer['result'];
    }

    protected function cli(string $code, array $settings = [], array $environment = []): CliResult
    {
        $file = "$this->folder/code-" . bin2hex(random_bytes(4)) . '.php';
        file_put_contents($file, "<?php\nrequire " . var_export($this->page('cli.php'), true) . ";\n"
            . "\$result = (static function () {\n$code\n})();\necho \"\\n\", json_encode(['result' => \$result], JSON_THROW_ON_ERROR);\n");
        $ini = [];
        foreach ($settings + ['host.dir' => $this->folder] as $key => $value) {
            $ini["sharedstate.$key"] = $value;
        }
        return Cli::run([$file], $ini, $environment + ['MINT_LOG' => $this->mints->file, 'TEST_HOST' => 'cli']);
    }
}
