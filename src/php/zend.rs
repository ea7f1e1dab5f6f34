//! The part of the Zend API that ext-php-rs does not wrap, each call behind a function that is safe
//! to use on a PHP thread. Knows nothing of tokens or rates.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use ext_php_rs::ffi::{
    HashTable, IS_OBJECT, ZEND_ACC_PUBLIC, ext_php_rs_compiler_globals,
    ext_php_rs_executor_globals, zend_call_known_function, zend_fcall_info_cache, zend_function,
    zend_ini_entry, zend_interrupt_function, zend_is_callable_ex, zend_object, zend_read_property,
    zend_string, zend_type,
};
use ext_php_rs::types::{ZendHashTable, ZendObject, ZendStr, Zval};
use ext_php_rs::zend::{ClassEntry, ExecuteData, ce};

use super::string::Str;
use crate::process::SignalsHeld;

unsafe extern "C" {
    pub(super) fn zend_parse_parameters(num_args: u32, spec: *const c_char, ...) -> c_int;
    fn zend_argument_value_error(arg_num: u32, format: *const c_char, ...);
    fn zend_argument_type_error(arg_num: u32, format: *const c_char, ...);
    fn zend_clear_exception();
    fn zend_timeout();
    fn zend_is_unwind_exit(exception: *const zend_object) -> bool;
    fn zend_is_graceful_exit(exception: *const zend_object) -> bool;
    fn zend_unregister_ini_entries(module_number: c_int);
    fn zend_add_attribute(
        attributes: *mut *mut HashTable,
        name: *mut zend_string,
        argc: u32,
        flags: u32,
        offset: u32,
        lineno: u32,
    ) -> *mut c_void;
    fn zend_declare_typed_property(
        class: *mut ClassEntry,
        name: *mut zend_string,
        default: *mut Zval,
        flags: c_int,
        comment: *mut zend_string,
        types: zend_type,
    ) -> *mut c_void;
    fn zend_update_property(
        scope: *mut ClassEntry,
        object: *mut zend_object,
        name: *const c_char,
        length: usize,
        value: *mut Zval,
    );
    fn php_date_get_immutable_ce() -> *mut ClassEntry;
    fn php_date_get_date_ce() -> *mut ClassEntry;
    fn display_ini_entries(module: *mut ext_php_rs::zend::ModuleEntry);
    static zend_ce_closure: *mut ClassEntry;
    static spl_ce_RuntimeException: *mut ClassEntry;
}

/// Number of arguments the caller passed.
#[inline]
pub fn num_args(ex: &ExecuteData) -> u32 {
    // SAFETY: for a function call frame the engine keeps the argument count in this union; all of
    // its fields are plain 32-bit integers.
    unsafe { ex.This.u2.num_args }
}

/// Argument `n`, counted from zero, when it was passed.
#[inline]
pub fn arg(ex: &ExecuteData, n: u32) -> Option<&Zval> {
    if n >= num_args(ex) {
        return None;
    }
    // SAFETY: the engine laid out `num_args` slots behind the frame and keeps them until the
    // handler returns.
    unsafe { ex.zend_call_arg(n as usize).map(|slot| &*slot) }
}

#[inline]
pub fn kind(slot: &Zval) -> u32 {
    // SAFETY: both members of the union are plain integers over the same bytes.
    u32::from(unsafe { slot.u1.v.type_ })
}

#[inline]
pub fn is_closure(slot: &Zval) -> bool {
    // SAFETY: set once while the engine starts, before any module can run; constant after that.
    let closure = unsafe { zend_ce_closure };
    // SAFETY: the type says the slot holds an object, and an object has a class.
    kind(slot) == IS_OBJECT && unsafe { (*slot.value.obj).ce == closure }
}

/// `\RuntimeException`, from the moment the standard classes exist, which is before any MINIT.
pub fn runtime_exception() -> Option<&'static ClassEntry> {
    // SAFETY: null or a class entry that lives until the engine shuts down.
    unsafe { spl_ce_RuntimeException.as_ref() }
}

/// Throws `\ValueError` in PHP's own form: "function(): Argument #1 ($name) " + `sentence`.
pub fn argument_value_error(number: u32, sentence: &str) {
    let sentence = c_string(sentence);
    // SAFETY: the format takes exactly one C string, which lives until the call is over.
    unsafe { zend_argument_value_error(number, c"%s".as_ptr(), sentence.as_ptr()) };
}

/// Throws `\TypeError` in PHP's own form.
pub fn argument_type_error(number: u32, sentence: &str) {
    let sentence = c_string(sentence);
    // SAFETY: as above.
    unsafe { zend_argument_type_error(number, c"%s".as_ptr(), sentence.as_ptr()) };
}

/// A C string of `text`; NUL bytes, which would end it early, become `\0`.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}

/// The pending exception. Left where it is.
pub fn pending<'a>() -> Option<&'a ZendObject> {
    // SAFETY: the executor globals of this thread, and the exception they hold, stay valid while
    // it is pending; nobody here keeps the reference across a call that could clear it. Read
    // without ext-php-rs's guard on purpose: a bailout would leave that lock held.
    unsafe { (*ext_php_rs_executor_globals()).exception.as_ref() }
}

/// PHP's flag that there is something to see to before the next line of code: a signal came, or the time is over.
fn interrupt() -> &'static AtomicBool {
    // SAFETY: one byte of this thread's globals, which last as long as the thread; PHP and its signal handlers
    // write it as an atomic.
    unsafe { &*(&raw const (*ext_php_rs_executor_globals()).vm_interrupt).cast() }
}

pub fn is_interrupted() -> bool {
    interrupt().load(Ordering::Relaxed)
}

/// What the engine does about it between two lines of code. May jump.
pub fn see_to_interrupt() {
    interrupt().store(false, Ordering::Relaxed);
    // SAFETY: the globals of this thread. Both functions are what the engine itself calls for this, with the frame
    // that runs: ours, which stays until its handler returns.
    unsafe {
        let globals = ext_php_rs_executor_globals();
        let timed_out: *const AtomicBool = (&raw const (*globals).timed_out).cast();
        if (*timed_out).load(Ordering::Relaxed) {
            zend_timeout();
        } else if let Some(function) = zend_interrupt_function {
            function((*globals).current_execute_data);
        }
    }
}

/// Runs a method of PHP's own, after which the engine would see to an interrupt as it does between two lines of code: a
/// signal handler of the application would run where nobody expects it. It runs a little later.
fn uninterrupted<T>(work: impl FnOnce() -> T) -> T {
    // No signal, so nobody sets the flag meanwhile.
    let _held = SignalsHeld::hold();
    let waiting = interrupt().swap(false, Ordering::Relaxed);
    let done = work();
    interrupt().fetch_or(waiting, Ordering::Relaxed);
    done
}

/// Whether the exception is `exit()` or the end of a destroyed fiber on its way up.
pub fn is_exit(exception: &ZendObject) -> bool {
    // SAFETY: both only compare the object's class.
    unsafe { zend_is_unwind_exit(exception) || zend_is_graceful_exit(exception) }
}

/// The `message` property of an exception or error, whatever a subclass made of `getMessage()`.
pub fn exception_message(exception: &ZendObject) -> Option<Str> {
    let scope = if exception.instance_of(ce::exception()) { ce::exception() } else { ce::error() };
    let mut room = Zval::new();
    property(exception, scope, c"message", &mut room).and_then(Str::in_slot)
}

/// A property that `class` declares, read in its scope, so that no user code runs.
pub fn property<'a>(
    object: &'a ZendObject,
    class: &ClassEntry,
    name: &CStr,
    room: &'a mut Zval,
) -> Option<&'a Zval> {
    let (class, object) = (std::ptr::from_ref(class), std::ptr::from_ref(object));
    // SAFETY: both are live; the slot belongs to the object, or is the room.
    unsafe {
        zend_read_property(
            class.cast_mut(),
            object.cast_mut(),
            name.as_ptr(),
            name.count_bytes(),
            true,
            std::ptr::from_mut(room),
        )
        .as_ref()
    }
}

/// Sets a property that `class` declares, in its scope.
pub fn set_property(object: &ZendObject, class: &ClassEntry, name: &CStr, value: &Zval) {
    let (class, object) = (std::ptr::from_ref(class), std::ptr::from_ref(object));
    // SAFETY: both are live, and the engine takes an owner of its own of the value.
    unsafe {
        zend_update_property(
            class.cast_mut(),
            object.cast_mut(),
            name.as_ptr(),
            name.count_bytes(),
            std::ptr::from_ref(value).cast_mut(),
        );
    }
}

/// Whether a function called, and not PHP itself.
pub fn has_caller(ex: &ExecuteData) -> bool {
    // SAFETY: null or the frame before this one; PHP's own, where it has one, is of no function.
    unsafe { ex.prev_execute_data.as_ref().is_some_and(|caller| !caller.func.is_null()) }
}

/// The object whose method runs.
pub fn this(ex: &ExecuteData) -> Option<&ZendObject> {
    if kind(&ex.This) != IS_OBJECT {
        return None;
    }
    // SAFETY: the type says which member is valid, and the caller's frame holds the object.
    unsafe { ex.This.value.obj.as_ref() }
}

/// The types of a property, as masks.
pub const FLOAT: u32 = 1 << 5;
pub const MAYBE_FLOAT: u32 = FLOAT | 1 << 1;

/// Declares `public readonly`. MINIT only.
pub fn declare_readonly(class: &mut ClassEntry, name: &str, types: u32) {
    /// In all versions since 8.1, and in no binding.
    const ZEND_ACC_READONLY: u32 = 1 << 7;
    // SAFETY: while the engine starts; it takes over the name, which lives as long as it does. An undefined value
    // says that there is no default.
    unsafe {
        let name = ZendStr::new_interned(name, true).into_raw();
        let mut none = Zval::new();
        none.u1.type_info = 0;
        let types = zend_type { ptr: null_mut(), type_mask: types };
        zend_declare_typed_property(
            class,
            name,
            &raw mut none,
            c_int::try_from(ZEND_ACC_PUBLIC | ZEND_ACC_READONLY).unwrap_or_default(),
            null_mut(),
            types,
        );
    }
}

/// Calls what PHP has found callable already, and has told of when it is of a deprecated form. `None`: it cannot
/// be called from here. An exception may be pending after it. Whoever owns the callable keeps alive what runs.
pub fn call(callable: &Zval, argument: &Zval) -> Option<Zval> {
    /// `IS_CALLABLE_SUPPRESS_DEPRECATIONS`
    const TOLD: u32 = 1 << 1;
    let mut found = MaybeUninit::<zend_fcall_info_cache>::zeroed();
    let mut result = Zval::new();
    // SAFETY: PHP fills in what it finds, and takes it back in the call. Nothing here is on the heap, for a fatal
    // error in the callable jumps over this frame.
    unsafe {
        let callable = std::ptr::from_ref(callable).cast_mut();
        let found = found.as_mut_ptr();
        if !zend_is_callable_ex(callable, null_mut(), TOLD, null_mut(), found, null_mut()) {
            return None;
        }
        zend_call_known_function(
            (*found).function_handler,
            (*found).object,
            (*found).called_scope,
            &raw mut result,
            1,
            std::ptr::from_ref(argument).cast_mut(),
            null_mut(),
        );
    }
    Some(result)
}

/// Whether anybody may call the method, whose name is given in any case.
pub fn has_public_method(object: &ZendObject, name: &str) -> bool {
    // SAFETY: a live object has a class, whose table holds pointers to functions by their names in
    // lower case. All members of the union begin with the flags.
    unsafe {
        (*object.ce)
            .function_table
            .get(name.to_ascii_lowercase().as_str())
            .and_then(|slot| slot.ptr::<zend_function>())
            .is_some_and(|function| (*function).common.fn_flags & ZEND_ACC_PUBLIC != 0)
    }
}

/// Seconds since 1970 of a `\DateTimeInterface`, by PHP's own method, whatever a subclass makes of it. An exception
/// is pending after it when the object was never constructed.
pub fn timestamp(object: &ZendObject) -> Option<i64> {
    // SAFETY: PHP's own classes, which are there from its start.
    let classes = unsafe { [php_date_get_immutable_ce(), php_date_get_date_ce()] };
    // SAFETY: as above.
    let mut classes = classes.iter().filter_map(|class| unsafe { class.as_ref() });
    let class = classes.find(|class| object.instance_of(class))?;
    let mut result = Zval::new();
    // SAFETY: the table holds pointers to functions; a method of the class, which the object is of. No user code runs.
    uninterrupted(|| unsafe {
        let method = class.function_table.get("gettimestamp")?.ptr::<zend_function>()?;
        zend_call_known_function(
            method,
            std::ptr::from_ref(object).cast_mut(),
            std::ptr::from_ref(class).cast_mut(),
            &raw mut result,
            0,
            null_mut(),
            null_mut(),
        );
        Some(())
    })?;
    result.long()
}

/// Forget the pending exception; its destructor may run user code. Who calls this holds plain data only.
pub fn clear_exception() {
    // SAFETY: called inside a handler, where an exception may be pending or not; both are fine.
    unsafe { zend_clear_exception() };
}

/// Whether `opcache.preload` runs its script: it looks like a request, RINIT and all, but it runs in
/// the process that all workers are forked from.
pub fn is_preloading() -> bool {
    /// `ZEND_COMPILE_PRELOAD`; the same bit in all versions since 8.0, and in no binding.
    const PRELOAD: u32 = 1 << 15;
    // SAFETY: reads one word of this thread's compiler globals.
    unsafe { (*ext_php_rs_compiler_globals()).compiler_options & PRELOAD != 0 }
}

/// An identity for the fiber that runs now; null for the main flow. Only ever compared.
pub fn active_fiber() -> *const c_void {
    // SAFETY: reads one pointer of this thread's executor globals.
    unsafe { (*ext_php_rs_executor_globals()).active_fiber.cast_const().cast() }
}

/// Whether a fiber, which is alive, is suspended. One that has resumed another is not.
pub fn is_suspended(fiber: *const c_void) -> bool {
    // SAFETY: by [`active_fiber`], and an object comes first in a fiber. The method is PHP's own.
    let fiber = unsafe { &*fiber.cast::<ZendObject>() };
    let asked = uninterrupted(|| fiber.try_call_method("isSuspended", Vec::new()));
    asked.is_ok_and(|answer| answer.is_true())
}

/// The value of an INI setting in this thread's table, until the setting changes.
pub fn ini_value(name: &str) -> Option<Str> {
    // SAFETY: the table exists from the engine's start on and holds pointers to its entries, and an
    // entry's value is null or a string.
    unsafe {
        let table = (*ext_php_rs_executor_globals()).ini_directives.as_ref()?;
        Str::at(table.get(name)?.ptr::<zend_ini_entry>()?.as_ref()?.value)
    }
}

pub fn unregister_ini(module_number: i32) {
    // SAFETY: called once, from MSHUTDOWN, with the number PHP gave to this module.
    unsafe { zend_unregister_ini_entries(module_number) };
}

/// The INI part of a phpinfo section.
pub fn show_ini(module: *mut ext_php_rs::zend::ModuleEntry) {
    // SAFETY: `module` is what PHP handed to the info function.
    unsafe { display_ini_entries(module) };
}

/// Print a value into phpinfo, which is HTML except on a terminal.
pub fn print_info(text: &str) {
    // SAFETY: the SAPI module is set before any extension starts and never changes.
    let plain = unsafe { (*ext_php_rs::ffi::ext_php_rs_sapi_module()).phpinfo_as_text != 0 };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text = if plain { text } else { &escaped };
    // SAFETY: pointer and length of one live string slice.
    unsafe { ext_php_rs::ffi::php_output_write(text.as_ptr().cast(), text.len()) };
}

/// Ends all output buffers, and so may run user code: their callbacks, which PHP holds meanwhile. What they hold goes to
/// the web server.
pub fn end_output_buffers() {
    // SAFETY: called inside a handler, on a PHP thread.
    unsafe { ext_php_rs::ffi::php_output_end_all() };
}

/// Marks parameter `index` (from zero) of a registered function `#[\SensitiveParameter]`: its value
/// is left out of stack traces. Before PHP 8.2 the mark exists but nobody reads it.
pub fn mark_sensitive(function: &str, index: u32) {
    const PERSISTENT: u32 = 1;
    // SAFETY: runs in MINIT, where the function table is complete for this module and only this
    // thread exists. The attribute takes its own reference to the interned name.
    unsafe {
        let globals = ext_php_rs_compiler_globals();
        let Some(table) = (*globals).function_table.as_ref() else { return };
        let Some(function) = table.get(function).and_then(|slot| slot.ptr::<zend_function>())
        else {
            return;
        };
        let name = ZendStr::new_interned("SensitiveParameter", true).into_raw();
        zend_add_attribute(
            &raw mut (*function).common.attributes,
            name,
            0,
            PERSISTENT,
            index + 1,
            0,
        );
    }
}

/// What a value is behind a reference, with an owner more: it lives until this is dropped, whatever
/// user code does to the variable.
pub fn counted(value: &Zval) -> Zval {
    value.dereference().shallow_clone()
}

/// PHP's name for the type of a value, as in its own error messages.
pub fn type_name(value: &Zval) -> &'static str {
    use ext_php_rs::flags::DataType;
    match value.get_type() {
        DataType::Null | DataType::Undef => "null",
        DataType::True | DataType::False | DataType::Bool => "bool",
        DataType::Long => "int",
        DataType::Double => "float",
        DataType::String => "string",
        DataType::Array => "array",
        DataType::Object(_) => "object",
        DataType::Resource => "resource",
        _ => "value",
    }
}

/// Name of the SAPI: `cli`, `fpm-fcgi`, …
pub fn sapi_name() -> String {
    // SAFETY: the SAPI module is set before any extension starts and never changes.
    unsafe {
        let name = (*ext_php_rs::ffi::ext_php_rs_sapi_module()).name;
        if name.is_null() {
            return String::new();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// The script this request runs, as PHP was told.
pub fn script_path() -> String {
    // SAFETY: this thread's SAPI globals; the path is null or a C string that lives as long as the
    // request.
    unsafe {
        let path = (*ext_php_rs::ffi::ext_php_rs_sapi_globals()).request_info.path_translated;
        if path.is_null() {
            return String::new();
        }
        CStr::from_ptr(path).to_string_lossy().into_owned()
    }
}

/// Borrow the array in `slot` for as long as the frame lives.
pub fn array_of(table: *mut HashTable) -> Option<&'static ZendHashTable> {
    // SAFETY: null, or the array in an argument slot; the caller keeps it within the handler.
    unsafe { table.as_ref() }
}
