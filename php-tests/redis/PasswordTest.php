<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** A password that is changed while everybody works: the file says it, and nobody reloads anything. */
final class PasswordTest extends TestCase
{
    private RedisServer $redis;
    /** @var list<Fpm> */
    private array $hosts;

    private function write(string $password): void
    {
        // As secrets are delivered: never half a file.
        file_put_contents("$this->folder/password.new", "$password\n");
        rename("$this->folder/password.new", "$this->folder/password");
    }

    /** @param array<string, string> $settings */
    private function startHosts(array $settings, array $lines): void
    {
        $settings += ['redis.dsn' => $this->redis->dsn(), 'redis.password_file' => "$this->folder/password"];
        $this->hosts = [$this->host('north', $settings, $lines), $this->host('south', $settings, $lines)];
    }

    public function test_with_both_passwords_valid_for_a_while_a_rotation_under_load_is_not_noticed(): void
    {
        $this->redis = $this->redis();
        $this->redis->command('ACL', 'SETUSER', 'app', 'on', '>s3cret-old', '~*', '+@all');
        $this->write('s3cret-old');
        // Workers that end soon, so that there are always new connections.
        $this->startHosts(['redis.username' => 'app'], ['pm.max_children' => 4, 'pm.max_requests' => 20]);
        $steps = [
            [1.0, fn () => $this->redis->command('ACL', 'SETUSER', 'app', '>s3cret-new')],
            [1.5, fn () => $this->write('s3cret-new')],
            [2.5, fn () => $this->redis->command('ACL', 'SETUSER', 'app', '<s3cret-old')],
        ];
        $number = 0;
        $crowd = new Crowd();
        $responses = $crowd->load(
            8,
            4.0,
            0.01,
            function (int $client) use ($crowd, &$number): void {
                // Every name is asked for on both hosts, first where it has to be minted.
                $name = 'crm:' . intdiv($number++, 2);
                $crowd->send($this->hosts[$client % 2]->socket(), $this->page('token.php'), ['name' => $name, 'ms' => 0]);
            },
            function (float $elapsed) use (&$steps): void {
                while ($steps !== [] && $elapsed >= $steps[0][0]) {
                    array_shift($steps)[1]();
                }
            },
        );
        self::assertSame([], $steps);
        $this->assertAllServed($responses);
        $pids = array_unique(array_map(static fn ($response): ?int => $response->pid(), $responses));
        self::assertGreaterThan(16, count($pids), 'there were new connections all the time');
        self::assertSame(intdiv($number + 1, 2), $this->mints->mints(), 'each name once, on whichever host');
        self::assertSame([], $this->redis->command('ACL', 'LOG'), 'nobody came with a password that was no longer, or not yet, valid');
        foreach ($this->hosts as $host) {
            self::assertSame(0, $this->statusOf($host)['served_degraded']);
        }
        $this->printTimes('password rotated under load', $responses);
    }

    public function test_a_password_that_changes_at_once_is_an_outage_until_the_file_says_so_and_no_longer(): void
    {
        $this->redis = $this->redis('--requirepass', 's3cret-old');
        $this->write('s3cret-old');
        $this->startHosts([], ['pm.max_children' => 1]);
        $token = $this->tokenOf($this->hosts[0]);
        self::assertSame($token, $this->tokenOf($this->hosts[1]));

        $this->redis->authenticated('s3cret-old', ['CONFIG', 'SET', 'requirepass', 's3cret-new']);
        // Connections that exist go on.
        self::assertSame($this->tokenOf($this->hosts[0], 'existing'), $this->tokenOf($this->hosts[1], 'existing'));
        $this->redis->authenticated('s3cret-new', ['CLIENT', 'KILL', 'TYPE', 'normal']);
        foreach ($this->hosts as $host) {
            self::assertSame($token, $this->tokenOf($host), 'what is usable is served');
            $this->tokenOf($host, 'meanwhile');
            self::assertStringContainsString('WRONGPASS', $this->statusOf($host)['store_last_failure']);
        }
        self::assertSame(2, $this->mints->mints('meanwhile'), 'once per host');

        $this->write('s3cret-new');
        $written = microtime(true);
        $tokens = fn (): array => array_map(fn (Fpm $host): string => $this->tokenOf($host, 'meanwhile'), $this->hosts);
        // The longest pause of the breaker is 5 s, a quarter more with its jitter.
        $this->until('agreement of the hosts', fn (): bool => count(array_unique($tokens())) === 1, 15.0);
        fprintf(STDERR, "\n    the hosts agree again %.1f s after the file was written\n", microtime(true) - $written);
        self::assertSame($this->tokenOf($this->hosts[0], 'after'), $this->tokenOf($this->hosts[1], 'after'));
        self::assertSame(1, $this->mints->mints('crm') * $this->mints->mints('existing') * $this->mints->mints('after'));
        self::assertSame(2, $this->mints->mints('meanwhile'));
        foreach ($this->hosts as $host) {
            self::assertStringNotContainsString('s3cret', $host->logged() . json_encode($this->statusOf($host)));
        }
    }
}
