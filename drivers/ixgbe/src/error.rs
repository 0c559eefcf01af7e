//! What can go wrong when the device is brought up or driven.

use core::fmt;
use dma::ixgbe::{ResetError, RingError};
use dma::{ClaimError, RegisterTimeout};
use interface::net::{MacAddress, NetError};

/// Why the device can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// It can't be claimed.
    Claim(ClaimError),
    /// A register didn't come to the awaited value.
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The register and its last value.
        timeout: RegisterTimeout,
    },
    /// A queue can't be used.
    Ring(RingError),
    /// A reset was asked for while queues run.
    Running,
    /// There is no EEPROM, or hardware couldn't read it: EEC's value.
    NoEeprom(u32),
    /// The EEPROM's words don't add up: their sum.
    EepromChecksum(u16),
    /// The firmware reports an error: FWSM's value.
    Firmware(u32),
    /// The address that the EEPROM gave isn't one of a station.
    BadAddress(MacAddress),
    /// No interrupt vector is left.
    NoInterrupt,
    /// No packet could be allocated.
    OutOfMemory,
}

impl DeviceError {
    /// For [`Result::map_err`]: a timeout while waiting for `what`.
    pub fn waiting(what: &'static str) -> impl Fn(RegisterTimeout) -> DeviceError {
        move |timeout| DeviceError::Timeout { what, timeout }
    }
}

impl From<ClaimError> for DeviceError {
    fn from(error: ClaimError) -> Self {
        DeviceError::Claim(error)
    }
}

impl From<RingError> for DeviceError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Timeout(timeout) => DeviceError::Timeout {
                what: "a queue to turn on or off",
                timeout,
            },
            RingError::OutOfMemory => DeviceError::OutOfMemory,
            other => DeviceError::Ring(other),
        }
    }
}

impl From<ResetError> for DeviceError {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::RingsRunning => DeviceError::Running,
            ResetError::Timeout(timeout) => DeviceError::Timeout {
                what: "a reset to end",
                timeout,
            },
        }
    }
}

impl From<DeviceError> for NetError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Timeout { timeout, .. } => NetError::Hardware {
                register: timeout.register,
                value: timeout.value,
            },
            DeviceError::OutOfMemory => NetError::OutOfMemory,
            _ => NetError::Unsupported,
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Claim(error) => error.fmt(f),
            DeviceError::Timeout { what, timeout } => write!(f, "waited for {what}, but {timeout}"),
            DeviceError::Ring(error) => error.fmt(f),
            DeviceError::Running => f.write_str("a reset was asked for while queues run"),
            DeviceError::NoEeprom(eec) => write!(f, "there is no readable EEPROM (EEC is {eec:#010x})"),
            DeviceError::EepromChecksum(sum) => {
                write!(
                    f,
                    "the EEPROM's checksum is wrong: its words add up to {sum:#06x}"
                )
            }
            DeviceError::Firmware(fwsm) => {
                write!(f, "the device's firmware reports an error (FWSM is {fwsm:#010x})")
            }
            DeviceError::BadAddress(mac) => write!(f, "the EEPROM's address {mac} isn't one of a station"),
            DeviceError::NoInterrupt => f.write_str("no interrupt vector is left"),
            DeviceError::OutOfMemory => f.write_str("out of memory"),
        }
    }
}
