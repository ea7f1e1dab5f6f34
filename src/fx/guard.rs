//! What becomes of a sheet that a source just brought, beside the one that is held. Pure.
//!
//! A sheet that looks wrong is held back whole and the held one stays in force, so a fault never
//! reaches a caller; and a real devaluation is confirmed by the next sheet, so it is late by one.

use super::holding::Holding;
use super::typical::moves;
use super::{Currency, Sheet};

/// How far a currency may move before its sheet is suspicious, whatever its habits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// As a fraction.
    pub max_jump: f64,
}

/// A sheet as it arrived.
#[derive(Clone, Debug)]
pub struct Found {
    pub sheet: Sheet,
    /// Unix seconds.
    pub at: i64,
    /// Whether the held one is older than it should be.
    pub held_is_stale: bool,
}

/// Sentences without the source, for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in force.
    Accepted,
    /// It is what is held.
    Confirmed,
    /// Held back until it is confirmed.
    Quarantined(String),
    /// Of no use while the held one is what it should be.
    Older,
    /// Of no use.
    Refused(String),
}

/// What [`Verdict::Older`] says.
pub const OLDER: &str = "it is older than the sheet that is held";

const DAY: i64 = 86_400;
/// By so much the clocks of a source and of a host may differ.
const CLOCKS: i64 = 300;
/// How much later another source's suspicious sheet must be to take the place of one that waits for
/// its own source's next: two that disagree would evict each other until nothing could be served.
const PATIENCE: i64 = DAY;
/// Currencies named in a sentence.
const NAMED: usize = 3;

impl Guard {
    /// What is to be held from now on; `None` when nothing changes.
    pub fn judge(&self, held: Option<&Holding>, found: Found) -> (Option<Holding>, Verdict) {
        let Found { sheet, at, held_is_stale } = found;
        if sheet.as_of().is_some_and(|as_of| as_of > at + DAY) {
            let why = "its date is more than a day ahead: check the clock of this host";
            return (None, Verdict::Refused(why.into()));
        }
        let Some(held) = held else { return (Some(Holding::first(sheet)), Verdict::Accepted) };
        // A date ahead of now is wrong and says nothing. And each source dates by a clock and a habit of its own: another
        // one stands in for the held one's when that brings nothing any more.
        let ahead = held.sheet.as_of().is_some_and(|as_of| as_of > at + CLOCKS);
        let stands_in = held_is_stale && sheet.source() != held.sheet.source();
        if is_before(&sheet, &held.sheet) && !ahead && !stands_in {
            return (None, Verdict::Older);
        }
        if says_the_same(&sheet, &held.sheet) {
            return (Some(confirmed(held, &sheet)), Verdict::Confirmed);
        }
        let lacking = held.sheet.rates().keys().filter(|code| !sheet.rates().contains_key(code));
        let lacking: Vec<String> = lacking.map(Currency::to_string).collect();
        if !lacking.is_empty() && !held_is_stale {
            let why = format!("it lacks {}, which the held sheet has", some_of(&lacking));
            return (None, Verdict::Refused(why));
        }
        let Some(jumped) = self.jumped(held, &sheet) else {
            let why = "it has no base in common with the held sheet";
            return (None, Verdict::Refused(why.into()));
        };
        if jumped.is_empty() || self.confirms(&sheet, held.quarantine.as_ref(), &jumped) {
            return (Some(accepted(held, sheet)), Verdict::Accepted);
        }
        let why = format!(
            "{} against the held sheet: held back until a later sheet or another source confirms it",
            some_of(&in_words(&jumped))
        );
        let waiting = held.quarantine.as_ref().filter(|it| keeps_its_place(it, &sheet));
        let quarantine = Some(waiting.cloned().unwrap_or(sheet));
        (Some(Holding { quarantine, ..held.clone() }), Verdict::Quarantined(why))
    }

    /// The currencies that moved beyond their limits, and how far. `None` without a common base.
    fn jumped(&self, held: &Holding, sheet: &Sheet) -> Option<Vec<(Currency, f64)>> {
        let days = days_between(held.sheet.as_of(), sheet.as_of());
        let far = |(currency, moved): &(Currency, f64)| {
            *moved > held.typical.limit(*currency, days, self.max_jump)
        };
        Some(moves(&held.sheet, sheet)?.into_iter().filter(far).collect())
    }

    /// Whether the sheet says what the suspicious one said, independently of it: later, or from
    /// somebody else. Never the same document once more, and never of a jump it had no rate for.
    fn confirms(
        &self,
        sheet: &Sheet,
        suspicious: Option<&Sheet>,
        jumped: &[(Currency, f64)],
    ) -> bool {
        let Some(suspicious) = suspicious else { return false };
        let later = match (sheet.as_of(), suspicious.as_of()) {
            (Some(this), Some(that)) => this > that,
            _ => sheet.rates() != suspicious.rates(),
        };
        let independent = later || sheet.source() != suspicious.source();
        let near = |moves: Vec<(Currency, f64)>| moves.iter().all(|(_, it)| *it <= self.max_jump);
        let knew = jumped.iter().all(|(code, _)| suspicious.rates().contains_key(code));
        independent && knew && moves(suspicious, sheet).is_some_and(near)
    }
}

fn confirmed(held: &Holding, sheet: &Sheet) -> Holding {
    let unconfirmed = held.unconfirmed && held.sheet.source() == sheet.source();
    Holding { unconfirmed, quarantine: None, ..held.clone() }
}

fn accepted(held: &Holding, sheet: Sheet) -> Holding {
    let since = held.moved_at.or(held.sheet.as_of());
    // The same rates under a new date are nothing new: a source that dates each hour what it changes
    // once a day would teach that nothing ever moves.
    let (moved_at, typical) = if same_rates(&held.sheet, &sheet) {
        (since, held.typical.clone())
    } else {
        let days = days_between(since, sheet.as_of());
        (sheet.as_of(), held.typical.after(&held.sheet, &sheet, days))
    };
    Holding { moved_at, typical, unconfirmed: false, quarantine: None, sheet, ..held.clone() }
}

fn is_before(this: &Sheet, that: &Sheet) -> bool {
    this.as_of().zip(that.as_of()).is_some_and(|(this, that)| this < that)
}

fn says_the_same(this: &Sheet, that: &Sheet) -> bool {
    let dates = this.as_of().zip(that.as_of());
    dates.is_none_or(|(this, that)| this == that) && same_rates(this, that)
}

fn same_rates(this: &Sheet, that: &Sheet) -> bool {
    this.base() == that.base() && this.rates() == that.rates()
}

/// Whether what is held back still waits for its own source's next, beside another suspicious sheet.
fn keeps_its_place(waiting: &Sheet, other: &Sheet) -> bool {
    if waiting.source() == other.source() {
        // What is not later says nothing new.
        return is_before(other, waiting) || says_the_same(other, waiting);
    }
    let dates = other.as_of().zip(waiting.as_of());
    dates.is_some_and(|(other, waiting)| other <= waiting + PATIENCE)
}

/// A day where one of them has no date.
fn days_between(old: Option<i64>, new: Option<i64>) -> f64 {
    let dates = new.zip(old);
    dates.map_or(1.0, |(new, old)| new.abs_diff(old) as f64 / DAY as f64)
}

fn in_words(moves: &[(Currency, f64)]) -> Vec<String> {
    moves.iter().map(|(code, moved)| format!("{code} moved {:.1} %", moved * 100.0)).collect()
}

fn some_of(words: &[String]) -> String {
    let shown = words.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match words.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod history;
#[cfg(test)]
mod hourly;
#[cfg(test)]
mod tests;
