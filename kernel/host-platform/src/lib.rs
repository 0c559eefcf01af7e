//! A host process in the kernel's place, for unit tests and benchmarks of domains and trusted libraries.
//!
//! [`attach`] makes the calling thread one that crossings and shared-heap handles work on. Objects come from the process's
//! allocator, threads are the process's, time is its clock. Nothing is isolated here; what is tested is the code, not the
//! kernel. A provider made with [`provide_mortal`] can die ([`kill`]): later calls then answer as they do on the appliance.

mod memory;
mod thread;
mod wiring;

pub use memory::{
    SharedMemory, leave, leave_block, leave_packet, set_shared_limit, shared_objects, use_shared_memory,
};
pub use thread::{Attached, attach, look_for_deaths};
pub use wiring::{add_boot_file, host_domain, inherit_from, kill, provide, provide_mortal};

use abi::SysTable;
use abi::sys::{RawBar, RawBytes, RawDma, RawPanic, RestStep, status};

static TABLE: SysTable = SysTable {
    shared_allocate: memory::shared_allocate,
    shared_free: memory::shared_free,
    shared_inherit: memory::shared_inherit,
    shared_undelivered: memory::shared_undelivered,
    pages_allocate: memory::pages_allocate,
    pages_free: memory::pages_free,
    panic,
    check_death: thread::check_death,
    stack_exhausted,
    now_ns: thread::now_ns,
    unix_time_s: thread::unix_time_s,
    entropy: thread::entropy,
    thread_spawn: thread::spawn,
    thread_park: thread::park,
    thread_unpark: thread::unpark,
    thread_yield: thread::yield_now,
    thread_yield_to_holder: thread::yield_now,
    cpu_count: thread::cpu_count,
    log,
    connect: wiring::connect,
    handle_release: wiring::handle_release,
    export: wiring::export,
    is_live: wiring::is_live,
    boot_file: wiring::boot_file,
    boot_file_name: wiring::boot_file_name,
    device_claim,
    device_bar,
    device_identity,
    device_class,
    device_stop,
    device_had_memory,
    device_at_rest,
    device_use_memory,
    device_rest_by,
    interrupt_attach,
    interrupt_wait,
    dma_allocate,
};

extern "C" fn panic(panic: &RawPanic) -> ! {
    panic!("{} ({}:{})", text(panic.message), text(panic.file), panic.line);
}

extern "C" fn stack_exhausted() -> ! {
    // A host thread's header has no limit.
    unreachable!("the host's threads have no stack limit");
}

// A host has no devices; drivers are tested on `dma`'s host backend.

extern "C" fn device_claim(_index: usize, _device: &mut u64) -> u32 {
    status::NOT_FOUND
}

extern "C" fn device_bar(_device: u64, _bar: u32) -> RawBar {
    RawBar {
        base: core::ptr::null_mut(),
        length: 0,
    }
}

extern "C" fn device_identity(_device: u64) -> u32 {
    0
}

extern "C" fn device_class(_device: u64) -> u32 {
    0
}

extern "C" fn device_stop(_device: u64) {}

extern "C" fn device_had_memory(_device: u64) -> bool {
    false
}

extern "C" fn device_at_rest(_device: u64) -> bool {
    false
}

extern "C" fn device_use_memory(_device: u64) {}

extern "C" fn device_rest_by(_device: u64, _bar: u32, _steps: *const RestStep, _count: usize) -> u32 {
    status::NOT_FOUND
}

extern "C" fn interrupt_attach(_device: u64, _entry: u32, _cpu: u32) -> u64 {
    0
}

extern "C" fn interrupt_wait(_interrupt: u64, deadline_ns: u64) -> u32 {
    thread::park(deadline_ns)
}

extern "C" fn dma_allocate(_device: u64, _size: usize) -> RawDma {
    RawDma {
        base: core::ptr::null_mut(),
        physical: 0,
    }
}

extern "C" fn log(level: u32, line: RawBytes) {
    if std::env::var_os("HOST_PLATFORM_LOG").is_some() {
        eprintln!("[{level}] {}", text(line));
    }
}

fn text(raw: RawBytes) -> &'static str {
    if raw.data.is_null() {
        return "";
    }
    // SAFETY: Callers of the table pass ranges of live strings; this process reads them before it returns to the caller.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(raw.data, raw.length) }).unwrap_or("?")
}
