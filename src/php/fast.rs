//! The two functions that are called on every request path, many times. What the memo knows is
//! answered straight from the argument slots; everything else, and every doubt, takes the ordinary
//! path. Nothing here may panic: there is no frame around it that would catch it.

use ext_php_rs::types::Zval;
use ext_php_rs::zend::ExecuteData;

use super::array::Array;
use super::functions::answer;
use super::memo::Question;
use super::string::Str;
use super::{memo, rates, tokens, zend};

pub extern "C" fn shared_token_get(ex: &mut ExecuteData, retval: &mut Zval) {
    if !token_hit(ex, retval) {
        answer(ex, retval, tokens::get);
    }
}

pub extern "C" fn fx_rate(ex: &mut ExecuteData, retval: &mut Zval) {
    if !rate_hit(ex, retval) {
        answer(ex, retval, rates::rate);
    }
}

#[inline]
fn token_hit(ex: &ExecuteData, retval: &mut Zval) -> bool {
    if zend::num_args(ex) > 3 || !unneeded_callable(zend::arg(ex, 1)) {
        return false;
    }
    let Some(name) = zend::arg(ex, 0).and_then(Str::in_slot) else { return false };
    let Some(options) = plain_options(zend::arg(ex, 2)) else { return false };
    let Some(value) = memo::token(&Question { names: [name], options }) else { return false };
    value.add_ref().give_to(retval);
    true
}

#[inline]
fn rate_hit(ex: &ExecuteData, retval: &mut Zval) -> bool {
    if zend::num_args(ex) > 4 || !unneeded_callable(zend::arg(ex, 2)) {
        return false;
    }
    let names = zend::arg(ex, 0).zip(zend::arg(ex, 1));
    let names = names.and_then(|(a, b)| Str::in_slot(a).zip(Str::in_slot(b)));
    let Some((from, to)) = names else { return false };
    let Some(options) = plain_options(zend::arg(ex, 3)) else { return false };
    let question = Question { names: [from, to], options };
    let Some(rate) = memo::rate(&question) else { return false };
    retval.set_double(rate);
    true
}

/// A closure, or nothing: certainly a valid `?callable`. Other callables are left to PHP's parser,
/// because a wrong argument is an error even when the value is known.
#[inline]
fn unneeded_callable(slot: Option<&Zval>) -> bool {
    slot.is_none_or(|slot| slot.is_null() || zend::is_closure(slot))
}

/// No options, or an array; `None` for anything else.
#[inline]
fn plain_options(slot: Option<&Zval>) -> Option<Option<Array>> {
    slot.map_or(Some(None), |slot| Array::in_slot(slot).map(Some))
}
