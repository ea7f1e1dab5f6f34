//! The fibers of this thread. A mint by an asynchronous client suspends the fiber it runs in, and the others go
//! on: who of them wants the same name waits by stepping aside, for a wait that blocks the thread would never end.

use std::ffi::c_void;

use ext_php_rs::convert::IntoZvalDyn;
use ext_php_rs::types::{ZendCallable, ZendHashTable, Zval};

use super::exceptions::{Stop, held_up};
use super::zend;

/// An identity for the fiber that runs now; null for the main flow.
pub type Fiber = *const c_void;

/// How long an event loop that can be told leaves us alone.
const PAUSE_S: f64 = 0.005;

/// Whether what runs now was called from within `fiber`: it is the one, or has resumed the one.
pub fn is_around_us(fiber: Fiber) -> bool {
    fiber.is_null() || fiber == zend::active_fiber() || !zend::is_suspended(fiber)
}

/// Let the others go on, and come back. `false`: nobody would resume us.
pub fn step_aside() -> Result<bool, Stop> {
    held_up(aside)?
}

fn aside() -> Result<bool, Stop> {
    let stepped = if call("class_exists", vec![&REVOLT, &false])?.is_some_and(|it| it.is_true()) {
        by_revolt()?
    } else if zend::active_fiber().is_null() {
        None
    } else {
        // A loop of its own resumes whatever is suspended.
        call("Fiber::suspend", vec![])?
    };
    Ok(stepped.is_some())
}

/// The event loop of AMPHP. It resumes only who has asked for it.
const REVOLT: &str = "Revolt\\EventLoop";

fn by_revolt() -> Result<Option<Zval>, Stop> {
    let Some(suspension) = call("Revolt\\EventLoop::getSuspension", vec![])? else {
        return Ok(None);
    };
    let resume = method(&suspension, "resume")?;
    let Some(resume) = call("Closure::fromCallable", vec![&resume])? else { return Ok(None) };
    if call("Revolt\\EventLoop::delay", vec![&PAUSE_S, &resume])?.is_none() {
        return Ok(None);
    }
    let suspend = method(&suspension, "suspend")?;
    let suspended = ZendCallable::new(&suspend).and_then(|it| it.try_call(vec![]));
    thrown()?;
    Ok(suspended.ok())
}

fn method(object: &Zval, name: &str) -> Result<Zval, Stop> {
    let mut pair = ZendHashTable::with_capacity(2);
    let built = pair.push(object.shallow_clone()).and_then(|()| pair.push(name));
    built.map_err(|_| Stop::Pending)?;
    let mut callable = Zval::new();
    callable.set_hashtable(pair);
    Ok(callable)
}

/// `None`: it could not be called, or says that here no fiber can be suspended.
fn call(function: &str, arguments: Vec<&dyn IntoZvalDyn>) -> Result<Option<Zval>, Stop> {
    let called = ZendCallable::try_from_name(function).and_then(|it| it.try_call(arguments));
    thrown()?;
    Ok(called.ok())
}

/// What is thrown into a fiber that waits is meant for the one who waits in it.
fn thrown() -> Result<(), Stop> {
    match zend::pending() {
        Some(exception) if exception.get_class_name().is_ok_and(|class| class == "FiberError") => {
            zend::clear_exception();
            Ok(())
        }
        Some(_) => Err(Stop::Pending),
        None => Ok(()),
    }
}
