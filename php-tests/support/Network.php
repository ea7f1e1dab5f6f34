<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A network between the workers and Redis: network.php, and the file that says how bad it is. */
final class Network
{
    public readonly int $port;
    private readonly string $file;

    public function __construct(string $folder, int $redisPort)
    {
        $this->port = RedisServer::freePort();
        $this->file = "$folder/network";
        $this->be('pass');
        Process::start(['php', '-n', __DIR__ . '/network.php', (string) $this->port, (string) $redisPort, $this->file], "$folder/network.log");
        $deadline = microtime(true) + 5.0;
        while (!@stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 0.1)) {
            if (microtime(true) > $deadline) {
                throw new RuntimeException("network.php does not listen: $message");
            }
            usleep(5_000);
        }
    }

    /** See network.php. */
    public function be(string $mode): void
    {
        file_put_contents("$this->file.new", $mode);
        rename("$this->file.new", $this->file);
    }
}
