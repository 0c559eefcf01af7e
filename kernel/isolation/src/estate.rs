//! What a dead domain leaves: shared objects that outlive their owner (docs/soundness.md, invariant 7).
//!
//! A manifest entry may name an heir. When an incarnation of it is reclaimed, two kinds of its objects are not freed but set aside
//! for the heir: plain ones that it gave a tag, and packets that it had marked for transmission and no device had sent. They then belong
//! to the heir's estate (`OwnerId::estate`), not to one incarnation, so that it doesn't matter in which order domains die, and whether
//! the heir is the dead domain itself. The heir's incarnation takes them one by one.
//!
//! What is left and not taken must not pile up. Packets go when the same domain leaves the next time, and so does an object whose tag it
//! leaves anew; others after [`PASSES`] of its deaths, since an heir may die before it has taken all. Types are no question here: a tagged
//! object holds plain data, of which any bytes are a value, and a packet is known to be one by its kind.

use crate::shared_heap::{SharedHeap, SpanSource, header_of};
use abi::object::HEADER_BYTES;
use abi::{BATCH_CAPACITY, BatchBody, ObjectKind, OwnerId, TransmitPlace};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rref::Packet;
use rref::packet::Verdict;

/// Deaths of whoever left it that an object which nobody takes outlasts.
const PASSES: u8 = 8;

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
}

impl<S: SpanSource> SharedHeap<S> {
    /// Frees all that a dead domain owned but for what it leaves to the domain in slot `heir`; packets only if it was a driver, since others
    /// mark them for transmission and give them on.
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
        let owned = self.owned(dead);
        let mut result = Reclaimed {
            owned: owned.len(),
            left_bytes: 0,
        };
        let (tagged, unsent) = find(&owned, is_driver, &sent);
        self.drop_untaken(dead.slot(), &tagged);
        if self.estate.left.try_reserve(tagged.len() + unsent.len()).is_ok() {
            // Turned round, as the estate is taken from its end.
            for payload in unsent.into_iter().rev().chain(tagged) {
                // SAFETY: `find` gives objects of the dead domain, which are there until they are freed.
                let header = unsafe { header_of(payload) };
                header.owner.store(OwnerId::estate(heir).0, Ordering::Relaxed);
                result.left_bytes += header.size + HEADER_BYTES as u64;
                self.estate.left.push(Left {
                    payload,
                    heir,
                    from: dead.slot(),
                    passes: 0,
                });
            }
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

    /// Frees what the domain in slot `from` left in an earlier life and nobody took, unless it may still be taken besides `tagged`.
    fn drop_untaken(&mut self, from: u16, tagged: &[usize]) {
        // SAFETY: Objects of the dead domain and of the estate, none of which is freed yet.
        let tag = |payload: usize| unsafe { header_of(payload) }.tag.load(Ordering::Relaxed);
        // A packet has none.
        let is_outdated = |left: &Left| {
            let old = tag(left.payload);
            old == 0 || left.passes > PASSES || tagged.iter().any(|new| tag(*new) == old)
        };
        for left in &mut self.estate.left {
            left.passes = left.passes.saturating_add(u8::from(left.from == from));
        }
        let (old, kept) = core::mem::take(&mut self.estate.left)
            .into_iter()
            .partition::<Vec<Left>, _>(|left| left.from == from && is_outdated(left));
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
                && (kind == ObjectKind::Packet || header.tag.load(Ordering::Relaxed) == tag)
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

/// Of what a dead domain owned: tagged objects, and packets that were to be sent, in the order in which they were to.
fn find(
    owned: &[usize],
    is_driver: bool,
    sent: &impl Fn(TransmitPlace) -> Option<bool>,
) -> (Vec<usize>, Vec<usize>) {
    let mut tagged = Vec::new();
    let mut unsent: Vec<Unsent> = Vec::new();
    // Counts are compared with one of the same ring, from which all others are less than its length away.
    let mut anchors: Vec<TransmitPlace> = Vec::new();
    for &payload in owned {
        // SAFETY: They are the dead domain's, which nobody has freed yet.
        let header = unsafe { header_of(payload) };
        let kind = header.kind.load(Ordering::Relaxed);
        if kind == ObjectKind::Plain as u32 && header.tag.load(Ordering::Relaxed) != 0 {
            tagged.push(payload);
        } else if !is_driver {
            continue;
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
            nested(payload, &mut unsent);
        }
    }
    // Packets that had not reached a ring were to follow those that had.
    unsent.sort_by_key(|packet| (packet.place.is_none(), packet.ring, packet.position));
    drop_sent(&mut unsent, sent);
    (tagged, unsent.into_iter().map(|packet| packet.payload).collect())
}

/// Adds the packets in a dead domain's batch that were to be sent.
fn nested(batch: usize, unsent: &mut Vec<Unsent>) {
    // SAFETY: The caller found it to be a batch of a dead domain's: its body is valid at every instruction (`rref::batch`).
    let body = unsafe { &*(batch as *const BatchBody) };
    let head = body.head.load(Ordering::Relaxed) as usize;
    let length = (body.length.load(Ordering::Relaxed) as usize).min(BATCH_CAPACITY);
    for index in 0..length {
        let payload = body.slots[(head + index) % BATCH_CAPACITY].load(Ordering::Relaxed) as usize;
        // SAFETY: Slots below the length hold payloads.
        let header = unsafe { header_of(payload) };
        // One that isn't marked nested is found by its owner's name.
        if header.owner.load(Ordering::Relaxed) == OwnerId::NESTED.0
            && header.kind.load(Ordering::Relaxed) == ObjectKind::Packet as u32
            && is_to_be_sent(payload)
        {
            unsent.push(Unsent {
                ring: batch,
                position: index,
                place: None,
                payload,
            });
        }
    }
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
