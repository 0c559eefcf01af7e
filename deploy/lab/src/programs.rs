//! Builds and finds the programs that the lab is made of.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use progress::Step;
use provision::{Program, QemuPaths};

/// The program with the end-to-end tests, and those that they use.
pub const TEST_PROGRAMS: [&str; 7] = [
    "tests",
    "lab-node",
    "nic-model",
    "linux-guest",
    "kv-load",
    "power-cut",
    "redis-suite",
];

/// Programs that the lab is made of.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `lab-node`.
    pub node: PathBuf,
    /// `nic-model`; needed when there is a guest.
    pub nic_model: PathBuf,
    /// QEMU; needed when there is a guest.
    pub qemu: Option<QemuPaths>,
}

impl Programs {
    /// Installs what is missing and builds the project's own: what a lab with an appliance needs.
    ///
    /// # Errors
    /// When something can't be installed, fetched or built; the message says what to do.
    pub fn prepare(root: &Path) -> Result<Self> {
        build(root, &["lab-node", "nic-model"])?;
        Self::prepare_built(&release_directory(root))
    }

    /// The same for a lab without an appliance.
    ///
    /// # Errors
    /// As [`Programs::prepare`].
    pub fn prepare_network(root: &Path) -> Result<Self> {
        provision::ensure_programs(&[Program::IP, Program::CURL, Program::PING])?;
        build(root, &["lab-node"])?;
        Ok(Self::built(root))
    }

    /// The same where the project's own were built before, and are in `directory`.
    ///
    /// # Errors
    /// As [`Programs::prepare`].
    pub fn prepare_built(directory: &Path) -> Result<Self> {
        let qemu = provision::qemu()?;
        provision::ensure_programs(&[Program::IP, Program::CURL, Program::PING])?;
        Ok(Self {
            qemu: Some(qemu),
            ..Self::in_directory(directory)
        })
    }

    /// Where the project's programs are when they were built before; nothing is built or checked.
    pub fn built(root: &Path) -> Self {
        Self::in_directory(&release_directory(root))
    }

    fn in_directory(directory: &Path) -> Self {
        Self {
            node: directory.join("lab-node"),
            nic_model: directory.join("nic-model"),
            qemu: None,
        }
    }
}

/// Builds all of [`TEST_PROGRAMS`], and returns the directory that they are in.
///
/// With the profile of the host tests, which optimises what carries traffic, and with the features that crates have when the whole workspace is
/// built: nearly all that they are made of is there already when the host tests were run.
///
/// # Errors
/// When one can't be built.
pub fn build_test_programs(root: &Path) -> Result<PathBuf> {
    let step = Step::start(format!("Building {}", TEST_PROGRAMS.join(", ")));
    let mut command = cargo_build(root);
    command.arg("--workspace");
    for program in TEST_PROGRAMS {
        command.args(["--bin", program]);
    }
    run(command)?;
    step.done("");
    Ok(root.join("target/debug"))
}

/// Builds the TCG plugin that counts guest instructions, and returns its path.
///
/// # Errors
/// When it can't be built.
pub fn instruction_counter(root: &Path) -> Result<PathBuf> {
    build(root, &["instruction-counter"])?;
    Ok(release_directory(root).join("libinstruction_counter.so"))
}

/// Builds another of the project's host programs, and returns its path.
///
/// # Errors
/// When it can't be built.
pub fn build_program(root: &Path, package: &str) -> Result<PathBuf> {
    build(root, &[package])?;
    Ok(release_directory(root).join(package))
}

/// Builds host programs for speed: they carry the traffic that is measured.
fn build(root: &Path, packages: &[&str]) -> Result<()> {
    let step = Step::start(format!("Building {}", packages.join(", ")));
    let mut command = cargo_build(root);
    command.arg("--release");
    for package in packages {
        command.args(["--package", package]);
    }
    run(command)?;
    step.done("");
    Ok(())
}

fn release_directory(root: &Path) -> PathBuf {
    root.join("target/release")
}

fn cargo_build(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root).args(["build", "--quiet"]);
    command
}

fn run(mut command: Command) -> Result<()> {
    if !command.status().context("cargo can't be run")?.success() {
        bail!("the build failed; what the compiler said is above");
    }
    Ok(())
}
