<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** Which worker leads its host: the one behind the connection that follows the change log. Needs Redis on TCP. */
final class HostLeader
{
    /** @param list<int> $except a worker that is stopped keeps its connection */
    public static function of(Fpm $host, RedisServer $redis, array $except = []): ?int
    {
        $workers = array_diff($host->workers(), $except);
        preg_match_all('/ addr=127\.0\.0\.1:(\d+) .* cmd=xread /m', (string) $redis->command('CLIENT', 'LIST'), $found);
        foreach ($found[1] as $port) {
            $inode = self::inode((int) $port);
            foreach ($inode === null ? [] : $workers as $pid) {
                foreach (glob("/proc/$pid/fd/*") ?: [] as $descriptor) {
                    if (@readlink($descriptor) === "socket:[$inode]") {
                        return $pid;
                    }
                }
            }
        }
        return null;
    }

    private static function inode(int $port): ?string
    {
        foreach (file('/proc/net/tcp', FILE_IGNORE_NEW_LINES) as $line) {
            $columns = preg_split('/\s+/', trim($line));
            if (str_ends_with($columns[1], sprintf(':%04X', $port)) && $columns[3] === '01') {
                return $columns[9];
            }
        }
        return null;
    }
}
