//! `cargo xtask run`: the appliance with its serial console on this terminal.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use lab::{Lab, Programs};

use crate::build::ImageArguments;
use crate::lab_command::{MachineArguments, Name, up};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    image: ImageArguments,
    #[command(flatten)]
    machine: MachineArguments,
    /// Local port that leads to the appliance's web server; the one after it leads to the VIP.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    end_on_signals(root, &arguments.name.name)?;
    let mut lab = up(root, &arguments.name, &arguments.image, &arguments.machine)?;
    let outcome = forward_ports(root, &mut lab, arguments.port).and_then(|()| {
        eprintln!("serial console; Ctrl-A X ends the appliance");
        lab::attach(&lab.report().serial)
    });
    // The console also ends when a part fails; then that part's words are what the person needs.
    let parts = lab.check_parts();
    eprintln!("\nending the lab");
    lab.down();
    outcome?;
    match parts {
        // The machine's own end (poweroff) is no failure.
        Err(error) if !error.to_string().contains("`appliance`") => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A Ctrl-C before the console has the terminal, or a kill, must not leave the lab behind.
fn end_on_signals(root: &Path, name: &str) -> Result<()> {
    let (root, name) = (root.to_owned(), name.to_owned());
    ctrlc::set_handler(move || {
        eprintln!("\nending the lab");
        if let Ok(lab) = Lab::open(&root, &name) {
            lab.down();
        }
        std::process::exit(130);
    })
    .context("signals can't be handled")
}

fn forward_ports(root: &Path, lab: &mut Lab, first: u16) -> Result<()> {
    let node = Programs::built(root).node;
    let report = lab.report();
    let mut targets = vec![("web server", address_of(&report.appliance.http))];
    targets.extend(report.vip.as_ref().map(|vip| ("VIP", address_of(&vip.http))));
    for (index, (what, to)) in targets.into_iter().enumerate() {
        let to = to.with_context(|| format!("the address of the {what} can't be understood"))?;
        let port = first.saturating_add(u16::try_from(index).unwrap_or_default());
        let forwarded = lab.forward(&node, port, to)?;
        eprintln!("{what:<12} http://{}/", forwarded.local);
    }
    if let Some(to) = report.kv.as_deref().and_then(|address| address.parse().ok()) {
        let forwarded = lab.forward(&node, 6379, to)?;
        eprintln!("{:<12} {}", "KV store", forwarded.local);
    }
    Ok(())
}

/// Address and port in `http://10.82.99.10/` or `http://10.82.99.10:8080/`.
fn address_of(url: &str) -> Option<SocketAddr> {
    let host = url.strip_prefix("http://")?.trim_end_matches('/');
    host.parse().ok().or_else(|| format!("{host}:80").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_out_of_urls() {
        assert_eq!(
            address_of("http://10.82.99.10/").unwrap().to_string(),
            "10.82.99.10:80"
        );
        assert_eq!(address_of("http://10.82.99.10:8080/").unwrap().port(), 8080);
        assert_eq!(address_of("ftp://x"), None);
    }
}
