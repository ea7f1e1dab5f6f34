//! The change log of a fleet's store: every commit, restored entry and raised floor, in order.
//! Whoever follows it without a gap knows what is newest without asking for each key.

use std::time::Duration;

use super::{Noticed, Reply, StoreError};
use crate::clock::Moment;
use crate::clock::server::ServerTime;
use crate::entry::{Entry, Key, Version};
use crate::seal::KeyId;

/// A line of the log up to which it was read, and what it said. A log that has it has all that came before
/// it, so whoever stood there may go on from there: on another connection, and on a server that took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Milliseconds and number, as the log counts; zero before the first line.
    pub line: (u64, u64),
    /// Of what the line said.
    pub digest: u64,
}

/// What a look at the log showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Whether the anchor stands, here and with nothing missing behind it.
    pub stands: bool,
    /// Where the log ends.
    pub last: Anchor,
    /// The server's clock.
    pub told: ServerTime,
    /// Whether the server's clock has gone back since the last look at it.
    pub set_back: bool,
}

/// One line: of this key something was committed, its floor was raised, or a lease was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    /// `None`: the line cannot be read or believed, so only the store can tell.
    pub news: Option<News>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// [`Version::NONE`] where nothing was committed.
    pub version: Version,
    pub floor: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Everything after the anchor, and the last of it.
    Lines { changes: Vec<Change>, anchor: Anchor },
    /// Nothing is known of the log before it has been looked at: it is another connection.
    Unknown,
    /// More lines than are taken at once: some may be gone.
    Gap,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    Entry(Entry),
    Nothing,
    /// An entry for hosts that have this key.
    Sealed(KeyId),
    /// Something that is no entry of ours.
    Foreign,
}

/// What the store has of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// [`Version::NONE`] where it has no entry.
    Version { version: Version, usable_until: Moment },
    /// Something that is no entry of ours.
    Foreign,
}

impl Stored {
    pub const NOTHING: Self =
        Self::Version { version: Version::NONE, usable_until: Moment::from_millis(0) };
}

/// - What is committed after [`ChangeLog::look`] has a line after where the log ended then.
/// - A line is written by the very step that changes the store.
/// - Every operation ends within a bound.
pub trait ChangeLog: Send + Sync {
    /// Whether the log still has the line at which the caller stands. Fails with a server that takes no writes.
    fn look(&self, anchor: Option<&Anchor>) -> Result<Looked, StoreError>;

    /// The lines after `anchor`. With none there, waits for the first, for `patience` at most.
    fn follow(&self, anchor: &Anchor, patience: Duration) -> Result<Followed, StoreError>;

    /// What version the store has of each key now, and until when it may be used. In the order asked.
    fn versions(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Stored>>, StoreError>;

    /// What the store has of each key now, servable or not, and its floor. In the order asked.
    fn fetch(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Fetched>>, StoreError>;

    /// What has happened since this was asked last, to be counted.
    fn noticed(&self) -> Noticed {
        Noticed::default()
    }
}
