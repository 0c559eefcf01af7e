//! Proves the 82599 model with a driver that isn't ours: Linux's own ixgbe, in a Debian kernel under QEMU, must probe it,
//! bring its link up, pass pings and transfers without loss, and unload cleanly.
//!
//! Everything runs in a network namespace that ends with the process.
#![forbid(unsafe_code)]

mod checks;
mod guest;
mod network;
mod vlan;

use anyhow::{Context, Result};
use checks::{Amounts, Report};
use clap::Parser;
use guest::{Guest, GuestConfig, Model};
use linux_guest::{assets, initramfs};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Checks the 82599 model against Linux's ixgbe driver.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// QEMU 10.1 or newer, with vfio-user-pci.
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// The model's program; by default the one beside this program.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Folder for downloads; by default in the user's cache folder.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Folder for logs and sockets; by default one in the system's temporary folder, which is removed on success.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Number of small pings.
    #[arg(long, default_value_t = 10_000)]
    pings: u32,
    /// Megabytes of each transfer.
    #[arg(long, default_value_t = 50)]
    megabytes: usize,
    /// Virtual CPUs, which is also how many queues the driver uses.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let work = cli
        .work
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("linux-guest-{}", std::process::id())));
    let outcome = run(&cli, &work);
    let good = matches!(&outcome, Ok(report) if report.problems().is_empty());
    match &outcome {
        Ok(report) if cli.json => match serde_json::to_string(report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("linux-guest: {error}"),
        },
        Ok(report) => print(report),
        Err(error) => eprintln!("linux-guest: {error:#}"),
    }
    if good && cli.work.is_none() {
        // A folder that stays does no harm.
        let _ = fs::remove_dir_all(&work);
    } else {
        eprintln!("linux-guest: logs are in {}", work.display());
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(cli: &Cli, work: &std::path::Path) -> Result<Report> {
    let start = Instant::now();
    let say = move |text: &str| eprintln!("linux-guest: {:>5.1} s  {text}", start.elapsed().as_secs_f64());
    let model_program = match &cli.model {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("nic-model"),
    };
    fs::create_dir_all(work).with_context(|| format!("can't make {}", work.display()))?;
    let cache = cli.cache.clone().map_or_else(assets::default_cache, Ok)?;
    let parts = assets::provide(&cache, &say)?;
    let initramfs = initramfs::build(&parts)?;
    let initramfs_file = work.join("initramfs.cpio");
    fs::write(&initramfs_file, &initramfs.archive)?;

    network::enter_namespace()?;
    let model = Model::start(
        &model_program,
        work,
        network::TAP,
        File::create(work.join("model.log"))?,
    )?;
    network::configure(&parts.busybox())?;
    say(&format!("booting Linux {}", parts.kernel_version));
    let boot = Instant::now();
    let config = GuestConfig {
        qemu: &cli.qemu,
        kernel: &parts.kernel(),
        initramfs: &initramfs_file,
        nic_socket: &model.socket,
        cpus: cli.cpus,
    };
    let console = File::create(work.join("console.log"))?;
    let mut guest = Guest::boot(&config, console, File::create(work.join("qemu.log"))?)?;
    let boot_seconds = boot.elapsed().as_secs_f64();
    let amounts = Amounts {
        pings: cli.pings,
        transfer: cli.megabytes * 1_000_000,
    };
    let outcome = checks::run(&mut guest, &model, &initramfs.load_order, amounts, work, &say);
    checks::leave_evidence(&mut guest, &model, work);
    let mut report = outcome?;
    report.boot_seconds = boot_seconds;
    Ok(report)
}

fn print(report: &Report) {
    println!(
        "device       {} ({}), link {} Mb/s, {} queue pairs",
        report.device, report.mac, report.speed, report.queues
    );
    println!(
        "times        boot {:.1} s, driver's probe {:.1} s",
        report.boot_seconds, report.probe_seconds
    );
    for (name, ping) in [
        ("ping", &report.ping),
        ("ping jumbo", &report.ping_jumbo),
        ("ping VLAN", &report.ping_vlan),
    ] {
        if let Some(ping) = ping {
            println!(
                "{name:<12} {} of {} answered, median {} us",
                ping.received, ping.sent, ping.median_us
            );
        }
    }
    for (name, transfer) in [("to guest", &report.to_guest), ("from guest", &report.from_guest)] {
        if let Some(transfer) = transfer {
            let verdict = if transfer.intact {
                "SHA-256 equal"
            } else {
                "SHA-256 DIFFERS"
            };
            println!(
                "{name:<12} {} bytes, {verdict}, {:.1} MB/s",
                transfer.bytes, transfer.megabytes_per_second
            );
        }
    }
    for transfer in &report.with_faults {
        let verdict = if transfer.intact {
            "SHA-256 equal"
        } else {
            "SHA-256 DIFFERS"
        };
        println!(
            "with faults  {} bytes, {verdict}, {:.1} MB/s",
            transfer.bytes, transfer.megabytes_per_second
        );
    }
    for fault in report.faults.as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |key: &str| fault[key].as_str().unwrap_or("?").to_owned();
        println!(
            "             {} {} x {}",
            text("direction"),
            fault["count"],
            text("kind")
        );
    }
    println!(
        "link event   down and up noticed in {:.1} s",
        report.link_event_seconds
    );
    let violations = report
        .violations
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    println!(
        "violations   {}",
        if violations.is_empty() {
            "none".to_owned()
        } else {
            String::new()
        }
    );
    for violation in violations {
        println!("             {violation}");
    }
    let problems = report.problems();
    println!(
        "result       {}",
        if problems.is_empty() { "good" } else { "BAD" }
    );
    for problem in problems {
        println!("             {problem}");
    }
}
