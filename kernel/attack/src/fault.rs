//! The faults by name.

use core::fmt;
use rref::{Exchange, Share};

/// A way for domain code to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum Fault {
    /// `panic!`.
    Panic,
    /// A signed division whose result doesn't fit: a panic in every build profile.
    OverflowPanic,
    /// An index past the end of a slice: a panic.
    BoundsPanic,
    /// #DE: the `div` instruction with a divisor of 0.
    DivideError,
    /// #DB: single-stepping, switched on in the flags. It stays on until somebody clears it.
    SingleStep,
    /// #BP: `int3`.
    Breakpoint,
    /// #UD: `ud2`.
    InvalidOpcode,
    /// #GP: a read from a non-canonical address.
    GeneralProtection,
    /// #SS: a push to a non-canonical address. Some emulators raise #GP.
    StackSegment,
    /// #PF: a read from address 0.
    NullRead,
    /// #PF: a call of address 0.
    NullCall,
    /// #PF: a write to an address that nothing is mapped at.
    UnmappedWrite,
    /// #PF: a write to the domain's own code.
    OwnCodeWrite,
    /// #PF: a write to the kernel's code.
    KernelCodeWrite,
    /// #PF: a call of data.
    DataCall,
    /// #MF: an unmasked division by zero on the x87 stack.
    X87,
    /// #XM: an unmasked SSE division by zero. Where the CPU doesn't raise it (QEMU's TCG), its vector is called by `int 19`.
    Simd,
    /// Endless recursion.
    StackOverflow,
    /// One frame larger than the stack.
    LargeFrame,
    /// A call of the kernel at each depth of an endless recursion, so that one is made with hardly any stack left.
    StackInKernel,
    /// A crossing at each depth of an endless recursion.
    StackInCrossing,
    /// Private memory without end.
    PrivateQuota,
    /// Shared objects without end, refusals taken for a reason to try again.
    SharedQuota,
    /// A loop that calls nothing.
    Spin,
    /// A loop that makes crossings.
    SpinCrossing,
    /// A loop that yields the CPU each time.
    SpinYield,
    /// A wait for ever.
    Sleep,
    /// A lock that this thread holds already.
    Deadlock,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 28] = [
        Fault::Panic,
        Fault::OverflowPanic,
        Fault::BoundsPanic,
        Fault::DivideError,
        Fault::SingleStep,
        Fault::Breakpoint,
        Fault::InvalidOpcode,
        Fault::GeneralProtection,
        Fault::StackSegment,
        Fault::NullRead,
        Fault::NullCall,
        Fault::UnmappedWrite,
        Fault::OwnCodeWrite,
        Fault::KernelCodeWrite,
        Fault::DataCall,
        Fault::X87,
        Fault::Simd,
        Fault::StackOverflow,
        Fault::LargeFrame,
        Fault::StackInKernel,
        Fault::StackInCrossing,
        Fault::PrivateQuota,
        Fault::SharedQuota,
        Fault::Spin,
        Fault::SpinCrossing,
        Fault::SpinYield,
        Fault::Sleep,
        Fault::Deadlock,
    ];

    /// Its name, for tables and plans: lower case with hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Panic => "panic",
            Fault::OverflowPanic => "overflow-panic",
            Fault::BoundsPanic => "bounds-panic",
            Fault::DivideError => "divide-error",
            Fault::SingleStep => "single-step",
            Fault::Breakpoint => "breakpoint",
            Fault::InvalidOpcode => "invalid-opcode",
            Fault::GeneralProtection => "general-protection",
            Fault::StackSegment => "stack-segment",
            Fault::NullRead => "null-read",
            Fault::NullCall => "null-call",
            Fault::UnmappedWrite => "unmapped-write",
            Fault::OwnCodeWrite => "own-code-write",
            Fault::KernelCodeWrite => "kernel-code-write",
            Fault::DataCall => "data-call",
            Fault::X87 => "x87",
            Fault::Simd => "simd",
            Fault::StackOverflow => "stack-overflow",
            Fault::LargeFrame => "large-frame",
            Fault::StackInKernel => "stack-in-kernel",
            Fault::StackInCrossing => "stack-in-crossing",
            Fault::PrivateQuota => "private-quota",
            Fault::SharedQuota => "shared-quota",
            Fault::Spin => "spin",
            Fault::SpinCrossing => "spin-crossing",
            Fault::SpinYield => "spin-yield",
            Fault::Sleep => "sleep",
            Fault::Deadlock => "deadlock",
        }
    }

    /// The fault of this name.
    pub fn by_name(name: &str) -> Option<Fault> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for fault in Fault::ALL {
            assert_eq!(Fault::by_name(fault.name()), Some(fault));
        }
        assert_eq!(Fault::by_name("no-such-fault"), None);
    }
}
