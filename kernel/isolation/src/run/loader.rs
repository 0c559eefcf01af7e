//! From an image in the boot archive to a running domain.

use super::archive::boot_file;
use super::black_box;
use super::death::{self, Death};
use super::domain::{Domain, State};
use super::thread::{self, Change, WaitTicket};
use super::{EXPECTED, sys};
use crate::black_box::EventKind;
use crate::elf::{self, PAGE_BYTES, Plan, Use};
use crate::image::{self, ImageError};
use abi::thread::phase;
use abi::{OwnerId, SysTable, current};
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;
use kernel::machine::memory::{FrameUse, Frames, MapError, VirtualArea};
use kernel::machine::paging::Access;
use kernel::machine::{clock, thread as machine};

/// Why a domain can't be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// It is running, starting or dying.
    WrongState(State),
    /// Its image is refused.
    Image(ImageError),
    /// There is no memory for it, or its quota is too small for its image.
    OutOfMemory,
    /// It died in its `start`.
    DiedAtStart,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::WrongState(state) => write!(f, "it is {state:?}"),
            StartError::Image(error) => error.fmt(f),
            StartError::OutOfMemory => f.write_str("out of memory"),
            StartError::DiedAtStart => f.write_str("it died while it started"),
        }
    }
}

impl From<MapError> for StartError {
    fn from(_: MapError) -> Self {
        StartError::OutOfMemory
    }
}

/// Makes sure that the domain has a verified image to start from: the boot archive's, unless it was updated. Checked once, kept for
/// later starts.
fn prepare(domain: &Domain) -> Result<(), StartError> {
    if domain.life.lock().plan.is_some() {
        return Ok(());
    }
    let name = &domain.manifest.name;
    let file = boot_file(&format!("domains/{name}")).ok_or(StartError::Image(ImageError::Missing))?;
    let plan = verified_plan(domain, file).map_err(StartError::Image)?;
    domain.life.lock().plan.get_or_insert(plan);
    Ok(())
}

/// Checks an image of `domain` and lays it out.
pub fn verified_plan(domain: &Domain, file: &[u8]) -> Result<Arc<Plan>, ImageError> {
    let expected = EXPECTED.get().ok_or(ImageError::Missing)?;
    let verified = image::verify(file, &domain.manifest.name, expected)?;
    elf::plan(verified).map(Arc::new)
}

/// Maps the image: code executable, constants readable, data writable, unmapped pages around it.
fn map(plan: &Plan) -> Result<VirtualArea, StartError> {
    let mut area = VirtualArea::reserve(plan.pages() + 2)?;
    let base = (area.start() + PAGE_BYTES) as u64;
    for segment in &plan.segments {
        let frames = Frames::allocate_for(FrameUse::Image, segment.pages, 1).map_err(MapError::from)?;
        // SAFETY: Freshly allocated RAM of this length, in the physical map, that nobody else has. Its bytes are initialised: RAM
        // always holds some value, and every one is overwritten before it is read.
        let memory = unsafe { core::slice::from_raw_parts_mut(frames.as_pointer(), frames.bytes()) };
        plan.fill(segment, base, memory);
        let access = match segment.usage {
            Use::Read => Access::Read,
            Use::ReadExecute => Access::ReadExecute,
            Use::ReadWrite => Access::ReadWrite,
        };
        area.map(segment.page + 1, frames, access)?;
    }
    Ok(area)
}

/// Writes the writable part of a mapped image as it was before its first start.
fn renew(plan: &Plan, area: &VirtualArea) {
    let base = area.start() + PAGE_BYTES;
    for segment in plan
        .segments
        .iter()
        .filter(|segment| segment.usage == Use::ReadWrite)
    {
        let start = (base + segment.page * PAGE_BYTES) as *mut u8;
        // SAFETY: `map` mapped this segment there, writable. The incarnation that used it is reaped: no thread is in it, and nothing
        // outside of it points into it and is followed (docs/soundness.md, invariant 3).
        let memory = unsafe { core::slice::from_raw_parts_mut(start, segment.pages * PAGE_BYTES) };
        plan.fill(segment, base as u64, memory);
    }
}

/// Loads `domain` and runs its `start`; returns when that has returned.
pub fn start(domain: &'static Domain) -> Result<OwnerId, StartError> {
    prepare(domain)?;
    let (plan, incarnation) = {
        let mut life = domain.life.lock();
        if !matches!(life.state, State::Stopped | State::Dead) {
            return Err(StartError::WrongState(life.state));
        }
        // Together with the state: an update comes before this, or finds it starting.
        let plan = life.plan.clone().ok_or(StartError::Image(ImageError::Missing))?;
        life.state = State::Starting;
        life.generation += 1;
        (plan, OwnerId::new(domain.header.slot, life.generation))
    };
    let cost = &domain.cost;
    cost.started_ns.store(clock::now_ns(), Ordering::Relaxed);
    cost.threads_ns.store(0, Ordering::Relaxed);
    let before_ns = machine::own_run_ns();
    let result = load(domain, incarnation, &plan);
    let load_ns = machine::own_run_ns().saturating_sub(before_ns);
    cost.load_ns.store(load_ns, Ordering::Relaxed);
    if let Err(error) = result {
        let mut life = domain.life.lock();
        if life.state == State::Starting {
            life.state = State::Dead;
        }
        return Err(error);
    }
    let started = wait_started(domain, incarnation);
    // It runs: now there is time for this.
    drop_useless_standby(domain);
    started
}

/// [`map`], charged to the domain.
fn map_charged(domain: &Domain, plan: &Plan) -> Result<VirtualArea, StartError> {
    let pages = (plan.pages() + 2) as u64;
    if !domain.charge(pages) {
        return Err(StartError::OutOfMemory);
    }
    let area = map(plan).inspect_err(|_| domain.discharge(pages))?;
    black_box::image_mapped(domain.header.slot, (area.start() + PAGE_BYTES) as u64, plan);
    // The profile of `cargo xtask bench path` reads this line.
    log::debug!(
        "image {} at {:#x}",
        domain.manifest.name,
        area.start() + PAGE_BYTES
    );
    Ok(area)
}

/// Gives the memory of an image back that no incarnation is in.
pub fn unload(domain: &Domain, image: Option<(Arc<Plan>, VirtualArea)>) {
    if let Some((_, area)) = image {
        let pages = area.pages() as u64;
        black_box::image_unmapped((area.start() + PAGE_BYTES) as u64);
        drop(area);
        domain.discharge(pages);
    }
}

/// Loads an image beside the one that runs, for a start that is to be quick. Without memory for both it is loaded by the start.
pub fn load_beside(domain: &Domain, plan: &Arc<Plan>) {
    let earlier = domain.life.lock().standby.take();
    unload(domain, earlier);
    if let Ok(area) = map_charged(domain, plan) {
        let earlier = domain.life.lock().standby.replace((plan.clone(), area));
        unload(domain, earlier);
    }
}

/// Gives up the image on standby, unless the domain may go back to it.
pub fn drop_useless_standby(domain: &Domain) {
    let useless = {
        let mut life = domain.life.lock();
        let previous = life.previous.clone();
        life.standby.take_if(|(plan, _)| {
            previous
                .as_ref()
                .is_none_or(|previous| !Arc::ptr_eq(previous, plan))
        })
    };
    unload(domain, useless);
}

fn load(domain: &'static Domain, incarnation: OwnerId, plan: &Arc<Plan>) -> Result<(), StartError> {
    let (kept, standby) = {
        let mut life = domain.life.lock();
        (life.image.take(), life.standby.take())
    };
    let is_it = |image: &(Arc<Plan>, VirtualArea)| Arc::ptr_eq(&image.0, plan);
    let (area, other) = match (kept, standby) {
        (Some(image), other) | (other, Some(image)) if is_it(&image) => {
            renew(plan, &image.1);
            (image.1, other)
        }
        (kept, standby) => {
            unload(domain, standby);
            match map_charged(domain, plan) {
                Ok(area) => (area, kept),
                // Perhaps there is room without the other one.
                Err(StartError::OutOfMemory) if kept.is_some() => {
                    unload(domain, kept);
                    (map_charged(domain, plan)?, None)
                }
                Err(error) => return Err(error),
            }
        }
    };
    let entry = area.start() + PAGE_BYTES + plan.entry;
    let replaced = {
        let mut life = domain.life.lock();
        life.image = Some((plan.clone(), area));
        // An update may have loaded one meanwhile, which is then loaded by the start.
        core::mem::replace(&mut life.standby, other)
    };
    unload(domain, replaced);
    black_box::loaded(domain, incarnation);
    domain.header.live.store(incarnation.0, Ordering::SeqCst);
    let name = format!("{}/start", domain.manifest.name);
    // On this CPU, where nobody has to be woken for it: this thread is about to wait for it.
    let here = Some(current().cpu.load(Ordering::Relaxed));
    if thread::spawn(domain, incarnation, &name, here, true, (first, entry as *mut u8)).is_none() {
        domain.header.live.store(0, Ordering::SeqCst);
        return Err(StartError::OutOfMemory);
    }
    Ok(())
}

/// The first thread of an incarnation, in its name: runs the image's entry, then says that it is up.
extern "C" fn first(entry: *mut u8) {
    // SAFETY: `load` passes the address of the entry in the executable segment of a verified image, whose `_start` is made by
    // `domain_rt::entry!` with this signature.
    let entry: extern "C" fn(&'static SysTable) = unsafe { core::mem::transmute(entry) };
    current().phase.store(phase::STARTING, Ordering::Relaxed);
    entry(&sys::TABLE);
    current().phase.store(0, Ordering::Relaxed);
    sys::started();
}

/// Notes that the `start` of the running domain has returned.
pub fn mark_running(owner: OwnerId) {
    let Some(domain) = super::domain::domain_of(owner) else {
        return;
    };
    {
        let mut life = domain.life.lock();
        if life.state != State::Starting || !domain.header.is_live(owner) {
            return;
        }
        life.state = State::Running;
    }
    black_box::trace(owner, EventKind::Running, format_args!(""));
    death::recovered(domain.header.slot - 1);
    thread::wake_waiters(Change::Start);
}

fn wait_started(domain: &'static Domain, incarnation: OwnerId) -> Result<OwnerId, StartError> {
    loop {
        let ticket = WaitTicket::new(Change::Start);
        let state = domain.life.lock().state;
        let live = domain.header.is_live(incarnation);
        match state {
            State::Running if live => {
                if incarnation.generation() > 1 {
                    // Others have waited for it longer than this thread, which is taken first.
                    machine::yield_now();
                }
                return Ok(incarnation);
            }
            State::Starting if live => {}
            _ => return Err(StartError::DiedAtStart),
        }
        // For the watch: another domain's start isn't this one's time.
        let wake = thread::waiting_for_others(|| ticket.wait(u64::MAX));
        if wake == abi::sys::wake::CANCELLED {
            return Err(StartError::DiedAtStart);
        }
    }
}

/// For reports: what a death is about.
impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "death {}: {:?}: {}", self.number, self.cause, self.detail)
    }
}
