//! Programs that come from Debian packages.

use std::process::Command;

use progress::Step;

use crate::command::{find_program, run};
use crate::error::Error;

/// A program that is needed, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name it is called by.
    pub name: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
}

impl Program {
    /// The program `name` of the Debian package `package`.
    pub const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// `ip`: makes the lab's network.
    pub const IP: Self = Self::new("ip", "iproute2");
    /// `curl`: the lab's client for a person.
    pub const CURL: Self = Self::new("curl", "curl");
    /// `wrk`: the HTTP load generator of the benchmarks.
    pub const WRK: Self = Self::new("wrk", "wrk");
    /// `ping`: reachability in the lab.
    pub const PING: Self = Self::new("ping", "iputils-ping");
    /// `redis-cli`: a person's client of the key-value store.
    pub const REDIS_CLI: Self = Self::new("redis-cli", "redis-tools");
    /// `redis-benchmark`: its load generator.
    pub const REDIS_BENCHMARK: Self = Self::new("redis-benchmark", "redis-tools");
    /// `tclsh`: runs Redis' own tests.
    pub const TCL: Self = Self::new("tclsh", "tcl");
    /// `mkfs.ext4`: file systems for guests.
    pub const MKFS_EXT4: Self = Self::new("mkfs.ext4", "e2fsprogs");
    /// `cc`: compiles the C peers of the benchmarks.
    pub const CC: Self = Self::new("cc", "gcc");
}

/// Makes sure that each program is there, installing packages through apt when this is root.
///
/// # Errors
/// Without root, the list of what is missing with the command that installs it; as root, what apt said.
pub fn ensure_programs(programs: &[Program]) -> Result<(), Error> {
    let missing: Vec<&Program> = programs
        .iter()
        .filter(|program| find_program(program.name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    if !nix::unistd::geteuid().is_root() || find_program("apt-get").is_none() {
        let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
        return Err(Error::MissingPrograms {
            programs: names.join(", "),
            packages: packages.join(" "),
        });
    }

    let step = Step::start(format!("Installing {}", packages.join(", ")));
    if install(&packages).is_err() {
        // The package lists may be stale or absent, as in a fresh container.
        step.note("updating the package lists");
        run(apt_get().arg("update"))?;
        step.note("");
        install(&packages)?;
    }
    step.done("");
    match missing
        .iter()
        .find(|program| find_program(program.name).is_none())
    {
        Some(program) => Err(Error::NoProgram {
            program: program.name.to_owned(),
            package: program.package,
        }),
        None => Ok(()),
    }
}

fn install(packages: &[&str]) -> Result<(), Error> {
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages))
    .map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt may be at work (unattended upgrades): wait for it rather than fail.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing_is_success() {
        assert!(ensure_programs(&[Program::new("sh", "dash")]).is_ok());
    }
}
