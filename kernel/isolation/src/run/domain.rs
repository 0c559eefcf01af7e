//! The table of domains: one entry for each in the system manifest, made at boot and never freed.
//!
//! What a live incarnation holds is in its [`Holdings`], so that giving it all back is dropping one value.

use super::black_box::Trace;
use super::device::Devices;
use super::proxy::{Exports, Handles};
use crate::elf::Plan;
use abi::manifest::{DomainManifest, SystemManifest};
use abi::{DomainHeader, OwnerId};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kernel::machine::memory::{Frames, VirtualArea};
use kernel::machine::sync::InterruptLock;
use spin::Once;

/// What a domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started.
    Stopped,
    /// Loaded; its `start` has not returned yet.
    Starting,
    /// Its `start` returned.
    Running,
    /// Dead; not everything is given back yet.
    Dying,
    /// Dead; somebody is giving everything back.
    Reaping,
    /// Dead, everything given back.
    Dead,
}

/// Why a domain died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its code panicked.
    Panic,
    /// Somebody with the right to do so asked for it.
    Killed,
    /// A CPU exception in its code, by vector.
    Exception(u8),
    /// Its stack is used up.
    StackOverflow,
    /// It asked for more private memory than its quota allows.
    MemoryQuota,
    /// It asked for more shared memory than its quota allows, again and again.
    SharedQuota,
    /// A crossing into it outlived its deadline.
    Deadline,
    /// One of its threads made no progress for as long as its heartbeat allows.
    Heartbeat,
    /// Its `start` didn't return in time.
    StartTimeout,
    /// The operator stopped it.
    Stopped,
    /// The operator restarted it.
    Restarted,
    /// It made place for another image of it.
    Updated,
}

/// Everything that one incarnation holds and that goes back when it dies. Shared objects are found by their owner.
#[derive(Default)]
pub struct Holdings {
    /// PCI functions, interrupts and ring memory; dropped first, so that no device writes to what follows.
    pub devices: Devices,
    /// Handles to other domains.
    pub handles: Handles,
    /// What it offers.
    pub exports: Exports,
    /// Private heap, by address in the physical map.
    pub pages: Vec<Frames>,
}

/// A domain's life so far.
pub struct Life {
    /// What it is doing.
    pub state: State,
    /// Incarnations so far.
    pub generation: u64,
    /// The verified image that the next start is from.
    pub plan: Option<Arc<Plan>>,
    /// The one before it, while it is on trial.
    pub previous: Option<Arc<Plan>>,
    /// A verified image that was uploaded and not run yet.
    pub uploaded: Option<Arc<Plan>>,
    /// The image in memory, and what it was made from. Code and constants can't have been changed by an incarnation, so they serve
    /// the next one too, unless that is of another image; the writable part is written anew at each start.
    pub image: Option<(Arc<Plan>, VirtualArea)>,
    /// Another image in memory, so that neither an update nor its end has to wait for it: the next one's while it is being changed
    /// to, the one before's while the new one is on trial. Nothing runs in it.
    pub standby: Option<(Arc<Plan>, VirtualArea)>,
    /// Of the live or dying incarnation.
    pub holdings: Holdings,
}

/// Refusals since the last request that was granted.
#[derive(Default)]
pub struct Refusals {
    /// How many requests for shared memory.
    pub shared: AtomicU32,
    /// Pages that the last request for private memory asked for; 0 if it was granted.
    pub private_pages: AtomicU64,
}

impl Refusals {
    /// None, as at the start of an incarnation.
    pub fn clear(&self) {
        self.shared.store(0, Ordering::Relaxed);
        self.private_pages.store(0, Ordering::Relaxed);
    }
}

impl Life {
    /// Memory of the domain's images.
    pub fn areas(&self) -> impl Iterator<Item = &VirtualArea> {
        self.image.iter().chain(&self.standby).map(|(_, area)| area)
    }
}

/// One domain of the system manifest.
pub struct Domain {
    /// What every image may know of it.
    pub header: DomainHeader,
    /// Its entry in config/domains.toml.
    pub manifest: DomainManifest,
    /// Everything that changes.
    pub life: InterruptLock<Life>,
    /// Private memory in use: pages of image, heap and stacks.
    pub private_pages: AtomicU64,
    /// Shared-heap bytes that it allocated and nobody has freed yet.
    pub shared_charged: AtomicU64,
    /// Threads that it started and that have not ended.
    pub threads: AtomicU32,
    /// Memory that it was refused for its quota's sake.
    pub refusals: Refusals,
    /// What the live or last incarnation has cost.
    pub cost: Cost,
    /// What is noted of it for the report of its death.
    pub trace: Trace,
}

/// What an incarnation costs.
#[derive(Default)]
pub struct Cost {
    /// When it was started, nanoseconds since boot.
    pub started_ns: AtomicU64,
    /// When it died.
    pub died_ns: AtomicU64,
    /// CPU time of its threads that have left it.
    pub threads_ns: AtomicU64,
    /// CPU time of loading it.
    pub load_ns: AtomicU64,
}

/// What an incarnation has cost that is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// CPU time of its threads, nanoseconds.
    pub threads_ns: u64,
    /// CPU time of loading it and of giving back what it held, nanoseconds.
    pub kernel_ns: u64,
    /// From its start to its death, nanoseconds.
    pub lived_ns: u64,
}

static DOMAINS: Once<Vec<&'static Domain>> = Once::new();

/// The kernel as the provider of its own interfaces: always alive.
pub static KERNEL: DomainHeader = DomainHeader::new(0);

pub fn initialise(manifest: SystemManifest) {
    KERNEL.live.store(OwnerId::KERNEL.0, Ordering::Release);
    let entry = |(index, manifest): (usize, DomainManifest)| -> &'static Domain {
        Box::leak(Box::new(Domain {
            header: DomainHeader::new(index as u16 + 1),
            manifest,
            life: InterruptLock::new(Life {
                state: State::Stopped,
                generation: 0,
                plan: None,
                previous: None,
                uploaded: None,
                image: None,
                standby: None,
                holdings: Holdings::default(),
            }),
            private_pages: AtomicU64::new(0),
            shared_charged: AtomicU64::new(0),
            threads: AtomicU32::new(0),
            refusals: Refusals::default(),
            cost: Cost::default(),
            trace: Trace::new(),
        }))
    };
    DOMAINS.call_once(|| manifest.domains.into_iter().enumerate().map(entry).collect());
}

/// Every domain, in the order of the manifest.
pub fn domains() -> &'static [&'static Domain] {
    DOMAINS.get().map_or(&[], Vec::as_slice)
}

/// The `index`-th domain of the manifest.
pub fn domain(index: u16) -> Option<&'static Domain> {
    domains().get(usize::from(index)).copied()
}

/// The domain that an incarnation is of; `None` for the kernel.
pub fn domain_of(owner: OwnerId) -> Option<&'static Domain> {
    domain(owner.slot().checked_sub(1)?)
}

/// The name of an incarnation's domain.
pub fn domain_name(owner: OwnerId) -> &'static str {
    domain_of(owner).map_or("kernel", |domain| domain.manifest.name.as_str())
}

/// Whether an incarnation is alive.
pub fn is_live(owner: OwnerId) -> bool {
    owner == OwnerId::KERNEL || domain_of(owner).is_some_and(|domain| domain.header.is_live(owner))
}

/// The domain of this name.
pub fn by_name(name: &str) -> Option<&'static Domain> {
    domains()
        .iter()
        .copied()
        .find(|domain| domain.manifest.name == name)
}

impl Domain {
    /// Charges `pages` to the domain's private memory; false if its quota doesn't allow it.
    pub fn charge(&self, pages: u64) -> bool {
        let limit = self.manifest.memory_quota_bytes / crate::elf::PAGE_BYTES as u64;
        let charged = self.private_pages.fetch_add(pages, Ordering::Relaxed) + pages;
        if charged > limit {
            self.private_pages.fetch_sub(pages, Ordering::Relaxed);
        }
        charged <= limit
    }

    /// Takes back what [`charge`](Self::charge) charged.
    pub fn discharge(&self, pages: u64) {
        self.private_pages.fetch_sub(pages, Ordering::Relaxed);
    }
}

/// What a domain holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What it is doing.
    pub state: State,
    /// Incarnations so far.
    pub generation: u64,
    /// Threads that it started.
    pub threads: u32,
    /// Private memory: image, heap, stacks.
    pub memory_bytes: u64,
    /// Shared objects that it owns, and those that were left to it.
    pub shared_bytes: u64,
}

impl Domain {
    /// What the domain holds now.
    pub fn figures(&self) -> Figures {
        let (state, generation) = {
            let life = self.life.lock();
            (life.state, life.generation)
        };
        Figures {
            state,
            generation,
            threads: self.threads.load(Ordering::Relaxed),
            memory_bytes: self.private_pages.load(Ordering::Relaxed) * crate::elf::PAGE_BYTES as u64,
            shared_bytes: super::memory::owned_bytes(self.header.slot, self.header.live()),
        }
    }
}
