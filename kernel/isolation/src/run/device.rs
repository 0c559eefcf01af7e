//! Devices of driver domains (docs/soundness.md, invariant 8).
//!
//! A driver gets the PCI functions that its manifest entry names: their registers, interrupts, and memory for rings. When it
//! dies, each device is stopped before any memory is reused that it knew: by the steps to rest that trusted code gave for it, or by taking
//! bus mastering from it if there are none or they don't succeed. Where a device is emulated the latter takes most of a millisecond, twice,
//! and every translation of addresses that the CPUs had cached; the steps take two register accesses a queue.

use super::black_box;
use super::domain::{domain_name, domain_of, is_live};
use super::interrupt::{self, Attached, Line};
use crate::black_box::EventKind;
use crate::exclusive::Register;
use abi::manifest::DeviceClaim;
use abi::place::{DESCRIPTOR_BYTES, SENT};
use abi::sys::{REST_DRAIN_NS, RawBar, RawDma, RestStep, status};
use abi::{OwnerId, TransmitPlace, current};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::clock;
use kernel::machine::memory::{FrameUse, Frames};
use kernel::machine::pci::{self, Function, MappedBar};
use kernel::machine::sync::InterruptLock;

/// How long a device may take for one step to rest.
const REST_LIMIT_NS: u64 = 2_000_000;
/// Steps to rest at most: of a device with many queues, a few for each.
const REST_STEPS: usize = 1024;

struct Claim {
    number: u64,
    function: &'static Function,
    _held: Held,
    rest: Option<Rest>,
    /// It may not master the bus for the rest of its driver's life.
    stopped: bool,
}

/// Which incarnation drives which function.
static HOLDERS: InterruptLock<Register> = InterruptLock::new(Register::new());

/// A function is this claim's alone; when it is dropped, another one may have it.
struct Held(&'static Function);

impl Held {
    /// `Err` is who has it already.
    fn take(function: &'static Function, owner: OwnerId) -> Result<Held, OwnerId> {
        let taken = HOLDERS.lock().take(core::ptr::from_ref(function).addr(), owner);
        taken.map(|()| Held(function))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDERS.lock().give_back(core::ptr::from_ref(self.0).addr());
    }
}

/// How a device is brought to rest.
struct Rest {
    bar: MappedBar,
    steps: Vec<RestStep>,
}

// SAFETY: Device registers are mapped for ever and take accesses from any CPU.
unsafe impl Send for Rest {}

impl Rest {
    /// Whether the device says that it is at rest.
    fn run(&self) -> bool {
        let done = self.steps.iter().all(|step| {
            // SAFETY: `rest_by` checked that the register is in the mapped BAR, and aligned.
            let register = unsafe { self.bar.base.add(step.offset as usize).cast::<u32>() };
            if step.mask == 0 {
                // SAFETY: As above. Trusted code says that these writes only stop the device.
                unsafe { register.write_volatile(step.value) };
                return true;
            }
            let deadline_ns = clock::now_ns() + REST_LIMIT_NS;
            loop {
                let is_late = clock::now_ns() >= deadline_ns;
                // SAFETY: As above.
                if unsafe { register.read_volatile() } & step.mask == step.value {
                    return true;
                }
                if is_late {
                    return false;
                }
                core::hint::spin_loop();
            }
        });
        if done {
            let drained_ns = clock::now_ns() + REST_DRAIN_NS;
            while clock::now_ns() < drained_ns {
                core::hint::spin_loop();
            }
        }
        done
    }
}

/// What an incarnation holds of devices.
#[derive(Default)]
pub struct Devices {
    // Interrupts go before the memory that their devices write, and the devices are free for others when both are gone.
    routed: Vec<Attached>,
    memory: Vec<Frames>,
    claims: Vec<Claim>,
}

impl Devices {
    /// PCI functions, interrupts, and pages of ring memory.
    pub fn count(&self) -> (usize, usize, usize) {
        let pages = self.memory.iter().map(Frames::count).sum();
        (self.claims.len(), self.routed.len(), pages)
    }

    /// Stops every device: when this has returned, none of them touches memory any more. No thread is in the driver, so that none starts
    /// it again.
    pub fn stop(&self) {
        for claim in &self.claims {
            if claim.rest.as_ref().is_some_and(Rest::run) {
                continue;
            }
            if claim.rest.is_some() {
                log::warn!("a device doesn't come to rest: it may not use the bus until its driver is back");
            }
            set_bus_master(claim.function, false);
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

/// A function that memory was allocated for since the machine started.
struct Known {
    function: &'static Function,
    /// It may master the bus. Known here because asking the device costs a round trip.
    masters_bus: bool,
}

static KNOWN: InterruptLock<Vec<Known>> = InterruptLock::new(Vec::new());

/// Lets a device use memory on its own, or not.
fn set_bus_master(function: &'static Function, enabled: bool) {
    let mut all = KNOWN.lock();
    match all
        .iter_mut()
        .find(|known| core::ptr::eq(known.function, function))
    {
        Some(known) if known.masters_bus == enabled => return,
        Some(known) => known.masters_bus = enabled,
        None if enabled => all.push(Known {
            function,
            masters_bus: true,
        }),
        None => {}
    }
    // Under the lock, so that what is noted is so.
    function.set_bus_master(enabled);
}

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
        let held = match Held::take(function, owner) {
            Ok(held) => held,
            Err(holder) => {
                drop(life);
                log::warn!(
                    "{}: {wanted} is driven by {} already",
                    domain.manifest.name,
                    domain_name(holder)
                );
                return status::IN_USE;
            }
        };
        life.holdings.devices.claims.push(Claim {
            number,
            function,
            _held: held,
            rest: None,
            stopped: false,
        });
        // Registers only: the device may still hold queues of firmware's. Bus mastering comes with the first ring memory, which
        // `dma` asks for after it has stopped every queue.
        if !is_known(function) {
            function.set_memory_access(true);
        }
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
        set_bus_master(claim.function, false);
    }
}

/// Whether memory was allocated for a claimed device before, in this life of its driver or an earlier one.
pub fn had_memory(device: u64) -> bool {
    function(device).is_some_and(is_known)
}

/// Turns bus mastering on again for a claimed device that may have it, should its command register say otherwise.
pub fn use_memory(device: u64) {
    let Some(function) = function(device) else { return };
    let was_off = {
        let all = KNOWN.lock();
        let may = (all.iter()).any(|known| known.masters_bus && core::ptr::eq(known.function, function));
        // Under the lock, so that it doesn't undo what another does to the device.
        may && function.set_bus_master(true)
    };
    if was_off {
        log::warn!(
            "device {:04x}:{:04x} had lost its access to memory; it has it again",
            function.vendor(),
            function.device()
        );
    }
}

fn is_known(function: &Function) -> bool {
    KNOWN
        .lock()
        .iter()
        .any(|known| core::ptr::eq(known.function, function))
}

/// Notes how a claimed device is brought to rest.
pub fn rest_by(device: u64, bar: u32, steps: &[RestStep]) -> u32 {
    let owner = current().owner();
    let (Some(domain), Some(function), Ok(bar)) = (domain_of(owner), function(device), u8::try_from(bar))
    else {
        return status::NOT_FOUND;
    };
    let Ok(bar) = function.map_bar(bar) else {
        return status::NOT_FOUND;
    };
    let fits = |step: &RestStep| {
        step.offset.is_multiple_of(4) && (step.offset as usize).saturating_add(4) <= bar.length
    };
    if steps.len() > REST_STEPS || !steps.iter().all(fits) {
        return status::NOT_FOUND;
    }
    let rest = Rest {
        bar,
        steps: steps.to_vec(),
    };
    let mut life = domain.life.lock();
    let claims = &mut life.holdings.devices.claims;
    match claims.iter_mut().find(|claim| claim.number == device) {
        Some(claim) => {
            claim.rest = Some(rest);
            status::OK
        }
        // It died meanwhile.
        None => status::CANCELLED,
    }
}

/// Routes an MSI-X entry of a claimed device; the address of its line, which lives as long as the incarnation, or 0.
pub fn interrupt_attach(device: u64, entry: u32, cpu: u32) -> u64 {
    let owner = current().owner();
    let (Some(domain), Some(function), Ok(entry)) =
        (domain_of(owner), function(device), u16::try_from(entry))
    else {
        return 0;
    };
    match interrupt::attach(function, entry, cpu) {
        Ok(attached) => {
            let address = attached.address();
            let mut life = domain.life.lock();
            if is_live(owner) {
                life.holdings.devices.routed.push(attached);
                drop(life);
                black_box::trace(
                    owner,
                    EventKind::InterruptAttached,
                    format_args!("entry {entry} on CPU {cpu}"),
                );
                return address;
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
///
/// # Safety
/// `interrupt` is what [`interrupt_attach`] gave the running domain's incarnation, and not 0.
pub unsafe fn interrupt_wait(interrupt: u64, deadline_ns: u64) -> u32 {
    let line = core::ptr::with_exposed_provenance::<Line>(interrupt as usize);
    // SAFETY: It is the address of a line that is among the incarnation's holdings, where it stays until every thread has left the
    // incarnation; this one is in it.
    unsafe { &*line }.wait(deadline_ns)
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
    let stopped = (life.holdings.devices.claims.iter()).any(|claim| claim.number == device && claim.stopped);
    // Under the lock: a death after this finds the device among the holdings and stops it.
    if !stopped {
        set_bus_master(function, true);
    }
    drop(life);
    result
}
