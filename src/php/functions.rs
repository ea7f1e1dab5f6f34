//! The function table: names, parameters and defaults as reflection shows them, and the frame
//! around every call that is not a pure hit.

use std::panic::AssertUnwindSafe;

use ext_php_rs::args::Arg;
use ext_php_rs::builders::{FunctionBuilder, ModuleBuilder};
use ext_php_rs::flags::DataType;
use ext_php_rs::types::Zval;
use ext_php_rs::zend::{ExecuteData, run_handler};

use super::exceptions::Stop;
use super::{defer, entries, fast, money, rates, refresh, status, tokens, zend};

/// Runs `body` so that neither a panic nor a bailout crosses Rust unnoticed, and hands PHP the
/// value or the exception. A bailout leaves only after `body` and all it owned are gone.
pub fn answer(
    ex: &mut ExecuteData,
    retval: &mut Zval,
    body: fn(&ExecuteData) -> Result<Zval, Stop>,
) {
    run_handler(AssertUnwindSafe(|| match body(ex) {
        Ok(value) => *retval = value,
        Err(stop) => stop.raise(),
    }));
}

extern "C" fn shared_token_invalidate(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, tokens::invalidate);
}

extern "C" fn shared_token_info(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, tokens::info);
}

extern "C" fn fx_convert(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, money::convert);
}

extern "C" fn fx_quote(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, money::quote);
}

extern "C" fn fx_rates(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, rates::all);
}

extern "C" fn fx_rate_info(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, rates::info);
}

extern "C" fn sharedstate_status(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, status::status);
}

extern "C" fn sharedstate_metrics(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, status::metrics);
}

extern "C" fn sharedstate_entries(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, entries::entries);
}

extern "C" fn fx_refresh(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, refresh::refresh);
}

extern "C" fn renew_deferred(ex: &mut ExecuteData, retval: &mut Zval) {
    answer(ex, retval, defer::renew);
}

fn string(name: &str) -> Arg<'static> {
    Arg::new(name, DataType::String)
}

fn callable(name: &str) -> Arg<'static> {
    Arg::new(name, DataType::Callable).allow_null().default("null")
}

fn options() -> Arg<'static> {
    Arg::new("options", DataType::Array).default("[]")
}

pub fn add(module: ModuleBuilder<'static>) -> ModuleBuilder<'static> {
    module
        .function(
            FunctionBuilder::new("shared_token_get", fast::shared_token_get)
                .arg(string("name"))
                .not_required()
                .arg(callable("mint"))
                .arg(options())
                .returns(DataType::String, false, false),
        )
        .function(
            FunctionBuilder::new("shared_token_invalidate", shared_token_invalidate)
                .arg(string("name"))
                .not_required()
                .arg(string("rejected").allow_null().default("null"))
                .arg(options())
                .returns(DataType::Bool, false, false),
        )
        .function(
            FunctionBuilder::new("shared_token_info", shared_token_info)
                .arg(string("name"))
                .not_required()
                .arg(options())
                .returns(DataType::Array, false, true),
        )
        .function(
            FunctionBuilder::new("fx_rate", fast::fx_rate)
                .arg(string("from"))
                .arg(string("to"))
                .not_required()
                .arg(callable("fetch"))
                .arg(options())
                .returns(DataType::Double, false, false),
        )
        .function(
            FunctionBuilder::new("fx_convert", fx_convert)
                .arg(string("amount"))
                .arg(string("from"))
                .arg(string("to"))
                .not_required()
                .arg(Arg::new("scale", DataType::Long).allow_null().default("null"))
                .arg(options())
                .returns(DataType::String, false, false),
        )
        .function(
            FunctionBuilder::new("fx_quote", fx_quote)
                .arg(string("amount"))
                .arg(string("from"))
                .arg(string("to"))
                .not_required()
                .arg(options())
                .returns(DataType::Array, false, false),
        )
        .function(
            FunctionBuilder::new("fx_rates", fx_rates)
                .not_required()
                .arg(string("base").allow_null().default("null"))
                .arg(options())
                .returns(DataType::Array, false, false),
        )
        .function(
            FunctionBuilder::new("fx_rate_info", fx_rate_info)
                .arg(string("from"))
                .arg(string("to"))
                .not_required()
                .arg(options())
                .returns(DataType::Array, false, false),
        )
        .function(
            FunctionBuilder::new("fx_refresh", fx_refresh)
                .not_required()
                .arg(callable("fetch"))
                .arg(options())
                .returns(DataType::Array, false, false),
        )
        .function(
            FunctionBuilder::new("sharedstate_status", sharedstate_status)
                .not_required()
                .arg(Arg::new("limited", DataType::Bool).default("false"))
                .returns(DataType::Array, false, false),
        )
        .function(FunctionBuilder::new("sharedstate_metrics", sharedstate_metrics).returns(
            DataType::String,
            false,
            false,
        ))
        .function(
            FunctionBuilder::new("sharedstate_entries", sharedstate_entries)
                .not_required()
                .arg(Arg::new("limit", DataType::Long).default("1000"))
                .returns(DataType::Array, false, false),
        )
        .function(FunctionBuilder::new(defer::FUNCTION, renew_deferred).returns(
            DataType::Void,
            false,
            false,
        ))
}

/// Keeps tokens out of stack traces: `$rejected` is one, and `$options` may hold one
/// (`['rejected' => …]`).
pub fn mark_sensitive() {
    zend::mark_sensitive("shared_token_invalidate", 1);
    zend::mark_sensitive("shared_token_invalidate", 2);
    zend::mark_sensitive("shared_token_info", 1);
    zend::mark_sensitive("shared_token_get", 2);
}
