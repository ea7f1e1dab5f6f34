//! The call of `$mint` or `$fetch`: whatever happens inside, it comes back here as plain data, so
//! that the ticket is finished before PHP goes on. No lock is held while it runs.
//!
//! User code may let go of whatever it was called by or returned. So what is called is a [`Callable`],
//! and what is read is a copy that is counted; the arguments of the function itself are in its frame,
//! which nobody can change.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use ext_php_rs::types::{ZendHashTable, ZendObject, ZendStr, Zval};
use ext_php_rs::zend::{CatchError, ce, try_catch};

use super::convert::{self, Refused};
use super::{array, exceptions, zend};
use crate::entry::Key;
use crate::error::redact;
use crate::token::Answer;

/// A callable that lives as long as this does. It holds no reference: with `['fetch' => &$fetch]` or
/// `[&$object, 'method']` the callable could free, by an assignment, the object whose method is running.
#[derive(Debug)]
pub struct Callable(Zval);

impl Callable {
    pub fn own(value: &Zval) -> Self {
        let value = zend::counted(value);
        let Some(parts) = value.array() else { return Self(value) };
        if !array::values(parts).any(Zval::is_reference) {
            return Self(value);
        }
        let mut owned = ZendHashTable::with_capacity(2);
        // By their place: `[1 => 'method', 0 => $object]` is one, too.
        for part in [0, 1].into_iter().filter_map(|place| parts.get_index(place)) {
            // Fails for an array larger than PHP allows, which no callable is.
            let _ = owned.push(zend::counted(part));
        }
        let mut value = Zval::new();
        value.set_hashtable(owned);
        Self(value)
    }

    /// May run user code: whether `[$object, 'name']` can be called, an autoloader may have to say.
    pub fn is_callable(&self) -> bool {
        self.0.is_callable()
    }

    pub fn is(&self, other: &Self) -> bool {
        self.0.is_identical(&other.0)
    }

    pub fn as_zval(&self) -> &Zval {
        &self.0
    }
}

/// How the call ended.
pub enum Called {
    Answered(Answer),
    /// It returned something no token or sheet can be read from; why, as a sentence.
    Unusable(String),
    /// It cannot be called from here, and no exception says why: the caller's affair, not the issuer's.
    Uncallable,
    /// An `\Exception` is pending; what it said, without secrets, and for how long nobody should ask again.
    Failed(String, Duration),
    /// An `\Error` is pending: a bug in the callable, not a failure of the issuer.
    Broken(String),
    /// Nobody's failure, and pending: `exit()`, its fiber was destroyed, or an autoloader threw before it was
    /// called.
    Interrupted,
    /// A fatal error, the time limit or the memory limit. The engine waits to unwind.
    Bailout,
}

/// Calls `callable(array{name: string, version: int})`.
pub fn call(callable: &Callable, key: &Key, version: u64) -> Called {
    // A bailout is a jump over every frame between the engine and the nearest catch. It is caught
    // here, above the only frames that may be lost: these hold request memory, which PHP frees.
    let outcome = try_catch(AssertUnwindSafe(|| run(callable, key, version)));
    match outcome {
        Ok(called) => called,
        Err(CatchError::Bailout) => Called::Bailout,
        // Our own bug; the panic hook has logged where.
        Err(_) => Called::Unusable("the answer could not be read: internal error".into()),
    }
}

fn run(callable: &Callable, key: &Key, version: u64) -> Called {
    let Ok(request) = request(key.name(), version) else { return Called::Uncallable };
    let result = zend::call(callable.as_zval(), &request);
    let Some(value) = result else {
        return if zend::pending().is_some() { Called::Interrupted } else { Called::Uncallable };
    };
    if zend::pending().is_some() {
        return thrown();
    }
    // A callable that returns by reference left it to the variable to free what is read here.
    match convert::answer(&zend::counted(&value), key.kind()) {
        Ok(answer) => Called::Answered(answer),
        Err(Refused::Because(sentence)) => {
            Called::Unusable(format!("the callable returned {sentence}"))
        }
        Err(Refused::Threw) => thrown(),
    }
}

fn request(name: &[u8], version: u64) -> ext_php_rs::error::Result<Zval> {
    let mut table = ZendHashTable::with_capacity(2);
    let mut text = Zval::new();
    text.set_zend_string(ZendStr::new(name, false));
    table.insert("name", text)?;
    // Microseconds at the most; far below what an int holds.
    table.insert("version", i64::try_from(version).unwrap_or(i64::MAX))?;
    let mut request = Zval::new();
    request.set_hashtable(table);
    Ok(request)
}

/// What the pending exception means for the mint.
fn thrown() -> Called {
    let Some(exception) = zend::pending() else { return Called::Uncallable };
    if zend::is_exit(exception) {
        return Called::Interrupted;
    }
    let class = exception.get_class_name().unwrap_or_default();
    let class = class.split('\0').next().unwrap_or_default().to_owned();
    let reason = redact(&match message_of(exception) {
        Some(message) => format!("{class}: {message}"),
        None => class,
    });
    if exception.instance_of(ce::exception()) {
        Called::Failed(reason, exceptions::asked_to_wait(exception).unwrap_or_default())
    } else {
        Called::Broken(reason)
    }
}

/// The message as it stands in the object: `getMessage()` would be a call with an exception pending.
fn message_of(exception: &ZendObject) -> Option<String> {
    let message = zend::exception_message(exception)?;
    let text = String::from_utf8_lossy(message.bytes()).into_owned();
    (!text.is_empty()).then_some(text)
}
