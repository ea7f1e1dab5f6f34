//! PHP strings by address. The engine keeps a string's reference count and hash inside the string
//! and writes them while others hold it, so a Rust reference to the whole would be a lie the
//! optimiser believes. Only the bytes, which nobody writes, are ever borrowed.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ext_php_rs::ffi::{
    GC_IMMUTABLE, IS_STRING, IS_STRING_EX, ext_php_rs_zend_string_init,
    ext_php_rs_zend_string_release, zend_string,
};
use ext_php_rs::types::Zval;
use zeroize::Zeroize as _;

use super::zend::kind;

unsafe extern "C" {
    fn zend_string_hash_func(string: *mut zend_string) -> u64;
}

/// The address of a live string of this thread's request, or of an interned one. Copying it counts
/// nothing: whoever keeps it past the call takes a reference with [`Str::add_ref`].
#[derive(Clone, Copy)]
pub struct Str(NonNull<zend_string>);

impl Str {
    /// A new request string; the caller owns its one reference.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        // SAFETY: pointer and length of one slice; the engine copies it, or bails out.
        let made =
            unsafe { ext_php_rs_zend_string_init(bytes.as_ptr().cast(), bytes.len(), false) };
        NonNull::new(made).map(Self)
    }

    pub fn at(pointer: *mut zend_string) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    /// The string in a slot that holds one, without a copy.
    #[inline]
    pub fn in_slot(slot: &Zval) -> Option<Self> {
        // SAFETY: the type says which member of the union is valid.
        if kind(slot) == IS_STRING { Self::at(unsafe { slot.value.str_ }) } else { None }
    }

    /// The bytes, for as long as the caller knows the string to live.
    #[inline]
    pub fn bytes<'a>(self) -> &'a [u8] {
        let string = self.0.as_ptr();
        // SAFETY: a live string has `len` bytes behind its header, and nobody writes to a string
        // that more than one may hold.
        unsafe { std::slice::from_raw_parts((&raw const (*string).val).cast(), (*string).len) }
    }

    /// The same string: by address, or by its bytes.
    #[inline]
    pub fn is(self, other: Self) -> bool {
        self.0 == other.0 || self.bytes() == other.bytes()
    }

    /// One more owner. Interned strings, which live for ever, are not counted.
    #[inline]
    pub fn add_ref(self) -> Self {
        if !self.is_interned() {
            // SAFETY: a live string of this thread's request; the count is shared with no thread.
            unsafe { (*self.0.as_ptr()).gc.refcount += 1 };
        }
        self
    }

    /// One owner less; the caller's reference is gone after this.
    pub fn release(self) {
        // SAFETY: gives back one reference that the caller owned.
        unsafe { ext_php_rs_zend_string_release(self.0.as_ptr()) };
    }

    /// Like [`Str::release`]; a string that nobody else has is overwritten first.
    pub fn wipe_and_release(self) {
        let string = self.0.as_ptr();
        // SAFETY: with this reference the only one, nobody reads the bytes any more.
        unsafe {
            if (*string).gc.refcount == 1 && !self.is_interned() {
                let start: *mut u8 = (&raw mut (*string).val).cast();
                std::slice::from_raw_parts_mut(start, (*string).len).zeroize();
            }
        }
        self.release();
    }

    /// The string's hash, computed once and kept in the string, as the engine does.
    #[inline]
    pub fn hash(self) -> u64 {
        let string = self.0.as_ptr();
        // SAFETY: a live string; the function only reads the bytes and fills `h`. Interned strings,
        // which other threads may share, always have their hash already.
        unsafe { if (*string).h != 0 { (*string).h } else { zend_string_hash_func(string) } }
    }

    /// Move one reference into a slot that holds nothing refcounted, as a return value does.
    #[inline]
    pub fn give_to(self, slot: &mut Zval) {
        slot.value.str_ = self.0.as_ptr();
        slot.u1.type_info = if self.is_interned() { IS_STRING } else { IS_STRING_EX };
    }

    /// A value that is one more owner.
    pub fn as_zval(self) -> Zval {
        let mut value = Zval::new();
        self.add_ref().give_to(&mut value);
        value
    }

    #[inline]
    fn is_interned(self) -> bool {
        // SAFETY: the header's union is plain integers, and these bits never change while the
        // string is in use.
        unsafe { (*self.0.as_ptr()).gc.u.type_info & GC_IMMUTABLE != 0 }
    }
}
