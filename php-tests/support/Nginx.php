<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** An nginx before one pool, as a browser meets it. */
final class Nginx
{
    public readonly int $port;

    /** @param array<string, string> $parameters further ones for every page, as fastcgi_param gives them */
    public function __construct(string $folder, Fpm $host, string $root, array $parameters = [])
    {
        $more = '';
        foreach ($parameters as $name => $value) {
            $more .= "fastcgi_param $name \"$value\"; ";
        }
        $this->port = RedisServer::freePort();
        $temporary = implode('', array_map(
            static fn (string $kind): string => "{$kind}_temp_path $folder/nginx-$kind;",
            ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'],
        ));
        file_put_contents("$folder/nginx.conf", "daemon off; pid $folder/nginx.pid; error_log stderr; worker_processes 1;"
            . (posix_geteuid() === 0 ? 'user root;' : '') . 'events {}'
            . "http { access_log off; $temporary server { listen 127.0.0.1:$this->port; location / {"
            . "fastcgi_pass unix:{$host->socket()}; fastcgi_param SCRIPT_FILENAME $root\$fastcgi_script_name;"
            . 'fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REMOTE_ADDR $remote_addr; '
            . "fastcgi_param REQUEST_URI \$request_uri; $more} } }");
        $process = Process::start(['nginx', '-p', $folder, '-c', "$folder/nginx.conf"], "$folder/nginx.log");
        $deadline = microtime(true) + 10;
        while (!@stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 0.2)) {
            if (!$process->isRunning() || microtime(true) > $deadline) {
                throw new RuntimeException('nginx did not start: ' . $process->tail());
            }
            usleep(10_000);
        }
    }

    public function address(string $page, string $login = ''): string
    {
        return "http://$login" . ($login === '' ? '' : '@') . "127.0.0.1:$this->port/$page";
    }

    /** @return array{string, float} the body, and the seconds until its last byte */
    public function get(string $page, array $query): array
    {
        $start = microtime(true);
        $context = stream_context_create(['http' => ['ignore_errors' => true, 'protocol_version' => 1.0, 'timeout' => 10.0]]);
        $body = (string) file_get_contents($this->address($page) . '?' . http_build_query($query), false, $context);
        return [$body, microtime(true) - $start];
    }
}
