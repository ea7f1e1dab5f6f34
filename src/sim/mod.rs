//! Simulation: whole fleets in simulated time, over the code that is in use.

// All of it is a test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod befall;
mod clock;
mod data;
mod dice;
mod host;
mod issuer;
mod lua;
mod network;
mod plan;
mod promises;
mod resp;
mod rules;
mod server;
mod task;
mod tests;
mod trace;
mod watched;
mod witness;
mod world;
