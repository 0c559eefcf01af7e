//! The shared heap: where exchanged objects live.
//!
//! Objects are cut from spans of physically contiguous frames, one size class a span, and go back to their class's free list.
//! Each has a header (`abi::ObjectHeader`) with its owner; the headers of a class are at fixed distances, so after a death the
//! kernel finds what the dead domain owned by looking at all of them. That makes a crossing one store and a death
//! proportional to the heap, which is the right way round.
//!
//! A span that holds nothing any more goes back, but for one of each class. An object above the largest class is a span of its own.
//! Memory comes from a [`SpanSource`], so that a host can test this.
//!
//! What a dead domain leaves to its heir is picked out in `estate.rs`.

use crate::estate::Estate;
use abi::object::HEADER_BYTES;
use abi::{BATCH_CAPACITY, BatchBody, ObjectHeader, ObjectKind, OwnerId};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where spans come from.
pub trait SpanSource {
    /// `bytes` of zeroed, page-aligned, physically contiguous memory, as address and physical address.
    fn span(&mut self, bytes: usize) -> Option<(usize, u64)>;

    /// Takes a span back.
    ///
    /// # Safety
    /// `span` and `bytes` are of an earlier call of [`span`](Self::span), and nobody uses that memory any more.
    unsafe fn release(&mut self, span: (usize, u64), bytes: usize);
}

/// Payload sizes. The fourth-last fits a packet, the last ones pages of text, streams and batches of work.
pub const CLASSES: [usize; 9] = [64, 320, 448, 960, 2240, 4032, 8128, 16448, 32704];
/// Length of a span that is cut into objects.
const SPAN_BYTES: usize = 128 * 1024;
/// What the length of a span for one large object is a multiple of.
const PAGE_BYTES: usize = 4096;
/// The largest object: more than any machine's memory, and far from any overflow.
const LARGEST_BYTES: usize = 1 << 40;
/// The class of spans that hold one large object.
const LARGE: usize = CLASSES.len();
/// Bytes of a packet before its data: what makes it a valid one.
const PACKET_HEAD_BYTES: usize = size_of::<rref::Packet>() - rref::packet::PACKET_BYTES;

struct Span {
    base: usize,
    physical: u64,
    /// Index of [`CLASSES`], or [`LARGE`].
    class: usize,
    /// Length in bytes.
    bytes: usize,
    /// Header of the first free object, 0 for none.
    free: u64,
    /// Objects in use.
    used: usize,
}

impl Span {
    /// Bytes from one header to the next.
    fn stride(&self) -> usize {
        CLASSES
            .get(self.class)
            .map_or(self.bytes, |class| class + HEADER_BYTES)
    }

    fn count(&self) -> usize {
        self.bytes / self.stride()
    }
}

/// Bytes in use and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of live objects with their headers.
    pub used_bytes: u64,
    /// Bytes of all spans.
    pub span_bytes: u64,
}

/// All shared objects.
pub struct SharedHeap<S> {
    source: S,
    /// By number; `None` for numbers whose span has gone back.
    spans: Vec<Option<Span>>,
    /// For each class, the spans with free objects.
    open: [Vec<u32>; CLASSES.len()],
    usage: Usage,
    /// What the dead have left and nobody has taken yet.
    pub(crate) estate: Estate,
}

// SAFETY: The addresses inside are of memory that the heap owns.
unsafe impl<S: Send> Send for SharedHeap<S> {}

impl<S: SpanSource> SharedHeap<S> {
    /// An empty heap.
    pub const fn new(source: S) -> SharedHeap<S> {
        SharedHeap {
            source,
            spans: Vec::new(),
            open: [const { Vec::new() }; CLASSES.len()],
            usage: Usage {
                used_bytes: 0,
                span_bytes: 0,
            },
            estate: Estate::new(),
        }
    }

    /// Bytes in use and held.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// A new object of `size` bytes for `owner`; the payload's address. `None` without memory.
    pub fn allocate(&mut self, size: usize, kind: ObjectKind, owner: OwnerId) -> Option<usize> {
        let class = CLASSES.iter().position(|&class| size <= class).unwrap_or(LARGE);
        let number = match self.open.get(class).and_then(|open| open.last()) {
            Some(number) => *number,
            None => self.grow(class, size)?,
        };
        let span = self.spans.get_mut(number as usize)?.as_mut()?;
        let address = span.free as usize;
        // SAFETY: Addresses in a span's free list are of headers in that span, which is there as long as it is listed.
        let header = unsafe { &*(address as *const ObjectHeader) };
        span.free = header.next_free.load(Ordering::Relaxed);
        span.used += 1;
        if span.free == 0
            && let Some(open) = self.open.get_mut(class)
        {
            open.pop();
        }
        self.usage.used_bytes += header.size + HEADER_BYTES as u64;
        let payload = address + HEADER_BYTES;
        if kind == ObjectKind::Batch {
            // A batch must hold nothing from its first instruction on: a death may come before its owner has set it up.
            // SAFETY: The payload is free memory of at least a batch's size (asserted below), aligned to 64.
            let body = unsafe { &*(payload as *const BatchBody) };
            body.length.store(0, Ordering::Relaxed);
            body.head.store(0, Ordering::Relaxed);
        }
        if kind == ObjectKind::Packet {
            // A packet, too, must be a valid one if its owner dies before it has set it up.
            // SAFETY: The payload is free memory of at least a packet's size (asserted below), of which these are the first bytes.
            unsafe { (payload as *mut u8).write_bytes(0, PACKET_HEAD_BYTES) };
        }
        header.tag.store(0, Ordering::Relaxed);
        header.length.store(size as u64, Ordering::Relaxed);
        header.kind.store(kind as u32, Ordering::Relaxed);
        header.owner.store(owner.0, Ordering::Release);
        Some(payload)
    }

    /// Makes a new span, cut into objects of a class, or for one large object of `size` bytes; its number.
    fn grow(&mut self, class: usize, size: usize) -> Option<u32> {
        let number = match self.spans.iter().position(Option::is_none) {
            Some(number) => number,
            None => {
                self.spans.try_reserve(1).ok()?;
                self.spans.push(None);
                self.spans.len() - 1
            }
        };
        // Freeing must not allocate: there is room for every span in the list of open ones.
        let spans = self.spans.len();
        let bytes = if let Some(open) = self.open.get_mut(class) {
            open.try_reserve(spans.saturating_sub(open.len())).ok()?;
            SPAN_BYTES
        } else if size <= LARGEST_BYTES {
            (size + HEADER_BYTES).next_multiple_of(PAGE_BYTES)
        } else {
            return None;
        };
        let (base, physical) = self.source.span(bytes)?;
        let mut span = Span {
            base,
            physical,
            class,
            bytes,
            free: 0,
            used: 0,
        };
        for index in (0..span.count()).rev() {
            let offset = index * span.stride();
            let header = ObjectHeader {
                owner: AtomicU64::new(OwnerId::NONE.0),
                physical: physical + (offset + HEADER_BYTES) as u64,
                size: (span.stride() - HEADER_BYTES) as u64,
                kind: AtomicU32::new(ObjectKind::Plain as u32),
                span: number as u32,
                next_free: AtomicU64::new(span.free),
                length: AtomicU64::new(0),
                tag: AtomicU64::new(0),
                place: AtomicU64::new(0),
            };
            // SAFETY: The span is this heap's, `bytes` long and page aligned; the stride is a multiple of 64.
            unsafe { ((base + offset) as *mut ObjectHeader).write(header) };
            span.free = (base + offset) as u64;
        }
        *self.spans.get_mut(number)? = Some(span);
        if let Some(open) = self.open.get_mut(class) {
            open.push(number as u32);
        }
        self.usage.span_bytes += bytes as u64;
        Some(number as u32)
    }

    /// Frees an object, and what it holds. False if it was free already, which only broken trusted code can see.
    ///
    /// # Safety
    /// `payload` is from [`allocate`](Self::allocate), and nobody uses it any more.
    pub unsafe fn free(&mut self, payload: usize) -> bool {
        // SAFETY: Payloads have their header before them.
        let header = unsafe { &*((payload - HEADER_BYTES) as *const ObjectHeader) };
        if header.owner.swap(OwnerId::NONE.0, Ordering::Relaxed) == OwnerId::NONE.0 {
            return false;
        }
        if header.kind.load(Ordering::Relaxed) == ObjectKind::Batch as u32 {
            // SAFETY: The kind says that the payload is a batch body, kept valid at every instruction (`rref::batch`).
            let body = unsafe { &*(payload as *const BatchBody) };
            let head = body.head.load(Ordering::Relaxed) as usize;
            for index in 0..(body.length.load(Ordering::Relaxed) as usize).min(BATCH_CAPACITY) {
                let slot = &body.slots[(head + index) % BATCH_CAPACITY];
                let inner = slot.load(Ordering::Relaxed) as usize;
                // SAFETY: Slots below the length hold payloads; one that isn't marked nested is owned by name and freed by that.
                unsafe {
                    let nested = (*((inner - HEADER_BYTES) as *const ObjectHeader))
                        .owner
                        .load(Ordering::Relaxed);
                    if nested == OwnerId::NESTED.0 {
                        self.free(inner);
                    }
                }
            }
            body.length.store(0, Ordering::Relaxed);
        }
        self.put_back(header);
        true
    }

    /// Puts a free object into its span's list, and gives the span back if it is the second empty one of its class.
    fn put_back(&mut self, header: &ObjectHeader) {
        let number = header.span;
        let Some(Some(span)) = self.spans.get_mut(number as usize) else {
            return;
        };
        let class = span.class;
        if span.free == 0
            && let Some(open) = self.open.get_mut(class)
        {
            open.push(number);
        }
        header.next_free.store(span.free, Ordering::Relaxed);
        span.free = core::ptr::from_ref(header) as u64;
        span.used -= 1;
        self.usage.used_bytes -= header.size + HEADER_BYTES as u64;
        if class == LARGE || span.used == 0 && self.empty_spans(class) > 1 {
            self.release(number);
        }
    }

    fn empty_spans(&self, class: usize) -> usize {
        let empty = |number: &&u32| {
            self.spans
                .get(**number as usize)
                .is_some_and(|span| span.as_ref().is_some_and(|span| span.used == 0))
        };
        self.open[class].iter().filter(empty).count()
    }

    fn release(&mut self, number: u32) {
        let Some(span) = self.spans.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        if let Some(open) = self.open.get_mut(span.class) {
            open.retain(|open| *open != number);
        }
        self.usage.span_bytes -= span.bytes as u64;
        // SAFETY: The span came from the source, none of its objects is in use, and it is in no list any more.
        unsafe { self.source.release((span.base, span.physical), span.bytes) };
    }

    /// The headers of all objects, free ones too.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &ObjectHeader> {
        self.spans.iter().flatten().flat_map(|span| {
            let (base, stride) = (span.base, span.stride());
            // SAFETY: Every stride of a span begins with a header, and listed spans are there.
            (0..span.count()).map(move |index| unsafe { &*((base + index * stride) as *const ObjectHeader) })
        })
    }

    /// The payloads of what `owner` owns by name, batches first.
    ///
    /// Freeing a batch looks at the headers of what is in it. An object may be in a batch and owned by name, if its owner died while it
    /// put it there; were it freed first, its span might be gone by then.
    pub(crate) fn owned(&self, owner: OwnerId) -> Vec<usize> {
        let mut owned: Vec<&ObjectHeader> = self
            .headers()
            .filter(|header| header.owner.load(Ordering::Relaxed) == owner.0)
            .collect();
        owned.sort_unstable_by_key(|header| header.kind.load(Ordering::Relaxed) != ObjectKind::Batch as u32);
        owned
            .into_iter()
            .map(|header| core::ptr::from_ref(header) as usize + HEADER_BYTES)
            .collect()
    }

    /// Frees all that a dead domain owned; the count of objects that it owned by name.
    pub fn reclaim(&mut self, dead: OwnerId) -> usize {
        self.drop_requests_left_to(dead.slot());
        let owned = self.owned(dead);
        self.free_all(&owned);
        owned.len()
    }

    /// Frees what a dead domain owned by name.
    pub(crate) fn free_all(&mut self, owned: &[usize]) {
        for &payload in owned {
            // SAFETY: Its owner is dead and every thread has left it (the kernel reclaims only then), so nobody uses it.
            unsafe { self.free(payload) };
        }
    }

    /// What each owner owns by name: objects, and their bytes with headers. Objects inside of batches are under
    /// [`OwnerId::NESTED`].
    pub fn owners(&self) -> Vec<(OwnerId, u64, u64)> {
        let mut owners: Vec<(OwnerId, u64, u64)> = Vec::new();
        for header in self.headers() {
            let owner = OwnerId(header.owner.load(Ordering::Relaxed));
            if owner == OwnerId::NONE {
                continue;
            }
            let bytes = header.size + HEADER_BYTES as u64;
            match owners.iter_mut().find(|(known, _, _)| *known == owner) {
                Some((_, objects, sum)) => {
                    *objects += 1;
                    *sum += bytes;
                }
                None => owners.push((owner, 1, bytes)),
            }
        }
        owners
    }

    /// Objects that are marked as being in a batch and are in none, by address. One that is being moved while this looks is among
    /// them.
    pub fn adrift(&self) -> Vec<usize> {
        let is_used = |header: &&ObjectHeader| header.owner.load(Ordering::Relaxed) != OwnerId::NONE.0;
        let mut held: Vec<u64> = Vec::new();
        for header in self.headers().filter(is_used) {
            if header.kind.load(Ordering::Relaxed) == ObjectKind::Batch as u32 {
                let payload = core::ptr::from_ref(header) as usize + HEADER_BYTES;
                // SAFETY: The kind says that the payload is a batch body. What its owner does to it meanwhile are stores to atomics, and
                // nothing that is read here is followed.
                let body = unsafe { &*(payload as *const BatchBody) };
                let head = body.head.load(Ordering::Relaxed) as usize;
                let length = (body.length.load(Ordering::Relaxed) as usize).min(BATCH_CAPACITY);
                let slots = (head..head + length).map(|index| &body.slots[index % BATCH_CAPACITY]);
                held.extend(slots.map(|slot| slot.load(Ordering::Relaxed)));
            }
        }
        held.sort_unstable();
        self.headers()
            .filter(|header| header.owner.load(Ordering::Relaxed) == OwnerId::NESTED.0)
            .map(|header| core::ptr::from_ref(header) as usize + HEADER_BYTES)
            .filter(|payload| held.binary_search(&(*payload as u64)).is_err())
            .collect()
    }

    /// Bytes of objects that `owner` owns, with what is in them not counted twice.
    pub fn owned_bytes(&self, owner: OwnerId) -> u64 {
        self.headers()
            .filter(|header| header.owner.load(Ordering::Relaxed) == owner.0)
            .map(|header| header.size + HEADER_BYTES as u64)
            .sum()
    }
}

/// The header of an object.
///
/// # Safety
/// `payload` is from [`SharedHeap::allocate`], and its span is there as long as the result is used.
pub(crate) unsafe fn header_of<'a>(payload: usize) -> &'a ObjectHeader {
    // SAFETY: Payloads have their header before them; the caller promises that it is there.
    unsafe { &*((payload - HEADER_BYTES) as *const ObjectHeader) }
}

const _: () = assert!(size_of::<BatchBody>() <= CLASSES[1]);
const _: () = assert!(size_of::<rref::Packet>() <= CLASSES[4]);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::alloc::{Layout, alloc_zeroed};

    pub(crate) struct HostSpans;

    impl SpanSource for HostSpans {
        fn span(&mut self, bytes: usize) -> Option<(usize, u64)> {
            let layout = Layout::from_size_align(bytes, 4096).ok()?;
            // SAFETY: The layout is not empty. Leaked: a test's heap has no end.
            let base = unsafe { alloc_zeroed(layout) } as usize;
            (base != 0).then_some((base, base as u64))
        }

        // SAFETY: Frees what `span` allocated; that nobody uses it is the caller's promise.
        unsafe fn release(&mut self, span: (usize, u64), bytes: usize) {
            if let Ok(layout) = Layout::from_size_align(bytes, 4096) {
                // SAFETY: Allocated above with this layout; the caller promises that nobody uses it.
                unsafe { std::alloc::dealloc(span.0 as *mut u8, layout) };
            }
        }
    }

    pub(crate) fn owner(slot: u16) -> OwnerId {
        OwnerId::new(slot, 1)
    }

    pub(crate) fn set_owner(payload: usize, owner: OwnerId) {
        // SAFETY: A payload of this test's heap.
        unsafe { &*((payload - HEADER_BYTES) as *const ObjectHeader) }
            .owner
            .store(owner.0, Ordering::Relaxed);
    }

    pub(crate) fn push(batch: usize, object: usize) {
        // SAFETY: A batch payload of this test's heap.
        let body = unsafe { &*(batch as *const BatchBody) };
        let length = body.length.load(Ordering::Relaxed);
        body.slots[length as usize].store(object as u64, Ordering::Relaxed);
        body.length.store(length + 1, Ordering::Relaxed);
    }

    #[test]
    fn a_second_free_is_noticed() {
        let mut heap = SharedHeap::new(HostSpans);
        let object = heap.allocate(10, ObjectKind::Plain, owner(1)).expect("memory");
        // SAFETY: Allocated above.
        assert!(unsafe { heap.free(object) });
        // SAFETY: Still memory of the heap: the last span of a class stays.
        assert!(!unsafe { heap.free(object) });
        assert_eq!(heap.usage().used_bytes, 0);
    }

    #[test]
    fn a_death_in_the_middle_of_push_or_pop_frees_each_object_once() {
        // The object is in the batch but still (or again) marked with its owner's name.
        let mut heap = SharedHeap::new(HostSpans);
        let batch = heap
            .allocate(size_of::<BatchBody>(), ObjectKind::Batch, owner(1))
            .expect("memory");
        let object = heap.allocate(64, ObjectKind::Plain, owner(1)).expect("memory");
        push(batch, object);
        assert_eq!(heap.reclaim(owner(1)), 2);
        assert_eq!(heap.usage().used_bytes, 0);
    }

    /// Freeing the object could give its span back before the batch, in which it still is, is looked at.
    #[test]
    fn batches_are_freed_before_what_may_be_in_them() {
        let mut heap = SharedHeap::new(HostSpans);
        let objects: Vec<usize> = (0..2_000)
            .map(|_| heap.allocate(64, ObjectKind::Plain, owner(1)).expect("memory"))
            .collect();
        let batch = heap
            .allocate(size_of::<BatchBody>(), ObjectKind::Batch, owner(1))
            .expect("memory");
        push(batch, objects[1_999]);
        assert_eq!(heap.owned(owner(1)).first(), Some(&batch));
        assert_eq!(heap.reclaim(owner(1)), 2_001);
        assert_eq!(heap.usage().used_bytes, 0);
    }

    #[test]
    fn owners_are_counted_and_objects_lost_between_batches_are_found() {
        let mut heap = SharedHeap::new(HostSpans);
        let batch = heap
            .allocate(size_of::<BatchBody>(), ObjectKind::Batch, owner(1))
            .expect("memory");
        let held = heap.allocate(64, ObjectKind::Plain, owner(1)).expect("memory");
        let lost = heap.allocate(64, ObjectKind::Plain, owner(2)).expect("memory");
        push(batch, held);
        set_owner(held, OwnerId::NESTED);
        assert!(!heap.adrift().contains(&held));
        set_owner(lost, OwnerId::NESTED);
        assert_eq!(heap.adrift(), [lost]);
        let mut owners = heap.owners();
        owners.sort_by_key(|(owner, _, _)| owner.0);
        let counts: Vec<_> = owners
            .iter()
            .map(|(owner, objects, _)| (*owner, *objects))
            .collect();
        assert_eq!(counts, [(owner(1), 1), (OwnerId::NESTED, 2)]);
    }

    #[test]
    fn what_was_given_away_survives() {
        let mut heap = SharedHeap::new(HostSpans);
        let mine = heap.allocate(64, ObjectKind::Plain, owner(1)).expect("memory");
        let given = heap.allocate(64, ObjectKind::Plain, owner(1)).expect("memory");
        set_owner(given, owner(2));
        assert_eq!(heap.reclaim(owner(1)), 1);
        assert_eq!(heap.owned_bytes(owner(2)), 128);
        assert_ne!(mine, given);
    }

    #[test]
    fn a_large_object_is_a_span_of_its_own_and_goes_back_at_once() {
        let mut heap = SharedHeap::new(HostSpans);
        let size = 3 * SPAN_BYTES;
        let object = heap.allocate(size, ObjectKind::Plain, owner(1)).expect("memory");
        assert_eq!(heap.usage().span_bytes, size as u64 + PAGE_BYTES as u64);
        assert_eq!(heap.owned_bytes(owner(1)), heap.usage().span_bytes);
        // SAFETY: Allocated above.
        assert!(unsafe { heap.free(object) });
        assert_eq!(heap.usage(), Usage::default());
        assert_eq!(heap.allocate(usize::MAX, ObjectKind::Plain, owner(1)), None);
    }

    proptest! {
        /// Random allocate, free, move, nest and kill against a model: nothing is lost, nothing freed twice.
        #[test]
        fn ownership_follows_the_model(steps in proptest::collection::vec((0u8..6, 0usize..64, 1u16..5), 1..400)) {
            let mut heap = SharedHeap::new(HostSpans);
            // (payload, owner slot, objects nested in it if it is a batch)
            let mut model: Vec<(usize, u16, Option<Vec<usize>>)> = Vec::new();
            for (step, pick, slot) in steps {
                let index = if model.is_empty() { 0 } else { pick % model.len() };
                match step {
                    0 => model.push((heap.allocate(pick * 40, ObjectKind::Plain, owner(slot)).expect("memory"), slot, None)),
                    1 => {
                        let batch = heap.allocate(size_of::<BatchBody>(), ObjectKind::Batch, owner(slot)).expect("memory");
                        model.push((batch, slot, Some(Vec::new())));
                    }
                    2 if !model.is_empty() => {
                        let (payload, ..) = model.swap_remove(index);
                        // SAFETY: The model says that it lives and is nobody's part.
                        prop_assert!(unsafe { heap.free(payload) }, "freed twice");
                    }
                    3 if !model.is_empty() => {
                        model[index].1 = slot;
                        set_owner(model[index].0, owner(slot));
                    }
                    4 if model.len() > 1 && model[index].2.is_none() => {
                        let (object, ..) = model.swap_remove(index);
                        let place = model.iter().position(|(_, _, nested)| nested.as_ref().is_some_and(|n| n.len() < BATCH_CAPACITY));
                        match place {
                            Some(place) => {
                                push(model[place].0, object);
                                set_owner(object, OwnerId::NESTED);
                                if let Some(nested) = &mut model[place].2 { nested.push(object) }
                            }
                            // SAFETY: As above.
                            None => prop_assert!(unsafe { heap.free(object) }, "freed twice"),
                        }
                    }
                    5 => {
                        let dead = model.iter().filter(|(_, owner, _)| *owner == slot).count();
                        prop_assert_eq!(heap.reclaim(owner(slot)), dead);
                        model.retain(|(_, owner, _)| *owner != slot);
                    }
                    _ => {}
                }
                for slot in 1..5 {
                    let expected: u64 = model.iter().filter(|(_, owner, _)| *owner == slot).map(|(payload, ..)| {
                        // SAFETY: The model says that it lives.
                        unsafe { (*((payload - HEADER_BYTES) as *const ObjectHeader)).size + HEADER_BYTES as u64 }
                    }).sum();
                    prop_assert_eq!(heap.owned_bytes(owner(slot)), expected);
                }
            }
            for slot in 1..5 { heap.reclaim(owner(slot)); }
            prop_assert_eq!(heap.usage().used_bytes, 0);
            prop_assert!(heap.usage().span_bytes <= (CLASSES.len() * SPAN_BYTES) as u64, "empty spans go back");
        }
    }
}
