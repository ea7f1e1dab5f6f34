//! The exception classes, and the one place where a failure of the core becomes one of them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, Ordering};

use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_throw_exception;
use ext_php_rs::zend::{ClassEntry, bailout, ce};

use super::zend;
use crate::error::Error;

/// Why a call ends without a value. Carried to the boundary as plain data, so that everything the
/// call owns is dropped before PHP is told.
#[derive(Debug)]
pub enum Stop {
    Throw(Error),
    /// A wrong argument, by its number: `\ValueError` in PHP's own words.
    Value(u32, String),
    Type(u32, String),
    /// A PHP exception is pending already and goes on unchanged.
    Pending,
    /// The engine was ending the request and was held up; let it go on.
    Bailout,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Throw(error)
    }
}

impl Stop {
    /// Tell PHP. Does not return for a bailout: call it with nothing left to drop.
    pub fn raise(self) {
        match self {
            Self::Throw(error) => throw(&error),
            Self::Value(number, sentence) => zend::argument_value_error(number, &sentence),
            Self::Type(number, sentence) => zend::argument_type_error(number, &sentence),
            Self::Pending => {}
            // SAFETY: the caller, `functions::answer`, holds nothing that needs dropping, and runs
            // inside `run_handler`, which passes the jump on to the engine.
            Self::Bailout => unsafe { bailout() },
        }
    }
}

/// An answer that PHP could not be given, which only happens to an array larger than PHP allows.
pub fn unbuilt(error: &ext_php_rs::error::Error) -> Stop {
    Stop::Throw(Error::InvalidValue(format!("the answer could not be built: {error}")))
}

/// A class and its entry. Entries die with the module and may come back at another address when a
/// SAPI starts the module again, so they are set at every MINIT and never cached elsewhere.
struct Class {
    name: &'static str,
    entry: AtomicPtr<ClassEntry>,
}

impl Class {
    const fn new(name: &'static str) -> Self {
        Self { name, entry: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn entry(&self) -> &'static ClassEntry {
        // SAFETY: null, or set by `register` in this run of the module; PHP calls nothing of ours
        // after the module's shutdown.
        unsafe { self.entry.load(Ordering::Acquire).as_ref() }.unwrap_or_else(ce::exception)
    }
}

static BASE: Class = Class::new("SharedState\\Exception");
static MINT_FAILED: Class = Class::new("SharedState\\MintFailed");
static WAIT_TIMEOUT: Class = Class::new("SharedState\\WaitTimeout");
static STORE_UNAVAILABLE: Class = Class::new("SharedState\\StoreUnavailable");
static NO_SOURCE: Class = Class::new("SharedState\\NoSource");
static RATE_UNAVAILABLE: Class = Class::new("SharedState\\RateUnavailable");
static INVALID_VALUE: Class = Class::new("SharedState\\InvalidValue");
static CONFIG_ERROR: Class = Class::new("SharedState\\ConfigError");

/// Registers all classes. MINIT only.
pub fn register() -> Result<()> {
    fn parent() -> &'static ClassEntry {
        zend::runtime_exception().unwrap_or_else(ce::exception)
    }
    fn base() -> &'static ClassEntry {
        BASE.entry()
    }
    // Bare classes on purpose: an object override, as `#[php_class]` sets, would take line, trace
    // and subclassing away from an exception. Each closure must capture nothing, hence the macro.
    macro_rules! class {
        ($class:ident extends $parent:expr, $stub:literal) => {
            ClassBuilder::new($class.name)
                .extends(($parent, $stub))
                .registration(|entry, _| $class.entry.store(entry, Ordering::Release))
                .register()?;
        };
    }
    class!(BASE extends parent, "\\RuntimeException");
    class!(MINT_FAILED extends base, "\\SharedState\\Exception");
    class!(WAIT_TIMEOUT extends base, "\\SharedState\\Exception");
    class!(STORE_UNAVAILABLE extends base, "\\SharedState\\Exception");
    class!(NO_SOURCE extends base, "\\SharedState\\Exception");
    class!(RATE_UNAVAILABLE extends base, "\\SharedState\\Exception");
    class!(INVALID_VALUE extends base, "\\SharedState\\Exception");
    class!(CONFIG_ERROR extends base, "\\SharedState\\Exception");
    Ok(())
}

/// The one crossing from a failure of the core to a PHP exception. An exception that is pending
/// becomes its `previous`: the engine chains them itself, and never replaces an `exit()`.
fn throw(error: &Error) {
    let class = match error {
        Error::MintFailed { .. } => MINT_FAILED.entry(),
        Error::WaitTimeout(_) => WAIT_TIMEOUT.entry(),
        Error::StoreUnavailable(_) => STORE_UNAVAILABLE.entry(),
        Error::NoSource(_) => NO_SOURCE.entry(),
        Error::RateUnavailable(_) => RATE_UNAVAILABLE.entry(),
        Error::InvalidValue(_) => INVALID_VALUE.entry(),
        Error::Config(_) => CONFIG_ERROR.entry(),
        Error::Argument(_) => ce::value_error(),
    };
    let message = zend::c_string(&error.to_string());
    // SAFETY: a live class entry below \Throwable, and a message the engine copies.
    unsafe { zend_throw_exception(std::ptr::from_ref(class).cast_mut(), message.as_ptr(), 0) };
}
