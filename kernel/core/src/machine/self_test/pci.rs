//! A test of MSI-X with a device that raises interrupts on request: an Intel 82574 (`-device e1000e` in
//! QEMU), whose interrupt cause set register makes one out of a write (82574 datasheet, chapters 7.4 and
//! 10.2.4).

use super::super::event::Event;
use super::super::pci::{self, Function};
use super::super::{clock, cpu};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

/// Causes that have come; writing a bit clears it.
const INTERRUPT_CAUSE: usize = 0xc0;
const INTERRUPT_CAUSE_SET: usize = 0xc8;
const INTERRUPT_MASK_SET: usize = 0xd0;
const INTERRUPT_MASK_CLEAR: usize = 0xd8;
const INTERRUPT_VECTORS: usize = 0xe4;
/// The cause "other", its routing to MSI-X entry 0, and the bit that says that an interrupt was raised.
const OTHER: u32 = 1 << 24;
const ASSERTED: u32 = 1 << 31;
const OTHER_TO_ENTRY_0: u32 = 1 << 19;

fn find() -> Option<&'static Function> {
    pci::functions()
        .iter()
        .find(|function| (function.vendor(), function.device()) == (0x8086, 0x10d3))
}

/// Maps what the test uses. Mappings of devices stay for good, so the page tables for them don't come back.
pub fn map_registers() {
    if let Some(function) = find() {
        for number in 0..6 {
            // Those that there aren't are of no interest.
            let _ = function.map_bar(number);
        }
    }
}

pub fn msix_reaches_every_cpu() {
    let Some(function) = find() else {
        log::warn!("  no 82574 in this machine: MSI-X is not tested");
        return;
    };
    function.set_memory_access(true);
    let Ok(bar) = function.map_bar(0) else {
        panic!("the 82574 has no registers")
    };
    let write = |register: usize, value: u32| {
        // SAFETY: A register of the mapped BAR; the device's bus mastering is off, so it can't touch memory.
        unsafe { bar.base.add(register).cast::<u32>().write_volatile(value) }
    };
    let acknowledge = || write(INTERRUPT_CAUSE, OTHER | ASSERTED);
    // MSI-X messages are memory writes of the device.
    function.set_bus_master(true);
    write(INTERRUPT_VECTORS, OTHER_TO_ENTRY_0);
    write(INTERRUPT_MASK_SET, OTHER);
    let event = Arc::new(Event::new());
    for target in 0..cpu::count() {
        let (signal, taken_on) = (event.clone(), Arc::new(AtomicU32::new(u32::MAX)));
        let theirs = taken_on.clone();
        let handler = move || {
            theirs.store(cpu::current_index(), Ordering::Release);
            signal.signal();
        };
        let interrupt = match function.route_interrupt(0, target, handler) {
            Ok(interrupt) => interrupt,
            Err(error) => panic!("no interrupt: {error}"),
        };
        for round in 0..20 {
            write(INTERRUPT_CAUSE_SET, OTHER);
            let count = event.wait(clock::now_ns() + 5_000_000_000);
            assert!(
                count.is_ok(),
                "interrupt {round} to CPU {target} was lost: {count:?}"
            );
            assert_eq!(taken_on.load(Ordering::Acquire), target, "taken on another CPU");
            acknowledge();
            write(INTERRUPT_MASK_SET, OTHER);
        }
        drop(interrupt);
        write(INTERRUPT_CAUSE_SET, OTHER);
        acknowledge();
        let late = event.wait(clock::now_ns() + 1_000_000);
        assert!(late.is_err(), "an interrupt came after its handler was removed");
    }
    write(INTERRUPT_MASK_CLEAR, u32::MAX);
    function.disable_interrupts();
    function.set_bus_master(false);
}
