//! From the boot loader to the kernel's `main`: what the loader told, and the order in which the machine
//! comes up.
//!
//! Two protocols lead here: PVH (`qemu -kernel`) and multiboot2 (GRUB). `entry` has the first instructions;
//! the parsers `pvh` and `multiboot2` turn what each leaves in memory into one [`BootInformation`].

mod entry;
mod multiboot2;
mod pvh;

use super::sync::InterruptLock;
use super::{
    acpi, apic, clock, console, cpu, fault, interrupts, ioapic, log, memory, paging, pci, power, smp, thread,
};
use crate::memory::map::MemoryMap;
use core::sync::atomic::{AtomicU64, Ordering};

/// Longest command line that is kept, in bytes.
const COMMAND_LINE_CAPACITY: usize = 1024;

/// What the boot loader told about the machine.
pub struct BootInformation {
    /// Which memory there is.
    pub memory: MemoryMap,
    /// The first module (the boot archive): physical start and length in bytes.
    module: Option<(u64, u64)>,
    /// Where the ACPI tables are.
    pub root_tables: Option<RootTables>,
    command_line: [u8; COMMAND_LINE_CAPACITY],
    command_line_length: usize,
}

/// The way to the ACPI tables: either protocol gives another one.
#[derive(Clone, Copy, Debug)]
pub enum RootTables {
    /// Physical address of the RSDP.
    Rsdp(u64),
    /// Physical address of the RSDT (revision 0) or XSDT (revision 2).
    Sdt {
        /// The RSDP's revision.
        revision: u8,
        /// Physical address of the table.
        address: u64,
    },
}

impl BootInformation {
    const fn new() -> Self {
        Self {
            memory: MemoryMap::new(),
            module: None,
            root_tables: None,
            command_line: [0; COMMAND_LINE_CAPACITY],
            command_line_length: 0,
        }
    }

    /// The kernel's command line; what isn't UTF-8 is left out.
    pub fn command_line(&self) -> &str {
        let bytes = self
            .command_line
            .get(..self.command_line_length)
            .unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether the command line has this word.
    pub fn has_option(&self, option: &str) -> bool {
        self.command_line()
            .split_ascii_whitespace()
            .any(|word| word == option)
    }

    /// The value of `name=value` on the command line.
    pub fn option_value(&self, name: &str) -> Option<&str> {
        let words = self.command_line().split_ascii_whitespace();
        words
            .filter_map(|word| word.split_once('='))
            .find(|&(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// The boot archive: the module (initrd) that was loaded with the kernel; empty if there is none. Never
    /// freed.
    pub fn archive(&self) -> &'static [u8] {
        match self.module {
            // SAFETY: The loader put the module into RAM; `memory::initialise` keeps its frames out of the
            // allocator, so nobody ever writes them, and the physical map covers all RAM.
            Some((start, length)) => unsafe {
                core::slice::from_raw_parts(paging::physical_to_virtual(start), length as usize)
            },
            None => &[],
        }
    }

    fn set_command_line(&mut self, text: &[u8]) {
        let length = text.len().min(COMMAND_LINE_CAPACITY);
        self.command_line[..length].copy_from_slice(&text[..length]);
        self.command_line_length = length;
    }
}

static INFORMATION: InterruptLock<BootInformation> = InterruptLock::new(BootInformation::new());
static READY: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// The time-stamp counter at the kernel's first instruction.
static FIRST_TICK: AtomicU64 = AtomicU64::new(0);

/// What the boot loader told; constant once the kernel's `main` runs.
///
/// # Panics
/// Before the boot loader's information was read.
pub fn boot_information() -> &'static BootInformation {
    match information_if_ready() {
        Some(information) => information,
        None => panic!("the boot loader's information has not been read yet"),
    }
}

/// What the boot loader told, if it has been read.
pub(super) fn information_if_ready() -> Option<&'static BootInformation> {
    // SAFETY: After READY is set nobody takes the lock any more, so the value is never written again.
    READY
        .load(Ordering::Acquire)
        .then(|| unsafe { &*INFORMATION.data_ptr() })
}

/// The time-stamp counter at the kernel's first instruction.
pub(super) fn first_tick() -> u64 {
    FIRST_TICK.load(Ordering::Relaxed)
}

// SAFETY: `entry_point!` defines it with this type; an image without it, or with two, doesn't link.
unsafe extern "Rust" {
    /// What the image does once the machine is up; defined by [`entry_point!`](crate::entry_point).
    safe fn appliance_main();
}

/// Names the function that the kernel runs, on a thread of its own, once the machine is up.
#[macro_export]
macro_rules! entry_point {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn appliance_main() {
            let main: fn() = $main;
            main()
        }
    };
}

/// Which boot protocol was used; the numbers are those in `entry`.
const PROTOCOL_PVH: u32 = 1;
const PROTOCOL_MULTIBOOT2: u32 = 2;

/// The first Rust code: runs on the boot stack, on the temporary page tables of `entry`, with interrupts off.
extern "C" fn boot_main(protocol: u32, information: u64, first_tick: u64) -> ! {
    FIRST_TICK.store(first_tick, Ordering::Relaxed);
    console::start_polled();
    log::start();
    {
        let mut boot = INFORMATION.lock();
        let physical = paging::physical_to_virtual(information);
        match protocol {
            // SAFETY: `entry` passes on what the loader gave it, and the temporary tables map the first 4
            // GiB, where both protocols put their data.
            PROTOCOL_PVH => unsafe { pvh::read(physical, &mut boot) },
            // SAFETY: As above.
            PROTOCOL_MULTIBOOT2 => unsafe { multiboot2::read(physical, &mut boot) },
            other => panic!("unknown boot protocol {other}"),
        }
    }
    READY.store(true, Ordering::Release);
    let boot = boot_information();
    memory::initialise(boot);
    let platform = acpi::read(boot);
    power::start(&platform);
    cpu::start_first();
    interrupts::load();
    apic::start();
    ioapic::start(&platform);
    clock::start(&platform);
    pci::enumerate(&platform);
    thread::start_first_cpu();
    console::start_interrupts();
    smp::start_others(&platform);
    console::start_writer();
    paging::check_write_xor_execute();
    ::log::debug!(
        "machine up: {} CPUs, {} free pages",
        cpu::count(),
        memory::free_pages()
    );
    let main = thread::Builder::new("main")
        .cpu(0)
        .spawn(appliance_main_thread, 0);
    if let Err(error) = main {
        fault::stop(format_args!("no thread for main: {error}"));
    }
    thread::become_idle()
}

extern "C" fn appliance_main_thread(_: usize) {
    appliance_main();
}
