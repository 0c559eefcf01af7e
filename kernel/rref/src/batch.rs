//! `Batch<T>`: a bounded queue of shared objects that crosses as one.
//!
//! Up to [`BATCH_CAPACITY`] objects hang in a batch, which is a shared object itself. Only the batch has an owner that counts;
//! the objects in it are marked nested, so a crossing costs one store however full the batch is.
//!
//! A death can come between any two instructions here, and the kernel then frees what the dead domain owned: every batch of
//! its, with each object in it that is marked nested, and every object marked with its name. So a push first makes the object
//! reachable from the batch and then marks it nested, and a pop first marks it owned and then takes it out: at every
//! instruction an object is found at least once, and its mark decides that it is freed once.

use crate::exchange::{Exchange, Share};
use crate::reference::{OutOfMemory, RRef};
use abi::{BATCH_CAPACITY, BatchBody, ObjectHeader, ObjectKind, OwnerId, current, sys};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

/// Owns up to [`BATCH_CAPACITY`] objects on the shared heap, in order.
pub struct Batch<T: Share> {
    body: NonNull<BatchBody>,
    owns: PhantomData<RRef<T>>,
}

// SAFETY: Owns its objects as `RRef` does.
unsafe impl<T: Share> Send for Batch<T> {}
// SAFETY: Shared access gives shared access to the objects only.
unsafe impl<T: Share + Sync> Sync for Batch<T> {}

impl<T: Share> Batch<T> {
    /// An empty batch.
    pub fn new() -> Result<Batch<T>, OutOfMemory> {
        let body = (sys().shared_allocate)(size_of::<BatchBody>(), ObjectKind::Batch as u32);
        let body = NonNull::new(body.cast::<BatchBody>()).ok_or(OutOfMemory)?;
        let batch = Batch {
            body,
            owns: PhantomData,
        };
        // The kernel hands out batches with length 0, so that one is valid from its first instruction.
        batch.raw().head.store(0, Ordering::Relaxed);
        Ok(batch)
    }

    #[inline(always)]
    fn raw(&self) -> &BatchBody {
        // SAFETY: The payload is a `BatchBody` of atomics from its allocation (zeroed length) to its drop.
        unsafe { self.body.as_ref() }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> &core::sync::atomic::AtomicU64 {
        let position = self.raw().head.load(Ordering::Relaxed).wrapping_add(index) as usize % BATCH_CAPACITY;
        // `position` is below the array's length by the remainder above; the optimiser sees that too.
        &self.raw().slots[position]
    }

    #[inline(always)]
    fn payload(&self, index: u32) -> NonNull<T> {
        let address = self.slot(index).load(Ordering::Relaxed);
        // SAFETY: Slots below `length` hold addresses from `RRef::into_payload`, which are not null.
        unsafe { NonNull::new_unchecked(address as *mut T) }
    }

    /// Objects in the batch.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.raw().length.load(Ordering::Relaxed) as usize
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further object fits.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len() == BATCH_CAPACITY
    }

    /// Objects that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        BATCH_CAPACITY - self.len()
    }

    /// Adds an object at the end; gives it back when the batch is full.
    #[inline]
    pub fn push(&mut self, object: RRef<T>) -> Result<(), RRef<T>> {
        let length = self.raw().length.load(Ordering::Relaxed);
        if length as usize >= BATCH_CAPACITY {
            return Err(object);
        }
        let payload = object.into_payload();
        self.slot(length)
            .store(payload.as_ptr() as u64, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.raw().length.store(length + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        set_owner(payload.cast(), OwnerId::NESTED);
        Ok(())
    }

    /// Takes the last object.
    #[inline]
    pub fn pop(&mut self) -> Option<RRef<T>> {
        let length = self.raw().length.load(Ordering::Relaxed).checked_sub(1)?;
        let payload = self.payload(length);
        set_owner(payload.cast(), current().owner());
        compiler_fence(Ordering::SeqCst);
        self.raw().length.store(length, Ordering::Relaxed);
        // SAFETY: The slot's object came from a handle that `push` consumed, and the slot is no longer part of the batch.
        Some(unsafe { RRef::from_payload(payload) })
    }

    /// Takes the first object.
    #[inline]
    pub fn pop_front(&mut self) -> Option<RRef<T>> {
        let length = self.raw().length.load(Ordering::Relaxed).checked_sub(1)?;
        let payload = self.payload(0);
        set_owner(payload.cast(), current().owner());
        compiler_fence(Ordering::SeqCst);
        let head = self.raw().head.load(Ordering::Relaxed);
        // One store changes both, so that no instruction sees a batch without its last object.
        self.store_head_and_length(head.wrapping_add(1) % BATCH_CAPACITY as u32, length);
        // SAFETY: As in `pop`.
        Some(unsafe { RRef::from_payload(payload) })
    }

    /// The front of the batch, to take several objects from.
    #[inline(always)]
    pub fn front(&mut self) -> Front<'_, T> {
        let body = self.raw();
        let (head, length) = (
            body.head.load(Ordering::Relaxed),
            body.length.load(Ordering::Relaxed),
        );
        Front {
            // A `Front` can't cross, so whoever takes from it is the domain that runs now.
            owner: current().owner(),
            batch: self,
            head,
            length,
        }
    }

    /// Takes objects from the front, at most `limit`, up to the first that `accept` has no answer to; each goes to `keep` with its answer.
    ///
    /// Reads once where the batch begins and whose it is, and writes once what it holds after: until then an object that was taken is
    /// marked as the domain's and still in the batch, as it is between two instructions of [`pop`](Self::pop).
    ///
    /// # Safety
    /// `keep` leaves what it gets where the domain has it: until this returns it isn't dropped, put into a batch or given away.
    #[inline(always)]
    pub unsafe fn take_front_while<R>(
        &mut self,
        limit: usize,
        mut accept: impl FnMut(&T) -> Option<R>,
        mut keep: impl FnMut(RRef<T>, R),
    ) {
        // Nothing crosses while the batch is borrowed, so whoever takes is the domain that runs now.
        let owner = current().owner();
        let body = self.raw();
        let (head, length) = (
            body.head.load(Ordering::Relaxed),
            body.length.load(Ordering::Relaxed),
        );
        let mut taking = Taking {
            batch: self,
            next: head,
            end: head + length.min(limit.min(BATCH_CAPACITY) as u32),
            behind: head + length,
        };
        while taking.next != taking.end {
            let slot = &taking.batch.raw().slots[taking.next as usize % BATCH_CAPACITY];
            // SAFETY: The slot is below `length`, and as in `payload`.
            let payload = unsafe { NonNull::new_unchecked(slot.load(Ordering::Relaxed) as *mut T) };
            // SAFETY: As `get`.
            let Some(answer) = accept(unsafe { payload.as_ref() }) else {
                break;
            };
            set_owner(payload.cast(), owner);
            compiler_fence(Ordering::SeqCst);
            taking.next += 1;
            // SAFETY: The slot's object came from a handle that `push` consumed, and the slot is no longer part of the batch when `taking` is
            // dropped, before which `keep` lets nobody free it (the caller's promise).
            keep(unsafe { RRef::from_payload(payload) }, answer);
        }
    }

    /// The end of the batch, to add several objects.
    #[inline(always)]
    pub fn back(&mut self) -> Back<'_, T> {
        let body = self.raw();
        let (head, length) = (
            body.head.load(Ordering::Relaxed),
            body.length.load(Ordering::Relaxed),
        );
        Back {
            batch: self,
            head,
            length,
        }
    }

    #[inline(always)]
    fn store_head_and_length(&mut self, head: u32, length: u32) {
        // SAFETY: `head` and `length` are adjacent and 8-byte aligned (the payload is 64-byte aligned); the batch is borrowed
        // exclusively, so this mixed-size store races with no other access; the kernel reads only after this thread stopped.
        unsafe {
            self.body
                .cast::<u64>()
                .write_volatile(u64::from(head) | u64::from(length) << 32)
        };
    }

    /// The `index`-th object.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: Slots below `length` point to live objects that this batch owns.
        (index < self.len()).then(|| unsafe { self.payload(index as u32).as_ref() })
    }

    /// The `index`-th object, to change.
    #[inline(always)]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        // SAFETY: As `get`, and the batch is borrowed exclusively.
        (index < self.len()).then(|| unsafe { self.payload(index as u32).as_mut() })
    }

    /// The objects' addresses in order, from the `first`-th on. Where the batch begins is read once, not with each.
    #[inline(always)]
    fn payloads(&self, first: usize) -> impl ExactSizeIterator<Item = NonNull<T>> {
        let body = self.raw();
        let (head, length) = (body.head.load(Ordering::Relaxed) as usize, self.len());
        (head + first.min(length)..head + length).map(|position| {
            let address = body.slots[position % BATCH_CAPACITY].load(Ordering::Relaxed);
            // SAFETY: As in `payload`.
            unsafe { NonNull::new_unchecked(address as *mut T) }
        })
    }

    /// The objects in order.
    #[inline(always)]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        // SAFETY: As `get`.
        self.payloads(0).map(|payload| unsafe { payload.as_ref() })
    }

    /// The objects in order, to change.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut T> {
        self.iter_mut_from(0)
    }

    /// The objects in order from the `first`-th on, to change; none when there are no more than that.
    #[inline(always)]
    pub fn iter_mut_from(&mut self, first: usize) -> impl ExactSizeIterator<Item = &mut T> {
        // SAFETY: As `get_mut`; each slot is visited once, so no two references are to one object.
        self.payloads(first)
            .map(|mut payload| unsafe { payload.as_mut() })
    }

    /// Moves objects from the front of `other` to the end, as many as fit.
    pub fn append(&mut self, other: &mut Batch<T>) {
        while !self.is_full() {
            let Some(object) = other.pop_front() else { return };
            // There is room by the loop's condition; were there not, the object would be dropped here, not lost.
            drop(self.push(object));
        }
    }
}

/// The end of a batch: adds objects as [`Batch::push`] does, each at once, but reads only once where that is.
pub struct Back<'a, T: Share> {
    batch: &'a mut Batch<T>,
    head: u32,
    length: u32,
}

impl<T: Share> Back<'_, T> {
    /// Adds an object at the end; gives it back when the batch is full.
    #[inline(always)]
    pub fn push(&mut self, object: RRef<T>) -> Result<(), RRef<T>> {
        if self.length as usize >= BATCH_CAPACITY {
            return Err(object);
        }
        // SAFETY: As asked above.
        unsafe { self.push_within(object) };
        Ok(())
    }

    /// Adds an object at the end of a batch that has room for it.
    ///
    /// # Safety
    /// The batch isn't full.
    #[inline(always)]
    pub unsafe fn push_within(&mut self, object: RRef<T>) {
        let payload = object.into_payload();
        let body = self.batch.raw();
        let slot = &body.slots[self.head.wrapping_add(self.length) as usize % BATCH_CAPACITY];
        slot.store(payload.as_ptr() as u64, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.length += 1;
        body.length.store(self.length, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        set_owner(payload.cast(), OwnerId::NESTED);
    }
}

/// The front of a batch: takes objects as [`Batch::pop_front`] does, each at once, but reads only once where the batch begins and whose it
/// is.
pub struct Front<'a, T: Share> {
    batch: &'a mut Batch<T>,
    owner: OwnerId,
    head: u32,
    length: u32,
}

impl<T: Share> Front<'_, T> {
    #[inline(always)]
    fn payload(&self) -> Option<NonNull<T>> {
        if self.length == 0 {
            return None;
        }
        let address = self.batch.raw().slots[self.head as usize % BATCH_CAPACITY].load(Ordering::Relaxed);
        // SAFETY: The slot is below `length`, and as in `Batch::payload`.
        Some(unsafe { NonNull::new_unchecked(address as *mut T) })
    }

    /// Takes the first object if `accept` has an answer to it.
    #[inline(always)]
    pub fn take_if<R>(&mut self, accept: impl FnOnce(&T) -> Option<R>) -> Option<(RRef<T>, R)> {
        let payload = self.payload()?;
        // SAFETY: As `Batch::get`.
        let answer = accept(unsafe { payload.as_ref() })?;
        set_owner(payload.cast(), self.owner);
        compiler_fence(Ordering::SeqCst);
        self.head = (self.head + 1) % BATCH_CAPACITY as u32;
        self.length -= 1;
        self.batch.store_head_and_length(self.head, self.length);
        // SAFETY: As in `Batch::pop`.
        Some((unsafe { RRef::from_payload(payload) }, answer))
    }
}

/// Objects being taken from the front of a batch: takes those before `next` out of it when it is dropped, also by a panic on a host.
struct Taking<'a, T: Share> {
    batch: &'a mut Batch<T>,
    /// The first that hasn't been taken, counted from the first slot as `end` is.
    next: u32,
    end: u32,
    /// Behind the last one of the batch.
    behind: u32,
}

impl<T: Share> Drop for Taking<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.batch
            .store_head_and_length(self.next % BATCH_CAPACITY as u32, self.behind - self.next);
    }
}

#[inline(always)]
fn set_owner(payload: NonNull<u8>, owner: OwnerId) {
    // SAFETY: Each object in a batch has its header before its payload.
    unsafe { payload.cast::<ObjectHeader>().sub(1).as_ref() }
        .owner
        .store(owner.0, Ordering::Relaxed);
}

// SAFETY: Holds shared objects only, which follow the batch's owner.
unsafe impl<T: Share> Exchange for Batch<T> {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        set_owner(self.body.cast(), to);
    }

    fn undelivered(self, dead: OwnerId) {
        (sys().shared_undelivered)(self.body.as_ptr().cast(), dead);
        core::mem::forget(self);
    }
}

impl<T: Share> Drop for Batch<T> {
    fn drop(&mut self) {
        // The kernel frees what is nested in it.
        (sys().shared_free)(self.body.as_ptr().cast());
    }
}
