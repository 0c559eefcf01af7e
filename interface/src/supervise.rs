//! The supervisor, as the shell, the metrics and the shadows see it.
//!
//! [`Supervisor`] tells; [`Operator`] acts, and is for whoever the operator talks to.

use crate::black_box::DeathCounts;
use crate::holdings::{Holdings, LeakReport};
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
    /// CPU time since boot, nanoseconds, that its deaths and the starts before them have cost: what the policy limits.
    pub restart_cpu_ns: u64,
    /// Held after too many deaths: it stays down until the operator releases it.
    pub held: bool,
    /// Stopped by the operator: it stays down until the operator starts it.
    pub stopped: bool,
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
    /// The operator stopped it before.
    AlreadyStopped,
    /// It is held: that it died too often is to be seen before it is started again.
    Held,
    /// It isn't held, so there is nothing to release.
    NotHeld,
    /// The domain that asks is the one to be stopped.
    Yourself,
    /// The supervisor itself is not to be killed: that reboots the machine.
    Supervisor,
    /// It died while it started.
    DiedAtStart,
    /// It is dead, but threads are still on their way out of it.
    StillLeaving,
    /// It was started, and is not up yet.
    StillStarting,
    /// Another request for the domain came in between.
    Overtaken,
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
            SuperviseError::AlreadyStopped => "the domain is stopped already",
            SuperviseError::Held => "the domain is held after too many deaths; `release` starts it",
            SuperviseError::NotHeld => "the domain is not held",
            SuperviseError::Yourself => "a domain can't stop itself: nobody would be there to start it again",
            SuperviseError::Supervisor => "without the supervisor the machine reboots; use `reboot`",
            SuperviseError::DiedAtStart => "the domain died while it started; see `deaths`",
            SuperviseError::StillLeaving => {
                "the domain is dead, but threads are still on their way out of it"
            }
            SuperviseError::StillStarting => "the domain is starting, and not up yet; see `domains`",
            SuperviseError::Overtaken => "another request for the domain came in between; see `domains`",
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

/// What the supervisor knows.
// A request may have to wait for another domain's start.
#[interface(deadline_ms = 30000)]
pub trait Supervisor {
    /// The `index`-th domain of the manifest; `None` past the last.
    fn domain(&self, index: u16) -> Result<Option<SupervisedStatus>, SuperviseError>;

    /// What that domain holds; `None` past the last.
    fn holdings(&self, index: u16) -> Result<Option<Holdings>, SuperviseError>;

    /// The `back`-th newest death, from 0; `None` past the oldest that is kept.
    fn death(&self, back: u32) -> Result<Option<SupervisedDeath>, SuperviseError>;

    /// The death with this number; `None` if it isn't kept, or hasn't happened.
    fn numbered_death(&self, number: u64) -> Result<Option<SupervisedDeath>, SuperviseError>;

    /// Counts of the deaths of the `index`-th domain of the manifest; `None` past the last.
    fn death_counts(&self, index: u16) -> Result<Option<DeathCounts>, SuperviseError>;

    /// Deaths since boot.
    fn deaths(&self) -> Result<u64, SuperviseError>;

    /// Notes what a shadow measured.
    fn report_outage(&self, outage: Outage) -> Result<(), SuperviseError>;

    /// Memory of the machine.
    fn memory(&self) -> Result<MemoryStatus, SuperviseError>;
}

/// What the operator asks of the supervisor. Requests for one domain may overlap; the last one wins.
// A request returns when a domain is up or down, and its predecessor may have to be waited for.
#[interface(deadline_ms = 60_000)]
pub trait Operator {
    /// Kills a domain; the restart policy then applies.
    fn kill(&self, name: DomainName) -> Result<(), SuperviseError>;

    /// Starts a domain that is stopped, or waits for its restart; gives the new generation. Returns when it is up.
    fn start(&self, name: DomainName) -> Result<u64, SuperviseError>;

    /// Stops a domain, which then stays down; it is no crash. Returns when all that it held is given back.
    fn stop(&self, name: DomainName) -> Result<(), SuperviseError>;

    /// Stops a domain and starts it at once, which the restart policy doesn't count; gives the new generation. Returns when it is up.
    fn restart(&self, name: DomainName) -> Result<u64, SuperviseError>;

    /// Starts a held domain, whose deaths are then forgotten; gives the new generation. Returns when it is up.
    fn release(&self, name: DomainName) -> Result<u64, SuperviseError>;

    /// Compares what domains hold with what the allocators have given out.
    fn leaks(&self) -> Result<LeakReport, SuperviseError>;

    /// Kills the supervisor, to see what comes of it: the machine reboots.
    fn kill_supervisor(&self) -> Result<(), SuperviseError>;
}
