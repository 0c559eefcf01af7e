//! `RRef<T>`: the owning handle to one object on the shared heap.
//!
//! The object is preceded by a header that names its owner (`abi::ObjectHeader`). Moving the handle inside a domain changes
//! nothing; a crossing changes the owner (`Exchange::transfer`). When the owner dies without dropping it, the kernel finds
//! the object by that name and frees it.

use crate::exchange::{Exchange, Share};
use abi::object::HEADER_BYTES;
use abi::{ObjectHeader, ObjectKind, OwnerId, TransmitPlace, sys};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

/// The shared heap is used up, or the domain's quota of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of shared memory")
    }
}

/// Owns one `T` on the shared heap.
pub struct RRef<T: Share> {
    payload: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: The handle owns the object like a `Box`; `Share` values are `Send`.
unsafe impl<T: Share> Send for RRef<T> {}
// SAFETY: As above; shared access to the handle is shared access to the object.
unsafe impl<T: Share + Sync> Sync for RRef<T> {}

impl<T: Share> RRef<T> {
    const FITS: () = assert!(align_of::<T>() <= HEADER_BYTES && !core::mem::needs_drop::<T>());

    /// Moves `value` to the shared heap.
    pub fn new(value: T) -> Result<RRef<T>, OutOfMemory> {
        let reference = Self::allocate()?;
        // SAFETY: The payload is at least `size_of::<T>()` bytes, aligned to 64 (`FITS`), and nobody else has it.
        unsafe { reference.payload.write(value) };
        Ok(reference)
    }

    /// An object whose bytes are whatever valid value they last were; for types that any bytes make a value of.
    fn allocate() -> Result<RRef<T>, OutOfMemory> {
        Self::allocate_as(ObjectKind::Plain)
    }

    /// The same, with what the kernel is to know of its type.
    pub(crate) fn allocate_as(kind: ObjectKind) -> Result<RRef<T>, OutOfMemory> {
        const { Self::FITS };
        let payload = (sys().shared_allocate)(size_of::<T>(), kind as u32);
        NonNull::new(payload.cast())
            .map(|payload| RRef {
                payload,
                owns: PhantomData,
            })
            .ok_or(OutOfMemory)
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &ObjectHeader {
        // SAFETY: Every payload from `shared_allocate` has its header `HEADER_BYTES` before it, for as long as it lives.
        unsafe { self.payload.cast::<ObjectHeader>().sub(1).as_ref() }
    }

    /// Gives up the handle without freeing the object.
    #[inline(always)]
    pub(crate) fn into_payload(self) -> NonNull<T> {
        let payload = self.payload;
        core::mem::forget(self);
        payload
    }

    /// The handle to an object that nobody else has a handle to.
    ///
    /// # Safety
    /// `payload` came from [`into_payload`](Self::into_payload) of the same type, and is made a handle of once.
    #[inline(always)]
    pub(crate) unsafe fn from_payload(payload: NonNull<T>) -> RRef<T> {
        RRef {
            payload,
            owns: PhantomData,
        }
    }

    /// Address of the object's first byte for a device. Only trusted device code can use it for DMA.
    pub fn physical(&self) -> u64 {
        self.header().physical
    }

    /// Notes where the object, a packet, waits in a transmit ring. For trusted device code: after a driver's death the kernel finds out by
    /// that which packets were sent.
    #[inline(always)]
    pub fn set_place(&self, place: TransmitPlace) {
        self.header().place.store(place.0, Ordering::Relaxed);
    }

    /// Who owns the object now.
    pub fn owner(&self) -> OwnerId {
        OwnerId(self.header().owner.load(Ordering::Relaxed))
    }
}

// SAFETY: The handle's object is `Share`: plain. Its only handle moves, and `transfer` moves the owner.
unsafe impl<T: Share> Exchange for RRef<T> {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        self.header().owner.store(to.0, Ordering::Relaxed);
    }
}

impl<T: Share> Deref for RRef<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: The handle owns an initialised object; see `new` and `allocate`.
        unsafe { self.payload.as_ref() }
    }
}

impl<T: Share> DerefMut for RRef<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As `deref`, and `self` is borrowed exclusively.
        unsafe { self.payload.as_mut() }
    }
}

impl<T: Share> Drop for RRef<T> {
    fn drop(&mut self) {
        (sys().shared_free)(self.payload.as_ptr().cast());
    }
}

impl<T: Share + fmt::Debug> fmt::Debug for RRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
