//! What a storage controller says of itself and of its health: identity, SMART, errors that it logged, events, resets.
//!
//! The numbers are those of NVM Express (base specification 2.0, 5.16.1 "Get Log Page" and 5.17 "Identify"). A shadow passes the
//! calls on to the driver behind it. Reading and writing is `block.rs`.

use core::fmt;
use rref::{Exchange, RpcError, Share, Text, interface};

/// Buckets of a [`LatencyHistogram`].
pub const LATENCY_BUCKETS: usize = 40;

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum ControllerState {
    /// It is being brought up for the first time.
    Starting,
    /// It takes requests.
    Ready,
    /// It is being reset; requests under way are handed to it again afterwards.
    Resetting,
    /// It was shut down on order: its caches are written, and it takes nothing any more.
    ShutDown,
    /// It was removed.
    Removed,
    /// It failed and resets don't help.
    Failed,
}

impl fmt::Display for ControllerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ControllerState::Starting => "starting",
            ControllerState::Ready => "ready",
            ControllerState::Resetting => "resetting",
            ControllerState::ShutDown => "shut down",
            ControllerState::Removed => "removed",
            ControllerState::Failed => "failed",
        })
    }
}

/// Which controller it is, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct ControllerInfo {
    /// What it is doing.
    pub state: ControllerState,
    /// Serial number.
    pub serial: Text<20>,
    /// Model.
    pub model: Text<40>,
    /// Firmware's revision.
    pub firmware: Text<8>,
    /// PCI vendor.
    pub vendor: u16,
    /// Version of the specification that it follows: major in bits 16 to 31, minor in 8 to 15.
    pub version: u32,
    /// Namespaces in use, which are the units of the device.
    pub namespaces: u16,
    /// Pairs of I/O queues in use.
    pub queues: u16,
    /// Commands that each of them holds.
    pub queue_depth: u16,
    /// Bytes that one command moves at most.
    pub transfer_limit_bytes: u32,
    /// It has a volatile write cache, and that is on.
    pub volatile_cache: bool,
    /// Resets since the driver started, the first start-up not counted.
    pub resets: u64,
    /// Why it was last reset; empty if it wasn't.
    pub last_reset: Text<80>,
}

/// SMART / health information (5.16.1.3). Counts that the controller keeps in 128 bits are cut to 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct SmartLog {
    /// Critical warnings, a bit each: spare, temperature, reliability, read only, volatile backup, persistent memory.
    pub critical_warning: u8,
    /// Composite temperature, kelvin.
    pub temperature_kelvin: u16,
    /// Spare capacity left, percent.
    pub available_spare_percent: u8,
    /// Below this a warning is raised, percent.
    pub spare_threshold_percent: u8,
    /// Life used up as the maker estimates it, percent; may exceed 100.
    pub percentage_used: u8,
    /// Bytes read, in thousands of 512-byte units.
    pub data_units_read: u64,
    /// Bytes written, in thousands of 512-byte units.
    pub data_units_written: u64,
    /// Read commands.
    pub host_reads: u64,
    /// Write commands.
    pub host_writes: u64,
    /// Minutes that it was busy.
    pub busy_minutes: u64,
    /// Times that it was switched on.
    pub power_cycles: u64,
    /// Hours that it was on.
    pub power_on_hours: u64,
    /// Times that its power went without a shutdown.
    pub unsafe_shutdowns: u64,
    /// Unrecovered errors of the medium or of data on the way.
    pub media_errors: u64,
    /// Entries ever written to its error log.
    pub error_log_entries: u64,
    /// Minutes above the warning temperature.
    pub warning_minutes: u32,
    /// Minutes above the critical temperature.
    pub critical_minutes: u32,
}

/// An entry of the error log (5.16.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct ErrorEntry {
    /// Counts errors over the controller's life.
    pub number: u64,
    /// Submission queue of the command; all ones if none.
    pub queue: u16,
    /// The command's identifier; all ones if none.
    pub command: u16,
    /// Status field of its completion, without the phase.
    pub status: u16,
    /// The parameter in error: byte in bits 0 to 7, bit in 8 to 10; all ones if none.
    pub parameter: u16,
    /// First logical block that the error is about.
    pub address: u64,
    /// Namespace; 0 if none.
    pub namespace: u32,
}

/// What happened to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum EventKind {
    /// It is in use.
    Started,
    /// A critical warning of SMART came up: its bits.
    Warning(u8),
    /// It reported an error that belongs to no command (5.2.1, error status events): the code.
    Error(u8),
    /// Namespaces came, went or changed.
    NamespacesChanged,
    /// Firmware activation starts; it may pause.
    FirmwareActivation,
    /// Another event: type in bits 0 to 7, information in 8 to 15, log page in 16 to 23.
    Other(u32),
    /// A command wasn't answered in time: queue in the high half, identifier in the low.
    TimedOut(u32),
    /// An abort of a command was asked for: queue in the high half, identifier in the low.
    Aborted(u32),
    /// It was reset.
    Reset,
    /// A reset didn't help.
    ResetFailed,
    /// It was shut down on order.
    ShutDown,
    /// It was removed.
    Removed,
}

/// One of the events that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct StorageEvent {
    /// Counts events from 1.
    pub number: u64,
    /// Nanoseconds since boot.
    pub at_ns: u64,
    /// What it was.
    pub kind: EventKind,
}

/// How long commands took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct LatencyHistogram {
    /// Commands that took from 2^i up to less than 2^(i+1) ns, by i; the last bucket has all longer ones.
    pub counts: [u64; LATENCY_BUCKETS],
    /// Longest, nanoseconds.
    pub longest_ns: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum HealthError {
    /// There is no such controller.
    NoController,
    /// The controller can't do this.
    Unsupported,
    /// It refused the command, with this status.
    Refused(u16),
    /// It didn't answer in time, and is being reset.
    TimedOut,
    /// It is not in a state for this.
    WrongState(ControllerState),
    /// The domain behind the handle died; connect again.
    Dead(RpcError),
}

impl From<RpcError> for HealthError {
    fn from(error: RpcError) -> Self {
        HealthError::Dead(error)
    }
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthError::NoController => f.write_str("there is no such storage controller"),
            HealthError::Unsupported => f.write_str("the storage controller can't do this"),
            HealthError::Refused(status) => {
                write!(f, "the storage controller refused (status {status:#06x})")
            }
            HealthError::TimedOut => {
                f.write_str("the storage controller didn't answer in time and is being reset")
            }
            HealthError::WrongState(state) => write!(f, "the storage controller is {state}"),
            HealthError::Dead(error) => error.fmt(f),
        }
    }
}

/// The controllers behind a storage device.
#[interface]
pub trait StorageHealth {
    /// The `index`-th controller; `None` past the last.
    fn controller(&self, index: u16) -> Result<Option<ControllerInfo>, HealthError>;

    /// Its health.
    #[deadline(ms = 2000)]
    fn smart(&self, controller: u16) -> Result<SmartLog, HealthError>;

    /// The `index`-th entry of its error log, newest first; `None` past the last.
    #[deadline(ms = 2000)]
    fn error_entry(&self, controller: u16, index: u16) -> Result<Option<ErrorEntry>, HealthError>;

    /// The first event kept with a number of at least `from`.
    fn event(&self, controller: u16, from: u64) -> Result<Option<StorageEvent>, HealthError>;

    /// How long its commands took.
    fn latency(&self, controller: u16) -> Result<LatencyHistogram, HealthError>;

    /// Resets it. Requests under way are carried out afterwards; returns before that.
    fn reset(&self, controller: u16) -> Result<(), HealthError>;

    /// Has it write its caches and get ready for power to go. Takes no requests any more; they fail as `Gone`.
    #[deadline(ms = 15000)]
    fn shut_down(&self, controller: u16) -> Result<(), HealthError>;
}
