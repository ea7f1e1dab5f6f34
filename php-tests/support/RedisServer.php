<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/**
 * A Redis of one test, on a unix socket in its folder, and on a port where the options say so. It keeps nothing:
 * stopped means empty, unless the options say otherwise.
 */
final class RedisServer
{
    private Process $process;

    /**
     * @param list<string> $options further command line options, such as --requirepass secret
     * @param list<string> $wrapper what starts the server, such as a {@see WrongClock}
     */
    public function __construct(private readonly string $folder, private readonly array $options = [], private readonly array $wrapper = [])
    {
        $this->start();
    }

    /** @param bool $loaded whether to wait until it has read what it had kept */
    public function start(bool $loaded = true): void
    {
        $this->process = Process::start([
            ...$this->wrapper, Build::redis(), ...(in_array('--port', $this->options, true) ? [] : ['--port', '0']), '--unixsocket', $this->socket(), '--dir', $this->folder,
            '--save', '', '--appendonly', 'no', ...$this->options,
        ], "$this->folder/redis.log");
        $deadline = microtime(true) + 10;
        while (true) {
            try {
                $this->command('PING');
                return;
            } catch (RuntimeException $notYet) {
                if (!$loaded && str_contains($notYet->getMessage(), '-LOADING')) {
                    return;
                }
                if (microtime(true) > $deadline || !$this->process->isRunning()) {
                    throw new RuntimeException('redis-server did not start: ' . $this->process->tail(), 0, $notYet);
                }
                usleep(10_000);
            }
        }
    }

    public function socket(): string
    {
        return "$this->folder/redis.sock";
    }

    public function dsn(): string
    {
        return 'unix://' . $this->socket();
    }

    /**
     * A port that nobody listened on a moment ago, and that no connection gets by itself: those are from 32768 on.
     * Until this process ends, no other that asks here gets it: tests run side by side.
     */
    public static function freePort(): int
    {
        static $given = [];
        $folder = sys_get_temp_dir() . '/sharedstate-test-ports-' . posix_geteuid();
        @mkdir($folder, 0700);
        do {
            $port = random_int(10_000, 32_000);
            if (isset($given[$port])) {
                continue;
            }
            // "e": no server of a test inherits it.
            $lock = fopen("$folder/$port", 'ce');
            if ($lock !== false && flock($lock, LOCK_EX | LOCK_NB) && @stream_socket_server("tcp://127.0.0.1:$port")) {
                $given[$port] = $lock;
                return $port;
            }
        } while (true);
    }

    public function kill(): void
    {
        $this->process->kill();
    }

    public function signal(int $signal): void
    {
        $this->process->signal($signal);
    }

    public function stop(): void
    {
        $this->process->stop();
    }

    /** @return string|int|list<mixed>|null the reply; an error reply is thrown, except that PING takes any */
    public function command(string ...$words): string|int|array|null
    {
        return self::converse($this->dsn(), [$words])[0];
    }

    /** Commands of one connection, behind AUTH; without their replies. @param list<string> ...$commands */
    public function authenticated(string $password, array ...$commands): void
    {
        self::converse($this->dsn(), [['AUTH', $password], ...$commands]);
    }

    /**
     * The replies to commands sent one by one to whatever listens there and speaks as Redis does.
     *
     * @param list<list<string>> $commands
     * @return list<string|int|list<mixed>|null>
     */
    public static function converse(string $address, array $commands): array
    {
        $stream = @stream_socket_client($address, $code, $message, 2);
        if ($stream === false) {
            throw new RuntimeException("no connection to Redis: $message");
        }
        stream_set_timeout($stream, 5);
        $replies = [];
        foreach ($commands as $words) {
            $text = '*' . count($words) . "\r\n";
            foreach ($words as $word) {
                $text .= '$' . strlen($word) . "\r\n$word\r\n";
            }
            fwrite($stream, $text);
            $replies[] = self::reply($stream, $words[0] === 'PING');
        }
        return $replies;
    }

    /** @param resource $stream */
    private static function reply($stream, bool $anything): string|int|array|null
    {
        $line = rtrim((string) fgets($stream), "\r\n");
        $rest = substr($line, 1);
        switch ($line[0] ?? '') {
            case '+':
                return $rest;
            case ':':
                return (int) $rest;
            case '$':
                return (int) $rest < 0 ? null : substr((string) stream_get_contents($stream, (int) $rest + 2), 0, -2);
            case '*':
                $list = [];
                for ($i = 0; $i < (int) $rest; $i++) {
                    $list[] = self::reply($stream, $anything);
                }
                return $list;
            default:
                // A server with a password answers NOAUTH: it is up.
                if ($anything && str_starts_with($line, '-NOAUTH')) {
                    return $rest;
                }
                throw new RuntimeException("Redis answered: $line");
        }
    }
}
