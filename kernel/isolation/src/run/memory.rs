//! Memory that domains ask for: shared objects and private pages.

use super::black_box;
use super::device::Devices;
use super::domain::{Cause, Domain, by_name, domain_of};
use super::fault;
use crate::black_box::EventKind;
use crate::estate::Reclaimed;
use crate::shared_heap::{SharedHeap, SpanSource, Usage};
use abi::object::HEADER_BYTES;
use abi::{ObjectKind, OwnerId, current};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use kernel::machine::memory::{FrameUse, Frames};
use kernel::machine::sync::InterruptLock;
use rref::Text;

struct FrameSpans;

impl SpanSource for FrameSpans {
    fn span(&mut self, bytes: usize) -> Option<(usize, u64)> {
        let frames = Frames::allocate_for(FrameUse::SharedHeap, bytes.div_ceil(crate::elf::PAGE_BYTES), 1)
            .ok()?
            .zeroed();
        let base = frames.as_pointer() as usize;
        Some((base, frames.leak()))
    }

    // SAFETY: Gives the frames back that `span` took; that nobody uses them is the caller's promise.
    unsafe fn release(&mut self, (_, physical): (usize, u64), bytes: usize) {
        // SAFETY: `span` leaked exactly this run, and the caller promises that nobody uses it.
        drop(unsafe {
            Frames::from_leaked(
                FrameUse::SharedHeap,
                physical,
                bytes.div_ceil(crate::elf::PAGE_BYTES),
            )
        });
    }
}

static SHARED: InterruptLock<SharedHeap<FrameSpans>> = InterruptLock::new(SharedHeap::new(FrameSpans));

/// Shared-heap bytes in use and held.
pub fn shared_usage() -> Usage {
    SHARED.lock().usage()
}

/// What each owner owns: objects and bytes.
pub fn owners() -> Vec<(OwnerId, u64, u64)> {
    SHARED.lock().owners()
}

/// Objects that are marked as being in a batch and are in none, by address.
pub fn adrift() -> Vec<usize> {
    SHARED.lock().adrift()
}

/// Bytes of shared objects that the domain in `slot` owns: its incarnation that lives, and its estate.
pub fn owned_bytes(slot: u16, live: Option<OwnerId>) -> u64 {
    let shared = SHARED.lock();
    shared.owned_bytes(OwnerId::estate(slot)) + live.map_or(0, |live| shared.owned_bytes(live))
}

/// Frees the shared objects of a dead incarnation, which no thread is in any more, but for what it leaves to its heir. Its devices have been
/// stopped; their rings say what they had sent. Also gives the bytes that were freed.
pub fn reclaim(domain: &Domain, dead: OwnerId, devices: &Devices) -> (Reclaimed, u64) {
    let heir = domain.manifest.heir.as_deref().and_then(by_name);
    let mut heap = SHARED.lock();
    let before = heap.usage().used_bytes;
    let reclaimed = match heir {
        None => Reclaimed {
            owned: heap.reclaim(dead),
            left_bytes: 0,
        },
        Some(heir) => {
            let is_driver = !domain.manifest.devices.is_empty();
            let sent = |place| devices.has_sent(place);
            let reclaimed = heap.reclaim_for(dead, heir.header.slot, is_driver, sent);
            heir.shared_charged
                .fetch_add(reclaimed.left_bytes, Ordering::Relaxed);
            reclaimed
        }
    };
    (reclaimed, before.saturating_sub(heap.usage().used_bytes))
}

/// The next object of this kind and tag that was left to the running domain; null when there is none.
pub fn shared_inherit(kind: u32, tag: u64) -> *mut u8 {
    let kind = match kind {
        0 if tag != 0 => ObjectKind::Plain,
        2 => ObjectKind::Packet,
        3 => ObjectKind::Block,
        _ => return core::ptr::null_mut(),
    };
    SHARED
        .lock()
        .inherit(current().owner(), kind, tag)
        .map_or(core::ptr::null_mut(), |payload| payload as *mut u8)
}

/// Frees a batch that could not be delivered to `dead`, but for the storage requests in it if the running domain is that driver's heir.
pub fn shared_undelivered(batch: *mut u8, dead: OwnerId) {
    let owner = current().owner();
    let driver = domain_of(dead).filter(|domain| !domain.manifest.devices.is_empty());
    let heir = driver.and_then(|driver| driver.manifest.heir.as_deref().and_then(by_name));
    match heir.filter(|heir| heir.header.slot == owner.slot()) {
        Some(heir) => {
            let left_bytes = SHARED.lock().leave_undelivered(batch as usize, owner, dead);
            heir.shared_charged.fetch_add(left_bytes, Ordering::Relaxed);
        }
        None => shared_free(batch),
    }
}

/// A new shared object for the running domain; null without memory, or for an unknown kind.
pub fn shared_allocate(size: usize, kind: u32) -> *mut u8 {
    let kind = match kind {
        0 => ObjectKind::Plain,
        1 => ObjectKind::Batch,
        2 => ObjectKind::Packet,
        3 => ObjectKind::Block,
        _ => return core::ptr::null_mut(),
    };
    let owner = current().owner();
    let domain = domain_of(owner);
    let charge = (size as u64).saturating_add(HEADER_BYTES as u64);
    if let Some(domain) = domain {
        if owned_is_over(domain, charge) {
            refused(format_args!("shared memory: quota"));
            refuse_shared(domain, charge);
            return core::ptr::null_mut();
        }
        // Looked at first: writing at each allocation would cost more, with several CPUs.
        if domain.refusals.shared.load(Ordering::Relaxed) != 0 {
            domain.refusals.shared.store(0, Ordering::Relaxed);
        }
    }
    SHARED
        .lock()
        .allocate(size, kind, owner)
        .map_or(core::ptr::null_mut(), |payload| payload as *mut u8)
}

/// Refusals of shared memory without one that was granted in between, after which a domain dies of them. It can drop work at the first; one that
/// only tries again never stops.
const SHARED_REFUSALS: u32 = 1000;

/// Counts a refusal; enough of them are the domain's death.
fn refuse_shared(domain: &Domain, bytes: u64) {
    let count = domain
        .refusals
        .shared
        .fetch_add(1, Ordering::Relaxed)
        .saturating_add(1);
    if count < SHARED_REFUSALS {
        return;
    }
    let quota = domain.manifest.shared_quota_bytes;
    let detail = Text::<200>::format(format_args!(
        "refused {count} times in a row, last {bytes} bytes of shared memory: it has used up its {quota}"
    ));
    fault::end(Cause::SharedQuota, detail.as_str())
}

/// Whether `more` bytes would go over the domain's quota. The charge is what it owns now, counted afresh only when an optimistic
/// count says that it might be over, so that allocation doesn't look at the whole heap each time.
fn owned_is_over(domain: &Domain, more: u64) -> bool {
    if more > domain.manifest.shared_quota_bytes {
        return true;
    }
    let charged = domain.shared_charged.fetch_add(more, Ordering::Relaxed) + more;
    if charged <= domain.manifest.shared_quota_bytes {
        return false;
    }
    let Some(live) = domain.header.live() else {
        return true;
    };
    let owned = owned_bytes(live.slot(), Some(live)) + more;
    domain.shared_charged.store(owned, Ordering::Relaxed);
    owned > domain.manifest.shared_quota_bytes
}

/// Frees a shared object.
pub fn shared_free(payload: *mut u8) {
    // SAFETY: Reached only from `rref`'s drop code, which owns the object.
    let freed = unsafe { SHARED.lock().free(payload as usize) };
    assert!(freed, "a shared object was freed twice");
}

fn refused(what: fmt::Arguments<'_>) {
    black_box::trace(current().owner(), EventKind::Refused, what);
}

/// Zeroed pages for the running domain's private heap; null without memory or quota.
pub fn pages_allocate(count: usize) -> *mut u8 {
    let owner = current().owner();
    let Some(domain) = domain_of(owner) else {
        return core::ptr::null_mut();
    };
    if count == 0 {
        return core::ptr::null_mut();
    }
    if !domain.charge(count as u64) {
        refused(format_args!("{count} pages of private memory: quota"));
        domain
            .refusals
            .private_pages
            .store(count as u64, Ordering::Relaxed);
        return core::ptr::null_mut();
    }
    let Ok(frames) = Frames::allocate_for(FrameUse::PrivateHeap, count, 1) else {
        domain.discharge(count as u64);
        refused(format_args!("{count} pages of private memory: there are none"));
        return core::ptr::null_mut();
    };
    let frames = frames.zeroed();
    let base = frames.as_pointer();
    {
        let mut life = domain.life.lock();
        // What a dead incarnation held may have been taken from there already.
        if domain.header.is_live(owner) {
            life.holdings.pages.push(frames);
            drop(life);
            domain.refusals.private_pages.store(0, Ordering::Relaxed);
            return base;
        }
    }
    drop(frames);
    domain.discharge(count as u64);
    core::ptr::null_mut()
}

/// What a panic that is due to refused memory says of it: the quota, and what was asked for last.
pub fn private_quota(owner: OwnerId) -> Option<Text<200>> {
    let domain = domain_of(owner)?;
    let refused = domain.refusals.private_pages.load(Ordering::Relaxed);
    (refused != 0).then(|| {
        Text::format(format_args!(
            "refused {} KiB of private memory: it has {} KiB of its {}",
            refused * 4,
            domain.private_pages.load(Ordering::Relaxed) * 4,
            domain.manifest.memory_quota_bytes / 1024,
        ))
    })
}

/// Takes pages back.
pub fn pages_free(base: *mut u8, count: usize) {
    let Some(domain) = domain_of(current().owner()) else {
        return;
    };
    let mut life = domain.life.lock();
    let pages = &mut life.holdings.pages;
    let Some(index) = pages
        .iter()
        .position(|frames| frames.as_pointer() == base && frames.count() == count)
    else {
        return;
    };
    let frames = pages.swap_remove(index);
    drop(life);
    domain.discharge(frames.count() as u64);
}
