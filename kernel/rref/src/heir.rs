//! Shared objects that outlive their owner.
//!
//! A [`SharedSlice`] is plain data of a length that is known at run time. Its owner may give it a [`Tag`]: then, when the owner dies, it
//! isn't freed but left to the heir that the manifest names, whose next incarnation (or the living one) takes it by that tag. The heir may
//! be the domain itself: so a domain keeps state over its death without any other domain that would have to live meanwhile.
//!
//! The heir finds the bytes as they were at the instruction at which the owner died, so it must check what it takes. It can't find
//! anything unsound there: only [`Plain`] data can be left, of which any bytes are a value. A tag that is used for two types confuses
//! the domain that does so and nobody else.

use crate::exchange::{Exchange, Share};
use crate::reference::OutOfMemory;
use abi::object::HEADER_BYTES;
use abi::{ObjectHeader, ObjectKind, OwnerId, sys};
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

/// A type of which any bytes are a value, without padding. Derive it.
///
/// # Safety
/// Every sequence of `size_of::<Self>()` bytes is a valid value, no byte of a value is padding, and its alignment is at most 64.
pub unsafe trait Plain: Share + Copy + 'static {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: An integer.
        unsafe impl Plain for $type {}
    )*};
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

// SAFETY: As its elements, and arrays have no padding between them.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The name by which an heir takes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(NonZeroU64);

impl Tag {
    /// What it is, in which layout, and which one of several. Change `version` with the meaning of the bytes.
    ///
    /// # Panics
    /// When all of it is zero.
    pub const fn new(name: [u8; 4], version: u16, index: u16) -> Tag {
        let number = (u32::from_be_bytes(name) as u64) << 32 | (version as u64) << 16 | index as u64;
        Tag(NonZeroU64::new(number).expect("a tag has a name"))
    }
}

/// Owns a slice of plain data on the shared heap.
pub struct SharedSlice<T: Plain> {
    payload: NonNull<T>,
    length: usize,
    owns: PhantomData<T>,
}

// SAFETY: The handle owns the slice like a `Box`; `Share` values are `Send`.
unsafe impl<T: Plain> Send for SharedSlice<T> {}
// SAFETY: As above; shared access to the handle is shared access to the slice.
unsafe impl<T: Plain + Sync> Sync for SharedSlice<T> {}

impl<T: Plain> SharedSlice<T> {
    const FITS: () = assert!(align_of::<T>() <= HEADER_BYTES && size_of::<T>() != 0);

    /// `length` values of which every byte is zero.
    pub fn zeroed(length: usize) -> Result<SharedSlice<T>, OutOfMemory> {
        const { Self::FITS };
        let bytes = length.checked_mul(size_of::<T>()).ok_or(OutOfMemory)?;
        let payload = (sys().shared_allocate)(bytes, ObjectKind::Plain as u32);
        let payload = NonNull::new(payload.cast::<T>()).ok_or(OutOfMemory)?;
        // SAFETY: The payload is at least `bytes` long, aligned to 64 (`FITS`), and nobody else has it.
        unsafe { payload.cast::<u8>().write_bytes(0, bytes) };
        Ok(SharedSlice {
            payload,
            length,
            owns: PhantomData,
        })
    }

    /// The next slice with this tag that was left to this domain; `None` when there is none. Bytes at its end that are no whole
    /// `T` are ignored.
    pub fn inherit(tag: Tag) -> Option<SharedSlice<T>> {
        const { Self::FITS };
        let payload = (sys().shared_inherit)(ObjectKind::Plain as u32, tag.0.get());
        let payload = NonNull::new(payload.cast::<T>())?;
        // SAFETY: Every payload has its header before it.
        let header = unsafe { payload.cast::<ObjectHeader>().sub(1).as_ref() };
        let bytes = header.length.load(Ordering::Relaxed).min(header.size) as usize;
        // The object is this domain's alone now: the kernel gives each away once, when nobody has a handle to it any more. Its first
        // `length` bytes were initialised before it got its tag (`zeroed`), and any bytes are values of `T`.
        Some(SharedSlice {
            payload,
            length: bytes / size_of::<T>(),
            owns: PhantomData,
        })
    }

    #[inline(always)]
    fn header(&self) -> &ObjectHeader {
        // SAFETY: Every payload from `shared_allocate` has its header `HEADER_BYTES` before it, for as long as it lives.
        unsafe { self.payload.cast::<ObjectHeader>().sub(1).as_ref() }
    }

    /// From here on it outlives its owner, if the manifest names an heir, who finds it by `tag`.
    pub fn bequeath(&mut self, tag: Tag) {
        self.header().tag.store(tag.0.get(), Ordering::Relaxed);
    }

    /// From here on it dies with its owner again.
    pub fn keep(&mut self) {
        self.header().tag.store(0, Ordering::Relaxed);
    }
}

// SAFETY: Plain data. Its only handle moves, and `transfer` moves the owner.
unsafe impl<T: Plain> Exchange for SharedSlice<T> {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        self.header().owner.store(to.0, Ordering::Relaxed);
    }
}

impl<T: Plain> Deref for SharedSlice<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: The handle owns `length` initialised values; see `zeroed` and `inherit`.
        unsafe { core::slice::from_raw_parts(self.payload.as_ptr(), self.length) }
    }
}

impl<T: Plain> DerefMut for SharedSlice<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: As `deref`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.payload.as_ptr(), self.length) }
    }
}

impl<T: Plain> Drop for SharedSlice<T> {
    fn drop(&mut self) {
        (sys().shared_free)(self.payload.as_ptr().cast());
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
