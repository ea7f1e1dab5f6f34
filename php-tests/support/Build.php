<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** What is tested, and with which binaries. */
final class Build
{
    /** @var array<string, bool> whether a PHP extension has to be loaded, by its name */
    private static array $shared = [];

    public static function extension(): string
    {
        return getenv('SHAREDSTATE_SO') ?: dirname(__DIR__, 2) . '/target/release/libsharedstate.so';
    }

    /** `apcu` or `array`, the store of the PHP polyfill that is tested instead of the extension; null for the extension. */
    public static function polyfill(): ?string
    {
        return getenv('POLYFILL') ?: null;
    }

    /** @return list<string> the options of a PHP command line that make the functions known */
    public static function loading(): array
    {
        return self::polyfill() === null ? ['-d', 'extension=' . self::extension()] : self::withPolyfill(self::polyfill());
    }

    /** @return list<string> the same for the polyfill with that store; it is not there with -r */
    public static function withPolyfill(string $store): array
    {
        $options = ['-d', 'auto_prepend_file=' . __DIR__ . '/polyfill.php', '-d', 'apc.enable_cli=' . (int) ($store === 'apcu')];
        foreach ($store === 'apcu' ? ['simplexml', 'apcu'] : ['simplexml'] as $name) {
            // Debian has it as a file, other builds of PHP in PHP itself.
            self::$shared[$name] ??= shell_exec(escapeshellarg(self::php()) . " -n -r 'echo extension_loaded(\"$name\") ? 0 : 1;'") === '1';
            if (self::$shared[$name]) {
                array_push($options, '-d', "extension=$name");
            }
        }
        return $options;
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

    /**
     * PHP, under valgrind where MEMCHECK asks for it: then no byte may be touched that is not there, or not there any
     * more. It does not look for what is lost at the end: that would read the whole host table, and so fill it. Each value
     * has memory of its own, for PHP's own allocator would hide that.
     *
     * @return list<string>
     */
    public static function watched(): array
    {
        if (!getenv('MEMCHECK')) {
            return [self::php()];
        }
        return ['env', 'USE_ZEND_ALLOC=0', 'ZEND_DONT_UNLOAD_MODULES=1', 'valgrind', '--quiet', '--leak-check=no', '--undef-value-errors=no', '--read-inline-info=no', '--smc-check=none',
            // A test's process runs most of its code once, so translating ahead of a jump does not pay.
            '--vex-guest-chase=no', '--num-callers=20', self::php()];
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
        if (!in_array(self::polyfill(), [null, 'apcu', 'array'], true)) {
            fwrite(STDERR, 'POLYFILL is ' . self::polyfill() . ", but must be apcu, array or unset.\n");
            exit(2);
        }
        if (self::polyfill() === null && !is_file(self::extension())) {
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
