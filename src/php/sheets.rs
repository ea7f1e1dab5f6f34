//! The sheets this thread read last: a call finds its sheet parsed for as long as the version
//! stands, and in the same request without a copy from the table for as long as it is trusted.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::memo::LOOK_AGAIN;
use super::runtime::{Runtime, Watch};
use crate::clock::Moment;
use crate::clock::system::Window;
use crate::entry::{Key, Timing, Version};
use crate::error::Error;
use crate::flight::Served;
use crate::fx::holding::Holding;
use crate::fx::{Age, Sheet};
use crate::process;

/// Sheets per thread. An application has one, and another beside it.
const PLACES: usize = 8;

/// A sheet as it was served. All that one call answers comes from one of these.
pub struct Held {
    key: Key,
    pub version: Version,
    pub holding: Rc<Holding>,
    pub timing: Timing,
    pub age: Age,
    trusted_until: Moment,
    /// The same, for who reads no more than one clock.
    trusted: Window,
    /// On this very version; `None` where there is no table, and when the request has ended.
    pub watch: Option<Watch>,
    /// An inherited watch is on words that the child has not mapped for itself.
    process: u64,
}

impl Held {
    /// Until when the same question may have the same answer.
    /// Fails with [`Error::RateUnavailable`] when the rates are older than `max_age`.
    pub fn within(&self, max_age: Option<Duration>, now: Moment) -> Result<Moment, Error> {
        let Some(max_age) = max_age else { return Ok(self.trusted_until) };
        Ok(self.trusted_until.min(self.age.within(max_age, now)?))
    }

    pub fn sheet(&self) -> &Sheet {
        &self.holding.sheet
    }

    pub fn is_stale(&self, now: Moment) -> bool {
        self.timing.is_stale(now)
    }

    fn is_trusted(&self) -> bool {
        self.process == process::generation()
            && self.watch.as_ref().is_some_and(Watch::holds)
            && self.trusted.is_open()
    }
}

thread_local! {
    /// The newest first.
    static HELD: RefCell<Vec<Rc<Held>>> = const { RefCell::new(Vec::new()) };
}

fn find(matches: impl Fn(&Held) -> bool) -> Option<Rc<Held>> {
    HELD.with_borrow(|all| all.iter().find(|held| matches(held)).cloned())
}

/// What was served of the key in this request, when it may be served again without asking.
pub fn known(key: &Key) -> Option<Rc<Held>> {
    find(|held| held.key == *key && held.is_trusted())
}

/// Takes over what was served; its text is parsed when the version is new to this thread.
pub fn hold(key: Key, served: &Served, runtime: &Runtime) -> Result<Rc<Held>, Error> {
    let version = served.entry.version;
    // What is from a file has the same version whatever it holds.
    let same = |held: &Held| held.version == version && version > Version::FILE;
    let holding = match find(|held| held.key == key && same(held)) {
        Some(held) => Rc::clone(&held.holding),
        None => {
            let parsed =
                Holding::from_bytes(&served.entry.value).map_err(Error::RateUnavailable)?;
            Rc::new(parsed)
        }
    };
    let (timing, now) = (served.entry.timing, runtime.now());
    let trusted_until = served.trusted_until.min(now.plus(LOOK_AGAIN));
    let held = Rc::new(Held {
        version,
        timing,
        age: Age::of(holding.sheet.as_of(), timing.minted_at, now, runtime.wall()),
        holding,
        trusted_until,
        trusted: Window::open(now.until(trusted_until)),
        watch: runtime.watch(&key, version),
        process: process::generation(),
        key,
    });
    HELD.with_borrow_mut(|all| {
        all.retain(|other| other.key != held.key);
        all.truncate(PLACES - 1);
        all.insert(0, Rc::clone(&held));
    });
    Ok(held)
}

/// RSHUTDOWN: watches go with the runtime they came from; what was parsed stays.
pub fn request_ends() {
    HELD.with_borrow_mut(|all| {
        // One that a bailout left somebody's is not to be changed.
        all.retain_mut(|held| Rc::get_mut(held).map(|held| held.watch = None).is_some());
    });
}
