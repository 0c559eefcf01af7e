//! Black boxes for others: `interface::black_box`, implemented, and the report of each death on the log.
//!
//! What is in a box is `isolation`'s; here it is translated, and put into lines.

use interface::black_box::{
    BlackBox, BlackBoxes, Crossing, EventKind, FaultDetail, Frame, Position, Registers, SeenThread,
    TraceEvent,
};
use interface::kernel::{DomainName, ServiceError};
use isolation::black_box as kept;
use isolation::{NamedFrame, domain_name, named, with_black_box};
use kernel::machine::{clock, thread};
use log::Level;
use rref::Text;

/// How long after a death its report is written: restarting comes first, and by then every thread has left.
const REPORT_DELAY_NS: u64 = 50_000_000;
/// Functions that only carry a panic from where it happened to the kernel.
const PANIC_PATH: [&str; 8] = [
    "core::panicking::",
    "core::result::unwrap_failed",
    "core::option::",
    "core::slice::index::",
    "core::str::slice_error_fail",
    "__rustc::",
    "rust_begin_unwind",
    "alloc::alloc::handle_alloc_error",
];

/// [`BlackBoxes`] over `isolation`.
pub struct Boxes;

impl BlackBoxes for Boxes {
    fn black_box(&self, number: u64) -> Result<Option<BlackBox>, ServiceError> {
        Ok(with_black_box(number, |kept| {
            let counters = kept.counters;
            BlackBox {
                number,
                domain: DomainName::new(domain_name(kept.owner)),
                generation: kept.owner.generation(),
                uptime_ns: counters.uptime_ns,
                crossings: counters.crossings,
                crossings_since_boot: counters.crossings_since_boot,
                memory_bytes: counters.memory_bytes,
                threads: counters.threads,
                shared_objects: counters.shared.map(|(objects, _)| objects),
                shared_bytes: counters.shared.map(|(_, bytes)| bytes),
                seen_threads: kept.threads.len() as u16,
                more_threads: kept.more_threads,
                events: kept.events.len() as u16,
            }
        }))
    }

    fn thread(&self, number: u64, index: u16) -> Result<Option<SeenThread>, ServiceError> {
        Ok(with_thread(number, index, |kept| SeenThread {
            id: kept.id,
            name: kept.name,
            cpu: kept.cpu,
            position: match kept.position {
                kept::Position::AtFault => Position::AtFault,
                kept::Position::InDomain => Position::InDomain,
                kept::Position::InKernel => Position::InKernel,
            },
            fault: kept.fault.as_ref().map(fault),
            frames: kept.frames.len() as u16,
            is_exact: kept.is_exact,
            crossings: kept.links.len() as u16,
        }))
    }

    fn frame(&self, number: u64, thread: u16, index: u16) -> Result<Option<Frame>, ServiceError> {
        Ok(frame(number, thread, index).map(|frame| Frame {
            address: frame.address,
            domain: DomainName::new(frame.domain),
            function: frame.function,
            offset: frame.offset,
        }))
    }

    fn crossing(&self, number: u64, thread: u16, index: u16) -> Result<Option<Crossing>, ServiceError> {
        let link = with_thread(number, thread, |kept| kept.links.get(usize::from(index)).copied());
        Ok(link.flatten().map(|link| Crossing {
            callee: DomainName::new(domain_name(link.callee)),
            generation: link.callee.generation(),
            method: link.method,
        }))
    }

    fn event(&self, number: u64, index: u16) -> Result<Option<TraceEvent>, ServiceError> {
        let event = with_black_box(number, |kept| kept.events.get(usize::from(index)).copied());
        Ok(event.flatten().map(|event| TraceEvent {
            at_ns: event.at_ns,
            generation: event.generation,
            kind: event_kind(event.kind),
            text: event.text,
            count: event.count,
        }))
    }
}

fn with_thread<R>(number: u64, index: u16, look: impl FnOnce(&kept::SeenThread) -> R) -> Option<R> {
    with_black_box(number, |kept| kept.threads.get(usize::from(index)).map(look)).flatten()
}

/// The frame with its names; they are looked up while nobody is kept waiting.
fn frame(number: u64, thread: u16, index: u16) -> Option<NamedFrame> {
    let frame = with_thread(number, thread, |kept| {
        kept.frames.get(usize::from(index)).cloned()
    });
    frame.flatten().map(|frame| named(&frame))
}

fn fault(kept: &kept::FaultDetail) -> FaultDetail {
    let r = &kept.registers;
    FaultDetail {
        vector: kept.vector,
        error: kept.error,
        address: kept.address,
        registers: Registers {
            rip: r.rip,
            rsp: r.rsp,
            rflags: r.rflags,
            rax: r.rax,
            rbx: r.rbx,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            rbp: r.rbp,
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
        },
    }
}

fn event_kind(kind: kept::EventKind) -> EventKind {
    match kind {
        kept::EventKind::Loaded => EventKind::Loaded,
        kept::EventKind::Running => EventKind::Running,
        kept::EventKind::ThreadStarted => EventKind::ThreadStarted,
        kept::EventKind::ThreadEnded => EventKind::ThreadEnded,
        kept::EventKind::Exported => EventKind::Exported,
        kept::EventKind::Connected => EventKind::Connected,
        kept::EventKind::NotConnected => EventKind::NotConnected,
        kept::EventKind::DeviceClaimed => EventKind::DeviceClaimed,
        kept::EventKind::InterruptAttached => EventKind::InterruptAttached,
        kept::EventKind::Refused => EventKind::Refused,
        kept::EventKind::Logged => EventKind::Logged,
        kept::EventKind::ProviderDied => EventKind::ProviderDied,
        kept::EventKind::Watched => EventKind::Watched,
        kept::EventKind::Died => EventKind::Died,
    }
}

/// Reports every death on the log, for ever.
pub fn report_deaths() {
    let mut seen = 0;
    loop {
        if let Some(death) = isolation::wait_death(seen, u64::MAX) {
            seen = death.number;
            report(death.number, death.at_ns);
        }
    }
}

/// Writes a death's report on the log: a line for the thread that is at fault, with its stack for whoever looks closer, and where the others
/// stood.
fn report(number: u64, died_ns: u64) {
    let due_ns = died_ns.saturating_add(REPORT_DELAY_NS);
    if clock::now_ns() < due_ns {
        thread::sleep_until(due_ns);
    }
    for index in 0.. {
        let Some(seen) = with_thread(number, index, kept::SeenThread::clone) else {
            return;
        };
        report_thread(number, &seen);
    }
}

fn report_thread(number: u64, seen: &kept::SeenThread) {
    let frames: heapless::Vec<NamedFrame, { kept::FRAME_LIMIT }> = seen.frames.iter().map(named).collect();
    let own = frames
        .iter()
        .find(|frame| frame.domain != "kernel" && !is_panic_path(frame.function.as_str()));
    let place: Text<160> = own.map_or(Text::EMPTY, |frame| {
        Text::format(format_args!(" in {} + {:#x}", frame.function, frame.offset))
    });
    let is_at_fault = seen.position == kept::Position::AtFault;
    let level = if is_at_fault { Level::Error } else { Level::Debug };
    log::log!(
        level,
        "death {number}: thread {} \"{}\" on CPU {}{place}; chain: {}",
        seen.id,
        seen.name,
        seen.cpu,
        Chain(&seen.links),
    );
    if !is_at_fault {
        return;
    }
    if let Some(fault) = &seen.fault {
        let registers = &fault.registers;
        log::debug!(
            "death {number}: vector {}, error {:#x}, address {:#x}, rip {:#x}, rsp {:#x}, rbp {:#x}",
            fault.vector,
            fault.error,
            fault.address.unwrap_or(0),
            registers.rip,
            registers.rsp,
            registers.rbp
        );
    }
    for frame in &frames {
        log::debug!(
            "death {number}: {:#018x} {} {} + {:#x}",
            frame.address,
            frame.domain,
            frame.function,
            frame.offset
        );
    }
}

fn is_panic_path(function: &str) -> bool {
    PANIC_PATH.iter().any(|path| function.starts_with(path))
}

/// Who called whom, the innermost first.
struct Chain<'a>(&'a [kept::Link]);

impl core::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, link) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " < " };
            write!(f, "{separator}{}", domain_name(link.callee))?;
            if !link.method.as_str().is_empty() {
                write!(f, " ({})", link.method)?;
            }
        }
        Ok(())
    }
}
