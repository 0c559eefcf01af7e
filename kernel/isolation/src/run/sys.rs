//! The kernel's functions for trusted libraries in domain images (`abi::SysTable`).
//!
//! Each runs as trusted code on the caller's thread and stack, and ends by looking whether the caller is still alive.

use super::domain::{domain_name, domain_of, is_live};
use super::{archive, black_box, death, device, fault, loader, memory, proxy, thread};
use crate::black_box::EventKind;
use abi::sys::{RawBar, RawBytes, RawDma, RawHandle, RawObject, RawPanic, RestStep};
use abi::{OwnerId, SysTable, ThreadHeader, current};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kernel::machine::thread::{self as machine, ThreadId};
use kernel::machine::{clock, cpu};
use thread::text;

/// The table that every image gets.
pub static TABLE: SysTable = SysTable {
    shared_allocate,
    shared_free,
    shared_inherit,
    shared_undelivered,
    pages_allocate,
    pages_free,
    panic,
    check_death: death::check_death,
    stack_exhausted: fault::stack_exhausted,
    now_ns,
    unix_time_s,
    entropy,
    thread_spawn,
    thread_park,
    thread_unpark,
    thread_yield,
    thread_yield_to_holder,
    cpu_count,
    log,
    connect,
    handle_release,
    export,
    is_live: is_live_c,
    boot_file,
    boot_file_name,
    device_claim,
    device_bar,
    device_identity,
    device_class,
    device_stop,
    device_had_memory,
    device_use_memory,
    device_rest_by,
    interrupt_attach,
    interrupt_wait,
    dma_allocate,
};

/// Runs `f`, and then looks whether the caller is still alive, if somebody died meanwhile.
#[inline(always)]
fn trusted<R>(f: impl FnOnce() -> R) -> R {
    let result = f();
    if current().pending.load(Ordering::Relaxed) != 0 {
        death::check_death();
    }
    result
}

/// The `start` of the running domain has returned.
pub fn started() {
    trusted(|| loader::mark_running(current().owner()));
}

fn bytes(file: Option<&'static [u8]>) -> RawBytes {
    file.map_or(RawBytes::NONE, |file| RawBytes {
        data: file.as_ptr(),
        length: file.len(),
    })
}

/// Functions of the table. Each begins by looking whether the domain has left the stack that the kernel may need, before it uses any itself;
/// if not, that is the domain's death.
macro_rules! calls {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        #[unsafe(naked)]
        extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            core::arch::naked_asm!(
                "mov rax, gs:[0]",
                "cmp rsp, [rax + {limit}]",
                "jb {exhausted}",
                "jmp {call}",
                limit = const offset_of!(ThreadHeader, call_limit),
                exhausted = sym fault::stack_exhausted,
                call = sym $name::call,
            )
        }

        mod $name {
            #[allow(unused_imports, reason = "not every call needs all of them")]
            use super::*;

            pub extern "C" fn call($($argument: $type),*) $(-> $result)? $body
        }
    )*};
}

calls! {
    fn shared_allocate(size: usize, kind: u32) -> *mut u8 {
        trusted(|| memory::shared_allocate(size, kind))
    }

    fn shared_free(payload: *mut u8) {
        trusted(|| memory::shared_free(payload));
    }

    fn shared_inherit(kind: u32, tag: u64) -> *mut u8 {
        trusted(|| memory::shared_inherit(kind, tag))
    }

    fn shared_undelivered(batch: *mut u8, dead: OwnerId) {
        trusted(|| memory::shared_undelivered(batch, dead));
    }

    fn pages_allocate(count: usize) -> *mut u8 {
        trusted(|| memory::pages_allocate(count))
    }

    fn pages_free(base: *mut u8, count: usize) {
        trusted(|| memory::pages_free(base, count));
    }

    fn panic(panic: &RawPanic) -> ! {
        death::panic_in_domain(text(&panic.message), text(&panic.file), panic.line)
    }

    fn now_ns() -> u64 {
        clock::now_ns()
    }

    fn unix_time_s() -> u64 {
        clock::unix_time_ns() / 1_000_000_000
    }

    /// From the CPU's generator (Intel SDM, RDRAND). Where there is none, the time stamp mixed by a good finaliser (that of SplitMix64):
    /// better than a constant, not unpredictable.
    fn entropy() -> u64 {
        let random = x86_64::instructions::random::RdRand::new().and_then(|generator| generator.get_u64());
        random.unwrap_or_else(|| {
            let mut mixed = clock::now_ns()
                .wrapping_add(clock::unix_time_ns())
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        })
    }

    fn thread_spawn(
        name: RawBytes,
        cpu: u32,
        entry: extern "C" fn(*mut u8),
        argument: *mut u8,
    ) -> u64 {
        trusted(|| {
            let owner = current().owner();
            let Some(domain) = domain_of(owner) else {
                return 0;
            };
            let cpu = (cpu != u32::MAX).then_some(cpu);
            // The first domain of the manifest is the supervisor: dead domains wait for its threads.
            let prompt = domain.header.slot == 1;
            thread::spawn(domain, owner, text(&name), cpu, prompt, (entry, argument)).unwrap_or(0)
        })
    }

    fn thread_park(deadline_ns: u64) -> u32 {
        trusted(|| thread::park(deadline_ns))
    }

    fn thread_unpark(id: u64) -> bool {
        trusted(|| machine::unpark(ThreadId::from_number(id)))
    }

    fn thread_yield() {
        trusted(machine::yield_now);
    }

    fn thread_yield_to_holder() {
        trusted(machine::yield_to_holder);
    }

    fn cpu_count() -> u32 {
        cpu::count()
    }

    fn log(level: u32, line: RawBytes) {
        trusted(|| {
            let level = match level {
                1 => ::log::Level::Error,
                2 => ::log::Level::Warn,
                3 => ::log::Level::Info,
                4 => ::log::Level::Debug,
                _ => ::log::Level::Trace,
            };
            let (owner, line) = (current().owner(), text(&line));
            if level <= ::log::Level::Warn {
                black_box::trace(owner, EventKind::Logged, format_args!("{level}: {line}"));
            }
            kernel::machine::log::append(level, domain_name(owner), format_args!("{line}"));
        });
    }

    fn connect(
        import: RawBytes,
        interface: RawBytes,
        not: OwnerId,
        deadline_ns: u64,
        handle: &mut RawHandle,
    ) -> u32 {
        trusted(|| proxy::connect(text(&import), text(&interface), not, deadline_ns, handle))
    }

    fn handle_release(id: u64) {
        trusted(|| proxy::release(id));
    }

    fn export(interface: RawBytes, object: RawObject) -> u32 {
        trusted(|| proxy::export(text(&interface), object))
    }

    fn is_live_c(id: OwnerId) -> bool {
        is_live(id)
    }

    fn boot_file(path: RawBytes) -> RawBytes {
        trusted(|| bytes(archive::boot_file(text(&path))))
    }

    fn boot_file_name(index: usize) -> RawBytes {
        trusted(|| bytes(archive::boot_file_name(index).map(str::as_bytes)))
    }

    fn device_claim(index: usize, device: &mut u64) -> u32 {
        trusted(|| device::claim(index, device))
    }

    fn device_bar(device: u64, bar: u32) -> RawBar {
        trusted(|| device::bar(device, bar))
    }

    fn device_identity(device: u64) -> u32 {
        trusted(|| device::identity(device))
    }

    fn device_class(device: u64) -> u32 {
        trusted(|| device::class(device))
    }

    fn device_stop(device: u64) {
        trusted(|| device::stop(device))
    }

    fn device_had_memory(device: u64) -> bool {
        trusted(|| device::had_memory(device))
    }

    fn device_use_memory(device: u64) {
        trusted(|| device::use_memory(device))
    }

    fn device_rest_by(device: u64, bar: u32, steps: *const RestStep, count: usize) -> u32 {
        // SAFETY: Trusted libraries alone call this, with a slice of theirs.
        let steps = unsafe { core::slice::from_raw_parts(steps, count) };
        trusted(|| device::rest_by(device, bar, steps))
    }

    fn interrupt_attach(device: u64, entry: u32, cpu: u32) -> u64 {
        trusted(|| device::interrupt_attach(device, entry, cpu))
    }

    fn interrupt_wait(interrupt: u64, deadline_ns: u64) -> u32 {
        // SAFETY: Trusted libraries alone call this, with what the call above gave to the same incarnation.
        trusted(|| unsafe { device::interrupt_wait(interrupt, deadline_ns) })
    }

    fn dma_allocate(device: u64, size: usize) -> RawDma {
        trusted(|| device::dma_allocate(device, size))
    }
}
