//! What a dead domain leaves: shared objects that outlive their owner (docs/soundness.md, invariant 7).
//!
//! A manifest entry may name an heir. When an incarnation of it is reclaimed, three kinds of its objects are not freed but set aside
//! for the heir: plain ones that it gave a tag; and of a driver packets that it had marked for transmission and no device has sent, and all storage
//! requests. They then belong to the heir's estate (`OwnerId::estate`), not to one incarnation, so that it doesn't matter in which order domains
//! die, and whether the heir is the dead domain itself. The heir's incarnation takes them one by one.
//!
//! What is left and not taken must not pile up. Packets go when the same domain leaves the next time, and so does an object whose tag it
//! leaves anew; other tagged ones after [`PASSES`] of its deaths, since an heir may die before it has taken all. Storage requests may wait for
//! any number of the driver's deaths, because somebody waits for each; they go when the heir dies, because then whoever waited
//! has got an error. Types are no question here: a tagged object holds plain data, of which any bytes are a value, and packets and blocks are known to be such
//! by their kind.

use crate::shared_heap::{SharedHeap, SpanSource, header_of};
use abi::object::HEADER_BYTES;
use abi::{BATCH_CAPACITY, BatchBody, ObjectKind, OwnerId, TransmitPlace};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rref::Packet;
use rref::packet::Verdict;

/// Deaths of whoever left it that an object which nobody takes outlasts.
const PASSES: u8 = 8;
/// Storage requests that wait at most, over all heirs: many times what the queues of a controller hold. Only a driver that fills its own memory
/// with them and dies again and again, while its heir doesn't come, could leave more.
const REQUEST_LIMIT: usize = 16 * 1024;

/// An object that waits for its heir.
#[derive(Clone, Copy)]
struct Left {
    payload: usize,
    heir: u16,
    from: u16,
    /// Deaths of `from` since.
    passes: u8,
}

/// All that waits; what is to be taken first of its kind is last.
pub struct Estate {
    left: Vec<Left>,
}

/// A packet that was to be sent, with what decides its turn: ring (0 for none) and position.
struct Unsent {
    ring: usize,
    position: usize,
    /// For packets in a ring.
    place: Option<TransmitPlace>,
    payload: usize,
}

/// What a dead domain leaves.
#[derive(Default)]
struct Legacy {
    tagged: Vec<usize>,
    /// In the order in which they were to be sent.
    unsent: Vec<usize>,
    requests: Vec<usize>,
}

/// What a death did to the shared heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Objects that the dead owned by name, whether they were freed or left.
    pub owned: usize,
    /// Bytes that went to the heir's estate.
    pub left_bytes: u64,
}

impl Estate {
    pub(crate) const fn new() -> Estate {
        Estate { left: Vec::new() }
    }

    fn has_room_for_requests(&self, count: usize) -> bool {
        let is_request = |left: &&Left| kind_of(left.payload) == ObjectKind::Block as u32;
        self.left.iter().filter(is_request).count() + count <= REQUEST_LIMIT
    }
}

impl<S: SpanSource> SharedHeap<S> {
    /// Frees all that a dead domain owned but for what it leaves to the domain in slot `heir`; packets and storage requests only if it was a driver,
    /// since others pass them on.
    ///
    /// `sent` says of a place whether the device has reported its descriptor, and all before it in its ring, sent; `None` if there is no such
    /// ring of the dead domain's.
    pub fn reclaim_for(
        &mut self,
        dead: OwnerId,
        heir: u16,
        is_driver: bool,
        sent: impl Fn(TransmitPlace) -> Option<bool>,
    ) -> Reclaimed {
        self.drop_requests_left_to(dead.slot());
        let owned = self.owned(dead);
        let mut result = Reclaimed {
            owned: owned.len(),
            left_bytes: 0,
        };
        let legacy = find(&owned, is_driver, &sent);
        self.drop_untaken(dead.slot(), &legacy.tagged);
        // Packets are turned round, as the estate is taken from its end.
        let rest = legacy.unsent.into_iter().rev().chain(legacy.tagged).collect();
        for left in [legacy.requests, rest] {
            result.left_bytes += self.leave(left, heir, dead.slot());
        }
        // What was left has another owner now, also what was in a batch.
        let rest: Vec<usize> = owned
            .into_iter()
            // SAFETY: None of them is freed yet.
            .filter(|payload| unsafe { header_of(*payload) }.owner.load(Ordering::Relaxed) == dead.0)
            .collect();
        self.free_all(&rest);
        result
    }

    /// Adds objects to the estate of the domain in slot `heir`; their bytes. What there is no memory for stays where it is.
    fn leave(&mut self, payloads: Vec<usize>, heir: u16, from: u16) -> u64 {
        let requests = payloads
            .iter()
            .filter(|payload| kind_of(**payload) == ObjectKind::Block as u32);
        let has_room = self.estate.has_room_for_requests(requests.count());
        if !has_room || self.estate.left.try_reserve(payloads.len()).is_err() {
            return 0;
        }
        let mut bytes = 0;
        for payload in payloads {
            // SAFETY: The callers give objects that nobody has a handle to and that are there until they are freed.
            let header = unsafe { header_of(payload) };
            header.owner.store(OwnerId::estate(heir).0, Ordering::Relaxed);
            bytes += header.size + HEADER_BYTES as u64;
            self.estate.left.push(Left {
                payload,
                heir,
                from,
                passes: 0,
            });
        }
        bytes
    }

    /// Frees a batch of `heir`'s that its driver died too early to get, but for the storage requests in it: they are left to `heir` as those that
    /// the driver had. The bytes of these.
    pub fn leave_undelivered(&mut self, batch: usize, heir: OwnerId, driver: OwnerId) -> u64 {
        let mut legacy = Legacy::default();
        nested(batch, &mut Vec::new(), &mut legacy.requests);
        let bytes = self.leave(legacy.requests, heir.slot(), driver.slot());
        // SAFETY: The caller's only handle to it is gone. What was left isn't marked nested any more.
        let freed = unsafe { self.free(batch) };
        assert!(freed, "a batch was freed twice");
        bytes
    }

    /// Frees the storage requests that wait for the domain in slot `heir`, which has died: nobody waits for them any more.
    pub(crate) fn drop_requests_left_to(&mut self, heir: u16) {
        self.drop_left(|left| left.heir == heir && kind_of(left.payload) == ObjectKind::Block as u32);
    }

    /// Frees what the domain in slot `from` left in an earlier life and nobody took, unless it may still be taken besides `tagged`.
    fn drop_untaken(&mut self, from: u16, tagged: &[usize]) {
        // SAFETY: Objects of the dead domain and of the estate, none of which is freed yet.
        let tag = |payload: usize| unsafe { header_of(payload) }.tag.load(Ordering::Relaxed);
        for left in &mut self.estate.left {
            left.passes = left.passes.saturating_add(u8::from(left.from == from));
        }
        self.drop_left(|left| {
            let is_outdated = match kind_of(left.payload) {
                kind if kind == ObjectKind::Block as u32 => false,
                kind if kind == ObjectKind::Packet as u32 => true,
                _ => left.passes > PASSES || tagged.iter().any(|new| tag(*new) == tag(left.payload)),
            };
            left.from == from && is_outdated
        });
    }

    /// Frees what is left and `is_old`.
    fn drop_left(&mut self, is_old: impl Fn(&Left) -> bool) {
        if !self.estate.left.iter().any(&is_old) {
            return;
        }
        let (old, kept) = core::mem::take(&mut self.estate.left)
            .into_iter()
            .partition::<Vec<Left>, _>(is_old);
        self.estate.left = kept;
        for left in old {
            // SAFETY: Nobody has a handle to what is in an estate.
            unsafe { self.free(left.payload) };
        }
    }

    /// Gives `heir` the next object of this kind and tag that was left to its domain.
    pub fn inherit(&mut self, heir: OwnerId, kind: ObjectKind, tag: u64) -> Option<usize> {
        let matches = |left: &Left| {
            // SAFETY: What is in the estate is freed only when it is taken out of it.
            let header = unsafe { header_of(left.payload) };
            left.heir == heir.slot()
                && header.kind.load(Ordering::Relaxed) == kind as u32
                && (kind != ObjectKind::Plain || header.tag.load(Ordering::Relaxed) == tag)
        };
        let index = self.estate.left.iter().rposition(matches)?;
        let left = self.estate.left.remove(index);
        // SAFETY: As above.
        unsafe { header_of(left.payload) }
            .owner
            .store(heir.0, Ordering::Release);
        Some(left.payload)
    }
}

/// Of what a dead domain owned: what it leaves.
fn find(owned: &[usize], is_driver: bool, sent: &impl Fn(TransmitPlace) -> Option<bool>) -> Legacy {
    let mut legacy = Legacy::default();
    let mut unsent: Vec<Unsent> = Vec::new();
    // Counts are compared with one of the same ring, from which all others are less than its length away.
    let mut anchors: Vec<TransmitPlace> = Vec::new();
    for &payload in owned {
        // SAFETY: They are the dead domain's, which nobody has freed yet.
        let header = unsafe { header_of(payload) };
        let kind = header.kind.load(Ordering::Relaxed);
        if kind == ObjectKind::Plain as u32 && header.tag.load(Ordering::Relaxed) != 0 {
            legacy.tagged.push(payload);
        } else if !is_driver {
            continue;
        } else if kind == ObjectKind::Block as u32 {
            legacy.requests.push(payload);
        } else if kind == ObjectKind::Packet as u32 && is_to_be_sent(payload) {
            let place = TransmitPlace(header.place.load(Ordering::Relaxed));
            if sent(place).is_none() {
                continue;
            }
            let known = anchors
                .iter()
                .find(|anchor| anchor.base() == place.base())
                .copied();
            let anchor = known.unwrap_or_else(|| {
                anchors.push(place);
                place
            });
            unsent.push(Unsent {
                ring: place.base(),
                position: place.order_from(anchor) as usize,
                place: Some(place),
                payload,
            });
        } else if kind == ObjectKind::Batch as u32 {
            nested(payload, &mut unsent, &mut legacy.requests);
        }
    }
    // Packets that had not reached a ring were to follow those that had.
    unsent.sort_by_key(|packet| (packet.place.is_none(), packet.ring, packet.position));
    drop_sent(&mut unsent, sent);
    legacy.unsent = unsent.into_iter().map(|packet| packet.payload).collect();
    legacy
}

/// Adds the packets in a batch that were to be sent, and the storage requests in it.
fn nested(batch: usize, unsent: &mut Vec<Unsent>, requests: &mut Vec<usize>) {
    // SAFETY: The caller knows it to be a batch that nobody changes meanwhile: its body is valid at every instruction (`rref::batch`).
    let body = unsafe { &*(batch as *const BatchBody) };
    let head = body.head.load(Ordering::Relaxed) as usize;
    let length = (body.length.load(Ordering::Relaxed) as usize).min(BATCH_CAPACITY);
    for index in 0..length {
        let payload = body.slots[(head + index) % BATCH_CAPACITY].load(Ordering::Relaxed) as usize;
        // SAFETY: Slots below the length hold payloads.
        let header = unsafe { header_of(payload) };
        // One that isn't marked nested is found by its owner's name.
        if header.owner.load(Ordering::Relaxed) != OwnerId::NESTED.0 {
            continue;
        }
        let kind = header.kind.load(Ordering::Relaxed);
        if kind == ObjectKind::Block as u32 {
            requests.push(payload);
        } else if kind == ObjectKind::Packet as u32 && is_to_be_sent(payload) {
            unsent.push(Unsent {
                ring: batch,
                position: index,
                place: None,
                payload,
            });
        }
    }
}

/// An [`ObjectKind`] as its number.
fn kind_of(payload: usize) -> u32 {
    // SAFETY: What is asked about lies in an estate, or was found in a batch: it is there until it is freed.
    unsafe { header_of(payload) }.kind.load(Ordering::Relaxed)
}

/// Takes those out that their ring's device had sent: it reports some only, and each stands for all before it. Notes in each of the others
/// for which queue it was.
fn drop_sent(unsent: &mut Vec<Unsent>, sent: &impl Fn(TransmitPlace) -> Option<bool>) {
    let mut ring_sent = None;
    // From the last, so that a report is seen before what it stands for.
    for index in (0..unsent.len()).rev() {
        let Some(Unsent {
            ring,
            place: Some(place),
            payload,
            ..
        }) = unsent.get(index)
        else {
            continue;
        };
        if ring_sent == Some(*ring) || sent(*place) == Some(true) {
            ring_sent = Some(*ring);
            unsent.remove(index);
        } else {
            // SAFETY: `find` knows it to be a packet of a dead domain's, to which there is no handle any more.
            unsafe { (*(*payload as *mut Packet)).queue = place.queue() };
        }
    }
}

/// Whether a packet of a dead domain's is marked for transmission.
fn is_to_be_sent(payload: usize) -> bool {
    // SAFETY: The caller knows by its kind that it is a packet, valid from its allocation on.
    unsafe { (*(payload as *const Packet)).verdict == Verdict::Transmit }
}

#[cfg(test)]
#[path = "estate_tests.rs"]
mod tests;
