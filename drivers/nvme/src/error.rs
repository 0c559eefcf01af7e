//! What can go wrong with the controller as a whole. What goes wrong with a request is in its block.

use core::fmt;
use dma::ClaimError;
use dma::nvme::{ControllerError, QueueError};

/// Why the controller can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// It can't be claimed.
    Claim(ClaimError),
    /// It can't be turned off or on.
    Controller(ControllerError),
    /// A queue can't be made.
    Queue(QueueError),
    /// An admin command went wrong.
    Admin {
        /// What it was to do.
        what: &'static str,
        /// How it went wrong.
        error: AdminError,
    },
}

/// Why an admin command has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// The controller is off, or as many commands are under way as there can be.
    NotReady,
    /// The controller refused it, with this status.
    Refused(u16),
    /// It wasn't answered in time.
    TimedOut,
}

impl AdminError {
    /// As an error of the device.
    pub fn doing(self, what: &'static str) -> DeviceError {
        DeviceError::Admin { what, error: self }
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::NotReady => f.write_str("the controller takes no commands"),
            AdminError::Refused(status) => write!(f, "refused with status {status:#06x}"),
            AdminError::TimedOut => f.write_str("not answered in time"),
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Claim(error) => error.fmt(f),
            DeviceError::Controller(error) => error.fmt(f),
            DeviceError::Queue(error) => error.fmt(f),
            DeviceError::Admin { what, error } => write!(f, "to {what}: {error}"),
        }
    }
}

impl From<ControllerError> for DeviceError {
    fn from(error: ControllerError) -> Self {
        DeviceError::Controller(error)
    }
}

impl From<QueueError> for DeviceError {
    fn from(error: QueueError) -> Self {
        DeviceError::Queue(error)
    }
}
