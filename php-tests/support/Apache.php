<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** An Apache with PHP inside (mod_php, prefork), which has one host table and serves the pages of its folder. */
final class Apache
{
    public readonly int $port;

    /** @param array<string, string> $ini for all of it */
    public function __construct(private readonly string $folder, array $ini)
    {
        $this->port = RedisServer::freePort();
        // Its workers are www-data.
        foreach ([$folder, "$folder/table", "$folder/pages"] as $shared) {
            @mkdir($shared);
            chmod($shared, 0777);
        }
        $lines = '';
        foreach ($ini + ['extension' => Build::extension(), 'sharedstate.host.dir' => "$folder/table"] as $name => $value) {
            $lines .= "$name = \"$value\"\n";
        }
        file_put_contents("$folder/php.ini", $lines);
        $modules = '/usr/lib/apache2/modules';
        file_put_contents("$folder/apache.conf", implode("\n", [
            "ServerRoot $folder", 'ServerName localhost', "Listen 127.0.0.1:$this->port", "PidFile $folder/apache.pid", "ErrorLog $folder/apache.log",
            "LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so", "LoadModule authz_core_module $modules/mod_authz_core.so",
            "LoadModule php_module " . self::module(), "PHPIniDir $folder", 'User www-data', 'Group www-data', "DocumentRoot $folder/pages",
            'StartServers 2', 'MaxRequestWorkers 4', '<FilesMatch \.php$>', 'SetHandler application/x-httpd-php', '</FilesMatch>', '']));
        $process = Process::start(['env', 'PHP_INI_SCAN_DIR=', '/usr/sbin/apache2', '-f', "$folder/apache.conf", '-D', 'FOREGROUND'], "$folder/apache-start.log");
        $deadline = microtime(true) + 10;
        while (!@stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 0.2)) {
            if (!$process->isRunning() || microtime(true) > $deadline) {
                throw new RuntimeException('Apache did not start: ' . $process->tail() . @file_get_contents("$folder/apache.log"));
            }
            usleep(10_000);
        }
    }

    public static function module(): string
    {
        return '/usr/lib/apache2/modules/libphp' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION . '.so';
    }

    public function page(string $name, string $code): void
    {
        file_put_contents("{$this->folder}/pages/$name", "<?php\n$code");
    }

    /**
     * What the page says, until $end comes or it is over.
     *
     * @return array{string, float, resource} with the seconds that took, and the connection, which may go on
     */
    public function get(string $page, ?string $end = null): array
    {
        $start = microtime(true);
        $connection = stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 5);
        stream_set_timeout($connection, 10);
        fwrite($connection, "GET /$page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        $said = '';
        while (!feof($connection) && ($end === null || !str_contains($said, $end))) {
            $said .= fread($connection, 8192);
        }
        return [$said, microtime(true) - $start, $connection];
    }
}
