<?php

declare(strict_types=1);

use SharedState\Tests\Support\Authority;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** A Redis that speaks nothing but TLS and asks for a certificate, behind a private authority. */
final class TlsTest extends TestCase
{
    private const ONE_WORKER = ['pm.max_children' => 1];

    private Authority $authority;
    private int $port;

    protected function setUp(): void
    {
        parent::setUp();
        $this->authority = new Authority("$this->folder/authority");
        $this->port = RedisServer::freePort();
    }

    private function secureRedis(string $names = 'DNS:localhost,IP:127.0.0.1', string ...$options): RedisServer
    {
        [$certificate, $key] = $this->authority->sign('server', $names);
        return $this->redis('--tls-port', (string) $this->port, '--bind', '127.0.0.1', '--tls-ca-cert-file', $this->authority->certificate(),
            '--tls-cert-file', $certificate, '--tls-key-file', $key, ...$options);
    }

    /** @return array<string, string> what a host needs to get in */
    private function settings(string $host = 'localhost'): array
    {
        return ['redis.dsn' => "rediss://$host:$this->port"] + $this->authority->hostSettings();
    }

    public static function hosts(): array
    {
        return ['by name' => ['localhost'], 'by address' => ['127.0.0.1']];
    }

    /** @dataProvider hosts */
    public function test_a_fleet_works_with_a_private_authority_and_client_certificates(string $host): void
    {
        $redis = $this->secureRedis();
        $settings = $this->settings($host);
        $this->assertAFleetWorks(fn (string $name): Fpm => $this->host($name, $settings, ['pm.max_children' => 2]), $redis);
    }

    public static function protocols(): array
    {
        return [['TLSv1.2'], ['TLSv1.3']];
    }

    /** @dataProvider protocols */
    public function test_either_version_of_the_protocol_will_do(string $version): void
    {
        $this->secureRedis('DNS:localhost', '--tls-protocols', $version);
        $settings = $this->settings();
        $token = $this->tokenOf($this->host('north', $settings, self::ONE_WORKER));
        self::assertSame($token, $this->tokenOf($this->host('south', $settings, self::ONE_WORKER)));
    }

    public static function mistakes(): array
    {
        return [
            'another name' => [['redis.dsn' => 'rediss://127.0.0.1:%d'], 'use one of its names'],
            'another authority' => [['redis.tls_ca' => '%s/other/ca.pem'], 'set tls_ca'],
            'the authorities of the system' => [['redis.tls_ca' => ''], 'tls_ca'],
            'no certificate of ours' => [['redis.tls_cert' => '', 'redis.tls_key' => ''], 'set tls_cert and tls_key'],
            'one of another authority' => [['redis.tls_cert' => '%s/other/client.pem', 'redis.tls_key' => '%s/other/client.key'], 'our client certificate'],
            'a file that is not there' => [['redis.tls_ca' => '%s/missing.pem'], '/missing.pem cannot be read'],
            'in the clear' => [['redis.dsn' => 'redis://localhost:%d', 'redis.tls_ca' => '', 'redis.tls_cert' => '', 'redis.tls_key' => ''], 'use rediss://'],
        ];
    }

    /** @dataProvider mistakes */
    public function test_a_mistake_is_served_around_and_said_in_the_status_and_in_the_log(array $change, string $sentence): void
    {
        (new Authority("$this->folder/other"))->sign('client');
        $redis = $this->secureRedis('DNS:localhost');
        foreach ($change as &$value) {
            $value = str_replace(['%d', '%s'], [(string) $this->port, $this->folder], $value);
        }
        $host = $this->host('north', $change + $this->settings(), self::ONE_WORKER);
        for ($i = 0; $i < 4; $i++) {
            $this->tokenOf($host, "crm:$i");
        }
        self::assertStringContainsString($sentence, $this->statusOf($host)['store_last_failure'] ?? '');
        $this->until('a line in the log', function () use ($host, $sentence): bool {
            $this->tokenOf($host);
            return str_contains($host->logged(), $sentence);
        });
        self::assertSame(0, $redis->command('DBSIZE'), 'nothing got in');
    }

    public function test_certificates_for_a_connection_in_the_clear_are_refused(): void
    {
        $host = $this->host('north', ['redis.dsn' => "redis://localhost:$this->port"] + $this->settings(), self::ONE_WORKER);
        $response = $this->get($host, 'token.php', ['name' => 'crm']);
        self::assertSame('SharedState\\ConfigError', $response->error(), $response->describe());
        self::assertStringContainsString('rediss://', $response->json()['message']);
    }

    /** All of them at once, as when an authority is replaced. */
    public function test_rotated_certificates_are_taken_up_without_a_reload(): void
    {
        $redis = $this->secureRedis();
        $settings = $this->settings();
        $hosts = [$this->host('north', $settings, self::ONE_WORKER), $this->host('south', $settings, self::ONE_WORKER)];
        $workers = fn (): array => array_map(fn (Fpm $host): int => $this->get($host, 'status.php', [])->pid(), $hosts);
        $before = $workers();
        $token = $this->tokenOf($hosts[0]);
        self::assertSame($token, $this->tokenOf($hosts[1]));

        $next = new Authority("$this->folder/next");
        [$certificate, $key] = $next->sign('server');
        $redis->command('CONFIG', 'SET', 'tls-ca-cert-file', $next->certificate(), 'tls-cert-file', $certificate, 'tls-key-file', $key);
        $redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
        // Until the files are there: what is usable is served.
        foreach ($hosts as $host) {
            self::assertSame($token, $this->tokenOf($host));
            $this->tokenOf($host, 'meanwhile');
        }
        self::assertSame(2, $this->mints->mints('meanwhile'), 'once per host');

        [$certificate, $key] = $next->sign('client');
        foreach (['tls_ca' => $next->certificate(), 'tls_cert' => $certificate, 'tls_key' => $key] as $setting => $file) {
            rename($file, $settings["redis.$setting"]);
        }
        $round = 0;
        $this->until('the hosts share again', function () use ($hosts, &$round): bool {
            $name = 'after:' . ++$round;
            return $this->tokenOf($hosts[0], $name) === $this->tokenOf($hosts[1], $name);
        }, 20.0);
        $this->until('agreement on what was minted meanwhile', fn (): bool => $this->tokenOf($hosts[0], 'meanwhile') === $this->tokenOf($hosts[1], 'meanwhile'), 20.0);
        self::assertSame(2, $this->mints->mints('meanwhile'));
        self::assertSame(1, $this->mints->mints('crm'));
        self::assertSame($before, $workers(), 'no worker was replaced');
    }
}
