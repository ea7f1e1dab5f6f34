//! The exception classes, and the one place where a failure of the core becomes one of them.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use ext_php_rs::args::Arg;
use ext_php_rs::builders::{ClassBuilder, FunctionBuilder};
use ext_php_rs::ffi::zend_throw_exception;
use ext_php_rs::flags::{DataType, MethodFlags};
use ext_php_rs::types::{ZendObject, Zval};
use ext_php_rs::zend::{CatchError, ClassEntry, ExecuteData, bailout, ce, try_catch};

use super::args::{self, Told};
use super::{functions, zend};
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

/// Runs what PHP may end by a jump (a fatal error in user code, the memory limit), for a caller that owns more than
/// request memory.
pub fn held_up<T>(work: impl FnOnce() -> T) -> Result<T, Stop> {
    match try_catch(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result),
        Err(CatchError::Bailout) => Err(Stop::Bailout),
        // Our own bug.
        Err(_) => Err(Error::InvalidValue("internal error, and the log says where".into()).into()),
    }
}

/// Lets PHP do what it was interrupted for: a signal handler runs, or its time is over. The handler is code of an
/// application, and may throw, exit, or wait itself. A flight in its wait is plain data, and its callable an argument or
/// a [`Callable`](super::callable::Callable) of ours.
pub fn see_to_interrupt() -> Result<(), Stop> {
    held_up(zend::see_to_interrupt)?;
    if zend::pending().is_some() { Err(Stop::Pending) } else { Ok(()) }
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
static RETRY_LATER: Class = Class::new("SharedState\\RetryLater");
static WAIT_TIMEOUT: Class = Class::new("SharedState\\WaitTimeout");
static STORE_UNAVAILABLE: Class = Class::new("SharedState\\StoreUnavailable");
static NO_SOURCE: Class = Class::new("SharedState\\NoSource");
static RATE_UNAVAILABLE: Class = Class::new("SharedState\\RateUnavailable");
static INVALID_VALUE: Class = Class::new("SharedState\\InvalidValue");
static CONFIG_ERROR: Class = Class::new("SharedState\\ConfigError");

/// Registers all classes. MINIT only.
pub fn register() -> ext_php_rs::error::Result<()> {
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
    ClassBuilder::new(MINT_FAILED.name)
        .extends((base, "\\SharedState\\Exception"))
        .method(mint_failed(), MethodFlags::Public)
        .registration(|entry, _| {
            zend::declare_readonly(entry, "retryAfter", zend::MAYBE_FLOAT);
            MINT_FAILED.entry.store(entry, Ordering::Release);
        })
        .register()?;
    ClassBuilder::new(RETRY_LATER.name)
        .extends((base, "\\SharedState\\Exception"))
        .method(retry_later(), MethodFlags::Public)
        .registration(|entry, _| {
            zend::declare_readonly(entry, "seconds", zend::FLOAT);
            RETRY_LATER.entry.store(entry, Ordering::Release);
        })
        .register()?;
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
    // SAFETY: a live class entry below \Throwable, and a message the engine copies. What is thrown is pending, and so
    // lives, or was not to be had.
    let thrown = unsafe {
        zend_throw_exception(std::ptr::from_ref(class).cast_mut(), message.as_ptr(), 0).as_ref()
    };
    if let (Error::MintFailed { retry_in, .. }, Some(thrown)) = (error, thrown) {
        zend::set_property(thrown, class, RETRY_AFTER, &seconds(Some(retry_in.as_secs_f64())));
    }
}

/// When the fleet may try again, in seconds from when it was thrown.
const RETRY_AFTER: &CStr = c"retryAfter";
const SECONDS: &CStr = c"seconds";

/// Nobody lets a fleet wait longer. Whoever was told of more asks in a day.
const LONGEST_S: f64 = 86_400.0;

fn message() -> Arg<'static> {
    Arg::new("message", DataType::String).default("''")
}

fn previous() -> Arg<'static> {
    let throwable = DataType::Object("Throwable".into());
    Arg::new("previous", throwable).allow_null().default("null")
}

/// `string $message = '', int $code = 0, ?\Throwable $previous = null, ?float $retryAfter = null`
fn mint_failed() -> FunctionBuilder<'static> {
    extern "C" fn construct(ex: &mut ExecuteData, retval: &mut Zval) {
        functions::answer(ex, retval, |ex| {
            let told = args::failure(ex)?;
            tell(ex, &told, MINT_FAILED.entry(), RETRY_AFTER)
        });
    }
    FunctionBuilder::new("__construct", construct)
        .not_required()
        .arg(message())
        .arg(Arg::new("code", DataType::Long).default("0"))
        .arg(previous())
        .arg(Arg::new("retryAfter", DataType::Double).allow_null().default("null"))
}

/// `float $seconds, string $message = '', ?\Throwable $previous = null`
fn retry_later() -> FunctionBuilder<'static> {
    extern "C" fn construct(ex: &mut ExecuteData, retval: &mut Zval) {
        functions::answer(ex, retval, |ex| {
            let mut told = args::later(ex)?;
            match &mut told.seconds {
                Some(seconds) if *seconds >= 0.0 => {
                    *seconds = seconds.min(LONGEST_S);
                    tell(ex, &told, RETRY_LATER.entry(), SECONDS)
                }
                _ => Err(Stop::Value(1, "must be 0 or more seconds".into())),
            }
        });
    }
    FunctionBuilder::new("__construct", construct)
        .arg(Arg::new("seconds", DataType::Double))
        .not_required()
        .arg(message())
        .arg(previous())
}

/// Fills in a new exception.
fn tell(ex: &ExecuteData, told: &Told, class: &ClassEntry, name: &CStr) -> Result<Zval, Stop> {
    let this = zend::this(ex).ok_or(Stop::Pending)?;
    if let Some(message) = told.message {
        zend::set_property(this, ce::exception(), c"message", &message.as_zval());
    }
    let mut code = Zval::new();
    code.set_long(told.code);
    zend::set_property(this, ce::exception(), c"code", &code);
    if let Some(previous) = told.previous {
        zend::set_property(this, ce::exception(), c"previous", previous);
    }
    zend::set_property(this, class, name, &seconds(told.seconds));
    if zend::pending().is_some() { Err(Stop::Pending) } else { Ok(Zval::null()) }
}

fn seconds(seconds: Option<f64>) -> Zval {
    let mut value = Zval::new();
    match seconds {
        Some(seconds) => value.set_double(seconds),
        None => value.set_null(),
    }
    value
}

/// How long the callable says that nobody should ask again, where it threw a `RetryLater`.
pub fn asked_to_wait(exception: &ZendObject) -> Option<Duration> {
    let class = RETRY_LATER.entry();
    if !exception.instance_of(class) {
        return None;
    }
    let mut room = Zval::new();
    let seconds = zend::property(exception, class, SECONDS, &mut room)?.double()?;
    Duration::try_from_secs_f64(seconds).ok()
}
