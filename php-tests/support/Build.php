<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** What is tested, and with which binaries. */
final class Build
{
    public static function extension(): string
    {
        return getenv('SHAREDSTATE_SO') ?: dirname(__DIR__, 2) . '/target/release/libsharedstate.so';
    }

    /** The extension as it was at an earlier commit, for tests of a deployment; null where there is no history. */
    public static function previous(): ?string
    {
        return getenv('SHAREDSTATE_PREVIOUS_SO') ?: null;
    }

    public static function php(): string
    {
        return getenv('PHP') ?: PHP_BINARY;
    }

    public static function fpm(): string
    {
        return getenv('PHP_FPM') ?: 'php-fpm' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION;
    }

    public static function full(): bool
    {
        return (bool) getenv('FULL');
    }

    /** One clear sentence instead of two hundred failures. */
    public static function check(): void
    {
        if (!is_file(self::extension())) {
            fwrite(STDERR, 'There is no extension at ' . self::extension() . ": run build/test, or set SHAREDSTATE_SO.\n");
            exit(2);
        }
        // php-fpm and nginx are in sbin, which the PATH of an ordinary user lacks on Debian.
        putenv('PATH=' . getenv('PATH') . ':/usr/local/sbin:/usr/sbin:/sbin');
    }

    /** Redis, or what is to do as well as it: Valkey, an older Redis. */
    public static function redis(): string
    {
        return getenv('REDIS_SERVER') ?: 'redis-server';
    }
}
