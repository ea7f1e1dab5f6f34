<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** The token functions. */
final class Tokens
{
    /** @param array<array-key, mixed> $options */
    public static function get(string $name, ?callable $mint, #[\SensitiveParameter] array $options): string
    {
        $asked = new TokenOptions($options, 3);
        $key = Key::token($name, $asked->fingerprint, 1);
        $mint = $mint === null ? null : \Closure::fromCallable($mint);
        if ($mint !== null && $asked->defer && $asked->rejected === null && Deferred::hasResponse() && self::isDue($key)) {
            Deferred::later($key, static fn () => self::isDue($key) ? self::flight($key, $mint, $asked, 0.0)->run() : null);
            $mint = null;
        }
        return (string) self::flight($key, $mint, $asked, $asked->wait)->run()->value;
    }

    /** @param array<array-key, mixed> $options */
    public static function invalidate(string $name, #[\SensitiveParameter] ?string $rejected, #[\SensitiveParameter] array $options): bool
    {
        $asked = new TokenOptions($options, 3);
        $key = Key::token($name, $asked->fingerprint, 1);
        $rejected ??= $asked->rejected;
        return Store::current()->change($key, static fn (Record $record): bool => $record->invalidate($rejected, microtime(true)));
    }

    /** @return array{dropped: int, since: null} this store forgets no change, so there is nothing to be unsure of */
    public static function invalidateAll(?string $name): array
    {
        Settings::current();
        if ($name !== null) {
            Key::token($name, '', 1);
        }
        $store = Store::current();
        // Counted before anything is changed: an iterator over what changes under it may meet a record twice.
        $keys = [...$store->keys()];
        $dropped = 0;
        foreach ($keys as $key) {
            if ($key->isToken && ($name === null || $key->name === $name)) {
                $dropped += (int) $store->change($key, static fn (Record $record): bool => $record->invalidate(null, microtime(true)));
            }
        }
        return ['dropped' => $dropped, 'since' => null];
    }

    /**
     * @param array<array-key, mixed> $options
     * @return array<string, mixed>|null never the token
     */
    public static function info(string $name, #[\SensitiveParameter] array $options): ?array
    {
        $asked = new TokenOptions($options, 2);
        $entry = Store::current()->read(Key::token($name, $asked->fingerprint, 1))->known();
        if ($entry === null) {
            return null;
        }
        $now = microtime(true);
        return [
            'version' => $entry->version,
            'freshness' => $entry->freshness($now),
            'minted_at' => (int) floor($entry->mintedAt),
            'refresh_at' => (int) floor($entry->refreshAt),
            'usable_until' => (int) floor($entry->usableUntil),
            'expires_at' => (int) floor($entry->expiresAt),
            'source' => 'callable',
            'minted_by' => $entry->mintedBy,
            'unsynced' => false,
            'kept' => $entry->kept,
        ];
    }

    private static function isDue(Key $key): bool
    {
        $now = microtime(true);
        return Store::current()->read($key)->served($now)?->isDue($now) ?? false;
    }

    private static function flight(Key $key, ?\Closure $mint, #[\SensitiveParameter] TokenOptions $asked, float $wait): Flight
    {
        $read = static function (#[\SensitiveParameter] mixed $answer, int $version, float $from) use ($asked, $key): Entry {
            $response = TokenResponse::read($answer);
            $response->check($asked->opaque);
            $lifetime = $response->lifetime($asked->ttl, microtime(true));
            if ($response->contradiction !== null) {
                Log::warn("of {$key->noun()} the lifetimes disagree: $response->contradiction");
            }
            return Entry::token($version, $response->token, $from, $lifetime, $asked->margin, $asked->refreshRatio, $response->kept($asked->keep));
        };
        return new Flight($key, $mint, $read, microtime(true) + $wait, $asked->rejected);
    }
}
