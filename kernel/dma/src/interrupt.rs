//! Interrupts of a device, as something that a thread waits for.

use abi::sys;
use abi::sys::wake;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The interrupt came, now or since the last wait.
    Interrupt,
    /// The deadline came.
    TimedOut,
    /// A domain that this thread came through is dead: return to the caller at once.
    Cancelled,
}

/// One MSI-X vector.
pub struct Interrupt {
    kind: Kind,
}

enum Kind {
    Vector {
        /// The kernel's number for it.
        number: u64,
    },
    #[cfg(feature = "host")]
    Model {
        model: alloc::sync::Arc<dyn crate::host::Model>,
        entry: u32,
    },
}

impl Interrupt {
    pub(crate) fn attach(device: u64, entry: u32, cpu: u16) -> Option<Interrupt> {
        match (sys().interrupt_attach)(device, entry, u32::from(cpu)) {
            0 => None,
            number => Some(Interrupt {
                kind: Kind::Vector { number },
            }),
        }
    }

    #[cfg(feature = "host")]
    pub(crate) fn of_model(model: alloc::sync::Arc<dyn crate::host::Model>, entry: u32) -> Interrupt {
        Interrupt {
            kind: Kind::Model { model, entry },
        }
    }

    /// Blocks until the interrupt comes, or returns at once when it came since the last wait; at most until `deadline_ns`.
    pub fn wait(&self, deadline_ns: u64) -> Wake {
        match &self.kind {
            Kind::Vector { number } => match (sys().interrupt_wait)(*number, deadline_ns) {
                wake::WOKEN => Wake::Interrupt,
                wake::TIMED_OUT => Wake::TimedOut,
                _ => Wake::Cancelled,
            },
            #[cfg(feature = "host")]
            Kind::Model { model, entry } => model.wait(*entry, deadline_ns),
        }
    }
}
