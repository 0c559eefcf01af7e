//! The kernel's functions for trusted libraries.
//!
//! A table of C functions, handed to each image at its entry. Domain code never sees it: `rref`, `domain-rt` and `dma` wrap
//! each function in a safe interface. Functions that can end or block the calling thread say so.

use crate::domain::OwnerId;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A trait object as two words: data and vtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RawObject {
    /// Data pointer.
    pub data: usize,
    /// Vtable pointer.
    pub vtable: usize,
}

/// A byte range that never goes away (boot archive), or nothing when `data` is null.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawBytes {
    /// First byte.
    pub data: *const u8,
    /// Length in bytes.
    pub length: usize,
}

/// What a failed crossing carries as its cause, for [`SysTable::connect`].
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The manifest grants no import of this name.
    pub const NOT_GRANTED: u32 = 1;
    /// The import is of another interface than the code asks for.
    pub const WRONG_INTERFACE: u32 = 2;
    /// The provider didn't come up until the deadline.
    pub const UNAVAILABLE: u32 = 3;
    /// No memory, or the domain's quota is used up.
    pub const NO_MEMORY: u32 = 4;
    /// The wait was cut short because a domain on the caller's chain died.
    pub const CANCELLED: u32 = 5;
    /// There is no such thing, or it isn't this domain's.
    pub const NOT_FOUND: u32 = 6;
    /// A domain has it already, this one or another.
    pub const IN_USE: u32 = 7;
}

/// Result of [`SysTable::thread_park`].
pub mod wake {
    /// Another thread (or an interrupt) woke it.
    pub const WOKEN: u32 = 0;
    /// The deadline came.
    pub const TIMED_OUT: u32 = 1;
    /// A domain on the thread's chain is dead: return to the caller now.
    pub const CANCELLED: u32 = 2;
}

/// A handle as the kernel gives it out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawHandle {
    /// The proxy, a trait object of the interface that was asked for; in the kernel's image and heap.
    pub proxy: RawObject,
    /// Number for [`SysTable::handle_release`].
    pub id: u64,
    /// The provider's incarnation.
    pub target: OwnerId,
}

/// One BAR of a claimed PCI function.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawBar {
    /// Virtual address of the mapping, uncached; null when there is none.
    pub base: *mut u8,
    /// Length in bytes.
    pub length: usize,
}

/// Physically contiguous memory for descriptor rings.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawDma {
    /// Virtual address; null when there is none.
    pub base: *mut u8,
    /// Address for the device.
    pub physical: u64,
}

/// Where a domain's panic came from.
#[repr(C)]
pub struct RawPanic {
    /// Message text.
    pub message: RawBytes,
    /// Source file.
    pub file: RawBytes,
    /// Source line.
    pub line: u32,
}

/// The kernel as trusted libraries see it. All functions may be called on any thread.
#[repr(C)]
pub struct SysTable {
    /// Allocates a shared object of `size` bytes for the current domain; null when memory or quota is used up.
    /// `kind` is an [`crate::ObjectKind`].
    pub shared_allocate: extern "C" fn(size: usize, kind: u32) -> *mut u8,
    /// Gives a shared object back, and all that it holds.
    pub shared_free: extern "C" fn(payload: *mut u8),
    /// Takes the next object of this kind (an [`crate::ObjectKind`]) and tag (0 for packets and blocks) that was left to the current domain; null
    /// when there is none.
    pub shared_inherit: extern "C" fn(kind: u32, tag: u64) -> *mut u8,
    /// Gives a batch back that a crossing could not deliver, since `dead` was dead already. Blocks in it are left to the current domain if it is that
    /// driver's heir.
    pub shared_undelivered: extern "C" fn(batch: *mut u8, dead: OwnerId),

    /// Allocates `count` 4 KiB pages of private memory, zeroed; null when memory or quota is used up.
    pub pages_allocate: extern "C" fn(count: usize) -> *mut u8,
    /// Gives pages back.
    pub pages_free: extern "C" fn(base: *mut u8, count: usize),

    /// Ends the current domain by a panic. Doesn't return.
    pub panic: extern "C" fn(panic: &RawPanic) -> !,
    /// Unwinds the current thread out of a dead domain; returns if none is on top of its chain.
    pub check_death: extern "C" fn(),
    /// Ends the current domain because its thread has used up its stack. Needs none itself but for the return address. Doesn't return.
    pub stack_exhausted: extern "C" fn() -> !,

    /// Nanoseconds since boot, monotonic over all CPUs.
    pub now_ns: extern "C" fn() -> u64,
    /// Seconds since 1970 (UTC) by the machine's clock.
    pub unix_time_s: extern "C" fn() -> u64,
    /// 64 bits that an attacker can't predict, as far as the CPU has a generator for them.
    pub entropy: extern "C" fn() -> u64,

    /// Starts a thread in the current domain on `cpu` (`u32::MAX`: any); 0 when memory or quota is used up.
    pub thread_spawn:
        extern "C" fn(name: RawBytes, cpu: u32, entry: extern "C" fn(*mut u8), argument: *mut u8) -> u64,
    /// Blocks until [`SysTable::thread_unpark`] or `deadline_ns`; returns a [`wake`] code. A wake that came before is not lost.
    pub thread_park: extern "C" fn(deadline_ns: u64) -> u32,
    /// Wakes a thread; false when there is none of that number.
    pub thread_unpark: extern "C" fn(id: u64) -> bool,
    /// Lets other threads of this CPU run.
    pub thread_yield: extern "C" fn(),
    /// The same for a thread that waits for a lock of its domain, whose holder may be one of them.
    pub thread_yield_to_holder: extern "C" fn(),
    /// CPUs that run.
    pub cpu_count: extern "C" fn() -> u32,

    /// Adds a line to the log; `level` as `log::Level`.
    pub log: extern "C" fn(level: u32, text: RawBytes),

    /// Waits until the provider of an import is up in another incarnation than `not`, at most until `deadline_ns`, and makes a handle;
    /// returns a [`status`] code.
    pub connect: extern "C" fn(
        import: RawBytes,
        interface: RawBytes,
        not: OwnerId,
        deadline_ns: u64,
        handle: &mut RawHandle,
    ) -> u32,
    /// Gives a handle back.
    pub handle_release: extern "C" fn(id: u64),
    /// Offers an object under an interface's name; returns a [`status`] code.
    pub export: extern "C" fn(interface: RawBytes, object: RawObject) -> u32,
    /// Whether an incarnation is alive.
    pub is_live: extern "C" fn(id: OwnerId) -> bool,

    /// A file of the boot archive; null when there is none.
    pub boot_file: extern "C" fn(path: RawBytes) -> RawBytes,
    /// The path of the `index`-th file of the boot archive; null past the end.
    pub boot_file_name: extern "C" fn(index: usize) -> RawBytes,

    /// Claims the `index`-th PCI function that the manifest grants, with memory access on; returns a [`status`] code and the device's
    /// number. Bus mastering goes on with the first [`SysTable::dma_allocate`], so that the caller can stop what firmware or an earlier driver left
    /// running. When the domain dies the device is brought to rest by [`SysTable::device_rest_by`], else bus mastering goes off.
    pub device_claim: extern "C" fn(index: usize, device: &mut u64) -> u32,
    /// Maps a BAR of a claimed device.
    pub device_bar: extern "C" fn(device: u64, bar: u32) -> RawBar,
    /// Reads the device's PCI identity: vendor in the low 16 bits, device above.
    pub device_identity: extern "C" fn(device: u64) -> u32,
    /// Reads the device's PCI class code: base class in bits 16 to 23, subclass in 8 to 15, programming interface in 0 to 7.
    pub device_class: extern "C" fn(device: u64) -> u32,
    /// Takes a claimed device off the bus until its driver dies: it masters the bus no more when this has returned.
    pub device_stop: extern "C" fn(device: u64),
    /// Whether an earlier driver had ring memory for the claimed device since the machine started: what trusted code does before it asks
    /// for the first such memory has been done then.
    pub device_had_memory: extern "C" fn(device: u64) -> bool,
    /// Lets the claimed device use memory again if it may but something other than the kernel has taken that from it: a bus error's handling, a reset of
    /// the function. Does nothing before the first [`SysTable::dma_allocate`] and after [`SysTable::device_stop`].
    pub device_use_memory: extern "C" fn(device: u64),
    /// Says how a claimed device is brought to rest when the domain dies: by the registers of BAR `bar`, in the order of the `count` steps at
    /// `steps`. When all of them succeed, and [`REST_DRAIN_NS`] later, it doesn't touch memory any more, whatever the domain has done with it. Returns a [`status`] code.
    pub device_rest_by: extern "C" fn(device: u64, bar: u32, steps: *const RestStep, count: usize) -> u32,
    /// Routes MSI-X entry `entry` to `cpu`; returns the interrupt, 0 when there is none left. It is good for as long as the domain lives.
    pub interrupt_attach: extern "C" fn(device: u64, entry: u32, cpu: u32) -> u64,
    /// Blocks until `interrupt`, which [`SysTable::interrupt_attach`] gave, comes, or one came since the last wait, or until `deadline_ns`; returns a [`wake`] code.
    pub interrupt_wait: extern "C" fn(interrupt: u64, deadline_ns: u64) -> u32,
    /// Allocates ring memory of `size` bytes, page aligned, zeroed, and lets the device use memory; freed when the domain dies.
    pub dma_allocate: extern "C" fn(device: u64, size: usize) -> RawDma,
}

/// One step on the way of a device to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RestStep {
    /// Offset of a 32-bit register.
    pub offset: u32,
    /// 0 to write `value`; else bits that are waited for to be those of `value`.
    pub mask: u32,
    /// The value.
    pub value: u32,
}

/// What a device may still have on its way after the last step: of the 82599 datasheet's 4.6.7.1.2 "Dynamic Enabling and Disabling of Receive Queues", 100 us.
pub const REST_DRAIN_NS: u64 = 100_000;

static SYS: AtomicPtr<SysTable> = AtomicPtr::new(core::ptr::null_mut());

/// Makes `table` the kernel of this image. Called once, before anything else of the image runs.
///
/// # Safety
/// The functions of `table` do what [`SysTable`] says of them: trusted libraries believe every pointer that they return.
pub unsafe fn install(table: &'static SysTable) {
    SYS.store(core::ptr::from_ref(table).cast_mut(), Ordering::Release);
}

/// The kernel.
///
/// # Panics
/// When no table was installed, which only a host test that forgot `host_platform::attach` can see.
#[inline(always)]
pub fn sys() -> &'static SysTable {
    let table = SYS.load(Ordering::Relaxed);
    assert!(!table.is_null(), "no kernel: install() was not called");
    // SAFETY: Only `install` stores a non-null pointer, from a `&'static`.
    unsafe { &*table }
}

impl RawBytes {
    /// The bytes of `text`.
    pub const fn of(text: &str) -> RawBytes {
        RawBytes {
            data: text.as_ptr(),
            length: text.len(),
        }
    }

    /// Nothing.
    pub const NONE: RawBytes = RawBytes {
        data: core::ptr::null(),
        length: 0,
    };
}
