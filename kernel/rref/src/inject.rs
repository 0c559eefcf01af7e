//! The fault injector: makes crossings fault in the callee's name. Only in builds with the feature `inject`, never in a release.
//!
//! What decides which crossing it is (`set_hook`) is trusted code like the rest of the crossing. What then faults must pass for code of the
//! callee's, or the fault would be the kernel's own: it is in a section of its own, `.injected`, which the linker script puts outside of what
//! counts as the kernel's code, and it runs where the callee's method would, with the callee as the running domain.

use abi::sys::{RawBytes, RawPanic};
use abi::{OwnerId, current, sys};
use core::sync::atomic::{AtomicUsize, Ordering};

/// What a crossing is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// Panic in the callee.
    Panic,
    /// Never come back.
    Hang,
    /// Read from address 0.
    PageFault,
}

/// Decides about a crossing, by the type of the interface and the callee; must not cross itself.
pub type Hook = fn(&'static str, OwnerId) -> Option<Injected>;

static HOOK: AtomicUsize = AtomicUsize::new(0);

/// Lets `hook` decide about every crossing from here on.
pub fn set_hook(hook: Hook) {
    HOOK.store(hook as usize, Ordering::Release);
}

/// Where a crossing has entered the callee and not yet called its method. `interface` is the name of its type.
pub(crate) fn point(interface: &'static str) {
    let hook = HOOK.load(Ordering::Acquire);
    if hook == 0 {
        return;
    }
    // SAFETY: Only `set_hook` stores, and only functions of this type.
    let hook = unsafe { core::mem::transmute::<usize, Hook>(hook) };
    match hook(interface, current().owner()) {
        None => {}
        Some(Injected::Panic) => panic_as_callee(),
        Some(Injected::Hang) => hang_as_callee(),
        Some(Injected::PageFault) => fault_as_callee(),
    }
}

#[unsafe(link_section = ".injected")]
#[inline(never)]
extern "C" fn panic_as_callee() -> ! {
    (sys().panic)(&RawPanic {
        message: RawBytes::of("injected"),
        file: RawBytes::of("crossing"),
        line: 0,
    })
}

#[unsafe(link_section = ".injected")]
#[unsafe(naked)]
extern "C" fn hang_as_callee() -> ! {
    core::arch::naked_asm!("2:", "pause", "jmp 2b")
}

#[unsafe(link_section = ".injected")]
#[unsafe(naked)]
extern "C" fn fault_as_callee() -> ! {
    core::arch::naked_asm!("xor eax, eax", "mov al, [rax]", "ud2")
}
