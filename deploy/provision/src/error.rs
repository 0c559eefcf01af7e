//! What can go wrong when provisioning, worded for the person who has to do something about it.

use std::path::PathBuf;

/// Why something that is needed can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs are missing and this user can't install packages.
    #[error(
        "these programs are missing: {programs}\ninstall them with:\n    sudo apt-get install {packages}"
    )]
    MissingPrograms {
        /// The programs, with commas.
        programs: String,
        /// The Debian packages that hold them, with spaces.
        packages: String,
    },
    /// A program that this tool runs itself is not on the machine.
    #[error("`{program}` was not found; it is part of the Debian package `{package}`")]
    NoProgram {
        /// Its name.
        program: String,
        /// The package that has it.
        package: &'static str,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        output: String,
    },
    /// The machine's package sources name no Debian mirror.
    #[error(
        "no Debian mirror is configured in /etc/apt, so a private QEMU can't be fetched; install QEMU 10.1 or newer \
         (Debian 13 with backports has it) or set APPLIANCE_QEMU to its qemu-system-x86_64"
    )]
    NoMirror,
    /// The QEMU that was asked for lacks what the appliance needs.
    #[error("{} can't be used: {reason}", path.display())]
    UnusableQemu {
        /// The program.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Neither XDG_CACHE_HOME nor HOME is set.
    #[error("neither XDG_CACHE_HOME nor HOME is set, so there is no place for a cache")]
    NoCacheDirectory,
}

impl Error {
    /// For `map_err`: names the file that an operating-system error is about.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
