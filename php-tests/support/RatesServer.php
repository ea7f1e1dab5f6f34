<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A provider of rates: rates.php behind PHP's own web server, and the files that steer and witness it. */
final class RatesServer
{
    public readonly int $port;
    private Process $process;

    public function __construct(private readonly string $folder)
    {
        $this->port = RedisServer::freePort();
        touch($this->log());
        $this->play([]);
        $this->start();
    }

    public function start(): void
    {
        // Four at a time: a slow answer must not keep the next question waiting.
        $environment = ['RATES_LOG' => $this->log(), 'RATES_PLAY' => "$this->folder/rates.play", 'PHP_CLI_SERVER_WORKERS' => '4'];
        $this->process = Process::start(['php', '-n', '-S', "127.0.0.1:$this->port", __DIR__ . '/rates.php'], "$this->folder/rates-server.out", $environment + getenv());
        $deadline = microtime(true) + 5.0;
        while (!@stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 0.1)) {
            if (microtime(true) > $deadline) {
                throw new RuntimeException("rates.php does not listen: $message");
            }
            usleep(5_000);
        }
    }

    public function stop(): void
    {
        $this->process->stop();
    }

    public function ecb(): string
    {
        return "ecb:http://127.0.0.1:$this->port/ecb.xml";
    }

    public function openExchangeRates(): string
    {
        return "openexchangerates:http://127.0.0.1:$this->port/latest.json";
    }

    public function json(string $path = '/rates.json'): string
    {
        return "json:http://127.0.0.1:$this->port$path";
    }

    /** What to answer from now on, by path; see rates.php. */
    public function play(array $plays): void
    {
        file_put_contents("$this->folder/rates.new", json_encode((object) $plays));
        rename("$this->folder/rates.new", "$this->folder/rates.play");
    }

    /** @return list<array{time: float, path: string, status: int, authorization: string}> */
    public function asked(?string $path = null): array
    {
        $asked = [];
        foreach (file($this->log(), FILE_IGNORE_NEW_LINES) as $line) {
            [$time, $asked_for, $status, $authorization] = explode(' ', $line, 4);
            if ($path === null || $asked_for === $path) {
                $asked[] = ['time' => (float) $time, 'path' => $asked_for, 'status' => (int) $status, 'authorization' => $authorization];
            }
        }
        return $asked;
    }

    private function log(): string
    {
        return "$this->folder/rates.asked";
    }
}
