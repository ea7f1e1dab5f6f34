<?php

/**
 * What the extension declares, for editors and static analysis. Checked against reflection.
 *
 * Its settings, all `PHP_INI_SYSTEM`, with their defaults; README.md says what each means:
 *
 *     sharedstate.prefix = sharedstate
 *     sharedstate.redis.dsn =
 *     sharedstate.redis.connect_timeout_ms = 250
 *     sharedstate.redis.response_timeout_ms = 250
 *     sharedstate.redis.username =
 *     sharedstate.redis.password =
 *     sharedstate.redis.password_file =
 *     sharedstate.redis.tls_ca =
 *     sharedstate.redis.tls_server_name =
 *     sharedstate.redis.tls_cert =
 *     sharedstate.redis.tls_key =
 *     sharedstate.redis.pool_max = 8
 *     sharedstate.redis.pool_idle_s = 1
 *     sharedstate.host.dir =
 *     sharedstate.host.memory = 32M
 *     sharedstate.host.slots = 16384
 *     sharedstate.host.value_size = 16K
 *     sharedstate.max_staleness_ms = 1000
 *     sharedstate.store_down = host
 *     sharedstate.encryption_key_file =
 *     sharedstate.token.expiry_margin_s = 60
 *     sharedstate.token.refresh_ratio = 0.8
 *     sharedstate.token.lease_ms = 4000
 *     sharedstate.token.wait_timeout_ms = 6000
 *     sharedstate.token.max_mint_ms = 30000
 *     sharedstate.token.failure_backoff_ms = 1000
 *     sharedstate.fx.sources =
 *     sharedstate.fx.refresh_interval_s = 3600
 *     sharedstate.fx.max_stale_s = 259200
 *     sharedstate.fx.max_age_s = 604800
 *     sharedstate.fx.max_jump_pct = 20
 *     sharedstate.fx.monthly_quota =
 *     sharedstate.fx.openexchangerates.app_id_file =
 *     sharedstate.fx.state_dir =
 *     sharedstate.log =
 *     sharedstate.log_level = warning
 */

namespace {
    /**
     * The token called `$name`, minted once for all workers and hosts and served until shortly
     * before it expires.
     *
     * `$mint` returns the token response: an array or JSON string with `access_token` or `token`
     * and `expires_in`, `expires_at`, `expires_on` or `expires`; an object with `getToken()` and
     * `getExpires()`; a JWT; or a bearer token when the option `ttl` is given. It is called by one
     * worker only, and only when there is no usable token or the one there is due for renewal.
     *
     * Hot loops: a closure literal in the call costs more than the call. Put it into a variable, or
     * leave it out where the token is known to exist.
     *
     * @param (callable(array{name: string, version: int}): (array<string, mixed>|string|object))|null $mint
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool, opaque?: bool} $options
     *        `ttl`: seconds; the shorter of it and what the response says counts. `margin`: seconds before the expiry
     *        in which the token is no longer served. `refresh_ratio`: share of the usable life
     *        after which one worker renews. `wait_ms`: longest wait for another worker's mint.
     *        `fingerprint`: what else makes this token this token (scope, audience, account); keys
     *        are sorted, the order of a list counts, 1 is not "1". `rejected`: the token that was
     *        just refused by the API: it is invalidated first; refused again too soon (within 1 s,
     *        2 s, … 60 s) the same token comes back. `keep`: fields of the response to
     *        hand out by `shared_token_info()`. `store_down`: what to do without Redis.
     *        `defer`: what is still usable is served, and renewed after the response. `opaque`: any
     *        text without control characters is a token.
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
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool, opaque?: bool} $options
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
     * Drop every token everywhere, or all of one name, whatever their fingerprints: those that this host
     * has, and those that Redis' change log names. Of those, mints in flight are refused and made again;
     * not the first mint ever of a name, begun on another host: call again after `token.max_mint_ms`. Rates stay.
     *
     * @return array{dropped: int, since: int|null} how many tokens there were; and where the change log is
     *         so long that it was cut, from when on it is whole (Unix seconds): a token from before that
     *         which this host never had is not dropped
     *
     * @throws \SharedState\StoreUnavailable Redis could not be told of all; this host has dropped its own
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed name
     */
    function shared_token_invalidate_all(?string $name = null): array {}

    /**
     * What is known of a token on this host, without the token itself; null when there is none.
     * Times are Unix seconds.
     *
     * @param array{ttl?: int|float|numeric-string, margin?: int|float|numeric-string, refresh_ratio?: float|numeric-string, wait_ms?: int|float|numeric-string, fingerprint?: string|array<array-key, mixed>, rejected?: string, keep?: list<string>, store_down?: 'host'|'fail', defer?: bool, opaque?: bool} $options
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
     * only, and only when there is no sheet or the one there is due for renewal. It is not called for the
     * default sheet where `sharedstate.fx.sources` is set: that one is the sources' to keep.
     *
     * @param (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string))|null $fetch
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        `fetch`: the same as `$fetch`; both must not differ. `sheet`: the name of a sheet
     *        beside the default one. `max_age_s`: how old the rates may be, by their as-of (by the
     *        fetch, where the source does not say). `rounding`: what `fx_convert()` and `fx_quote()`
     *        do with a tie, to the even neighbour or away from zero; the others accept and ignore it.
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency, or is older than `max_age_s`
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
     * An amount in another currency: `$amount` × rate, exact and rounded once to `$scale` decimals.
     *
     * The amount is digits with a point before the decimals, at most 40 of them: no exponent, space
     * or thousands separator. Without `$scale` the result has the decimals of ISO 4217 (JPY 0,
     * USD 2, BHD 3); for a currency that has none there (XAU, BTC) `$scale` has to be passed.
     *
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        those of `fx_rate()`
     * @param int<0, 28>|null $scale
     *
     * @return numeric-string
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency, or is older than `max_age_s`
     * @throws \SharedState\MintFailed
     * @throws \SharedState\InvalidValue
     * @throws \SharedState\WaitTimeout
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed amount, code, scale or option
     */
    function fx_convert(string $amount, string $from, string $to, ?int $scale = null, array $options = []): string {}

    /**
     * What an order record needs: the converted amount, as `fx_convert()` has it without `$scale`, and
     * the rate it was converted with, all from one sheet. The amount is exact; the rate is rounded to
     * at most 28 digits.
     *
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        those of `fx_rate()`
     *
     * @return array{
     *     amount: numeric-string,
     *     rate: numeric-string,
     *     as_of: int|null,
     *     version: int,
     *     source: string,
     *     stale: bool
     * } `as_of`: Unix seconds, null when the source did not say. `stale`: renewing is overdue by an
     *   interval. A currency in itself needs no sheet: version 0 of source `none`.
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency, or is older than `max_age_s`
     * @throws \SharedState\MintFailed
     * @throws \SharedState\InvalidValue
     * @throws \SharedState\WaitTimeout
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed amount, code or option; a currency without decimals in ISO 4217
     */
    function fx_quote(string $amount, string $from, string $to, array $options = []): array {}

    /**
     * How many of each currency one `$base` buys, from one sheet. `$base` itself is at `'1'`; the
     * sheet's own when it is null.
     *
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        those of `fx_rate()`
     *
     * @return array<string, numeric-string> by code, in its order
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency, or is older than `max_age_s`
     * @throws \SharedState\MintFailed
     * @throws \SharedState\InvalidValue
     * @throws \SharedState\WaitTimeout
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed code or option
     */
    function fx_rates(?string $base = null, array $options = []): array {}

    /**
     * A rate with all that is known of it. Times are Unix seconds.
     *
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        those of `fx_rate()`
     *
     * @return array{
     *     rate: numeric-string,
     *     as_of: int|null,
     *     age: int,
     *     confirmed_at: int|null,
     *     stale: bool,
     *     source: string,
     *     version: int,
     *     next_refresh: int|null
     * } `age`: seconds since the as-of, or since the confirmation when the source did not say.
     *   `confirmed_at`: when the source last answered with it. `next_refresh`: from when on one
     *   process renews it. A currency in itself needs no sheet: version 0 of source `none`, and no
     *   times.
     *
     * @throws \SharedState\RateUnavailable the sheet does not have the currency, or is older than `max_age_s`
     * @throws \SharedState\MintFailed
     * @throws \SharedState\InvalidValue
     * @throws \SharedState\WaitTimeout
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError a malformed code or option
     */
    function fx_rate_info(string $from, string $to, array $options = []): array {}

    /**
     * Renew the sheet if it is older than half of `sharedstate.fx.refresh_interval_s`: what a cron job
     * calls, from as many places as it likes. Configured sources are asked; `$fetch` is for a sheet
     * that has none.
     *
     * @param (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string))|null $fetch
     * @param array{fetch?: (callable(array{name: string, version: int}): (array{base: string, rates: array<string, int|float|string>, timestamp?: int}|string)), sheet?: string, max_age_s?: int|float|numeric-string, rounding?: 'half_even'|'half_up'} $options
     *        those of `fx_rate()`; `sheet` and `fetch` count
     *
     * @return array{
     *     refreshed: bool,
     *     reason: 'due'|'fresh'|'busy'|'backoff'|'quarantined'|'failed',
     *     source: string|null,
     *     version: int|null,
     *     as_of: int|null,
     *     next_refresh: int|null
     * } what is in force afterwards; null where there is no sheet. `due`: renewed or confirmed.
     *   `fresh`: too young. `busy`: somebody else is at it. `backoff`: the last attempts failed and it
     *   is not time for the next. `quarantined`: what came looks wrong and is held back. `failed`:
     *   nothing came; the log says why.
     *
     * @throws \SharedState\MintFailed there is no sheet, and `$fetch` threw
     * @throws \SharedState\InvalidValue there is no sheet, and what `$fetch` returned is none
     * @throws \SharedState\NoSource
     * @throws \SharedState\StoreUnavailable
     * @throws \SharedState\ConfigError
     * @throws \ValueError an unknown or malformed option
     */
    function fx_refresh(?callable $fetch = null, array $options = []): array {}

    /**
     * Counters of this host and the state of its table. `$limited` leaves out paths and addresses.
     *
     * @return array<string, int|string|bool> with `token_cache_hits`, `token_cache_misses` and
     *         `token_mint_count`, `fx_cache_hits`, `fx_cache_misses` and `fx_fetch_count` among them.
     *         Where the PHP polyfill answers instead of the extension, 'polyfill' is true.
     *
     * @throws \SharedState\ConfigError
     */
    function sharedstate_status(bool $limited = false): array {}

    /**
     * What this host has counted and how it is, as OpenMetrics text, to be served as
     * `application/openmetrics-text; version=1.0.0; charset=utf-8`. It is of the whole host, whichever
     * of its workers is asked. Asks Redis nothing.
     *
     * `family` is a token's name up to its first `:`; after 64 families the others are `other`.
     *
     * @throws \SharedState\ConfigError
     */
    function sharedstate_metrics(): string {}

    /**
     * What this host has, name by name, and never a value. Asks Redis nothing, and counts as no use.
     *
     * Times are in Unix seconds. Without an entry (only asked for, dropped, or being minted for the first
     * time) `version` is 0, `freshness` is `gone` and the times are null.
     *
     * @param int $limit so many entries at most
     *
     * @return list<array{
     *     name: string,
     *     kind: 'token'|'rates'|'quota',
     *     fingerprint: string|null,
     *     family: string,
     *     version: int,
     *     freshness: 'fresh'|'refresh_due'|'stale'|'gone',
     *     minted_at: int|null,
     *     refresh_at: int|null,
     *     usable_until: int|null,
     *     expires_at: int|null,
     *     age: int|null,
     *     source: string,
     *     minted_by: array{host: string, sapi: string, script: string},
     *     unsynced: bool,
     *     confirmed: bool,
     *     flight: array{since: int, until: int, pid: int|null}|null,
     *     backoff: array{until: int, failures: int, reason: string}|null,
     *     rates: array{base: string, as_of: int|null, confirmed_at: int, source: string, currencies: int,
     *         unconfirmed: bool, held_back: bool}|null
     * }> in no particular order. `name` is bytes, which need not be UTF-8; `fingerprint` is the beginning
     *   of a hash. `unsynced`: made while Redis could not be asked. `confirmed`: known to be the newest.
     *   `flight`: somebody asks for it or mints it, given up on at `until`; `pid` is null where an earlier
     *   release does. `backoff`: nobody mints before. `rates`, for a sheet: `confirmed_at` is when a source
     *   last said that it is its newest, `held_back` that a newer one looks wrong.
     *
     * @throws \SharedState\ConfigError
     * @throws \ValueError `$limit` is below 1
     */
    function sharedstate_entries(int $limit = 1000): array {}
}

namespace SharedState {
    /** @internal PHP calls it at the end of a request that asked for `defer`; does nothing otherwise. */
    function renew_deferred(): void {}

    /** All of them, to catch at once. */
    class Exception extends \RuntimeException {}

    /** The callable failed, here (then `getPrevious()` is its exception) or at another worker. */
    class MintFailed extends Exception
    {
        /** In how many seconds the fleet may try again, from when it was thrown. Null only where an application made it. */
        public readonly ?float $retryAfter;

        public function __construct(string $message = '', int $code = 0, ?\Throwable $previous = null, ?float $retryAfter = null) {}
    }

    /**
     * For a callable to throw: the issuer or the source said when to ask again (`Retry-After`). It is a failure like any
     * other, and while Redis answers nobody in the fleet asks again before; without Redis nobody on this host.
     */
    class RetryLater extends Exception
    {
        /** At most 86400: who is told of more is asked again in a day. */
        public readonly float $seconds;

        public function __construct(float $seconds, string $message = '', ?\Throwable $previous = null) {}
    }

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
