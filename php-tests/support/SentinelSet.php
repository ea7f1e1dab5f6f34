<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A master, its replicas, and three sentinels that agree within half a second that it is down. */
final class SentinelSet
{
    public const PASSWORD = 's3cret';

    /** @var array<int, RedisServer> by port; the first is the first master */
    public array $servers = [];
    /** @var array<int, Process> by port */
    private array $sentinels = [];
    /** @var array<int, int> by the port without TLS, which the tests use, the one with it */
    private array $tlsPorts = [];

    /** With an authority, servers and sentinels speak TLS with each other and with clients. */
    public function __construct(private readonly string $folder, int $replicas = 1, private readonly ?Authority $authority = null)
    {
        $master = null;
        for ($i = 0; $i <= $replicas; $i++) {
            $port = RedisServer::freePort();
            $follows = $master === null ? [] : ['--replicaof', "127.0.0.1 $master"];
            $master ??= $port;
            mkdir("$folder/redis-$port");
            $listen = $authority === null ? ['--port', (string) $port]
                : ['--port', '0', '--tls-port', (string) $port, ...$authority->serverOptions("redis-$port")];
            $this->servers[$port] = new RedisServer("$folder/redis-$port", [
                ...$listen, '--requirepass', self::PASSWORD, '--masterauth', self::PASSWORD,
                '--repl-diskless-sync-delay', '0', ...$follows,
            ]);
        }
        for ($i = 0; $i < 3; $i++) {
            $this->startSentinel(RedisServer::freePort(), $master);
        }
        // A fail-over needs sentinels that know each other and the replicas.
        $deadline = microtime(true) + 15;
        foreach (array_keys($this->sentinels) as $port) {
            while (true) {
                $known = (string) self::ask($port, 'INFO', 'sentinel');
                if (str_contains($known, "slaves=$replicas,sentinels=3")) {
                    break;
                }
                if (microtime(true) > $deadline) {
                    throw new RuntimeException("the sentinels do not find each other: $known");
                }
                usleep(50_000);
            }
        }
    }

    private function startSentinel(int $port, int $master): void
    {
        $file = "$this->folder/sentinel-$port.conf";
        file_put_contents($file, implode("\n", [
            "port $port", 'bind 127.0.0.1', "dir $this->folder",
            "sentinel monitor shop 127.0.0.1 $master 2",
            'sentinel auth-pass shop ' . self::PASSWORD,
            'sentinel down-after-milliseconds shop 500',
            'sentinel failover-timeout shop 3000',
        ]) . "\n");
        $tls = [];
        if ($this->authority !== null) {
            $this->tlsPorts[$port] = RedisServer::freePort();
            $tls = ['--tls-port', (string) $this->tlsPorts[$port], ...$this->authority->serverOptions("sentinel-$port")];
        }
        $this->sentinels[$port] = Process::start([Build::redis(), $file, '--sentinel', ...$tls], "$this->folder/sentinel-$port.log");
        $deadline = microtime(true) + 10;
        while (!@stream_socket_client("tcp://127.0.0.1:$port", $code, $message, 0.2)) {
            if (microtime(true) > $deadline) {
                throw new RuntimeException('a sentinel did not start: ' . $this->sentinels[$port]->tail());
            }
            usleep(10_000);
        }
    }

    public function dsn(): string
    {
        $addresses = implode(',', array_map(fn (int $port): string => '127.0.0.1:' . ($this->tlsPorts[$port] ?? $port), array_keys($this->sentinels)));
        return ($this->authority === null ? 'redis' : 'rediss') . '+sentinel://:' . self::PASSWORD . "@$addresses/shop";
    }

    public function killSentinel(): void
    {
        reset($this->sentinels);
        $port = key($this->sentinels);
        $this->sentinels[$port]->kill();
        // Its address stays in the DSN.
        unset($this->sentinels[$port]);
    }

    /** The server that the sentinels call master. */
    public function master(): RedisServer
    {
        $port = array_key_last($this->sentinels);
        return $this->servers[(int) self::ask($port, 'SENTINEL', 'get-master-addr-by-name', 'shop')[1]];
    }

    private static function ask(int $port, string ...$words): string|int|array|null
    {
        return RedisServer::converse("tcp://127.0.0.1:$port", [$words])[0];
    }
}
