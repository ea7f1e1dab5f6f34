<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A Redis of one test, on a unix socket in its folder. It keeps nothing: stopped means empty. */
final class RedisServer
{
    private Process $process;

    /** @param list<string> $options further command line options, such as --requirepass secret */
    public function __construct(private readonly string $folder, private readonly array $options = [])
    {
        $this->start();
    }

    public function start(): void
    {
        $this->process = Process::start([
            'redis-server', '--port', '0', '--unixsocket', $this->socket(), '--dir', $this->folder,
            '--save', '', '--appendonly', 'no', ...$this->options,
        ], "$this->folder/redis.log");
        $deadline = microtime(true) + 10;
        while (true) {
            try {
                $this->command('PING');
                return;
            } catch (RuntimeException $notYet) {
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
        $stream = @stream_socket_client($this->dsn(), $code, $message, 2);
        if ($stream === false) {
            throw new RuntimeException("no connection to Redis: $message");
        }
        stream_set_timeout($stream, 5);
        $text = '*' . count($words) . "\r\n";
        foreach ($words as $word) {
            $text .= '$' . strlen($word) . "\r\n$word\r\n";
        }
        fwrite($stream, $text);
        return $this->reply($stream, $words[0] === 'PING');
    }

    /** @param resource $stream */
    private function reply($stream, bool $anything): string|int|array|null
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
                    $list[] = $this->reply($stream, $anything);
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
