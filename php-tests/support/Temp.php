<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** A folder per test: sockets, configurations, logs and host tables live there and go with it. */
final class Temp
{
    /** @var array<string, true> */
    private static array $folders = [];

    public static function folder(): string
    {
        // In memory where that is possible, because that is where the extension keeps its table by default.
        // build/test removes its own with whatever a killed test has left.
        $base = getenv('TEST_FOLDER') ?: (is_writable('/dev/shm') ? '/dev/shm' : sys_get_temp_dir());
        $folder = $base . '/ss-test-' . bin2hex(random_bytes(5));
        mkdir($folder, 0700);
        self::$folders[$folder] = true;
        return $folder;
    }

    public static function remove(string $folder): void
    {
        exec('rm -rf -- ' . escapeshellarg($folder));
        unset(self::$folders[$folder]);
    }

    public static function removeAll(): void
    {
        foreach (array_keys(self::$folders) as $folder) {
            self::remove($folder);
        }
    }
}
