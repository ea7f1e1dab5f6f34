<?php

/**
 * The functions, as the extension declares them: sharedstate.stub.php describes each. Callers keep their own mode:
 * without strict types scalars become strings as with any internal function.
 */

declare(strict_types=1);

use SharedState\Polyfill\Call;
use SharedState\Polyfill\Entries;
use SharedState\Polyfill\Metrics;
use SharedState\Polyfill\Rates;
use SharedState\Polyfill\Status;
use SharedState\Polyfill\Tokens;

function shared_token_get(string $name, ?callable $mint = null, #[\SensitiveParameter] array $options = []): string
{
    return Call::answer(static fn () => Tokens::get($name, $mint, $options));
}

function shared_token_invalidate(string $name, #[\SensitiveParameter] ?string $rejected = null, #[\SensitiveParameter] array $options = []): bool
{
    return Call::answer(static fn () => Tokens::invalidate($name, $rejected, $options));
}

function shared_token_invalidate_all(?string $name = null): array
{
    return Call::answer(static fn () => Tokens::invalidateAll($name));
}

function shared_token_info(string $name, #[\SensitiveParameter] array $options = []): ?array
{
    return Call::answer(static fn () => Tokens::info($name, $options));
}

function fx_rate(string $from, string $to, ?callable $fetch = null, array $options = []): float
{
    return Call::answer(static fn () => Rates::rate($from, $to, $fetch, $options));
}

function fx_convert(string $amount, string $from, string $to, ?int $scale = null, array $options = []): string
{
    return Call::answer(static fn () => Rates::convert($amount, $from, $to, $scale, $options));
}

function fx_quote(string $amount, string $from, string $to, array $options = []): array
{
    return Call::answer(static fn () => Rates::quote($amount, $from, $to, $options));
}

function fx_rates(?string $base = null, array $options = []): array
{
    return Call::answer(static fn () => Rates::all($base, $options));
}

function fx_rate_info(string $from, string $to, array $options = []): array
{
    return Call::answer(static fn () => Rates::info($from, $to, $options));
}

function fx_refresh(?callable $fetch = null, array $options = []): array
{
    return Call::answer(static fn () => Rates::refresh($fetch, $options));
}

function sharedstate_status(bool $limited = false): array
{
    return Call::answer(static fn () => Status::all());
}

function sharedstate_metrics(): string
{
    return Call::answer(static fn () => Metrics::text());
}

function sharedstate_entries(int $limit = 1000): array
{
    return Call::answer(static fn () => Entries::all($limit));
}
