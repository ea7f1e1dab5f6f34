<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** sharedstate_status(): what runs with what, for people. */
final class Status
{
    /** Of the extension whose functions these are. */
    private const VERSION = '0.1.0';

    /** @return array<string, int|string|bool> */
    public static function all(): array
    {
        Settings::current();
        $store = Store::current();
        $mints = Tally::mints();
        return [
            'polyfill' => true,
            'store' => $store->name(),
            'token_cache_hits' => Tally::ofTokens('hits'),
            'token_cache_misses' => $mints,
            'token_mint_count' => $mints,
            'fx_cache_hits' => Tally::ofRates('hits'),
            'fx_cache_misses' => Tally::ofRates('minted'),
            'fx_fetch_count' => Tally::ofRates('minted'),
            'mint_failures' => Tally::ofTokens('failed') + Tally::ofRates('failed'),
            'wait_timeouts' => $store->counted('wait_timeouts'),
            'fx_quarantined' => Tally::ofRates('quarantined'),
            'version' => self::VERSION,
        ];
    }
}
