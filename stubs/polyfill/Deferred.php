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
            session_write_close();
        }
        \function_exists('fastcgi_finish_request') ? fastcgi_finish_request() : flush();
        [$queue, self::$queue] = [self::$queue, []];
        foreach ($queue as $renew) {
            try {
                $renew();
            } catch (\Throwable $thrown) {
                // Nobody is left to catch it, and a page that has been sent must not end in a fatal error.
                Log::warn('a renewal after the response failed: ' . Text::redacted($thrown->getMessage()));
            }
        }
    }

    private static function register(int $toGo): void
    {
        self::$toGo = $toGo;
        register_shutdown_function('SharedState\renew_deferred');
    }
}
