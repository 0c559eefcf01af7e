//! What the operator says of VIPs and backends, and what the control answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{MAXIMUM_BACKENDS, MAXIMUM_VIPS};
use crate::counters::Traffic;
use crate::packet::{MacAddress, Protocol};

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No VIP has this name.
    #[error("there is no VIP named {0}")]
    UnknownVip(String),
    /// The VIP has no backend with this name.
    #[error("VIP {vip} has no backend named {backend}")]
    UnknownBackend {
        /// The VIP's name.
        vip: String,
        /// The backend's name.
        backend: String,
    },
    /// A VIP of this name, or one with the same address, port and protocol, exists.
    #[error("VIP {0} exists already")]
    DuplicateVip(String),
    /// The VIP has a backend with this name.
    #[error("VIP {vip} has a backend named {backend} already")]
    DuplicateBackend {
        /// The VIP's name.
        vip: String,
        /// The backend's name.
        backend: String,
    },
    /// There are [`MAXIMUM_VIPS`].
    #[error("there are {MAXIMUM_VIPS} VIPs already, which is the most there can be")]
    TooManyVips,
    /// There are [`MAXIMUM_BACKENDS`].
    #[error("there are {MAXIMUM_BACKENDS} backends already, which is the most there can be")]
    TooManyBackends,
}

/// Whether a backend gets new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It does.
    Active,
    /// It keeps those it has.
    Draining,
}

/// What the operator says of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// Unique name.
    pub name: String,
    /// Address that clients connect to.
    pub address: IpAddr,
    /// Port that clients connect to.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What the operator says of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Name, unique within the VIP; it alone decides the backend's place in the table.
    pub name: String,
    /// The address by which its MAC address is found.
    pub address: IpAddr,
    /// Share of new connections, relative to the VIP's other backends; 0 for none.
    pub weight: u16,
}

/// A backend in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// What the operator said of it.
    pub spec: BackendSpec,
    /// Whether it gets new connections.
    pub state: BackendState,
    /// Its MAC address, if known.
    pub mac: Option<MacAddress>,
    /// Its entries in the lookup table: its share of new connections, of [`VipReport::table_size`].
    pub table_entries: usize,
    /// What it was sent since it was added.
    pub traffic: Traffic,
}

/// A VIP in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipReport {
    /// What the operator said of it.
    pub spec: VipSpec,
    /// Entries of its lookup table.
    pub table_size: usize,
    /// What was sent on for it.
    pub traffic: Traffic,
    /// Its backends, in the order of their slots.
    pub backends: Vec<BackendReport>,
}

/// A VIP without what takes long to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipSummary<'a> {
    /// What the operator said of it.
    pub spec: &'a VipSpec,
    /// What was sent on for it.
    pub traffic: Traffic,
    /// How many backends it has.
    pub backends: usize,
}
