//! Shared state for PHP on many workers and many hosts.
//!
//! Data flows one way: `php → token, fx → flight → store (traits) ← host, redis`.
//!
//! - [`entry`], [`clock`]: what is shared and when it ends; pure.
//! - [`config`]: every setting, checked; pure.
//! - [`error`]: everything a caller can be told, as finished sentences.
//! - [`flight`]: one lookup that may end in a mint, as a state machine without I/O, and the loop
//!   that carries out what it asks for.
//! - [`process`]: which side of a fork this is. [`lock`]: locks that a fork leaves whole.
//! - [`secret`], `fault`: a secret as people hand it over, and an error as an issuer tells it.
//! - [`keeper`], [`leader`]: what goes on in the background.
//! - [`metrics`]: what is counted. [`journal`]: what an operator is told.
//! - [`store`]: the two roles a flight needs, their contract, and the in-memory reference.
//! - [`host`]: the table all processes of a host map. The embedded default.
//! - [`redis`]: the authority for many hosts.
//! - [`token`], [`fx`]: what is minted and fetched.
//! - [`http`]: how rate sheets are fetched without a callable.
//! - [`random`]: secrets and jitter.
//! - [`trust`], [`resolve`]: whom TLS believes and where a name leads, for those who connect.
//! - `sim`: whole fleets in simulated time, for tests alone.
//! - `fuzzing`: what must hold of every parser of foreign bytes, for tests and `fuzz/` alone.
//! - `php`: the binding, and the only place that names concrete stores.
//!
//! The core (everything but `host`, `redis`, `http`, `php`) runs without PHP, Redis or a wall clock.

// These pages are read with `--document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

pub mod clock;
pub mod config;
pub mod entry;
pub mod error;
mod fault;
pub mod flight;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod fx;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "http")]
pub mod http;
pub mod journal;
pub mod keeper;
pub mod leader;
pub mod lock;
pub mod metrics;
#[cfg(feature = "php")]
mod php;
pub mod process;
pub mod random;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "redis", feature = "http"))]
pub mod resolve;
pub mod seal;
pub mod secret;
pub mod store;
pub mod token;
#[cfg(any(feature = "redis", feature = "http"))]
pub mod trust;

#[cfg(test)]
mod model;
#[cfg(all(test, feature = "redis"))]
mod sim;
#[cfg(test)]
mod two_hosts;
