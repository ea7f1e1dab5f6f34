//! `['defer' => true]`: what is due is renewed after the response. Nothing is locked until then: a
//! lease that waits for a slow page would keep every other host from renewing.
//!
//! The renewal is a shutdown function of this request. A framework's own ones (its late error page)
//! must be able to write to the response, and to register more; so it goes to the end of the queue
//! [`GENERATIONS`] times before it closes the session, for the next click waits for that, and then
//! the response.

use std::cell::{Cell, RefCell};

use ext_php_rs::convert::IntoZvalDyn;
use ext_php_rs::types::{ZendCallable, Zval};
use ext_php_rs::zend::ExecuteData;
use log::warn;

use super::array::Array;
use super::callable::Callable;
use super::exceptions::{Stop, held_up};
use super::string::Str;
use super::{args, logger, runtime, tokens, zend};
use crate::entry::Key;
use crate::error::redact;

/// The function PHP calls; documented as internal.
pub const FUNCTION: &str = "SharedState\\renew_deferred";

/// How deep shutdown functions that register shutdown functions still come before us.
const GENERATIONS: u32 = 3;

/// A renewal to come. The caller's values live until the request ends, by references of our own.
struct Deferred {
    key: Key,
    name: Str,
    callable: Callable,
    options: Option<Array>,
}

impl Deferred {
    fn release(self) {
        self.name.release();
        self.options.into_iter().for_each(Array::release);
    }
}

thread_local! {
    static QUEUE: RefCell<Vec<Deferred>> = const { RefCell::new(Vec::new()) };
    /// How often the shutdown function has still to go to the end; `None`: it is not registered.
    static TO_GO: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Whether there is a response to come first.
pub fn has_response() -> bool {
    runtime::remembers() && !matches!(zend::sapi_name().as_str(), "cli" | "phpdbg" | "embed")
}

/// Renew later; once per key and request. `false`: PHP did not take it, so renew now.
pub fn renew_later(
    key: &Key,
    name: Str,
    callable: &Callable,
    options: Option<Array>,
) -> Result<bool, Stop> {
    if QUEUE.with_borrow(|queue| queue.iter().any(|deferred| deferred.key == *key)) {
        return Ok(true);
    }
    let Some(callable) = bound(callable)? else { return Ok(false) };
    if TO_GO.get().is_none() && !register(GENERATIONS) {
        return Ok(false);
    }
    let (key, name, options) = (key.clone(), name.add_ref(), options.map(Array::add_ref));
    QUEUE.with_borrow_mut(|queue| queue.push(Deferred { key, name, callable, options }));
    Ok(true)
}

/// The callable as a closure. `[$this, 'aPrivateMethod']` and `'self::mint'` are callable in the scope
/// of the code that asks for the token, where PHP makes the closure, and not in a shutdown function.
fn bound(callable: &Callable) -> Result<Option<Callable>, Stop> {
    // A deprecated form is told to the application's error handler, which may end the request.
    let closure = held_up(|| call("Closure::fromCallable", vec![callable.as_zval()]))?;
    match zend::pending() {
        None => Ok(closure.as_ref().map(Callable::own)),
        Some(thrown) if zend::is_exit(thrown) => Err(Stop::Pending),
        // Not to be had; or an error handler threw at a deprecated form, and does so again when the
        // callable is called now.
        Some(_) => {
            zend::clear_exception();
            Ok(None)
        }
    }
}

fn register(to_go: u32) -> bool {
    let mut function = Zval::new();
    let registered = function.set_string(FUNCTION, false).is_ok()
        && call("register_shutdown_function", vec![&function]).is_some();
    if registered {
        TO_GO.set(Some(to_go));
    }
    registered
}

/// `None` when it could not be called or threw. Then the exception is pending still, and until it is
/// gone PHP calls nothing else.
fn call(function: &str, arguments: Vec<&dyn IntoZvalDyn>) -> Option<Zval> {
    ZendCallable::try_from_name(function).ok()?.try_call(arguments).ok()
}

/// Call what may run the application's code, a session handler's or that of an output buffer. PHP
/// would report its exception after the page; here nobody is left to catch it.
fn call_out(function: &str) -> Result<bool, Stop> {
    let called = call(function, vec![]).is_some();
    nobody_catches(&format!("{function}()"))?;
    Ok(called)
}

fn nobody_catches(function: &str) -> Result<(), Stop> {
    let Some(thrown) = zend::pending() else { return Ok(()) };
    if zend::is_exit(thrown) {
        return Err(Stop::Pending);
    }
    let class = thrown.get_class_name().unwrap_or_default();
    let message = zend::exception_message(thrown).map_or(&[][..], Str::bytes);
    let message = redact(&String::from_utf8_lossy(message));
    warn!("{function} before a renewal threw {class}: {message}");
    zend::clear_exception();
    Ok(())
}

/// The shutdown function. PHP calls it from no other function; code that does so by its name changes nothing.
pub fn renew(ex: &ExecuteData) -> Result<Zval, Stop> {
    args::nothing(ex)?;
    if zend::has_caller(ex) {
        return Ok(Zval::null());
    }
    match TO_GO.take() {
        // Called by somebody else.
        None => return Ok(Zval::null()),
        Some(0) => {}
        Some(to_go) => {
            register(to_go - 1);
            return Ok(Zval::null());
        }
    }
    if call("session_status", vec![]).and_then(|status| status.long()) == Some(SESSION_ACTIVE) {
        call_out("session_write_close")?;
    }
    if call_out("fastcgi_finish_request")? || call_out("litespeed_finish_request")? {
        logger::answer_ends();
    } else {
        // What the buffers hold goes out now, and what else is written does so at once.
        zend::end_output_buffers();
        nobody_catches("ending the output buffers")?;
        call_out("flush")?;
    }
    while let Some(deferred) = QUEUE.with_borrow_mut(Vec::pop) {
        let renewed = tokens::renew(deferred.name, &deferred.callable, deferred.options);
        let key = deferred.key.clone();
        deferred.release();
        match renewed {
            Ok(()) => {}
            Err(Stop::Pending) if zend::pending().is_some_and(zend::is_exit) => {
                return Err(Stop::Pending);
            }
            Err(Stop::Pending) => {
                // An `\Error` of the callable. Nobody is left to catch it, and a page that has been
                // sent must not end in a fatal error.
                zend::clear_exception();
                warn!("renewing token \"{}\" after the response failed", shown(&key));
            }
            Err(Stop::Throw(error)) => {
                warn!("renewing token \"{}\" after the response: {error}", shown(&key));
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(Zval::null())
}

/// `PHP_SESSION_ACTIVE`.
const SESSION_ACTIVE: i64 = 2;

fn shown(key: &Key) -> String {
    String::from_utf8_lossy(key.name()).into_owned()
}

/// RSHUTDOWN: what was not renewed, because the request died, is somebody else's to renew.
pub fn forget() {
    TO_GO.set(None);
    QUEUE.with_borrow_mut(std::mem::take).into_iter().for_each(Deferred::release);
}
