//! Argument lists, parsed by PHP's own parser: weak-mode coercion, strict types, deprecations and
//! error messages are exactly those of an internal function.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

use ext_php_rs::ffi::{HashTable, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::{ClassEntry, ExecuteData, ce};

use super::exceptions::Stop;
use super::string::Str;
use super::zend::{arg, array_of, num_args, pending, zend_parse_parameters};

/// Room for what the parser notes about a callable (`zend_fcall_info` and its cache), which grew
/// between PHP versions and may again. Only PHP's check of the callable is wanted; the call itself
/// goes by the argument slot.
type CallableNotes = MaybeUninit<[u64; 32]>;

/// `string $name, ?callable $callable = null, array $options = []`
pub struct Lookup<'a> {
    pub name: Str,
    pub callable: Option<&'a Zval>,
    pub options: Option<&'a ZendHashTable>,
}

/// `string $from, string $to, ?callable $fetch = null, array $options = []`
pub struct Pair<'a> {
    pub from: Str,
    pub to: Str,
    pub callable: Option<&'a Zval>,
    pub options: Option<&'a ZendHashTable>,
}

/// `string $amount, string $from, string $to, ?int $scale = null, array $options = []`, and the same
/// without `$scale`.
pub struct Money<'a> {
    pub amount: Str,
    pub from: Str,
    pub to: Str,
    pub scale: Option<i64>,
    pub options: Option<&'a ZendHashTable>,
}

/// `string $name, ?string $rejected = null, array $options = []`
pub struct Rejection<'a> {
    pub name: Str,
    pub rejected: Option<Str>,
    pub options: Option<&'a ZendHashTable>,
}

/// `string $name, array $options = []`
pub struct Question<'a> {
    pub name: Str,
    pub options: Option<&'a ZendHashTable>,
}

/// `?string $base = null, array $options = []`
pub struct Base<'a> {
    pub base: Option<Str>,
    pub options: Option<&'a ZendHashTable>,
}

/// `?callable $fetch = null, array $options = []`
pub struct Fetching<'a> {
    pub callable: Option<&'a Zval>,
    pub options: Option<&'a ZendHashTable>,
}

/// What an exception of ours is made of.
pub struct Told<'a> {
    pub message: Option<Str>,
    pub code: i64,
    pub previous: Option<&'a Zval>,
    pub seconds: Option<f64>,
}

/// What the parser wrote: pointers into the argument slots, which live as long as the frame.
struct Slots {
    first: *mut zend_string,
    second: *mut zend_string,
    third: *mut zend_string,
    options: *mut HashTable,
}

/// A call of `zend_parse_parameters`, with a pending exception for whatever it refuses. It may also accept
/// and leave one: of an error handler that throws at a deprecated form of callable, such as `self::mint`. That handler and
/// the `__toString()` of an argument are user code: nothing is held yet but the arguments, by the frame of the call.
macro_rules! parse {
    ($ex:ident, $spec:expr $(, $target:expr)*) => {{
        const SPEC: &CStr = $spec;
        let spec: *const c_char = SPEC.as_ptr();
        // SAFETY: every target has the type its letter in the format stands for, and a callable's
        // two are larger than any version of PHP fills.
        let parsed = unsafe { zend_parse_parameters(num_args($ex), spec $(, $target)*) };
        if parsed == 0 && pending().is_none() {
            Ok(())
        } else {
            Err(Stop::Pending)
        }
    }};
}

fn string(pointer: *mut zend_string) -> Result<Str, Stop> {
    Str::at(pointer).ok_or(Stop::Pending)
}

fn callable(ex: &ExecuteData, index: u32) -> Option<&Zval> {
    arg(ex, index).filter(|slot| !slot.is_null())
}

const fn empty() -> Slots {
    Slots { first: null_mut(), second: null_mut(), third: null_mut(), options: null_mut() }
}

pub fn lookup(ex: &ExecuteData) -> Result<Lookup<'_>, Stop> {
    let mut to = empty();
    let (mut info, mut cache) = (CallableNotes::zeroed(), CallableNotes::zeroed());
    parse!(ex, c"S|f!h", &raw mut to.first, &raw mut info, &raw mut cache, &raw mut to.options)?;
    let (name, options) = (string(to.first)?, array_of(to.options));
    Ok(Lookup { name, callable: callable(ex, 1), options })
}

pub fn pair(ex: &ExecuteData) -> Result<Pair<'_>, Stop> {
    let mut to = empty();
    let (mut info, mut cache) = (CallableNotes::zeroed(), CallableNotes::zeroed());
    parse!(
        ex,
        c"SS|f!h",
        &raw mut to.first,
        &raw mut to.second,
        &raw mut info,
        &raw mut cache,
        &raw mut to.options
    )?;
    let options = array_of(to.options);
    Ok(Pair { from: string(to.first)?, to: string(to.second)?, callable: callable(ex, 2), options })
}

/// [`pair`] without a callable.
pub fn bare_pair(ex: &ExecuteData) -> Result<Pair<'_>, Stop> {
    let mut to = empty();
    parse!(ex, c"SS|h", &raw mut to.first, &raw mut to.second, &raw mut to.options)?;
    let options = array_of(to.options);
    Ok(Pair { from: string(to.first)?, to: string(to.second)?, callable: None, options })
}

pub fn money(ex: &ExecuteData) -> Result<Money<'_>, Stop> {
    let (mut to, mut scale, mut no_scale) = (empty(), 0_i64, true);
    parse!(
        ex,
        c"SSS|l!h",
        &raw mut to.first,
        &raw mut to.second,
        &raw mut to.third,
        &raw mut scale,
        &raw mut no_scale,
        &raw mut to.options
    )?;
    Ok(Money { scale: (!no_scale).then_some(scale), ..amount_and_pair(&to)? })
}

pub fn money_without_scale(ex: &ExecuteData) -> Result<Money<'_>, Stop> {
    let mut to = empty();
    parse!(
        ex,
        c"SSS|h",
        &raw mut to.first,
        &raw mut to.second,
        &raw mut to.third,
        &raw mut to.options
    )?;
    amount_and_pair(&to)
}

fn amount_and_pair<'a>(to: &Slots) -> Result<Money<'a>, Stop> {
    let (amount, from) = (string(to.first)?, string(to.second)?);
    Ok(Money { amount, from, to: string(to.third)?, scale: None, options: array_of(to.options) })
}

pub fn base(ex: &ExecuteData) -> Result<Base<'_>, Stop> {
    let mut to = empty();
    parse!(ex, c"|S!h", &raw mut to.first, &raw mut to.options)?;
    Ok(Base { base: string(to.first).ok(), options: array_of(to.options) })
}

pub fn fetch(ex: &ExecuteData) -> Result<Fetching<'_>, Stop> {
    let mut to = empty();
    let (mut info, mut cache) = (CallableNotes::zeroed(), CallableNotes::zeroed());
    parse!(ex, c"|f!h", &raw mut info, &raw mut cache, &raw mut to.options)?;
    Ok(Fetching { callable: callable(ex, 0), options: array_of(to.options) })
}

pub fn rejection(ex: &ExecuteData) -> Result<Rejection<'_>, Stop> {
    let mut to = empty();
    parse!(ex, c"S|S!h", &raw mut to.first, &raw mut to.second, &raw mut to.options)?;
    let (name, options) = (string(to.first)?, array_of(to.options));
    Ok(Rejection { name, rejected: string(to.second).ok(), options })
}

pub fn question(ex: &ExecuteData) -> Result<Question<'_>, Stop> {
    let mut to = empty();
    parse!(ex, c"S|h", &raw mut to.first, &raw mut to.options)?;
    Ok(Question { name: string(to.first)?, options: array_of(to.options) })
}

/// `?string $name = null`
pub fn name(ex: &ExecuteData) -> Result<Option<Str>, Stop> {
    let mut to = empty();
    parse!(ex, c"|S!", &raw mut to.first)?;
    Ok(string(to.first).ok())
}

/// `bool $flag = false`
pub fn flag(ex: &ExecuteData) -> Result<bool, Stop> {
    let mut flag = false;
    parse!(ex, c"|b", &raw mut flag)?;
    Ok(flag)
}

/// `int $limit = 1000`
pub fn limit(ex: &ExecuteData) -> Result<i64, Stop> {
    let mut limit = 1000;
    parse!(ex, c"|l", &raw mut limit)?;
    Ok(limit)
}

/// No parameters.
pub fn nothing(ex: &ExecuteData) -> Result<(), Stop> {
    parse!(ex, c"")
}

/// `string $message = '', int $code = 0, ?\Throwable $previous = null, ?float $retryAfter = null`
pub fn failure(ex: &ExecuteData) -> Result<Told<'_>, Stop> {
    let (mut to, mut code) = (empty(), 0_i64);
    let (mut previous, mut seconds, mut unknown) = (null_mut::<Zval>(), 0.0_f64, true);
    parse!(
        ex,
        c"|SlO!d!",
        &raw mut to.first,
        &raw mut code,
        &raw mut previous,
        throwable(),
        &raw mut seconds,
        &raw mut unknown
    )?;
    let message = string(to.first).ok();
    Ok(Told { message, code, previous: slot(previous), seconds: (!unknown).then_some(seconds) })
}

/// `float $seconds, string $message = '', ?\Throwable $previous = null`
pub fn later(ex: &ExecuteData) -> Result<Told<'_>, Stop> {
    let (mut to, mut previous, mut seconds) = (empty(), null_mut::<Zval>(), 0.0_f64);
    parse!(ex, c"d|SO!", &raw mut seconds, &raw mut to.first, &raw mut previous, throwable())?;
    let message = string(to.first).ok();
    Ok(Told { message, code: 0, previous: slot(previous), seconds: Some(seconds) })
}

fn throwable() -> *const ClassEntry {
    std::ptr::from_ref(ce::throwable())
}

fn slot<'a>(value: *mut Zval) -> Option<&'a Zval> {
    // SAFETY: null, or an argument's slot, which lives as long as the frame.
    unsafe { value.as_ref() }
}
