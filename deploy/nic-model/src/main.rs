//! The model as a program: serves one 82599 to QEMU, or talks to one that is running.
#![forbid(unsafe_code)]

mod ctl;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use nic_model::server::{Server, ServerConfig};
use nic_model::{Capture, Device, DeviceConfig, TapWire, Wire};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A software model of the Intel 82599 for QEMU's vfio-user-pci device.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    #[command(flatten)]
    serve: Option<Serve>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Talks to a running model over its control socket.
    Ctl(ctl::Ctl),
}

/// Serves a model until it is ended.
#[derive(Args)]
struct Serve {
    /// Socket for QEMU's vfio-user-pci; must exist before QEMU starts.
    #[arg(long)]
    socket: PathBuf,
    /// Socket for `nic-model ctl`.
    #[arg(long)]
    control: Option<PathBuf>,
    /// Tap interface of this network namespace to plug the port into.
    #[arg(long, conflicts_with = "tap_fd")]
    tap: Option<String>,
    /// Number of an inherited file descriptor that is attached to a tap interface.
    #[arg(long)]
    tap_fd: Option<i32>,
    /// MAC address in the EEPROM.
    #[arg(long, default_value = "02:82:99:00:00:01", value_parser = parse_mac)]
    mac: [u8; 6],
    /// Captures what passes on the wire into this file.
    #[arg(long)]
    pcap: Option<PathBuf>,
    /// Seed of faults that are asked for without one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Microseconds of polling after the last event before the process sleeps.
    #[arg(long, default_value_t = 100)]
    busy_poll_us: u64,
    /// Milliseconds the link takes to come up again after it was restarted.
    #[arg(long, default_value_t = 20)]
    link_training_ms: u64,
    /// Ends when the first client has disconnected.
    #[arg(long)]
    once: bool,
    /// What to log on standard error.
    #[arg(long, default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log: String,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nic-model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match (cli.command, cli.serve) {
        (Some(CliCommand::Ctl(ctl)), _) => ctl.run(),
        (None, Some(serve)) => serve.run(),
        (None, None) => bail!("say what to serve (--socket), or use `ctl`; --help explains"),
    }
}

impl Serve {
    fn run(self) -> Result<()> {
        start_log(&self.log)?;
        let tap = match (&self.tap, self.tap_fd) {
            (Some(name), _) => {
                TapWire::open(name).with_context(|| format!("can't attach to tap interface {name}"))?
            }
            (None, Some(number)) => TapWire::new(
                tap::adopt(number).with_context(|| format!("descriptor {number} is no open tap"))?,
            ),
            (None, None) => bail!("the port needs a wire: --tap NAME or --tap-fd NUMBER"),
        };
        let config = DeviceConfig {
            mac: self.mac,
            seed: self.seed,
            link_training: Duration::from_millis(self.link_training_ms),
        };
        let wire: Box<dyn Wire + Send> = Box::new(tap);
        let mut device = Device::new(config, wire);
        if let Some(path) = &self.pcap {
            let capture = Capture::create(path).with_context(|| format!("can't write {}", path.display()))?;
            device.set_capture(Some(capture));
        }
        let server = Server::new(
            device,
            ServerConfig {
                socket: self.socket.clone(),
                control: self.control,
                busy_poll: Duration::from_micros(self.busy_poll_us),
                once: self.once,
            },
        )?;
        log::info!(
            "82599 {} waits on {}",
            nic_model::control::mac_text(self.mac),
            self.socket.display()
        );
        let signalled = stop_on_signal()?;
        let mut device = server.run(signalled)?;
        device.captured();
        for violation in device.violations() {
            log::warn!("driver violation: {violation}");
        }
        Ok(())
    }
}

/// Something that says whether the process was asked to end.
fn stop_on_signal() -> Result<impl Fn() -> bool> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, flag.clone()).context("can't wait for signals")?;
    }
    Ok(move || flag.load(Ordering::Relaxed))
}

/// Lines on standard error: level, then text.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!(
            "nic-model {}: {}",
            record.level().as_str().to_lowercase(),
            record.args()
        );
    }

    fn flush(&self) {}
}

fn start_log(level: &str) -> Result<()> {
    log::set_logger(&StandardError).context("a logger is there already")?;
    log::set_max_level(level.parse().context("not a log level")?);
    Ok(())
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).map_err(|_| format!("{part:?} is no hexadecimal byte")))
        .collect::<Result<_, _>>()?;
    let mac: [u8; 6] = bytes
        .try_into()
        .map_err(|_| "a MAC address has six bytes".to_owned())?;
    if mac[0] & 1 != 0 {
        Err("a port's own address can't be a multicast one".to_owned())
    } else {
        Ok(mac)
    }
}
