//! Whether everything adds up: what domains hold, what they are charged, and what the allocators have given out.
//!
//! Nothing stands still while this looks, so one look proves little: a page is counted here a moment before or after it is given
//! away there. What doesn't add up by the same amount in several looks a while apart is a leak.

use super::domain::{Domain, State, domain_of, domains, is_live};
use super::thread::{STACK_PAGES, roster, waiters};
use super::{interrupt, memory};
use crate::elf::PAGE_BYTES;
use abi::OwnerId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use kernel::machine::memory::{self as machine_memory, FrameUse, Frames, VirtualArea};
use kernel::machine::thread::{self as machine, ThreadId};
use kernel::machine::{clock, heap};

/// Looks that must agree.
const LOOKS: usize = 4;
/// Time between two of them.
const PAUSE_NS: u64 = 25_000_000;

/// What one domain holds now, in pages and pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pages of its image, and of the one on standby for an update or its end.
    pub image_pages: usize,
    /// Pages of its private heap.
    pub heap_pages: usize,
    /// Threads that it started.
    pub threads: u32,
    /// Handles to other domains.
    pub handles: usize,
    /// Interfaces that it offers.
    pub exports: usize,
    /// Shared objects that it owns, and their bytes with headers.
    pub shared_objects: u64,
    /// See `shared_objects`.
    pub shared_bytes: u64,
    /// Pages of ring memory.
    pub dma_pages: usize,
    /// Interrupts that it can wait for.
    pub interrupts: usize,
    /// PCI functions.
    pub devices: usize,
}

impl Held {
    /// Pages of its threads' stacks.
    pub fn stack_pages(&self) -> usize {
        self.threads as usize * STACK_PAGES
    }
}

/// What `domain` holds now.
pub fn held(domain: &Domain) -> Held {
    let mut held = private(domain);
    let live = domain.header.live();
    if let Some((_, objects, bytes)) = memory::owners()
        .into_iter()
        .find(|(owner, _, _)| Some(*owner) == live)
    {
        (held.shared_objects, held.shared_bytes) = (objects, bytes);
    }
    held
}

/// Everything but shared objects.
fn private(domain: &Domain) -> Held {
    let life = domain.life.lock();
    let holdings = &life.holdings;
    let (devices, interrupts, dma_pages) = holdings.devices.count();
    Held {
        image_pages: life.areas().map(VirtualArea::mapped_pages).sum(),
        heap_pages: holdings.pages.iter().map(Frames::count).sum(),
        threads: domain.threads.load(Ordering::Relaxed),
        handles: holdings.handles.count(),
        exports: holdings.exports.count(),
        shared_objects: 0,
        shared_bytes: 0,
        dma_pages,
        interrupts,
        devices,
    }
}

/// What was counted, and what didn't add up.
#[derive(Clone, Debug)]
pub struct Census {
    /// What doesn't add up, as sentences.
    pub findings: Vec<String>,
    /// Bytes of the kernel's heap in use.
    pub kernel_heap_bytes: usize,
    /// Threads of domains.
    pub domain_threads: usize,
    /// The kernel's own threads.
    pub kernel_threads: usize,
    /// Shared objects in use.
    pub shared_objects: u64,
}

/// Something that doesn't add up in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Suspect {
    /// Pages in use that nobody holds (or held and not in use, when negative).
    Pages { usage: FrameUse, excess: i64 },
    /// Pages neither free nor in use for anything.
    Lost { pages: i64 },
    /// A domain's charge for private memory, above what it holds.
    Charge { domain: &'static str, excess: i64 },
    /// Threads that a domain is said to have, above those that are there.
    Threads { domain: &'static str, excess: i64 },
    /// A thread of an incarnation that is dead and reaped.
    Thread { id: u64, owner: OwnerId },
    /// A waiter that is no thread any more.
    Waiter { id: u64 },
    /// Shared objects of an owner that is dead and reaped.
    Objects {
        owner: OwnerId,
        objects: u64,
        bytes: u64,
    },
    /// A shared object that is marked as being in a batch and is in none.
    Adrift { payload: usize },
    /// Interrupts with a driver at their end, above those that domains hold.
    Interrupts { excess: i64 },
}

/// Looks several times; takes a tenth of a second when something doesn't add up.
pub fn census() -> Census {
    let mut suspects = look();
    for _ in 1..LOOKS {
        if suspects.is_empty() {
            break;
        }
        machine::sleep_until(clock::now_ns() + PAUSE_NS);
        let again = look();
        suspects.retain(|suspect| again.contains(suspect));
    }
    let domain_threads = roster().len();
    Census {
        findings: suspects.iter().map(sentence).collect(),
        kernel_heap_bytes: heap::used_bytes(),
        domain_threads,
        kernel_threads: machine::list().len().saturating_sub(domain_threads),
        shared_objects: memory::owners().iter().map(|(_, objects, _)| objects).sum(),
    }
}

fn look() -> Vec<Suspect> {
    let mut suspects = Vec::new();
    look_at_pages(&mut suspects);
    look_at_threads(&mut suspects);
    look_at_objects(&mut suspects);
    suspects
}

fn excess(used: usize, held: usize) -> i64 {
    used as i64 - held as i64
}

fn look_at_pages(suspects: &mut Vec<Suspect>) {
    const USES: [FrameUse; 8] = [
        FrameUse::Other,
        FrameUse::KernelHeap,
        FrameUse::PageTable,
        FrameUse::Stack,
        FrameUse::Image,
        FrameUse::PrivateHeap,
        FrameUse::SharedHeap,
        FrameUse::Dma,
    ];
    let (mut images, mut heaps, mut rings, mut attached) = (0, 0, 0, 0);
    for domain in domains() {
        let held = private(domain);
        images += held.image_pages;
        heaps += held.heap_pages;
        rings += held.dma_pages;
        attached += held.interrupts;
        // An image's area is charged with the unmapped pages around it.
        let area = domain.life.lock().areas().map(VirtualArea::pages).sum::<usize>();
        let charged = domain.private_pages.load(Ordering::Relaxed) as usize;
        let excess = excess(charged, area + held.heap_pages + held.stack_pages());
        if excess != 0 {
            suspects.push(Suspect::Charge {
                domain: &domain.manifest.name,
                excess,
            });
        }
    }
    let threads = machine::list();
    let stacks =
        threads.iter().map(|thread| thread.stack_pages).sum::<usize>() + machine_memory::kept_stack_pages();
    let shared = memory::shared_usage().span_bytes as usize / PAGE_BYTES;
    for (usage, held) in [
        (FrameUse::Image, images),
        (FrameUse::PrivateHeap, heaps),
        (FrameUse::Dma, rings),
        (FrameUse::Stack, stacks),
        (FrameUse::SharedHeap, shared),
    ] {
        let excess = excess(machine_memory::used_pages(usage), held);
        if excess != 0 {
            suspects.push(Suspect::Pages { usage, excess });
        }
    }
    let used: usize = USES.into_iter().map(machine_memory::used_pages).sum();
    let pages = excess(machine_memory::total_pages(), machine_memory::free_pages() + used);
    if pages != 0 {
        suspects.push(Suspect::Lost { pages });
    }
    let excess = excess(interrupt::attached(), attached);
    if excess != 0 {
        suspects.push(Suspect::Interrupts { excess });
    }
}

fn look_at_threads(suspects: &mut Vec<Suspect>) {
    let roster = roster();
    for domain in domains() {
        let there = roster
            .iter()
            .filter(|(_, owner)| owner.slot() == domain.header.slot)
            .count();
        let excess = excess(domain.threads.load(Ordering::Relaxed) as usize, there);
        if excess != 0 {
            suspects.push(Suspect::Threads {
                domain: &domain.manifest.name,
                excess,
            });
        }
    }
    for (id, owner) in roster {
        if is_reaped(owner) {
            suspects.push(Suspect::Thread { id, owner });
        }
    }
    let threads = machine::list();
    let ended = |id: &u64| {
        !threads
            .iter()
            .any(|thread| thread.id == ThreadId::from_number(*id))
    };
    suspects.extend(
        waiters()
            .into_iter()
            .filter(ended)
            .map(|id| Suspect::Waiter { id }),
    );
}

fn look_at_objects(suspects: &mut Vec<Suspect>) {
    for (owner, objects, bytes) in memory::owners() {
        if owner != OwnerId::NESTED && is_reaped(owner) {
            suspects.push(Suspect::Objects {
                owner,
                objects,
                bytes,
            });
        }
    }
    suspects.extend(
        memory::adrift()
            .into_iter()
            .map(|payload| Suspect::Adrift { payload }),
    );
}

/// Whether an incarnation is dead and should hold nothing any more.
fn is_reaped(owner: OwnerId) -> bool {
    // What was left to a domain is its next incarnation's, whenever that comes.
    if is_live(owner) || (owner.generation() == 0 && owner != OwnerId::NONE) {
        return false;
    }
    domain_of(owner).is_none_or(|domain| {
        let life = domain.life.lock();
        let is_last = life.generation == owner.generation();
        !(is_last && matches!(life.state, State::Starting | State::Dying | State::Reaping))
    })
}

fn sentence(suspect: &Suspect) -> String {
    match suspect {
        Suspect::Pages { usage, excess } => {
            let usage = match usage {
                FrameUse::Image => "images",
                FrameUse::PrivateHeap => "private heaps",
                FrameUse::Dma => "ring memory",
                FrameUse::Stack => "stacks",
                FrameUse::SharedHeap => "the shared heap",
                FrameUse::KernelHeap => "the kernel's heap",
                FrameUse::PageTable => "page tables",
                FrameUse::Other => "other things",
            };
            format!("{excess} pages of {usage} belong to nobody")
        }
        Suspect::Lost { pages } => format!("{pages} pages are neither free nor used for anything"),
        Suspect::Charge { domain, excess } => {
            format!("{domain} is charged {excess} pages of private memory that it doesn't hold")
        }
        Suspect::Threads { domain, excess } => {
            format!("{domain} is said to have {excess} threads that are not there")
        }
        Suspect::Thread { id, owner } => {
            let name = machine::list()
                .into_iter()
                .find(|thread| thread.id == ThreadId::from_number(*id))
                .map_or(String::from("ended"), |thread| thread.name);
            format!(
                "thread {id} ({name}) is still in {} generation {}, which is dead",
                super::domain_name(*owner),
                owner.generation()
            )
        }
        Suspect::Waiter { id } => format!("thread {id} is waited for and has ended"),
        Suspect::Objects {
            owner,
            objects,
            bytes,
        } => format!(
            "{objects} shared objects, {bytes} bytes, belong to {} generation {}, which is dead",
            super::domain_name(*owner),
            owner.generation()
        ),
        Suspect::Adrift { payload } => {
            format!("the shared object at {payload:#x} is marked as being in a batch and is in none")
        }
        Suspect::Interrupts { excess } => {
            format!("{excess} interrupts have a driver at their end that holds none")
        }
    }
}
