//! Black boxes: what is written down of a domain's life and death.
//!
//! Events are written where they happen ([`trace`]). At a death [`open`] makes the box; where the domain's threads stood is seen at the last
//! moment before their frames are abandoned: [`note_exception`] and [`note_panic`] before the death, for the thread that is at fault, and
//! [`unwound`] on each thread's own CPU as it leaves. All of this is a few microseconds: only addresses are kept, and [`named`] finds
//! functions when somebody asks.

use super::domain::{Domain, domain_name, domain_of, domains};
use crate::black_box::{
    Archive, BlackBox, Counters, Event, EventKind, Events, FaultDetail, Frame, Image, Link, Memory, Position,
    Registers, SeenThread, walk,
};
use crate::elf::{PAGE_BYTES, Plan, Use};
use abi::{OwnerId, ThreadHeader, current};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::interrupts::{Exception, InterruptContext};
use kernel::machine::sync::InterruptLock;
use kernel::machine::{clock, fault, paging, thread};
use kernel::symbols::SymbolTable;
use rref::Text;

/// Threads whose domain's death isn't recorded yet: those at fault, and others that leave it just then. Seldom more than one a CPU.
const PENDING_LIMIT: usize = 16;

/// The boxes, and what goes into one that isn't open yet.
struct Kept {
    archive: Archive,
    pending: heapless::Vec<(OwnerId, SeenThread), PENDING_LIMIT>,
}

static KEPT: InterruptLock<Kept> = InterruptLock::new(Kept {
    archive: Archive::new(),
    pending: heapless::Vec::new(),
});
/// Every image that is mapped.
static IMAGES: InterruptLock<Vec<Arc<Image>>> = InterruptLock::new(Vec::new());

/// What is noted of a domain while it lives.
pub struct Trace {
    events: InterruptLock<Events>,
    started_ns: AtomicU64,
    crossings_at_start: AtomicU64,
}

impl Trace {
    /// Nothing yet.
    pub const fn new() -> Trace {
        Trace {
            events: InterruptLock::new(Events::new()),
            started_ns: AtomicU64::new(0),
            crossings_at_start: AtomicU64::new(0),
        }
    }
}

/// Notes something that the incarnation `owner` did. Not for what happens at every crossing or packet.
pub fn trace(owner: OwnerId, kind: EventKind, text: fmt::Arguments<'_>) {
    trace_at(clock::now_ns(), owner, kind, text);
}

/// The same for something that happened at `at_ns`.
pub fn trace_at(at_ns: u64, owner: OwnerId, kind: EventKind, text: fmt::Arguments<'_>) {
    let Some(domain) = domain_of(owner) else { return };
    let event = Event {
        at_ns,
        generation: owner.generation(),
        kind,
        text: Text::format(text),
        count: 1,
    };
    domain.trace.events.lock().add(event);
}

/// An incarnation begins.
pub fn loaded(domain: &Domain, owner: OwnerId) {
    domain.trace.started_ns.store(clock::now_ns(), Ordering::Relaxed);
    domain
        .trace
        .crossings_at_start
        .store(domain.header.crossings(), Ordering::Relaxed);
    trace(owner, EventKind::Loaded, format_args!(""));
}

/// An image of a domain was mapped at `base`: it may have several, of which one runs. It stays mapped until [`image_unmapped`] has returned.
pub fn image_mapped(slot: u16, base: u64, plan: &Plan) {
    let code = plan
        .segments
        .iter()
        .filter(|segment| segment.usage == Use::ReadExecute)
        .map(|segment| {
            let start = base + (segment.page * PAGE_BYTES) as u64;
            start..start + (segment.pages * PAGE_BYTES) as u64
        })
        .reduce(|all, next| all.start.min(next.start)..all.end.max(next.end));
    let image = Arc::new(Image {
        slot,
        base,
        code: code.unwrap_or(0..0),
        symbols: plan.symbols.clone(),
    });
    IMAGES.lock().push(image);
}

/// The image at `base` is about to be unmapped: from here on nobody looks at its code. Boxes still know the names in it.
pub fn image_unmapped(base: u64) {
    IMAGES.lock().retain(|known| known.base != base);
}

/// A thread's stack, and all code that there is.
struct Seen<'a> {
    stack: Range<usize>,
    images: &'a [Arc<Image>],
}

impl Seen<'_> {
    fn image(&self, address: u64) -> Option<&Arc<Image>> {
        self.images.iter().find(|image| image.code.contains(&address))
    }
}

impl Memory for Seen<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let address = usize::try_from(address).ok()?;
        let inside = address.is_multiple_of(8)
            && address >= self.stack.start
            && address.checked_add(8)? <= self.stack.end;
        // SAFETY: Aligned, and on the stack of a thread that is alive, which is mapped as a whole. It may be being written: any value will do.
        inside.then(|| unsafe { (address as *const u64).read_volatile() })
    }

    fn code_before(&self, address: u64) -> Option<[u8; 7]> {
        let first = address.checked_sub(7)?;
        let last = address - 1;
        let in_kernel = paging::is_kernel_code(first) && paging::is_kernel_code(last);
        if !in_kernel && !self.image(last)?.code.contains(&first) {
            return None;
        }
        // SAFETY: Code of the kernel or of a domain's image is mapped and never written. An image is only unmapped after it was taken from the
        // list, whose lock the holder of this value holds.
        Some(unsafe { (first as *const [u8; 7]).read_unaligned() })
    }
}

/// Where a thread stood.
struct Place {
    /// The instruction, unless that is this module's own.
    rip: Option<u64>,
    rsp: u64,
    rbp: u64,
}

impl Place {
    /// The function that this is written in, as far as its callers go.
    #[inline(always)]
    fn here() -> Place {
        let (rsp, rbp);
        // SAFETY: Copies registers.
        unsafe {
            asm!("mov {}, rsp", "mov {}, rbp", out(reg) rsp, out(reg) rbp, options(nomem, nostack, preserves_flags));
        }
        Place { rip: None, rsp, rbp }
    }

    fn of(context: &InterruptContext) -> Place {
        Place {
            rip: Some(context.rip),
            rsp: context.rsp,
            rbp: context.rbp,
        }
    }
}

/// Writes down where a thread stands.
///
/// # Safety
/// The thread is the running one, or interrupted on this CPU, or about to be resumed on it.
unsafe fn see(
    thread: &ThreadHeader,
    place: &Place,
    position: Position,
    fault: Option<FaultDetail>,
) -> SeenThread {
    // SAFETY: Passed on from the caller: a thread that is at hand can't end.
    let (name, stack) = unsafe { thread::name_and_stack(thread) };
    let mut seen = SeenThread {
        id: thread.id.load(Ordering::Relaxed),
        name: Text::new(name),
        cpu: thread.cpu.load(Ordering::Relaxed),
        position,
        fault,
        frames: heapless::Vec::new(),
        is_exact: false,
        links: heapless::Vec::new(),
    };
    let images = IMAGES.lock();
    let memory = Seen {
        stack,
        images: &images,
    };
    let frame = |address: u64| Frame {
        address,
        image: memory.image(address).cloned(),
    };
    if let Some(rip) = place.rip {
        // There is room in an empty list.
        seen.frames.push(frame(rip)).ok();
    }
    let frames = &mut seen.frames;
    // The last byte of the call, since the call may be the last instruction of its function.
    seen.is_exact = walk(&memory, place.rsp, place.rbp, |address| {
        frames.push(frame(address - 1)).is_ok()
    });
    drop(images);
    let mut record = thread.top.load(Ordering::Relaxed).cast_const();
    while !record.is_null() {
        // SAFETY: Records live on the thread's stack while they are on its chain, and the chain stands still, since the thread does.
        let link = unsafe { &*record };
        let kept = seen.links.push(Link {
            callee: link.callee,
            method: link.method().map_or(Text::EMPTY, |method| {
                Text::format(format_args!("{}.{}", method.interface, method.name))
            }),
        });
        if kept.is_err() {
            break;
        }
        record = link.previous;
    }
    seen
}

/// Puts a thread into its domain's box, or keeps it until that is opened.
fn keep(owner: OwnerId, seen: SeenThread) {
    let mut kept = KEPT.lock();
    let kept = &mut *kept;
    if let Some(black_box) = kept.archive.of(owner) {
        black_box.see(seen);
        return;
    }
    kept.pending.retain(|(_, known)| known.id != seen.id);
    if kept.pending.is_full() {
        kept.pending.remove(0);
    }
    // There is room now.
    kept.pending.push((owner, seen)).ok();
}

/// Writes down where the interrupted thread stood when it raised an exception, for the death that comes of it. To be called before anything of the
/// context is changed.
pub fn note_exception(thread: &ThreadHeader, exception: &Exception, context: &InterruptContext) {
    let detail = FaultDetail {
        vector: exception.vector,
        error: exception.error,
        address: exception.address,
        registers: registers(context),
    };
    // SAFETY: The thread is the one that this CPU has interrupted.
    let seen = unsafe { see(thread, &Place::of(context), Position::AtFault, Some(detail)) };
    keep(thread.owner(), seen);
}

/// Writes down where the running thread stood when it made a call, with `rsp` at its return address `rip`, that was its last.
pub fn note_call(rip: u64, rsp: u64, rbp: u64) {
    let place = Place {
        rip: Some(rip - 1),
        rsp: rsp + 8,
        rbp,
    };
    // SAFETY: The running thread.
    let seen = unsafe { see(current(), &place, Position::AtFault, None) };
    keep(current().owner(), seen);
}

fn registers(context: &InterruptContext) -> Registers {
    Registers {
        rip: context.rip,
        rsp: context.rsp,
        rflags: context.rflags,
        rax: context.rax,
        rbx: context.rbx,
        rcx: context.rcx,
        rdx: context.rdx,
        rsi: context.rsi,
        rdi: context.rdi,
        rbp: context.rbp,
        r8: context.r8,
        r9: context.r9,
        r10: context.r10,
        r11: context.r11,
        r12: context.r12,
        r13: context.r13,
        r14: context.r14,
        r15: context.r15,
    }
}

/// Writes down where the running thread stands, whose domain panics.
#[inline(always)]
pub fn note_panic() {
    // SAFETY: The running thread.
    let seen = unsafe { see(current(), &Place::here(), Position::AtFault, None) };
    keep(current().owner(), seen);
}

/// Makes the box of a death that has just been recorded.
pub fn open(number: u64, owner: OwnerId, domain: &Domain) {
    let trace = &domain.trace;
    let crossings = domain.header.crossings();
    let counters = Counters {
        uptime_ns: clock::now_ns().saturating_sub(trace.started_ns.load(Ordering::Relaxed)),
        crossings: crossings.saturating_sub(trace.crossings_at_start.load(Ordering::Relaxed)),
        crossings_since_boot: crossings,
        memory_bytes: domain.private_pages.load(Ordering::Relaxed) * PAGE_BYTES as u64,
        threads: domain.threads.load(Ordering::Relaxed),
        shared: None,
    };
    let mut black_box = BlackBox::new(number, owner, counters);
    black_box.events.extend(trace.events.lock().last());
    let me = current().id.load(Ordering::Relaxed);
    let mut kept = KEPT.lock();
    // Whoever died of what this thread did: it comes first. Then those that were faster out of the domain than this.
    for is_next in [|id, me| id == me, |id, me| id != me] as [fn(u64, u64) -> bool; 2] {
        while let Some(index) = kept
            .pending
            .iter()
            .position(|(from, seen)| *from == owner && is_next(seen.id, me))
        {
            black_box.see(kept.pending.swap_remove(index).1);
        }
    }
    let gone = kept.archive.add(black_box);
    drop(kept);
    drop(gone);
}

/// Tells everybody who imports from a domain that has died, in their own events.
pub fn tell_dependents(dead: OwnerId, cause: fmt::Arguments<'_>) {
    let name = domain_name(dead);
    for domain in domains() {
        let Some(live) = domain.header.live() else {
            continue;
        };
        if domain
            .manifest
            .imports
            .iter()
            .any(|import| import.provider == name)
        {
            let generation = dead.generation();
            trace(
                live,
                EventKind::ProviderDied,
                format_args!("{name} generation {generation}: {cause}"),
            );
        }
    }
}

/// A thread that was interrupted in a domain that is dead is about to leave it.
pub fn unwound_from(thread: &ThreadHeader, context: &InterruptContext) {
    let owner = thread.owner();
    // SAFETY: The thread is interrupted on this CPU, or about to be resumed on it.
    keep(owner, unsafe {
        see(thread, &Place::of(context), Position::InDomain, None)
    });
}

/// The running thread is about to leave its domain, which is dead.
#[inline(always)]
pub fn unwound() {
    let thread = current();
    // SAFETY: The running thread.
    keep(thread.owner(), unsafe {
        see(thread, &Place::here(), Position::InKernel, None)
    });
}

/// What a dead incarnation has left on the shared heap.
pub fn reclaimed(owner: OwnerId, objects: u64, bytes: u64) {
    if let Some(black_box) = KEPT.lock().archive.of(owner) {
        black_box.counters.shared = Some((objects, bytes));
    }
}

/// Looks at the box of a death, if it is kept. `look` must be short and not block: no other death is written down meanwhile.
pub fn with_black_box<R>(number: u64, look: impl FnOnce(&BlackBox) -> R) -> Option<R> {
    KEPT.lock().archive.find(number).map(look)
}

/// A frame with names.
#[derive(Clone, Copy, Debug)]
pub struct NamedFrame {
    /// Its address.
    pub address: u64,
    /// Whose code it is.
    pub domain: &'static str,
    /// The function; empty where it isn't known.
    pub function: Text<160>,
    /// Bytes from the function's start.
    pub offset: u64,
}

/// The function that an instruction is in.
pub fn function_at(address: u64) -> NamedFrame {
    let images = IMAGES.lock();
    let image = images.iter().find(|image| image.code.contains(&address)).cloned();
    drop(images);
    named(&Frame { address, image })
}

/// Finds the function of a frame.
pub fn named(frame: &Frame) -> NamedFrame {
    let (domain, location) = match &frame.image {
        Some(image) => (
            domain_name(OwnerId::new(image.slot, 1)),
            SymbolTable::parse(&image.symbols).and_then(|table| table.find(frame.address - image.base)),
        ),
        None => (
            "kernel",
            fault::kernel_symbols().and_then(|table| table.find(frame.address)),
        ),
    };
    NamedFrame {
        address: frame.address,
        domain,
        function: location.map_or(Text::EMPTY, |location| Text::new(location.name)),
        offset: location.map_or(0, |location| location.offset),
    }
}
