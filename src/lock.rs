//! Locks between the threads of a process: those of `std`, each a word of its own. A library that keeps all who sleep on
//! any lock in one table (as `parking_lot` does) is not for us: PHP forks, and in the child the sleepers are gone
//! while their places in the table are not, so the child writes into stacks that it has freed.
//!
//! A panic while one is held poisons nothing: what it guards is whole at any moment.
// Elsewhere these are the ones to use.
#![allow(clippy::disallowed_types)]

use std::sync::{self, PoisonError, TryLockError};
use std::time::Duration;

pub use std::sync::MutexGuard;

use crate::clock::sleep;

#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For one that nobody may ever give back: another thread had it when this process was forked.
    pub fn try_lock_for(&self, patience: Duration) -> Option<MutexGuard<'_, T>> {
        const NAP: Duration = Duration::from_micros(100);
        for _ in 0..patience.as_micros() / NAP.as_micros() {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            sleep(NAP);
        }
        self.try_lock()
    }
}

#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// May return early.
    pub fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn wait_while_for<T>(
        &self,
        guard: MutexGuard<'_, T>,
        so: impl FnMut(&mut T) -> bool,
        at_most: Duration,
    ) {
        drop(self.0.wait_timeout_while(guard, at_most, so));
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
