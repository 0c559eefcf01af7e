//! The lab that is measured: the shipped configuration, with a file of 612 bytes in its site.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use configuration::appliance::Appliance;
use image_builder::Built;
use lab::{Guest, Lab, Options, Plan, Programs};
use provision::Program;

/// The lab's name; another one than a person's own.
const NAME: &str = "bench-path";
/// Size of the file that is fetched: that of a web server's default page, as the peer was measured with.
pub const FILE_BYTES: usize = 612;
/// Its name.
pub const FILE: &str = "612.html";
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// A lab to measure in.
pub struct Bench {
    /// The lab.
    pub lab: Lab,
    /// The lab's node program.
    pub node: PathBuf,
    /// The instruction counter's socket.
    pub counter: PathBuf,
    /// What was booted.
    pub built: Built,
}

/// Builds the image and boots it.
pub fn start(root: &Path, cpus: u32, profile: bool) -> Result<Bench> {
    provision::ensure_programs(&[Program::WRK])?;
    let programs = Programs::prepare(root)?;
    let plugin = lab::instruction_counter(root)?;
    let site = tempfile::tempdir().context("a temporary directory can't be made")?;
    fs::write(site.path().join(FILE), "x".repeat(FILE_BYTES)).context("the site can't be written")?;
    fs::write(
        site.path().join("index.html"),
        "<!doctype html><title>bench</title>\n",
    )?;
    let built = image_builder::build(&image_builder::Options {
        site: Some(site.path().to_path_buf()),
        archive: Some(root.join("target/lab").join(NAME).join("boot.tar")),
        ..image_builder::Options::new(root)
    })?;
    let plan = Plan::new(&Appliance::read(&root.join("config/appliance.toml"))?)?;
    end_on_signals(root)?;
    let node = programs.node.clone();
    let lab = Lab::up(&Options {
        root: root.to_path_buf(),
        name: NAME.to_owned(),
        plan,
        programs,
        guest: Some(Guest {
            cpus,
            instruction_counter: Some(plugin),
            profile,
            ..Guest::new(built.kernel.clone(), built.archive.clone())
        }),
        boot_limit: BOOT_LIMIT,
        quiet: false,
    })?;
    let Some(counter) = lab.report().instructions else {
        lab.down();
        anyhow::bail!("the lab has no instruction counter");
    };
    Ok(Bench {
        lab,
        node,
        counter,
        built,
    })
}

/// An interrupted measurement must not leave its lab behind.
fn end_on_signals(root: &Path) -> Result<()> {
    let root = root.to_path_buf();
    ctrlc::set_handler(move || {
        if let Ok(lab) = Lab::open(&root, NAME) {
            lab.down();
        }
        std::process::exit(130);
    })
    .context("signals can't be handled")
}
