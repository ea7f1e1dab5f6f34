//! What a sheet that just arrived comes to: the guard's verdict, and how long what is then held may be
//! used. Pure; the same for a source and for a callable.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::{Found, Guard, Verdict};
use super::holding::Holding;
use super::{Sheet, Validators};
use crate::clock::Moment;
use crate::entry::{Entry, SheetPolicy, Timing};

/// By which rules a sheet is kept.
#[derive(Clone, Debug)]
pub struct Rules {
    pub policy: SheetPolicy,
    /// Bounds the as-of itself, whatever a source confirms.
    pub max_age: Duration,
    pub guard: Guard,
}

/// What a source's answer comes to, beside what is held.
pub enum Read {
    /// To be committed; `verdict` says as what.
    Kept { value: Vec<u8>, timing: Timing, verdict: Verdict },
    /// Not to be used while the held one is what it should be; see [`Verdict::Older`].
    Older,
    /// Not to be used; the sentence says why.
    Refused(String),
}

impl Rules {
    /// `from` is the moment before the source was asked, `wall` the same in Unix milliseconds.
    /// `not_before`: sources that asked to be left alone, to be noted with the sheet.
    pub fn read(
        &self,
        held: Option<&Entry>,
        sheet: Sheet,
        validators: Validators,
        not_before: &BTreeMap<String, i64>,
        from: Moment,
        wall: i64,
    ) -> Read {
        let kept = held.and_then(|entry| Some((Holding::from_bytes(&entry.value).ok()?, entry)));
        let held_is_stale = kept.as_ref().is_none_or(|(_, entry)| entry.timing.is_stale(from));
        let source = sheet.source().to_owned();
        let found = Found { sheet, at: wall.div_euclid(1000), held_is_stale };
        let (holding, verdict) = self.guard.judge(kept.as_ref().map(|(holding, _)| holding), found);
        let Some(mut holding) = holding else {
            return match verdict {
                Verdict::Older => Read::Older,
                Verdict::Refused(why) | Verdict::Quarantined(why) => Read::Refused(why),
                Verdict::Accepted | Verdict::Confirmed => Read::Refused("it was not kept".into()),
            };
        };
        holding.not_before.retain(|_, until| until.saturating_mul(1000) > wall);
        holding.not_before.extend(not_before.clone());
        let confirmed_at = match &verdict {
            Verdict::Accepted | Verdict::Confirmed => {
                // Another source may have confirmed it; its validators are of its own sheet.
                if holding.sheet.source() == source {
                    holding.validators = validators;
                }
                from
            }
            // The old sheet stays, as old as it is.
            _ => kept.as_ref().map_or(from, |(_, entry)| entry.timing.minted_at),
        };
        let timing = Timing::sheet(confirmed_at, from, self.policy);
        let timing = self.within_max_age(timing, holding.sheet.as_of(), from, wall);
        if timing.expires_at <= from {
            return Read::Refused(format!(
                "by its date its rates are older than sharedstate.fx.max_age_s = {}",
                self.max_age.as_secs()
            ));
        }
        Read::Kept { value: holding.to_bytes(), timing, verdict }
    }

    /// `now` and `wall` are the same instant.
    pub(super) fn within_max_age(
        &self,
        timing: Timing,
        as_of: Option<i64>,
        now: Moment,
        wall: i64,
    ) -> Timing {
        let Some(as_of) = as_of else { return timing };
        let max_age = i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX);
        let last = as_of.saturating_mul(1000).saturating_add(max_age);
        let expires_at = timing.expires_at.min(now.plus_millis(last.saturating_sub(wall)));
        Timing { expires_at, ..timing }
    }
}
