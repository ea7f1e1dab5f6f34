#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What another process may have left in the file of a host's counters.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::tally::{Hit, MintReason, Refresh, Tally};
use super::text::{Scrape, text};

/// The words of the counters: two bytes of place and eight of content for each that is not zero.
///
/// - Counting goes on, and the counters can be written as OpenMetrics.
/// - No name of a family or a source adds a line.
pub fn counters(bytes: &[u8]) -> bool {
    let words: Box<[AtomicU64]> = (0..Tally::WORDS).map(|_| AtomicU64::new(0)).collect();
    for change in bytes.chunks_exact(10) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % Tally::WORDS;
        let value = change[2..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        words[at].store(value, Relaxed);
    }
    let tally = Tally::over(words).unwrap();
    let counts = tally.counts();
    let known = !counts.families.is_empty() || !counts.sources.is_empty();
    check_text(&text(Scrape { counts, ..Scrape::default() }));
    tally.hit(b"crm", Hit::Memo, 1);
    let second = Duration::from_secs(1);
    tally.minted(b"crm:1", MintReason::Cold, second, second);
    tally.mint_failed(b"crm", second);
    tally.waited(second);
    tally.called("ecb");
    tally.refreshed("ecb", Refresh::Taken);
    check_text(&text(Scrape { counts: tally.counts(), ..Scrape::default() }));
    known
}

fn check_text(text: &str) {
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines() {
        let ours = line.starts_with("# ") || line.starts_with("sharedstate_");
        assert!(ours, "a line of somebody else's: {line:?}");
    }
}
