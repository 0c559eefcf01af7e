//! The peer: Debian's redis-server on Linux, with its append-only file on ext4 on the lab's disk.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Disk;
use linux_guest::peer;
use measure::Machine;

use crate::Durability;

const LIMIT: Duration = Duration::from_secs(60);

/// Puts a file system on the disk.
pub fn disk(disk: Disk) -> Result<Disk> {
    disk.prepare()?;
    let program = provision::find_program("mkfs.ext4").context("mkfs.ext4 is missing")?;
    let output = Command::new(program)
        .args(["-q", "-F"])
        .arg(&disk.file)
        .output()
        .context("mkfs.ext4 can't be run")?;
    ensure!(
        output.status.success(),
        "mkfs.ext4 failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Disk { blank: false, ..disk })
}

/// Starts the server, and returns when it answers.
pub fn start(machine: &Machine, durability: Durability) -> Result<()> {
    let serial = machine.lab().report().serial;
    peer::run(&serial, "mount -t ext4 /dev/nvme0n1 /data", LIMIT)?;
    let command = format!(
        "redis-server --bind 0.0.0.0 --protected-mode no --dir /data --save '' --appendonly yes --appendfsync {} \
         --daemonize yes --logfile /tmp/redis.log",
        durability.name()
    );
    peer::run(&serial, &command, LIMIT)?;
    // It answers when it has read what is there.
    let lab = machine.lab();
    let host = lab.report().appliance.ipv4;
    let until = Instant::now() + LIMIT;
    loop {
        let output = lab
            .command_in("client", "redis-cli")?
            .args(["-h", &host, "ping"])
            .output()?;
        if output.stdout.starts_with(b"PONG") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "redis-server doesn't answer on Linux");
        sleep(Duration::from_millis(100));
    }
}
