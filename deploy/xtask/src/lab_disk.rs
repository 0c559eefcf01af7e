//! `cargo xtask lab disk`: faults of the running appliance's disk.

use std::path::Path;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use lab::{CriticalWarning, DiskControl, DiskError, Lab, Operation};

#[derive(Subcommand)]
pub enum DiskCommand {
    /// Make requests fail.
    Fail {
        /// Which.
        operation: Kind,
        /// Only this one, counted from now (1: the next); without it all until `heal`.
        #[arg(long, value_name = "NUMBER")]
        at: Option<u32>,
        /// The error.
        #[arg(long, default_value = "io")]
        error: Cause,
    },
    /// Hold the next request back until `release`.
    Hold {
        /// Which.
        operation: Kind,
    },
    /// Let the held request go.
    Release,
    /// Limit the requests a second.
    Slow {
        /// Requests a second.
        operations: u64,
    },
    /// Make commands of a kind hang, but for the first, until `heal`: neither an abort nor a reset helps.
    Hang {
        /// Which; a flush can't.
        operation: Kind,
    },
    /// Take memory from the controller, so that it finds its queues no more: it reports a fatal error.
    DenyMemory,
    /// Raise SMART's critical warnings; without any, take them back.
    Warn {
        /// Which.
        warnings: Vec<Warning>,
    },
    /// Pull the controller out of its slot.
    Pull,
    /// Make the disk well again.
    Heal,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    Read,
    Write,
    Flush,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Cause {
    /// EIO
    Io,
    /// ENOSPC
    NoSpace,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Warning {
    Spare,
    Temperature,
    Reliability,
}

impl From<Kind> for Operation {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Read => Self::Read,
            Kind::Write => Self::Write,
            Kind::Flush => Self::Flush,
        }
    }
}

pub fn run(root: &Path, name: &str, command: &DiskCommand) -> Result<()> {
    let mut disk = DiskControl::open(&Lab::open(root, name)?)?;
    match command {
        DiskCommand::Fail { operation, at, error } => {
            let error = match error {
                Cause::Io => DiskError::Input,
                Cause::NoSpace => DiskError::NoSpace,
            };
            match at {
                Some(number) => disk.fail_once((*operation).into(), *number, error),
                None => disk.fail_all((*operation).into(), error),
            }
        }
        DiskCommand::Hold { operation } => disk.hold_next((*operation).into()),
        DiskCommand::Release => disk.release(),
        DiskCommand::Slow { operations } => disk.slow(*operations),
        DiskCommand::Hang { operation } => disk.hang((*operation).into()),
        DiskCommand::DenyMemory => disk.deny_memory(),
        DiskCommand::Warn { warnings } => {
            let warnings: Vec<CriticalWarning> = warnings
                .iter()
                .map(|warning| match warning {
                    Warning::Spare => CriticalWarning::Spare,
                    Warning::Temperature => CriticalWarning::Temperature,
                    Warning::Reliability => CriticalWarning::Reliability,
                })
                .collect();
            disk.warn(&warnings)
        }
        DiskCommand::Pull => disk.pull(),
        DiskCommand::Heal => disk.heal(),
    }
}
