<?php

/**
 * What the extension declares, for editors and static analysis. Checked against reflection.
 */

namespace {
    /**
     * The token called `$name`, minted once for all workers and hosts and served until shortly
     * before it expires.
     *
     * `$mint` returns the token response: an array or JSON string with `access_token` or `token`
     * and `expires_in`, `expires_at`, `expires_on` or `expires`; an object with `getToken()` and
     * `getExpires()`; a JWT; or any string when the option `ttl` is given. It is called by one
     * worker only, and only when there is no usable token or the one there is due for renewal.
     *
     * Hot loops: a closure literal in the call costs more than the call. Put it into a variable, or
     * leave it out where the token is known to exist.
     *
     * @param (callable(array{name: string, version: int}): (array<string, mixed>|string|object))|null $mint
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool} $options
     *        `ttl`: seconds, when the response does not say. `margin`: seconds before the expiry
     *        in which the token is no longer served. `refresh_ratio`: share of the usable life
     *        after which one worker renews. `wait_ms`: longest wait for another worker's mint.
     *        `fingerprint`: what else makes this token this token (scope, audience, account); keys
     *        are sorted, the order of a list counts, 1 is not "1". `rejected`: the token that was
     *        just refused by the API: it is invalidated first; refused again too soon (within 1 s,
     *        2 s, … 60 s) the same token comes back. `keep`: fields of the response to
     *        hand out by `shared_token_info()`. `store_down`: what to do without Redis.
     *        `defer`: what is still usable is served, and renewed after the response.
     *
     * @throws \SharedState\MintFailed the callable threw an \Exception (its `previous`), or the fleet backs off
     * @throws \SharedState\InvalidValue the callable's answer cannot be used
     * @throws \SharedState\WaitTimeout nobody had a token within the wait budget
     * @throws \SharedState\NoSource there is no token and no callable
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed name or option
     */
    function shared_token_get(string $name, ?callable $mint = null, #[\SensitiveParameter] array $options = []): string {}

    /**
     * Drop a token everywhere. With `$rejected`, the token an API refused: only if it is still the
     * current one, so that two workers with the same 401 do not drop each other's successor.
     *
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool} $options
     *        those of `shared_token_get()`; the fingerprint counts
     *
     * @return bool whether anything was dropped
     *
     * @throws \SharedState\StoreUnavailable Redis could not be told; this host has dropped it
     * @throws \SharedState\ConfigError
     * @throws \ValueError
     */
    function shared_token_invalidate(string $name, #[\SensitiveParameter] ?string $rejected = null, #[\SensitiveParameter] array $options = []): bool {}

    /**
     * What is known of a token on this host, without the token itself; null when there is none.
     * Times are Unix seconds.
     *
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool} $options
     *        those of `shared_token_get()`; the fingerprint counts
     *
     * @return array{
     *     version: int,
     *     freshness: 'fresh'|'refresh_due'|'gone',
     *     minted_at: int,
     *     refresh_at: int,
     *     usable_until: int,
     *     expires_at: int,
     *     source: string,
     *     minted_by: array{host: string, sapi: string, script: string},
     *     unsynced: bool,
     *     kept: array<string, mixed>
     * }|null
     *
     * @throws \SharedState\ConfigError
     * @throws \ValueError
     */
    function shared_token_info(string $name, #[\SensitiveParameter] array $options = []): ?array {}

    /**
     * How many `$to` one `$from` buys, from the shared rate sheet. Codes are three capital letters.
     *
     * `$fetch` returns a whole sheet in the Open Exchange Rates shape. It is called by one worker
     * only, and only when there is no sheet or the one there is due for renewal.
     *
     * @param (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string))|null $fetch
     * @param array{sheet?: string} $options `sheet`: the name of a sheet beside the default one
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency
     * @throws \SharedState\MintFailed
     * @throws \SharedState\InvalidValue
     * @throws \SharedState\WaitTimeout
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed code or option
     */
    function fx_rate(string $from, string $to, ?callable $fetch = null, array $options = []): float {}

    /**
     * Counters of this host and the state of its table. `$limited` leaves out paths and addresses.
     *
     * @return array<string, int|string> with `token_cache_hits`, `token_cache_misses` and
     *         `token_mint_count`, `fx_cache_hits`, `fx_cache_misses` and `fx_fetch_count` among them
     *
     * @throws \SharedState\ConfigError
     */
    function sharedstate_status(bool $limited = false): array {}
}

namespace SharedState {
    /** @internal PHP calls it at the end of a request that asked for `defer`; does nothing otherwise. */
    function renew_deferred(): void {}

    class Exception extends \RuntimeException {}

    /** The callable failed, here (then `getPrevious()` is its exception) or at another worker. */
    class MintFailed extends Exception {}

    /** Nobody came up with a value in time, or waiting would have been for oneself. */
    class WaitTimeout extends Exception {}

    /** Nothing usable on this host, and the store cannot be asked. */
    class StoreUnavailable extends Exception {}

    /** No entry, no callable and no configured source. */
    class NoSource extends Exception {}

    /** No rate for this pair that may be served. */
    class RateUnavailable extends Exception {}

    /** What a callable returned cannot be used; the message says what to return. */
    class InvalidValue extends Exception {}

    /** A setting, or the folder of the host table, cannot be used. */
    class ConfigError extends Exception {}
}
