//! The end of the kernel: a panic or an exception in trusted code stops every CPU, is reported on the
//! console, and ends the machine.
//!
//! The report has the cause, the registers, a backtrace with names (from the table that is embedded after
//! linking), the CPU, the thread and the domain. Under QEMU the exit status says that it failed; elsewhere
//! the machine resets, unless the command line says `fault=halt`.

use super::console::{self, Writer};
use super::interrupts::{Exception, InterruptContext};
use super::power::{self, ExitStatus};
use super::{apic, boot, clock, cpu, paging, thread};
use crate::symbols::SymbolTable;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use x86_64::instructions::interrupts;

/// Room for the symbol table, in bytes.
const SYMBOL_BYTES: usize = 256 * 1024;
/// Most frames of a backtrace.
const BACKTRACE_DEPTH: usize = 48;

/// Filled by the symbol embedder after linking; volatile reads, since the compiler sees zeroes only.
#[used]
#[unsafe(link_section = ".kernel_symbols")]
static SYMBOLS: [u8; SYMBOL_BYTES] = [0; SYMBOL_BYTES];

static STOPPED: AtomicBool = AtomicBool::new(false);
/// The CPU that reports, plus one.
static REPORTER: AtomicU32 = AtomicU32::new(0);

/// Writes the name of the domain that a thread is in.
pub type DomainName = fn(&abi::ThreadHeader, &mut dyn Write) -> fmt::Result;

static DOMAIN_NAME: AtomicUsize = AtomicUsize::new(0);

/// Registers what names the domain that a thread is in, for fault reports.
pub fn set_domain_name(name: DomainName) {
    DOMAIN_NAME.store(name as usize, Ordering::Release);
}

/// The kernel's symbol table, if one was embedded.
pub fn kernel_symbols() -> Option<SymbolTable<'static>> {
    // The pointer passes through `black_box`, so that the zeroes of the source aren't taken for the contents.
    SymbolTable::parse(core::hint::black_box(&SYMBOLS))
}

/// Handles a panic in the image; its `#[panic_handler]` calls this.
pub fn panic(information: &PanicInfo<'_>) -> ! {
    begin();
    let _ = writeln!(Writer, "\n*** kernel panic: {}", information.message());
    if let Some(location) = information.location() {
        let _ = writeln!(Writer, "at {location}");
    }
    let (frame, stack): (usize, usize);
    // SAFETY: Copies registers.
    unsafe {
        core::arch::asm!("mov {}, rbp", "mov {}, rsp", out(reg) frame, out(reg) stack,
            options(nomem, nostack, preserves_flags));
    }
    report_where();
    backtrace(None, frame, stack);
    end()
}

/// Ends the machine because the kernel found its own state broken.
pub fn stop(cause: fmt::Arguments<'_>) -> ! {
    panic!("{cause}")
}

/// Reports an exception that nobody took.
pub(super) fn report_exception(exception: Exception, context: &InterruptContext) -> ! {
    begin();
    let name = exception_name(exception.vector);
    let _ = write!(
        Writer,
        "\n*** kernel fault: {name} (vector {}, error {:#x})",
        exception.vector, exception.error
    );
    if let Some(address) = exception.address {
        let _ = write!(Writer, " at address {address:#x}");
    }
    let _ = writeln!(Writer);
    report_where();
    let c = context;
    let _ = writeln!(
        Writer,
        "rip {:016x}  rsp {:016x}  flags {:08x}",
        c.rip, c.rsp, c.rflags
    );
    let _ = writeln!(
        Writer,
        "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
        c.rax, c.rbx, c.rcx, c.rdx
    );
    let _ = writeln!(
        Writer,
        "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}",
        c.rsi, c.rdi, c.rbp, c.r8
    );
    let _ = writeln!(
        Writer,
        "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}",
        c.r9, c.r10, c.r11, c.r12
    );
    let _ = writeln!(
        Writer,
        "r13 {:016x}  r14 {:016x}  r15 {:016x}",
        c.r13, c.r14, c.r15
    );
    backtrace(Some(c.rip), c.rbp as usize, c.rsp as usize);
    end()
}

/// What an exception's vector is called (Intel SDM volume 3, table 6-1).
pub fn exception_name(vector: u8) -> &'static str {
    EXCEPTION_NAMES
        .get(usize::from(vector))
        .copied()
        .unwrap_or("exception")
}

const EXCEPTION_NAMES: [&str; 20] = [
    "division error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "no floating point",
    "double fault",
    "coprocessor overrun",
    "invalid task segment",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved",
    "floating point error",
    "alignment check",
    "machine check",
    "SIMD floating point error",
];

/// Stops the other CPUs and takes the console. A second fault in the meantime ends the machine at once.
fn begin() {
    interrupts::disable();
    let me = cpu::current_index() + 1;
    match REPORTER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(other) if other == me => end_at_once(),
        Err(_) => power::halt(),
    }
    STOPPED.store(true, Ordering::Release);
    if cpu::count() > 1 {
        apic::send_to_others(apic::Message::NonMaskable);
        // Long enough for them to stop; one that doesn't must not keep the report from being printed.
        clock::busy_wait_us(10_000);
    }
    console::take_over_after_fault();
}

/// What another CPU does when it gets the non-maskable interrupt.
pub(super) fn halt_if_stopped() {
    if STOPPED.load(Ordering::Acquire) {
        power::halt();
    }
}

fn report_where() {
    let _ = write!(Writer, "CPU {} of {}", cpu::current_index(), cpu::count());
    if let Some((header, name)) = thread::running_for_report() {
        let _ = write!(
            Writer,
            ", thread {} \"{name}\", domain ",
            header.id.load(Ordering::Relaxed)
        );
        let namer = DOMAIN_NAME.load(Ordering::Acquire);
        if namer == 0 {
            let _ = write!(Writer, "kernel");
        } else {
            // SAFETY: Only `set_domain_name` stores, and only functions of this type.
            let namer = unsafe { core::mem::transmute::<usize, DomainName>(namer) };
            let _ = namer(header, &mut Writer);
        }
    }
    let now = clock::now_ns();
    let _ = writeln!(
        Writer,
        ", {}.{:06} s after boot",
        now / 1_000_000_000,
        now / 1000 % 1_000_000
    );
}

/// Calls `f` with the return addresses of the frames from `frame` on, as far as frame pointers lead.
pub fn walk_frames(frame: usize, mut f: impl FnMut(u64)) {
    let mut frame = frame;
    for _ in 0..BACKTRACE_DEPTH {
        if !frame.is_multiple_of(8) || !paging::is_mapped(frame) || !paging::is_mapped(frame + 15) {
            return;
        }
        // SAFETY: Aligned, and both words are mapped; a torn or stale value only ends the walk.
        let (next, address) = unsafe { (*(frame as *const usize), *((frame + 8) as *const u64)) };
        if address == 0 {
            return;
        }
        f(address);
        // Frames lie upwards on a stack; anything else is damage.
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// Words of a stack that are searched for return addresses when there are no frame pointers.
const SEARCH_WORDS: usize = 512;

/// Calls `f` with every word from `stack` upwards that could be a return address into the kernel's code.
fn search_stack(stack: usize, mut f: impl FnMut(u64)) {
    let (start, end) = paging::text_range();
    let stack = stack.next_multiple_of(8);
    for address in (stack..).step_by(8).take(SEARCH_WORDS) {
        if !paging::is_mapped(address) {
            return;
        }
        // SAFETY: Aligned and mapped; any value will do.
        let word = unsafe { *(address as *const u64) };
        if word > start && word < end {
            f(word);
        }
    }
}

fn backtrace(first: Option<u64>, frame: usize, stack: usize) {
    let _ = writeln!(Writer, "backtrace:");
    let symbols = kernel_symbols();
    let print = |address: u64| {
        let _ = write!(Writer, "  {address:#018x}");
        let _ = match symbols.and_then(|symbols| symbols.find(address)) {
            Some(location) => writeln!(Writer, "  {} + {:#x}", location.name, location.offset),
            None => writeln!(Writer),
        };
    };
    if let Some(address) = first {
        print(address);
    }
    let mut frames = 0;
    // A return address points behind its call, which may be the next function's start.
    walk_frames(frame, |address| {
        frames += 1;
        print(address - 1);
    });
    if frames < 2 {
        let _ = writeln!(
            Writer,
            "  no frame pointers; what looks like return addresses on the stack:"
        );
        let mut left = BACKTRACE_DEPTH;
        search_stack(stack, |address| {
            if left > 0 {
                left -= 1;
                print(address - 1);
            }
        });
    }
    if symbols.is_none() {
        let _ = writeln!(Writer, "  (no symbols in this image)");
    }
}

fn end() -> ! {
    console::flush();
    end_at_once()
}

fn end_at_once() -> ! {
    power::debug_exit(ExitStatus::Failure);
    if boot::information_if_ready().and_then(|boot| boot.option_value("fault")) == Some("halt") {
        power::halt()
    }
    power::reboot()
}
