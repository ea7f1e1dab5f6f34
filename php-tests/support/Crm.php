<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** The CRM of the examples, behind PHP's own web server: what it was asked, and the tokens it gave. */
final class Crm
{
    public readonly string $url;
    private Process $process;

    /** @param ?string $router what answers in its place, and may require it */
    public function __construct(private readonly string $folder, int $tokenSeconds = 3600, ?string $router = null)
    {
        $port = RedisServer::freePort();
        $this->url = "http://127.0.0.1:$port";
        // Four at a time: a mint must not wait behind the orders of others.
        $environment = ['CRM_FOLDER' => $folder, 'CRM_TOKEN_SECONDS' => (string) $tokenSeconds, 'PHP_CLI_SERVER_WORKERS' => '4'];
        $this->process = Process::start([Build::php(), '-n', '-S', "127.0.0.1:$port", $router ?? self::script()], "$folder.out", $environment + getenv());
        $deadline = microtime(true) + 5.0;
        while (!@stream_socket_client("tcp://127.0.0.1:$port", $code, $message, 0.1)) {
            if (microtime(true) > $deadline) {
                throw new RuntimeException("crm.php does not listen: $message " . $this->process->tail());
            }
            usleep(5_000);
        }
    }

    public static function script(): string
    {
        return dirname(__DIR__, 2) . '/examples/crm.php';
    }

    /** @return array<string, string> what an example finds in its environment */
    public function environment(): array
    {
        return ['CRM_URL' => $this->url, 'CRM_CLIENT_ID' => 'example', 'CRM_CLIENT_SECRET' => 's3cret'];
    }

    public function revoke(): void
    {
        file_get_contents("$this->url/revoke", false, stream_context_create(['http' => ['method' => 'POST', 'timeout' => 5.0]]));
    }

    /** No token is in force, whenever it was issued. */
    public function refuseAll(): void
    {
        @mkdir($this->folder);
        file_put_contents("$this->folder/revoked", (string) PHP_INT_MAX);
    }

    public function stop(): void
    {
        $this->process->stop();
    }

    /** How often it answered so: "POST /token 200". */
    public function answered(string $what): int
    {
        return count(array_keys($this->lines('asked'), $what, true));
    }

    /** @return list<string> */
    public function tokens(): array
    {
        return array_map(static fn (string $line): string => strtok($line, ' '), $this->lines('tokens'));
    }

    /** @return list<float> when it gave them */
    public function issued(): array
    {
        return array_map(static fn (string $line): float => (float) explode(' ', $line)[1], $this->lines('tokens'));
    }

    /** @return list<string> */
    private function lines(string $file): array
    {
        return @file("$this->folder/$file", FILE_IGNORE_NEW_LINES) ?: [];
    }
}
