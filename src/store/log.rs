//! The change log of a fleet's store: every commit, restored entry and raised floor, in order.
//! Whoever follows it without a gap knows what is newest without asking for each key.

use std::time::Duration;

use super::{Noticed, Reply, StoreError};
use crate::clock::Moment;
use crate::entry::{Entry, Key, Version};
use crate::seal::KeyId;

/// A place in the log. Opaque; only the log that gave it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub String);

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
    /// Everything after the position asked for, and the position of the last.
    Lines { changes: Vec<Change>, position: Position },
    /// Lines may be missing: the connection was lost, the log was trimmed, or it is another log.
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

/// - What is committed after [`ChangeLog::last`] was asked has a line after the position it gave.
/// - A line is written by the very step that changes the store.
/// - Every operation ends within a bound.
pub trait ChangeLog: Send + Sync {
    fn last(&self) -> Result<Position, StoreError>;

    /// The lines after `position`. With none there, waits for the first, for `patience` at most.
    fn follow(&self, position: &Position, patience: Duration) -> Result<Followed, StoreError>;

    /// What the store has of each key now, servable or not, and its floor. In the order asked.
    fn fetch(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Fetched>>, StoreError>;

    /// What has happened since this was asked last, to be counted.
    fn noticed(&self) -> Noticed {
        Noticed::default()
    }
}
