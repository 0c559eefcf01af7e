//! The supervisor, as the shell, the metrics and the shadows see it.

use crate::black_box::DeathCounts;
use crate::kernel::{DeathRecord, DomainName, DomainStatus, MemoryStatus};
use core::fmt;
use rref::{Exchange, RpcError, Share, interface};

/// A domain with what its supervisor knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct SupervisedStatus {
    /// As the kernel sees it.
    pub domain: DomainStatus,
    /// Restarts since boot.
    pub restarts: u64,
    /// Held after too many deaths: it stays down until the operator releases it.
    pub held: bool,
    /// Its image was refused at boot.
    pub refused: bool,
    /// When the next restart is due, nanoseconds since boot; 0 for none.
    pub restart_at_ns: u64,
}

/// Why the supervisor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum SuperviseError {
    /// There is no domain of this name.
    NoDomain,
    /// It isn't running.
    NotRunning,
    /// It is running already.
    AlreadyRunning,
    /// The supervisor itself is not to be killed: that reboots the machine.
    Supervisor,
    /// The kernel refused; its reason is in the log.
    Refused,
    /// The supervisor died: the machine is about to reboot.
    Dead(RpcError),
}

impl From<RpcError> for SuperviseError {
    fn from(error: RpcError) -> Self {
        SuperviseError::Dead(error)
    }
}

impl fmt::Display for SuperviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SuperviseError::NoDomain => "there is no domain of this name",
            SuperviseError::NotRunning => "the domain is not running",
            SuperviseError::AlreadyRunning => "the domain is running already",
            SuperviseError::Supervisor => "killing the supervisor would reboot the machine; use `reboot`",
            SuperviseError::Refused => "the kernel refused; see `log`",
            SuperviseError::Dead(error) => return error.fmt(f),
        })
    }
}

/// What a NIC shadow can say of an outage, in the death record's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Outage {
    /// The domain that died.
    pub domain: DomainName,
    /// The incarnation that died.
    pub generation: u64,
    /// From its death to the first work (packet) that its successor did, nanoseconds.
    pub outage_ns: u64,
}

/// A death with what came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct SupervisedDeath {
    /// As the kernel recorded it.
    pub record: DeathRecord,
    /// The domain's name.
    pub name: DomainName,
    /// From the death to the first work that the successor did, nanoseconds, as a shadow measured it; 0 when nobody did.
    pub outage_ns: u64,
}

/// Restart policy, death records, and the operator's requests.
// A request may have to wait for another domain's start.
#[interface(deadline_ms = 30000)]
pub trait Supervisor {
    /// The `index`-th domain of the manifest; `None` past the last.
    fn domain(&self, index: u16) -> Result<Option<SupervisedStatus>, SuperviseError>;

    /// The `back`-th newest death, from 0; `None` past the oldest that is kept.
    fn death(&self, back: u32) -> Result<Option<SupervisedDeath>, SuperviseError>;

    /// The death with this number; `None` if it isn't kept, or hasn't happened.
    fn numbered_death(&self, number: u64) -> Result<Option<SupervisedDeath>, SuperviseError>;

    /// Counts of the deaths of the `index`-th domain of the manifest; `None` past the last.
    fn death_counts(&self, index: u16) -> Result<Option<DeathCounts>, SuperviseError>;

    /// Deaths since boot.
    fn deaths(&self) -> Result<u64, SuperviseError>;

    /// Kills a domain; the restart policy then applies.
    fn kill(&self, name: DomainName) -> Result<(), SuperviseError>;

    /// Starts a held or stopped domain.
    fn release(&self, name: DomainName) -> Result<(), SuperviseError>;

    /// Notes what a shadow measured.
    fn report_outage(&self, outage: Outage) -> Result<(), SuperviseError>;

    /// Memory of the machine.
    fn memory(&self) -> Result<MemoryStatus, SuperviseError>;
}
