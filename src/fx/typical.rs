//! How far each currency usually moves in a day: one number each, which follows the median of what
//! was seen. A fixed limit that a peso needs lets two swapped crowns through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Currency, Sheet, to_f64};

/// In ten-millionths of the rate, by currency code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Typical(BTreeMap<String, u32>);

const UNIT: f64 = 1e-7;
/// Of a currency that nothing is known of yet: the median of the ECB's is 0.3 to 0.6 %.
const PRIOR: f64 = 0.005;
/// Up or down by this factor a day: half of the moves are above the median, half below, so it
/// settles there, and one devaluation moves it by one step like any other day.
const STEP: f64 = 1.05;
/// A limit is this many typical moves: what that holds back and lets through of the ECB's 27 years,
/// `guard/history.rs` prints.
const TIMES: f64 = 12.0;
/// No limit is below this: pegged currencies hardly move, and then they do.
const LEAST: f64 = 0.01;
const CALMEST: f64 = LEAST / TIMES;
/// Far above what any currency does.
const LIVELIEST: f64 = 1.0;
/// Sheets an hour apart say little about a day.
const SHORTEST: f64 = 1.0 / 24.0;

impl Typical {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The largest move, as a fraction, that is not suspicious for `currency` within `days`.
    pub fn limit(&self, currency: Currency, days: f64, max_jump: f64) -> f64 {
        (TIMES * self.of(currency) * days.max(1.0).sqrt()).max(LEAST).min(max_jump)
    }

    fn of(&self, currency: Currency) -> f64 {
        self.0.get(&currency.to_string()).map_or(PRIOR, |it| f64::from(*it) * UNIT)
    }

    /// What it is after `new` has followed `old`, whose rates had stood for so many days.
    pub fn after(&self, old: &Sheet, new: &Sheet, days: f64) -> Self {
        let mut typical = self.0.clone();
        // An hour teaches an hour's share: two flat days of hourly sheets are two flat days.
        let step = 1.0 + (STEP - 1.0) * days.clamp(0.0, 1.0);
        for (currency, moved) in moves(old, new).unwrap_or_default() {
            let before = self.of(currency);
            let daily = moved / days.max(SHORTEST).sqrt();
            let after = if daily > before { before * step } else { before / step };
            // Below the calmest, a limit of a day is the least anyway; a peg that sank further would
            // need months to be taken for what it is when it ends.
            let units = (after.clamp(CALMEST, LIVELIEST) / UNIT).round();
            typical.insert(currency.to_string(), units as u32);
        }
        Self(typical)
    }
}

/// By how much each currency of both has moved, as a fraction upwards of the smaller rate, on a base
/// that both have: +50 % and back −33 % are the same move. `None` without a common base.
pub fn moves(old: &Sheet, new: &Sheet) -> Option<Vec<(Currency, f64)>> {
    let base = [old.base(), new.base()]
        .into_iter()
        .find(|base| old.rates().contains_key(base) && new.rates().contains_key(base))?;
    let unit = |sheet: &Sheet| sheet.rates().get(&base).map(|rate| to_f64(*rate));
    let (old_unit, new_unit) = (unit(old)?, unit(new)?);
    let both = old.rates().iter().filter_map(|(currency, rate)| {
        let (before, after) =
            (to_f64(*rate) / old_unit, to_f64(*new.rates().get(currency)?) / new_unit);
        let (less, more) = if before < after { (before, after) } else { (after, before) };
        Some((*currency, more / less - 1.0))
    });
    Some(both.collect())
}

#[cfg(test)]
mod tests;
