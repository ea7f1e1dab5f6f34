//! PHP arrays by address, as `string` does for strings: enough to ask "is this the very array?".
//! An array that is kept has one more owner, so whoever changes it changes a copy: the same address
//! is the same content.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ext_php_rs::ffi::{GC_IMMUTABLE, HashTable, IS_ARRAY, zend_array_destroy};
use ext_php_rs::types::{ZendHashTable, Zval};

use super::zend::kind;

/// The address of a live array of this thread's request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Array(NonNull<HashTable>);

impl Array {
    #[inline]
    pub fn in_slot(slot: &Zval) -> Option<Self> {
        if kind(slot) != IS_ARRAY {
            return None;
        }
        // SAFETY: the type says which member of the union is valid.
        NonNull::new(unsafe { slot.value.arr }).map(Self)
    }

    #[inline]
    pub fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Whether nothing in it can change while it is held: no reference, no object, at any depth.
    pub fn is_frozen(self) -> bool {
        // SAFETY: a live array, read only, and nothing here runs user code.
        frozen(unsafe { self.0.as_ref() })
    }

    pub fn add_ref(self) -> Self {
        if !self.is_immutable() {
            // SAFETY: a live array of this thread's request; the count is shared with no thread.
            unsafe { (*self.0.as_ptr()).gc.refcount += 1 };
        }
        self
    }

    /// The array itself; whoever asks holds a reference for as long.
    pub fn table<'a>(self) -> &'a ZendHashTable {
        // SAFETY: a live array, by the reference that the caller holds.
        unsafe { self.0.as_ref() }
    }

    /// One owner less; the caller's reference is gone after this.
    pub fn release(self) {
        if self.is_immutable() {
            return;
        }
        let array = self.0.as_ptr();
        // SAFETY: gives back one reference that the caller owned, and frees it with the last.
        unsafe {
            (*array).gc.refcount -= 1;
            if (*array).gc.refcount == 0 {
                zend_array_destroy(array);
            }
        }
    }

    fn is_immutable(self) -> bool {
        // SAFETY: the header's union is plain integers.
        unsafe { (*self.0.as_ptr()).gc.u.type_info & GC_IMMUTABLE != 0 }
    }
}

fn frozen(table: &ZendHashTable) -> bool {
    let mut values = values(table);
    values.all(|value| {
        let nested = value.is_array().then(|| value.array()).flatten();
        !value.is_reference() && !value.is_object() && nested.is_none_or(frozen)
    })
}

/// Keys and values of an array from outside. Not by ext-php-rs' own iterators, nor by what is made of
/// them (`values()`, `has_sequential_keys()`): these panic at a key that is not UTF-8.
pub fn entries(table: &ZendHashTable) -> impl Iterator<Item = (Zval, &Zval)> {
    let mut entries = table.iter();
    std::iter::from_fn(move || entries.next_zval())
}

pub fn values(table: &ZendHashTable) -> impl Iterator<Item = &Zval> {
    entries(table).map(|(_, value)| value)
}

/// Whether the keys are 0, 1, 2, … in this order.
pub fn is_list(table: &ZendHashTable) -> bool {
    entries(table).zip(0..).all(|((key, _), index)| key.long() == Some(index))
}
