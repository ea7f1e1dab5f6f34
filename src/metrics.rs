//! What is counted, and the names it has in `sharedstate_status()`; [`tally`] counts by family and
//! source, [`text`] is how `sharedstate_metrics()` says it. Where the counts live is the host's business:
//! over all processes in shared memory, or in this process alone.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod tally;
pub mod text;

/// Index into the host's counters; new ones go to the end, for older processes share the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    TokenHits,
    TokenMisses,
    TokenMints,
    FxHits,
    FxMisses,
    FxFetches,
    MintFailures,
    CommitsRefused,
    LeasesLost,
    Waits,
    WaitTimeouts,
    Degraded,
    MarginsCut,
    ClockDependent,
    EvictedUsable,
    TableFull,
    TooLarge,
    Remaps,
    ClockJumps,
    WritersGivenUp,
    FlightsGivenUp,
    Revalidations,
    StoreErrors,
    BreakerOpened,
    Rejections,
    ChangesHeard,
    SealedUnreadable,
    Attached,
    FxFailures,
    FxQuarantined,
    RedisCommands,
    ClocksDisagreed,
    Contradicted,
}

impl Counter {
    /// With the names they have in `sharedstate_status()`.
    pub const ALL: [(Self, &'static str); 33] = [
        (Self::TokenHits, "token_cache_hits"),
        (Self::TokenMisses, "token_cache_misses"),
        (Self::TokenMints, "token_mint_count"),
        (Self::FxHits, "fx_cache_hits"),
        (Self::FxMisses, "fx_cache_misses"),
        (Self::FxFetches, "fx_fetch_count"),
        (Self::MintFailures, "mint_failures"),
        (Self::CommitsRefused, "commits_refused"),
        (Self::LeasesLost, "leases_lost"),
        (Self::Waits, "waits"),
        (Self::WaitTimeouts, "wait_timeouts"),
        (Self::Degraded, "served_degraded"),
        (Self::MarginsCut, "margins_cut"),
        (Self::ClockDependent, "clock_dependent_lifetimes"),
        (Self::EvictedUsable, "evicted_usable"),
        (Self::TableFull, "table_full"),
        (Self::TooLarge, "values_too_large"),
        (Self::Remaps, "table_remaps"),
        (Self::ClockJumps, "clock_jumps"),
        (Self::WritersGivenUp, "writers_given_up"),
        (Self::FlightsGivenUp, "flights_given_up"),
        (Self::Revalidations, "revalidations"),
        (Self::StoreErrors, "store_errors"),
        (Self::BreakerOpened, "breaker_opened"),
        (Self::Rejections, "rejections"),
        (Self::ChangesHeard, "changes_heard"),
        (Self::SealedUnreadable, "sealed_unreadable"),
        (Self::Attached, "processes_attached"),
        (Self::FxFailures, "fx_refresh_failures"),
        (Self::FxQuarantined, "fx_quarantined"),
        (Self::RedisCommands, "redis_commands"),
        (Self::ClocksDisagreed, "clocks_disagreed"),
        (Self::Contradicted, "lifetimes_contradicted"),
    ];
}
