//! The compiled form of config/domains.toml: who runs, who may call whom, and what to do when one dies.
//!
//! `cargo xtask build` checks and compiles the file; the kernel reads this. It is the only place where domains are named.

extern crate alloc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Every domain of an appliance, in the order of their start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemManifest {
    /// In the order in which the supervisor starts them; the supervisor itself is first.
    pub domains: Vec<DomainManifest>,
}

/// One domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainManifest {
    /// Unique name.
    pub name: String,
    /// Private memory at most, in bytes: heap, stacks and image.
    pub memory_quota_bytes: u64,
    /// Shared-heap memory at most, in bytes.
    pub shared_quota_bytes: u64,
    /// What it may call.
    pub imports: Vec<Import>,
    /// Names of the interfaces that it offers.
    pub exports: Vec<String>,
    /// PCI functions that it drives.
    pub devices: Vec<DeviceClaim>,
    /// What the supervisor does when it dies.
    pub restart: RestartPolicy,
    /// How long its `start` may take, milliseconds; waiting for providers isn't counted.
    pub start_ms: u32,
    /// How long a thread of its own may run without progress, milliseconds; 0 for as long as it likes.
    pub heartbeat_ms: u32,
    /// How long a call into it may take when neither the interface nor `deadlines` says, milliseconds.
    pub deadline_ms: u32,
    /// Methods of its exports with other deadlines than the interface says.
    pub deadlines: Vec<DeadlineOverride>,
    /// The domain that gets the shared objects which this one left for it when it died; itself for its next incarnation.
    pub heir: Option<String>,
    /// How long an image that it was updated to is on trial: if it dies within this time, the one before comes back. Milliseconds.
    pub trial_ms: u32,
}

/// How long calls of a method of one provider may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlineOverride {
    /// The interface's name.
    pub interface: String,
    /// The method's name.
    pub method: String,
    /// Milliseconds; 0 for as long as it likes.
    pub ms: u32,
}

/// A handle that a domain may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name by which the domain's code asks for it.
    pub name: String,
    /// The domain that provides it, or `kernel`.
    pub provider: String,
    /// The interface's name.
    pub interface: String,
}

/// A PCI function by what it says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceClaim {
    /// By its identity.
    Id {
        /// PCI vendor id.
        vendor: u16,
        /// PCI device id.
        device: u16,
    },
    /// By its class code, whoever made it.
    Class {
        /// Base class.
        class: u8,
        /// Subclass.
        subclass: u8,
        /// Programming interface.
        interface: u8,
    },
}

impl fmt::Display for DeviceClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceClaim::Id { vendor, device } => write!(f, "{vendor:04x}:{device:04x}"),
            DeviceClaim::Class {
                class,
                subclass,
                interface,
            } => write!(f, "class:{class:02x}{subclass:02x}{interface:02x}"),
        }
    }
}

/// What the supervisor does about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Restarts within `window_ms` at no delay; after them each waits twice as long as the one before.
    pub immediate: u32,
    /// First delay, milliseconds.
    pub backoff_floor_ms: u32,
    /// Longest delay, milliseconds.
    pub backoff_ceiling_ms: u32,
    /// Restarts within `window_ms` after which the domain is held for the operator; 0 never holds.
    pub budget: u32,
    /// Length of the window, milliseconds.
    pub window_ms: u32,
    /// Share of one CPU that restarts in a crash loop may take, per thousand; 0 for no limit.
    pub cpu_permille: u32,
}
