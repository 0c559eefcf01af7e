//! What the kernel offers to some domains, as interfaces like any other: provider `kernel` in config/domains.toml.
//!
//! The supervisor has [`DomainControl`], the shell has [`SerialConsole`], [`LogReader`] and [`Power`]. What every domain has
//! (memory, threads, time, the log) is in `domain-rt`.

use crate::holdings::{FrameUses, Holdings, LeakReport};
use core::fmt;
use rref::{Exchange, OwnerId, RpcError, Share, Text, interface};

/// A domain's name.
pub type DomainName = Text<32>;

/// What a domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum DomainState {
    /// Never started, or stopped.
    Stopped,
    /// Loaded; its `start` has not returned yet.
    Starting,
    /// Its `start` returned.
    Running,
    /// Dead; threads are still on their way out of it, or its memory is not yet given back.
    Dying,
    /// Dead, all of it given back.
    Dead,
}

/// Why a domain died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum DeathCause {
    /// Its code panicked.
    Panic,
    /// The operator or the supervisor asked for it.
    Killed,
    /// A CPU exception in its code, by vector (Intel SDM volume 3, table 6-1).
    Exception(u8),
    /// Its stack is used up.
    StackOverflow,
    /// It asked for more private memory than its quota allows.
    MemoryQuota,
    /// It asked for more shared memory than its quota allows, again and again.
    SharedQuota,
    /// A crossing into it outlived its deadline.
    Deadline,
    /// One of its threads made no progress for as long as its heartbeat allows.
    Heartbeat,
    /// Its `start` didn't return in time.
    StartTimeout,
    /// The operator stopped it.
    Stopped,
    /// The operator restarted it.
    Restarted,
    /// It made place for another image of it.
    Updated,
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeathCause::Panic => "panic",
            DeathCause::Killed => "killed",
            DeathCause::Exception(vector) => return write!(f, "{}", Vector(*vector)),
            DeathCause::StackOverflow => "stack overflow",
            DeathCause::MemoryQuota => "over its memory quota",
            DeathCause::SharedQuota => "over its shared-memory quota",
            DeathCause::Deadline => "missed a deadline",
            DeathCause::Heartbeat => "no heartbeat",
            DeathCause::StartTimeout => "start took too long",
            DeathCause::Stopped => "stopped",
            DeathCause::Restarted => "restarted",
            DeathCause::Updated => "updated",
        })
    }
}

/// A CPU exception's name.
struct Vector(u8);

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "division error",
            1 => "debug exception",
            3 => "breakpoint",
            4 => "overflow",
            5 => "bound range exceeded",
            6 => "invalid opcode",
            12 => "stack segment fault",
            13 => "general protection fault",
            14 => "page fault",
            16 => "floating point error",
            17 => "alignment check",
            19 => "SIMD floating point error",
            other => return write!(f, "exception {other}"),
        })
    }
}

/// A domain as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct DomainStatus {
    /// Name in config/domains.toml.
    pub name: DomainName,
    /// What it is doing.
    pub state: DomainState,
    /// Incarnations so far.
    pub generation: u64,
    /// Threads in it.
    pub threads: u32,
    /// Private memory, bytes: image, heap, stacks.
    pub memory_bytes: u64,
    /// Shared objects that it owns, bytes.
    pub shared_bytes: u64,
    /// Crossings into it since boot.
    pub crossings: u64,
    /// Restarts at no delay within `window_ms`; see `abi::manifest::RestartPolicy`.
    pub restart_immediate: u32,
    /// First delay, milliseconds.
    pub backoff_floor_ms: u32,
    /// Longest delay, milliseconds.
    pub backoff_ceiling_ms: u32,
    /// Restarts within the window after which it is held; 0 for never.
    pub restart_budget: u32,
    /// The window, milliseconds.
    pub window_ms: u32,
    /// Share of one CPU that its restarts may take, per thousand.
    pub restart_cpu_permille: u32,
}

/// What an incarnation cost that is no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct Reaped {
    /// CPU time of its threads, nanoseconds.
    pub threads_ns: u64,
    /// CPU time of loading it and of giving back what it held, nanoseconds.
    pub kernel_ns: u64,
    /// From its start to its death, nanoseconds.
    pub lived_ns: u64,
}

/// A death, as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct DeathRecord {
    /// Counts deaths from 1.
    pub number: u64,
    /// Index of the domain in the manifest.
    pub domain: u16,
    /// The incarnation that died.
    pub generation: u64,
    /// Why.
    pub cause: DeathCause,
    /// Message and place, as far as known.
    pub detail: Text<160>,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
    /// When its next incarnation was running; 0 as long as none is.
    pub recovered_ns: u64,
}

/// The machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct MemoryStatus {
    /// Pages of RAM that the allocator manages.
    pub total_pages: u64,
    /// Free ones.
    pub free_pages: u64,
    /// Shared-heap bytes in use.
    pub shared_used_bytes: u64,
    /// Pages that the shared heap holds.
    pub shared_pages: u64,
    /// All pages that aren't free, by what they are used for.
    pub uses: FrameUses,
}

/// Why the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum ControlError {
    /// There is no domain of this index.
    NoDomain,
    /// The domain is not in a state for this.
    WrongState(DomainState),
    /// Its image is refused; the reason is in the log.
    BadImage(Text<120>),
    /// It died while it started.
    DiedAtStart,
    /// No memory to load it.
    OutOfMemory,
    /// The kernel doesn't die: this can't come from it.
    Dead(RpcError),
}

impl From<RpcError> for ControlError {
    fn from(error: RpcError) -> Self {
        ControlError::Dead(error)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NoDomain => f.write_str("there is no such domain"),
            ControlError::WrongState(state) => write!(f, "the domain is {state:?}"),
            ControlError::BadImage(reason) => write!(f, "its image is refused: {reason}"),
            ControlError::DiedAtStart => f.write_str("it died while it started"),
            ControlError::OutOfMemory => f.write_str("out of memory"),
            ControlError::Dead(error) => error.fmt(f),
        }
    }
}

/// Every domain of the manifest, in the order of start.
pub fn domains(control: &dyn DomainControl) -> impl Iterator<Item = Result<DomainStatus, ControlError>> {
    (0..u16::MAX).map_while(|index| control.status(index).transpose())
}

/// Life and death of domains: for the supervisor alone.
#[interface]
pub trait DomainControl {
    /// The `index`-th domain of the manifest, in the order of start; `None` past the last.
    fn status(&self, index: u16) -> Result<Option<DomainStatus>, ControlError>;

    /// Loads a stopped or dead domain and runs its `start`; returns when that has returned.
    fn start(&self, index: u16) -> Result<OwnerId, ControlError>;

    /// Kills a domain's live incarnation. The cause is for the record: killed, stopped, restarted or updated.
    fn kill(&self, index: u16, cause: DeathCause) -> Result<(), ControlError>;

    /// Waits until every thread has left a dying domain and gives back all that it held.
    fn reap(&self, index: u16) -> Result<Reaped, ControlError>;

    /// What the `index`-th domain holds now; `None` past the last.
    fn holdings(&self, index: u16) -> Result<Option<Holdings>, ControlError>;

    /// Compares what domains hold with what the allocators have given out.
    fn leaks(&self) -> Result<LeakReport, ControlError>;

    /// Blocks until a death with a number above `after` is recorded, or until `deadline_ns`; `None` at the deadline.
    fn wait_death(&self, after: u64, deadline_ns: u64) -> Result<Option<DeathRecord>, ControlError>;

    /// The death of this number, if it is still kept.
    fn death(&self, number: u64) -> Result<Option<DeathRecord>, ControlError>;

    /// Memory of the machine.
    fn memory(&self) -> Result<MemoryStatus, ControlError>;
}

/// Why a kernel service has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum ServiceError {
    /// The wait was cut short.
    Cancelled,
    /// The kernel doesn't die: this can't come from it.
    Dead(RpcError),
}

impl From<RpcError> for ServiceError {
    fn from(error: RpcError) -> Self {
        ServiceError::Dead(error)
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Cancelled => f.write_str("the wait was cut short"),
            ServiceError::Dead(error) => error.fmt(f),
        }
    }
}

/// The serial console: COM1, 115200 8N1.
#[interface]
pub trait SerialConsole {
    /// Blocks until there is input or `deadline_ns`; gives what there is.
    fn read(&self, deadline_ns: u64) -> Result<(u8, [u8; 64]), ServiceError>;

    /// Writes text; blocks while the output buffer is full.
    fn write(&self, text: Text<512>) -> Result<(), ServiceError>;

    /// Whether log lines go to the serial port too.
    fn show_log(&self, on: bool) -> Result<(), ServiceError>;
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct LogLine {
    /// Counts lines from 1; a gap means that older ones were overwritten.
    pub sequence: u64,
    /// Nanoseconds since boot.
    pub at_ns: u64,
    /// CPU.
    pub cpu: u16,
    /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
    pub level: u8,
    /// The domain that wrote it; empty for the kernel.
    pub domain: DomainName,
    /// The text.
    pub text: Text<240>,
}

/// The log ring.
#[interface]
pub trait LogReader {
    /// The first line kept with a sequence number of at least `from`.
    fn line(&self, from: u64) -> Result<Option<LogLine>, ServiceError>;
}

/// The machine's power.
#[interface]
pub trait Power {
    /// Restarts the machine; doesn't return when it works.
    fn reboot(&self) -> Result<(), ServiceError>;

    /// Switches the machine off; doesn't return when it works.
    fn power_off(&self) -> Result<(), ServiceError>;
}
