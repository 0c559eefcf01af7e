//! The load balancer's management: virtual services, their backends, what they carry.
//!
//! Packets come to it by `path::PacketProcessor`; this is for the classifier (which packets are its) and the operator.

use crate::net::MacAddress;
use core::fmt;
use core::net::IpAddr;
use rref::{Exchange, RpcError, Share, Text, interface};

/// A name of a service or a backend.
pub type Name = Text<32>;

/// Transport of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Exchange, Share)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Whether a backend gets new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum BackendState {
    /// Gets its share.
    Active,
    /// Keeps established connections, gets no new ones.
    Draining,
}

/// A virtual service and its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct ServiceStatus {
    /// Name from the configuration.
    pub name: Name,
    /// Virtual address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Backends, of any state.
    pub backends: u16,
    /// Packets forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections begun.
    pub connections: u64,
    /// Packets dropped because no backend could take them.
    pub dropped: u64,
    /// Connections in the tables now.
    pub tracked: u64,
}

/// A backend of a service and its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct BackendStatus {
    /// Name, unique in its service.
    pub name: Name,
    /// Its own address.
    pub address: IpAddr,
    /// Its Ethernet address, when known.
    pub mac: Option<MacAddress>,
    /// Weight, from 1.
    pub weight: u16,
    /// Whether it gets new connections.
    pub state: BackendState,
    /// Slots of the lookup table that are its.
    pub slots: u32,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections begun to it.
    pub connections: u64,
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum BalanceError {
    /// There is no service of this name.
    NoService,
    /// The service has no backend of this name.
    NoBackend,
    /// The service has a backend of this name already.
    Exists,
    /// The service's table is too small for another backend (less than 100 slots each).
    TooMany,
    /// The backend's address isn't of the service's family.
    WrongFamily,
    /// A weight of 0, or more than 1000.
    BadWeight,
    /// No memory.
    OutOfMemory,
    /// The balancer died.
    Dead(RpcError),
}

impl From<RpcError> for BalanceError {
    fn from(error: RpcError) -> Self {
        BalanceError::Dead(error)
    }
}

impl fmt::Display for BalanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BalanceError::NoService => "there is no service of this name",
            BalanceError::NoBackend => "the service has no backend of this name",
            BalanceError::Exists => "the service has a backend of this name already",
            BalanceError::TooMany => "the lookup table is too small for another backend",
            BalanceError::WrongFamily => "the backend's address is not of the service's family",
            BalanceError::BadWeight => "a weight is from 1 to 1000",
            BalanceError::OutOfMemory => "out of memory",
            BalanceError::Dead(error) => return error.fmt(f),
        })
    }
}

/// Management of the load balancer.
///
/// A classifier calls [`service`](Balancer::service) and [`revision`](Balancer::revision) between two batches: no packet moves until they answer.
// A change makes the lookup table anew, which takes a while for a large one; who looks may have to wait for it.
#[interface(deadline_ms = 5000)]
pub trait Balancer {
    /// The `index`-th service; `None` past the last.
    #[deadline(ms = 1000)]
    fn service(&self, index: u16) -> Result<Option<ServiceStatus>, BalanceError>;

    /// The `index`-th backend of a service; `None` past the last.
    fn backend(&self, service: Name, index: u16) -> Result<Option<BackendStatus>, BalanceError>;

    /// Adds a backend. Established connections stay where they are.
    fn add(&self, service: Name, backend: Name, address: IpAddr, weight: u16) -> Result<(), BalanceError>;

    /// Gives a backend no new connections; established ones stay.
    fn drain(&self, service: Name, backend: Name) -> Result<(), BalanceError>;

    /// Lets a draining backend have new connections again.
    fn activate(&self, service: Name, backend: Name) -> Result<(), BalanceError>;

    /// Removes a backend; its connections go to others.
    fn remove(&self, service: Name, backend: Name) -> Result<(), BalanceError>;

    /// Changes whenever the set of services changes: a classifier that saw another value reads them again.
    #[deadline(ms = 100)]
    fn revision(&self) -> Result<u64, BalanceError>;
}
