<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** `['defer' => true]`: what is due is renewed after the response, once per key and request. */
final class Deferred
{
    /** How deep shutdown functions that register shutdown functions (a framework's late error page) still come before us. */
    private const GENERATIONS = 3;

    /** @var array<string, \Closure> */
    private static array $queue = [];
    private static ?int $toGo = null;

    public static function hasResponse(): bool
    {
        return !\in_array(PHP_SAPI, ['cli', 'phpdbg', 'embed'], true);
    }

    public static function later(Key $key, #[\SensitiveParameter] \Closure $renew): void
    {
        self::$queue[$key->text()] ??= $renew;
        if (self::$toGo === null) {
            self::register(self::GENERATIONS);
        }
    }

    public static function renew(): void
    {
        $toGo = self::$toGo;
        self::$toGo = null;
        if ($toGo === null || $toGo > 0) {
            $toGo === null ?: self::register($toGo - 1);
            return;
        }
        // The next click of this visitor waits for the session, and this one for the response.
        if (\function_exists('session_status') && session_status() === PHP_SESSION_ACTIVE) {
            self::call(session_write_close(...), 'session_write_close() before a renewal threw');
        }
        self::call(\function_exists('fastcgi_finish_request') ? fastcgi_finish_request(...) : flush(...), 'ending the response before a renewal threw');
        [$queue, self::$queue] = [self::$queue, []];
        foreach ($queue as $renew) {
            self::call($renew, 'a renewal after the response failed with');
        }
    }

    /** Nobody is left to catch what it throws, and a page that has been sent must not end in a fatal error. */
    private static function call(#[\SensitiveParameter] \Closure $call, string $what): void
    {
        try {
            $call();
        } catch (\Throwable $thrown) {
            Log::warn("$what " . strtok($thrown::class, "\0") . ': ' . Text::redacted($thrown->getMessage()));
        }
    }

    private static function register(int $toGo): void
    {
        self::$toGo = $toGo;
        register_shutdown_function('SharedState\renew_deferred');
    }
}
