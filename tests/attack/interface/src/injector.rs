//! The fault injector of the kernel: makes the N-th crossing of an interface fault in the callee's name.
//!
//! Provider `kernel`, in builds with the injector only. Crossings into the kernel and the supervisor don't count: the one doesn't die, and
//! the other's death is the machine's restart.

use core::fmt;
use rref::{Exchange, RpcError, Share, Text, interface};

/// What a crossing is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum Injection {
    /// Panic.
    Panic,
    /// Never come back.
    Hang,
    /// Read from address 0.
    PageFault,
}

impl Injection {
    /// Every one.
    pub const ALL: [Injection; 3] = [Injection::Panic, Injection::Hang, Injection::PageFault];

    /// Its name on the console.
    pub const fn name(self) -> &'static str {
        match self {
            Injection::Panic => "panic",
            Injection::Hang => "hang",
            Injection::PageFault => "page-fault",
        }
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Injection> {
        Self::ALL.into_iter().find(|injection| injection.name() == name)
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Crossings of one kind: of an interface, into a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Crossings {
    /// The interface's name.
    pub interface: Text<32>,
    /// The callee's index in the manifest.
    pub domain: u16,
    /// How many there were since the last reset.
    pub count: u64,
}

/// Where an injection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Injected {
    /// Counts injections from 1.
    pub number: u64,
    /// The interface's name.
    pub interface: Text<32>,
    /// The callee's index in the manifest.
    pub domain: u16,
    /// The callee's generation.
    pub generation: u64,
    /// Which crossing it was, of those among which it was armed, counted from 1 at the last reset.
    pub crossing: u64,
    /// What it was made to do.
    pub injection: Injection,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
}

/// Why the injector has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum InjectorError {
    /// There is no room to count one more kind of crossing.
    TooManyKinds,
    /// The kernel doesn't die: this can't come from it.
    Dead(RpcError),
}

impl From<RpcError> for InjectorError {
    fn from(error: RpcError) -> Self {
        InjectorError::Dead(error)
    }
}

impl fmt::Display for InjectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InjectorError::TooManyKinds => f.write_str("there are too many kinds of crossings"),
            InjectorError::Dead(error) => error.fmt(f),
        }
    }
}

/// Control of the injector.
#[interface]
pub trait Injector {
    /// Begins to count anew, with nothing armed.
    fn reset(&self) -> Result<(), InjectorError>;

    /// The `index`-th kind of crossing that was seen since the start of the machine; `None` past the last.
    fn crossings(&self, index: u16) -> Result<Option<Crossings>, InjectorError>;

    /// Makes a crossing fault: the `number`-th since the last reset, counted from 1, of the kind with this index or of any kind; the next one if
    /// that has passed. Replaces what was armed.
    fn arm(&self, kind: Option<u16>, number: u64, injection: Injection) -> Result<(), InjectorError>;

    /// Crossings of any kind since the last reset.
    fn total(&self) -> Result<u64, InjectorError>;

    /// Takes back what is armed; whether there was something.
    fn disarm(&self) -> Result<bool, InjectorError>;

    /// The newest injection.
    fn newest(&self) -> Result<Option<Injected>, InjectorError>;
}
