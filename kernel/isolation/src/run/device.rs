//! Devices of driver domains (docs/soundness.md, invariant 8).
//!
//! A driver gets the PCI functions that its manifest entry names: their registers, interrupts, and memory for rings. When it
//! dies, bus mastering goes off first, and only then is any memory reused that the device knew.

use super::black_box;
use super::domain::{domain_of, is_live};
use super::interrupt::{self, Attached};
use crate::black_box::EventKind;
use abi::manifest::DeviceClaim;
use abi::place::{DESCRIPTOR_BYTES, SENT};
use abi::sys::{RawBar, RawDma, status, wake};
use abi::{OwnerId, TransmitPlace, current};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::memory::{FrameUse, Frames};
use kernel::machine::pci::{self, Function};
use kernel::machine::sync::InterruptLock;

struct Claim {
    number: u64,
    function: &'static Function,
    /// It may master the bus. Known here because asking the device costs a round trip.
    masters_bus: bool,
    /// It may not, for the rest of its driver's life.
    stopped: bool,
}

/// What an incarnation holds of devices.
#[derive(Default)]
pub struct Devices {
    claims: Vec<Claim>,
    // Interrupts go before the memory that their devices write.
    routed: Vec<Attached>,
    memory: Vec<Frames>,
}

impl Devices {
    /// PCI functions, interrupts, and pages of ring memory.
    pub fn count(&self) -> (usize, usize, usize) {
        let pages = self.memory.iter().map(Frames::count).sum();
        (self.claims.len(), self.routed.len(), pages)
    }

    /// Stops every device: when this has returned, none of them writes memory any more.
    pub fn stop(&self) {
        for claim in &self.claims {
            // Interrupts of the device are writes of its too.
            claim.function.set_bus_master(false);
        }
    }

    /// Whether the device has reported the descriptor at `place` sent; `None` when that is in no ring of these devices.
    pub fn has_sent(&self, place: TransmitPlace) -> Option<bool> {
        let memory = self
            .memory
            .iter()
            .find(|frames| frames.as_pointer() as usize == place.base())?;
        if place.slots() * DESCRIPTOR_BYTES > memory.bytes() {
            return None;
        }
        // SAFETY: The offset is inside the ring, which is inside these frames, and aligned. The device may write there, so it is read as
        // volatile and no reference is made.
        let word = unsafe {
            memory
                .as_pointer()
                .add(place.offset())
                .cast::<u64>()
                .read_volatile()
        };
        Some(word & SENT != 0)
    }
}

/// Numbers of claims and interrupts.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Functions that memory was allocated for since the machine started.
static HAD_MEMORY: InterruptLock<Vec<&'static Function>> = InterruptLock::new(Vec::new());

/// Claims the `index`-th function of the running domain's manifest entry.
pub fn claim(index: usize, device: &mut u64) -> u32 {
    let owner = current().owner();
    let Some(domain) = domain_of(owner) else {
        return status::NOT_GRANTED;
    };
    let Some(wanted) = domain.manifest.devices.get(index) else {
        return status::NOT_GRANTED;
    };
    let matching = pci::functions()
        .iter()
        .filter(|function| is_wanted(wanted, function));
    // Equal entries of the manifest mean one function each, in the order of their addresses.
    let earlier = domain
        .manifest
        .devices
        .iter()
        .take(index)
        .filter(|other| *other == wanted)
        .count();
    let Some(function) = matching.into_iter().nth(earlier) else {
        return status::NOT_FOUND;
    };
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    {
        let mut life = domain.life.lock();
        if !is_live(owner) {
            return status::CANCELLED;
        }
        if life
            .holdings
            .devices
            .claims
            .iter()
            .any(|claim| core::ptr::eq(claim.function, function))
        {
            return status::NOT_GRANTED;
        }
        life.holdings.devices.claims.push(Claim {
            number,
            function,
            masters_bus: false,
            stopped: false,
        });
        // Registers only: the device may still hold queues of the last driver's life. Bus mastering comes with the first ring memory, which
        // `dma` asks for after it has stopped every queue.
        function.set_memory_access(true);
    }
    black_box::trace(owner, EventKind::DeviceClaimed, format_args!("{wanted}"));
    *device = number;
    status::OK
}

/// Whether a function is what a manifest entry means.
fn is_wanted(wanted: &DeviceClaim, function: &Function) -> bool {
    match *wanted {
        DeviceClaim::Id { vendor, device } => (function.vendor(), function.device()) == (vendor, device),
        DeviceClaim::Class {
            class,
            subclass,
            interface,
        } => function.class() == (class, subclass, interface),
    }
}

fn function(device: u64) -> Option<&'static Function> {
    let life = domain_of(current().owner())?.life.lock();
    life.holdings
        .devices
        .claims
        .iter()
        .find(|claim| claim.number == device)
        .map(|claim| claim.function)
}

/// The registers of a BAR of a claimed device.
pub fn bar(device: u64, bar: u32) -> RawBar {
    let mapped = function(device).and_then(|function| function.map_bar(u8::try_from(bar).ok()?).ok());
    mapped.map_or(
        RawBar {
            base: core::ptr::null_mut(),
            length: 0,
        },
        |mapped| RawBar {
            base: mapped.base,
            length: mapped.length,
        },
    )
}

/// Vendor (low 16 bits) and device of a claimed function; 0 if it isn't claimed.
pub fn identity(device: u64) -> u32 {
    function(device).map_or(0, |function| {
        u32::from(function.vendor()) | u32::from(function.device()) << 16
    })
}

/// Class (bits 16 to 23), subclass and programming interface of a claimed function; 0 if it isn't claimed.
pub fn class(device: u64) -> u32 {
    function(device).map_or(0, |function| {
        let (class, subclass, interface) = function.class();
        u32::from_be_bytes([0, class, subclass, interface])
    })
}

/// Takes a claimed device off the bus for the rest of its driver's life.
pub fn stop(device: u64) {
    let Some(domain) = domain_of(current().owner()) else {
        return;
    };
    let mut life = domain.life.lock();
    let claims = &mut life.holdings.devices.claims;
    if let Some(claim) = claims.iter_mut().find(|claim| claim.number == device) {
        claim.stopped = true;
        claim.masters_bus = false;
        claim.function.set_bus_master(false);
    }
}

/// Whether memory was allocated for a claimed device before, in this life of its driver or an earlier one.
pub fn had_memory(device: u64) -> bool {
    function(device).is_some_and(is_known)
}

fn is_known(function: &Function) -> bool {
    HAD_MEMORY
        .lock()
        .iter()
        .any(|known| core::ptr::eq(*known, function))
}

/// Routes an MSI-X entry of a claimed device; the interrupt's number, or 0.
pub fn interrupt_attach(device: u64, entry: u32, cpu: u32) -> u64 {
    let owner = current().owner();
    let (Some(domain), Some(function), Ok(entry)) =
        (domain_of(owner), function(device), u16::try_from(entry))
    else {
        return 0;
    };
    let id = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    match interrupt::attach(function, entry, cpu, id) {
        Ok(attached) => {
            let mut life = domain.life.lock();
            if is_live(owner) {
                life.holdings.devices.routed.push(attached);
                drop(life);
                black_box::trace(
                    owner,
                    EventKind::InterruptAttached,
                    format_args!("entry {entry} on CPU {cpu}"),
                );
                return id;
            }
            drop(life);
            0
        }
        Err(error) => {
            log::warn!("interrupt {entry} can't be routed: {error}");
            0
        }
    }
}

/// Waits for an interrupt of the running domain; an `abi::sys::wake` code.
pub fn interrupt_wait(interrupt: u64, deadline_ns: u64) -> u32 {
    let line = domain_of(current().owner()).and_then(|domain| {
        let life = domain.life.lock();
        life.holdings
            .devices
            .routed
            .iter()
            .find(|attached| attached.id() == interrupt)
            .map(Attached::line)
    });
    line.map_or(wake::CANCELLED, |line| line.wait(deadline_ns))
}

/// Physically contiguous, zeroed memory for the rings of a claimed device.
pub fn dma_allocate(device: u64, size: usize) -> RawDma {
    let none = RawDma {
        base: core::ptr::null_mut(),
        physical: 0,
    };
    let owner: OwnerId = current().owner();
    let (Some(domain), Some(function)) = (domain_of(owner), function(device)) else {
        return none;
    };
    let pages = size.div_ceil(crate::elf::PAGE_BYTES);
    if pages == 0 {
        return none;
    }
    let Ok(frames) = Frames::allocate_for(FrameUse::Dma, pages, 1) else {
        return none;
    };
    let frames = frames.zeroed();
    let result = RawDma {
        base: frames.as_pointer(),
        physical: frames.physical(),
    };
    let mut life = domain.life.lock();
    if !is_live(owner) {
        drop(life);
        return none;
    }
    life.holdings.devices.memory.push(frames);
    if !is_known(function) {
        HAD_MEMORY.lock().push(function);
    }
    let claims = &mut life.holdings.devices.claims;
    if let Some(claim) = claims
        .iter_mut()
        .find(|claim| claim.number == device && !claim.masters_bus && !claim.stopped)
    {
        // Under the lock: a death after this finds the device among the holdings and stops it.
        function.set_bus_master(true);
        claim.masters_bus = true;
    }
    result
}
