//! `Retry-After`, RFC 9110 section 10.2.3: seconds, or an HTTP date.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::clock::WallTime;

/// No sheet waits longer for a source that says so: its rates are a day old by then.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long not to ask again; `None` where it says nothing that can be followed. A date is measured
/// by this host's clock.
pub(super) fn after(text: &str, wall_now: WallTime) -> Option<Duration> {
    let text = text.trim();
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What does not fit is longer than the longest.
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        // The two older forms of a date are in use nowhere any more.
        let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        let seconds = u64::try_from(date.unix_timestamp()).ok()?;
        Duration::from_secs(seconds).checked_sub(wall_now.since_epoch())?
    };
    Some(pause.min(LONGEST)).filter(|pause| !pause.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_a_day_is_the_most() {
        // Friday, 30 October 2026, 14:15:00.
        let now = WallTime::from_unix_millis(1_793_369_700_000);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", None),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Fri, 30 Oct 2026 14:17:00 GMT", Some(120)),
            ("Fri, 30 Oct 2026 14:15:00 GMT", None),
            ("Fri, 30 Oct 2026 14:14:00 GMT", None),
            ("Sat, 30 Oct 2100 14:15:00 GMT", Some(86_400)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
