<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/**
 * Many FastCGI requests at once from one process: a minimal client (FastCGI 1.0, one request per connection,
 * no body) over unix sockets. No web server between, so a measured time is the worker's and the queue's.
 */
final class Crowd
{
    private const VERSION = 1;
    private const BEGIN_REQUEST = 1;
    private const END_REQUEST = 3;
    private const PARAMS = 4;
    private const STDIN = 5;
    private const STDOUT = 6;
    private const STDERR = 7;
    private const ROLE_RESPONDER = 1;

    private int $next = 0;
    /** @var array<int, array{socket: resource, out: string, in: string, stdout: string, stderr: string, started: float}> */
    private array $open = [];
    /** @var array<int, Response> */
    private array $finished = [];

    /**
     * Sends one request, without waiting for anything.
     *
     * @param array<string, scalar> $query
     * @param array<string, string> $parameters further FastCGI parameters
     */
    public function send(string $socket, string $script, array $query = [], array $parameters = []): int
    {
        $stream = @stream_socket_client("unix://$socket", $code, $message, 5);
        if ($stream === false) {
            throw new RuntimeException("cannot connect to $socket: $message");
        }
        stream_set_blocking($stream, false);
        $text = http_build_query($query);
        $all = $parameters + [
            'GATEWAY_INTERFACE' => 'CGI/1.1',
            'REQUEST_METHOD' => 'GET',
            'SCRIPT_FILENAME' => $script,
            'SCRIPT_NAME' => '/' . basename($script),
            'REQUEST_URI' => '/' . basename($script) . "?$text",
            'QUERY_STRING' => $text,
            'SERVER_PROTOCOL' => 'HTTP/1.1',
        ];
        $pairs = '';
        foreach ($all as $name => $value) {
            $pairs .= self::length($name) . self::length($value) . $name . $value;
        }
        $this->open[$this->next] = [
            'socket' => $stream,
            'out' => self::record(self::BEGIN_REQUEST, pack('nCx5', self::ROLE_RESPONDER, 0))
                . self::record(self::PARAMS, $pairs) . self::record(self::PARAMS, '') . self::record(self::STDIN, ''),
            'in' => '', 'stdout' => '', 'stderr' => '', 'started' => microtime(true),
        ];
        return $this->next++;
    }

    /** Lets the open requests go on for that long, or until none is open. */
    public function run(float $seconds): void
    {
        $deadline = microtime(true) + $seconds;
        while ($this->open !== []) {
            $left = $deadline - microtime(true);
            $this->turn(max($left, 0.0));
            if ($left <= 0) {
                return;
            }
        }
    }

    public function countOpen(): int
    {
        return count($this->open);
    }

    public function isOpen(int $request): bool
    {
        return isset($this->open[$request]);
    }

    /** @return array<int, Response> those finished since the last call, by the number that send() gave */
    public function take(): array
    {
        [$finished, $this->finished] = [$this->finished, []];
        ksort($finished);
        return $finished;
    }

    /** @return array<int, Response> all of them; fails the test when they take longer */
    public function finish(float $timeout = 30.0): array
    {
        $deadline = microtime(true) + $timeout;
        while ($this->open !== []) {
            $left = $deadline - microtime(true);
            if ($left <= 0) {
                throw new RuntimeException(count($this->open) . " requests without an answer after $timeout s");
            }
            $this->turn($left);
        }
        return $this->take();
    }

    /**
     * Constant load: so many clients, each with one request at a time and a pause after it.
     *
     * @param callable(int): void $request called with the client's number; calls send() once
     * @param callable(float): mixed|null $meanwhile called all the time with the seconds since the start; false ends the load
     * @return list<Response>
     */
    public function load(int $clients, float $seconds, float $pause, callable $request, ?callable $meanwhile = null): array
    {
        $start = microtime(true);
        $due = array_fill(0, $clients, $start);
        $client = [];
        $responses = [];
        while (($elapsed = microtime(true) - $start) < $seconds) {
            foreach ($due as $number => $when) {
                if ($when <= microtime(true)) {
                    $client[$this->next] = $number;
                    $request($number);
                    unset($due[$number]);
                }
            }
            if ($meanwhile !== null && $meanwhile($elapsed) === false) {
                break;
            }
            $this->open === [] ? usleep(1_000) : $this->turn(0.005);
            foreach ($this->take() as $id => $response) {
                $responses[] = $response;
                $due[$client[$id]] = microtime(true) + $pause;
            }
        }
        return [...$responses, ...$this->finish()];
    }

    private function turn(float $seconds): void
    {
        $read = $write = [];
        foreach ($this->open as $id => $request) {
            $read[$id] = $request['socket'];
            if ($request['out'] !== '') {
                $write[$id] = $request['socket'];
            }
        }
        $except = null;
        $seconds = min($seconds, 1.0);
        if (!@stream_select($read, $write, $except, 0, (int) ($seconds * 999_999))) {
            return;
        }
        foreach (array_keys($write) as $id) {
            $sent = @fwrite($this->open[$id]['socket'], $this->open[$id]['out']);
            $this->open[$id]['out'] = substr($this->open[$id]['out'], (int) $sent);
        }
        foreach (array_keys($read) as $id) {
            $bytes = @fread($this->open[$id]['socket'], 65536);
            if ($bytes === '' || $bytes === false) {
                if (feof($this->open[$id]['socket'])) {
                    $this->close($id, false);
                }
                continue;
            }
            $this->open[$id]['in'] .= $bytes;
            $this->parse($id);
        }
    }

    private function parse(int $id): void
    {
        $request = &$this->open[$id];
        while (strlen($request['in']) >= 8) {
            $head = unpack('Cversion/Ctype/nid/nlength/Cpadding', $request['in']);
            $size = 8 + $head['length'] + $head['padding'];
            if (strlen($request['in']) < $size) {
                return;
            }
            $content = substr($request['in'], 8, $head['length']);
            $request['in'] = substr($request['in'], $size);
            if ($head['type'] === self::STDOUT) {
                $request['stdout'] .= $content;
            } elseif ($head['type'] === self::STDERR) {
                $request['stderr'] .= $content;
            } elseif ($head['type'] === self::END_REQUEST) {
                unset($request);
                $this->close($id, true);
                return;
            }
        }
    }

    private function close(int $id, bool $answered): void
    {
        $request = $this->open[$id];
        unset($this->open[$id]);
        fclose($request['socket']);
        [$head, $body] = explode("\r\n\r\n", $request['stdout'], 2) + ['', ''];
        $status = preg_match('/^Status: (\d+)/mi', $head, $match) ? (int) $match[1] : 200;
        $this->finished[$id] = new Response(
            $answered ? $status : 0,
            $body,
            $request['stderr'],
            $request['started'],
            microtime(true) - $request['started'],
        );
    }

    private static function record(int $type, string $content): string
    {
        return pack('CCnnCx', self::VERSION, $type, 1, strlen($content), 0) . $content;
    }

    private static function length(string $text): string
    {
        return strlen($text) < 128 ? chr(strlen($text)) : pack('N', strlen($text) | 0x80000000);
    }
}
