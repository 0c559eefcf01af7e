//! PCI functions that the manifest grants to this domain.
//!
//! Which functions those are, their BARs, MSI-X and bus mastering are the kernel's; it releases all of it when the domain dies.

use crate::interrupt::Interrupt;
use crate::memory::Descriptors;
use crate::mmio::{Bar, Mmio, WritableRange};
use crate::pages::Pages;
use abi::sys;
use abi::sys::{RestStep, status};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Why a function can't be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The manifest grants fewer functions, or the machine has no such one.
    NotFound,
    /// This domain has claimed it already.
    AlreadyClaimed,
    /// Another domain drives it, or this one under another entry of its manifest.
    InUse,
    /// It is another device than the trusted type is for.
    WrongDevice(Identity),
    /// A BAR is missing or too short.
    NoRegisters {
        /// The BAR's number.
        bar: u32,
        /// Its length in bytes; 0 when it is missing.
        length: usize,
    },
    /// The kernel refused, with this status.
    Refused(u32),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::NotFound => f.write_str("there is no such device, or the manifest doesn't grant it"),
            ClaimError::AlreadyClaimed => f.write_str("this domain has claimed the device already"),
            ClaimError::InUse => {
                f.write_str("the device has a driver already: two entries of the manifest mean it")
            }
            ClaimError::WrongDevice(identity) => write!(f, "device {identity} is not of the kind expected"),
            ClaimError::NoRegisters { bar, length } => {
                write!(f, "BAR {bar} of {length} bytes is missing or too short")
            }
            ClaimError::Refused(status) => write!(f, "the kernel refused the device (status {status})"),
        }
    }
}

/// Vendor and device number of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// Class code of a PCI function (PCI Code and ID Assignment Specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
}

/// Functions claimed by this domain, a bit each: rings rely on nobody else driving the same queues.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

/// A claimed PCI function.
pub struct Device {
    kind: Kind,
    identity: Identity,
    class: Class,
}

enum Kind {
    Function {
        /// The kernel's number for it.
        number: u64,
    },
    #[cfg(feature = "host")]
    Model(alloc::sync::Arc<dyn crate::host::Model>),
}

impl Device {
    /// Claims the `index`-th function that the manifest grants to this domain.
    pub fn claim(index: usize) -> Result<Device, ClaimError> {
        let bit = u32::try_from(index)
            .ok()
            .and_then(|index| 1u64.checked_shl(index))
            .ok_or(ClaimError::NotFound)?;
        if CLAIMED.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Err(ClaimError::AlreadyClaimed);
        }
        let mut number = 0;
        match (sys().device_claim)(index, &mut number) {
            status::OK => {}
            other => {
                CLAIMED.fetch_and(!bit, Ordering::AcqRel);
                return Err(match other {
                    status::NOT_FOUND | status::NOT_GRANTED => ClaimError::NotFound,
                    status::IN_USE => ClaimError::InUse,
                    refused => ClaimError::Refused(refused),
                });
            }
        }
        let identity = (sys().device_identity)(number);
        let [_, class, subclass, interface] = (sys().device_class)(number).to_be_bytes();
        Ok(Device {
            kind: Kind::Function { number },
            identity: Identity {
                vendor: identity as u16,
                device: (identity >> 16) as u16,
            },
            class: Class {
                class,
                subclass,
                interface,
            },
        })
    }

    /// A network device of this identity that is a model in this process.
    #[cfg(feature = "host")]
    pub fn of_model(identity: Identity, model: alloc::sync::Arc<dyn crate::host::Model>) -> Device {
        let ethernet = Class {
            class: 2,
            subclass: 0,
            interface: 0,
        };
        Device::of_model_with_class(identity, ethernet, model)
    }

    /// The same with another class.
    #[cfg(feature = "host")]
    pub fn of_model_with_class(
        identity: Identity,
        class: Class,
        model: alloc::sync::Arc<dyn crate::host::Model>,
    ) -> Device {
        Device {
            kind: Kind::Model(model),
            identity,
            class,
        }
    }

    /// What it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What kind it is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Takes it off the bus until this domain dies: when this has returned it reads and writes no memory.
    pub(crate) fn stop(&self) {
        match &self.kind {
            Kind::Function { number } => (sys().device_stop)(*number),
            #[cfg(feature = "host")]
            Kind::Model(model) => model.stop(),
        }
    }

    /// Whether an earlier driver had ring memory for it since the machine started: then trusted code has silenced whatever firmware left.
    pub(crate) fn had_memory(&self) -> bool {
        match &self.kind {
            Kind::Function { number } => (sys().device_had_memory)(*number),
            #[cfg(feature = "host")]
            Kind::Model(_) => false,
        }
    }

    /// Whether it came to rest after its last driver ([`abi::sys::SysTable::device_at_rest`]).
    pub(crate) fn is_at_rest(&self) -> bool {
        match &self.kind {
            Kind::Function { number } => (sys().device_at_rest)(*number),
            #[cfg(feature = "host")]
            Kind::Model(model) => model.is_at_rest(),
        }
    }

    /// Lets it use memory again if something other than this code has taken that from it ([`abi::sys::SysTable::device_use_memory`]).
    pub(crate) fn use_memory(&self) {
        match &self.kind {
            Kind::Function { number } => (sys().device_use_memory)(*number),
            #[cfg(feature = "host")]
            Kind::Model(model) => model.use_memory(),
        }
    }

    /// Says how it is brought to rest when this domain dies ([`abi::sys::SysTable::device_rest_by`]).
    pub(crate) fn rest_by(&self, bar: u32, steps: &[RestStep]) -> Result<(), ClaimError> {
        match &self.kind {
            Kind::Function { number } => {
                match (sys().device_rest_by)(*number, bar, steps.as_ptr(), steps.len()) {
                    status::OK => Ok(()),
                    refused => Err(ClaimError::Refused(refused)),
                }
            }
            // A model ends with the test.
            #[cfg(feature = "host")]
            Kind::Model(_) => Ok(()),
        }
    }

    /// Whether it is a model in this process.
    pub(crate) fn is_model(&self) -> bool {
        match &self.kind {
            Kind::Function { .. } => false,
            #[cfg(feature = "host")]
            Kind::Model(_) => true,
        }
    }

    /// Routes MSI-X entry `entry` to `cpu`; `None` when no vector is left.
    pub fn interrupt(&self, entry: u32, cpu: u16) -> Option<Interrupt> {
        match &self.kind {
            Kind::Function { number } => Interrupt::attach(*number, entry, cpu),
            #[cfg(feature = "host")]
            Kind::Model(model) => Some(Interrupt::of_model(model.clone(), entry)),
        }
    }

    /// The registers of `bar`, which must have at least `length` bytes; drivers may write what `writable` lists.
    pub(crate) fn registers(
        &self,
        bar: u32,
        length: u32,
        writable: &'static [WritableRange],
    ) -> Result<Mmio, ClaimError> {
        match &self.kind {
            Kind::Function { number } => {
                let raw = (sys().device_bar)(*number, bar);
                if raw.base.is_null() || raw.length < length as usize {
                    return Err(ClaimError::NoRegisters {
                        bar,
                        length: if raw.base.is_null() { 0 } else { raw.length },
                    });
                }
                Ok(Mmio::new(Bar::Mapped(raw.base), length, writable))
            }
            #[cfg(feature = "host")]
            Kind::Model(model) => Ok(Mmio::new(Bar::Model(model.clone()), length, writable)),
        }
    }

    /// Descriptors that the device can reach.
    pub(crate) fn descriptors<const SLOTS: usize>(&self) -> Option<Descriptors<SLOTS>> {
        match &self.kind {
            Kind::Function { number } => Descriptors::allocate(*number),
            #[cfg(feature = "host")]
            Kind::Model(_) => Descriptors::of_process(),
        }
    }

    /// Zeroed pages of at least `bytes` that the device can reach.
    pub(crate) fn pages(&self, bytes: usize) -> Option<Pages> {
        match &self.kind {
            Kind::Function { number } => Pages::allocate(*number, bytes),
            #[cfg(feature = "host")]
            Kind::Model(_) => Pages::of_process(bytes),
        }
    }
}
