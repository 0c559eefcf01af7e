//! The kernel's functions for trusted libraries in domain images (`abi::SysTable`).
//!
//! Each runs as trusted code on the caller's thread and stack, and ends by looking whether the caller is still alive.

use super::domain::{domain_name, is_live};
use super::{archive, black_box, death, device, loader, memory, proxy, thread};
use crate::black_box::EventKind;
use abi::sys::{RawBar, RawBytes, RawDma, RawHandle, RawObject, RawPanic};
use abi::{OwnerId, SysTable, current};
use core::sync::atomic::Ordering;
use kernel::machine::thread::{self as machine, ThreadId};
use kernel::machine::{clock, cpu};
use thread::text;

/// The table that every image gets.
pub static TABLE: SysTable = SysTable {
    shared_allocate,
    shared_free,
    shared_inherit,
    pages_allocate,
    pages_free,
    panic,
    check_death: death::check_death,
    now_ns,
    unix_time_s,
    entropy,
    thread_spawn,
    thread_park,
    thread_unpark,
    thread_yield,
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
    device_had_memory,
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

extern "C" fn shared_allocate(size: usize, kind: u32) -> *mut u8 {
    trusted(|| memory::shared_allocate(size, kind))
}

extern "C" fn shared_free(payload: *mut u8) {
    trusted(|| memory::shared_free(payload));
}

extern "C" fn shared_inherit(kind: u32, tag: u64) -> *mut u8 {
    trusted(|| memory::shared_inherit(kind, tag))
}

extern "C" fn pages_allocate(count: usize) -> *mut u8 {
    trusted(|| memory::pages_allocate(count))
}

extern "C" fn pages_free(base: *mut u8, count: usize) {
    trusted(|| memory::pages_free(base, count));
}

extern "C" fn panic(panic: &RawPanic) -> ! {
    death::panic_in_domain(text(&panic.message), text(&panic.file), panic.line)
}

/// The `start` of the running domain has returned.
pub fn started() {
    trusted(|| loader::mark_running(current().owner()));
}

extern "C" fn now_ns() -> u64 {
    clock::now_ns()
}

extern "C" fn unix_time_s() -> u64 {
    clock::unix_time_ns() / 1_000_000_000
}

/// From the CPU's generator (Intel SDM, RDRAND). Where there is none, the time stamp mixed by a good finaliser (that of SplitMix64):
/// better than a constant, not unpredictable.
extern "C" fn entropy() -> u64 {
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

extern "C" fn thread_spawn(
    name: RawBytes,
    cpu: u32,
    entry: extern "C" fn(*mut u8),
    argument: *mut u8,
) -> u64 {
    trusted(|| {
        let owner = current().owner();
        let Some(domain) = super::domain::domain_of(owner) else {
            return 0;
        };
        let cpu = (cpu != u32::MAX).then_some(cpu);
        // The first domain of the manifest is the supervisor: dead domains wait for its threads.
        let prompt = domain.header.slot == 1;
        thread::spawn(domain, owner, text(&name), cpu, prompt, (entry, argument)).unwrap_or(0)
    })
}

extern "C" fn thread_park(deadline_ns: u64) -> u32 {
    trusted(|| thread::park(deadline_ns))
}

extern "C" fn thread_unpark(id: u64) -> bool {
    trusted(|| machine::unpark(ThreadId::from_number(id)))
}

extern "C" fn thread_yield() {
    trusted(machine::yield_now);
}

extern "C" fn cpu_count() -> u32 {
    cpu::count()
}

extern "C" fn log(level: u32, line: RawBytes) {
    trusted(|| {
        let level = match level {
            1 => log::Level::Error,
            2 => log::Level::Warn,
            3 => log::Level::Info,
            4 => log::Level::Debug,
            _ => log::Level::Trace,
        };
        let (owner, line) = (current().owner(), text(&line));
        if level <= log::Level::Warn {
            black_box::trace(owner, EventKind::Logged, format_args!("{level}: {line}"));
        }
        kernel::machine::log::append(level, domain_name(owner), format_args!("{line}"));
    });
}

extern "C" fn connect(
    import: RawBytes,
    interface: RawBytes,
    not: OwnerId,
    deadline_ns: u64,
    handle: &mut RawHandle,
) -> u32 {
    trusted(|| proxy::connect(text(&import), text(&interface), not, deadline_ns, handle))
}

extern "C" fn handle_release(id: u64) {
    trusted(|| proxy::release(id));
}

extern "C" fn export(interface: RawBytes, object: RawObject) -> u32 {
    trusted(|| proxy::export(text(&interface), object))
}

extern "C" fn is_live_c(id: OwnerId) -> bool {
    is_live(id)
}

fn bytes(file: Option<&'static [u8]>) -> RawBytes {
    file.map_or(RawBytes::NONE, |file| RawBytes {
        data: file.as_ptr(),
        length: file.len(),
    })
}

extern "C" fn boot_file(path: RawBytes) -> RawBytes {
    trusted(|| bytes(archive::boot_file(text(&path))))
}

extern "C" fn boot_file_name(index: usize) -> RawBytes {
    trusted(|| bytes(archive::boot_file_name(index).map(str::as_bytes)))
}

extern "C" fn device_claim(index: usize, device: &mut u64) -> u32 {
    trusted(|| device::claim(index, device))
}

extern "C" fn device_bar(device: u64, bar: u32) -> RawBar {
    trusted(|| device::bar(device, bar))
}

extern "C" fn device_identity(device: u64) -> u32 {
    trusted(|| device::identity(device))
}

extern "C" fn device_had_memory(device: u64) -> bool {
    trusted(|| device::had_memory(device))
}

extern "C" fn interrupt_attach(device: u64, entry: u32, cpu: u32) -> u64 {
    trusted(|| device::interrupt_attach(device, entry, cpu))
}

extern "C" fn interrupt_wait(interrupt: u64, deadline_ns: u64) -> u32 {
    trusted(|| device::interrupt_wait(interrupt, deadline_ns))
}

extern "C" fn dma_allocate(device: u64, size: usize) -> RawDma {
    trusted(|| device::dma_allocate(device, size))
}
