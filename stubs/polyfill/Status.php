<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** sharedstate_status(): what runs with what, for people. */
final class Status
{
    /** Of the extension whose functions these are. */
    private const VERSION = '0.1.0';
    private const COUNTERS = [
        'token_cache_hits', 'token_cache_misses', 'token_mint_count', 'fx_cache_hits', 'fx_cache_misses', 'fx_fetch_count',
        'mint_failures', 'wait_timeouts', 'fx_quarantined',
    ];

    /** @return array<string, int|string|bool> */
    public static function all(): array
    {
        Settings::current();
        $store = Store::current();
        $status = ['polyfill' => true, 'store' => $store->name()];
        foreach (self::COUNTERS as $counter) {
            $status[$counter] = $store->counted($counter);
        }
        return $status + ['version' => self::VERSION];
    }
}
