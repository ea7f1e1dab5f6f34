//! Random numbers, for secrets, jitter and names. In a test they can be made to repeat.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's numbers follow from `seed`.
#[cfg(test)]
pub fn repeat(seed: u64) {
    SEED.set(Some(seed));
}

/// SplitMix64 (Steele, Lea and Flood 2014), where they are to repeat.
#[cfg(test)]
fn repeated() -> Option<u64> {
    let state = SEED.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEED.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// `None` only before the kernel's own source is ready, while a machine boots.
pub fn number() -> Option<u64> {
    #[cfg(test)]
    if let Some(number) = repeated() {
        return Some(number);
    }
    getrandom::u64().ok()
}

/// A share, from 0 to 1.
pub fn share() -> f64 {
    number().unwrap_or(0) as u32 as f64 / f64::from(u32::MAX)
}
