//! Linux in the appliance's place: the same machine in the same lab, with the same addresses, card and disk.
//!
//! It configures the card, answers HTTP on port 80, by which a lab knows that its appliance is up, and takes commands on the serial port ([`run`]).
//! The programs come from Debian packages that are unpacked into the cache.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Guest, Plan};
use progress::Step;
use provision::PackageFiles;

use crate::{assets, initramfs};

/// The release that the programs are from.
const SUITE: &str = "bookworm";
/// The packages, for all peers, so that they are fetched once.
const PACKAGES: [&str; 2] = ["fio", "redis-server"];
const CACHE_NAME: &str = "linux-programs";

/// The card, the disk, and a file system. The checksum is one that the file system asks for by name when it is mounted.
const MODULES: [&str; 4] = ["ixgbe", "nvme", "crc32c_generic", "ext4"];

/// What the peer writes behind a command's output, before and behind its exit status.
const STATUS: &str = "<<status ";
const STATUS_END: &str = ">>";

/// A program of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The storage benchmark.
    Fio,
    /// The key-value server.
    RedisServer,
}

impl Program {
    /// Its file in the packages, and its name on the peer.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Fio => ("usr/bin/fio", "fio"),
            Self::RedisServer => ("usr/bin/redis-check-rdb", "redis-server"),
        }
    }
}

/// A machine that runs Linux with these programs in its `PATH`; kernel and file system are put into `directory`.
///
/// CPUs, memory, disk and the rest are for the caller to change before it is started.
///
/// # Errors
/// When something can't be fetched or written.
pub fn guest(directory: &Path, plan: &Plan, programs: &[Program]) -> Result<Guest> {
    let step = Step::start("Preparing the Linux peer");
    let parts = assets::provide(&assets::default_cache()?, &|text| step.note(text))?;
    let packages = provision::debian_packages(CACHE_NAME, SUITE, &PACKAGES)?;
    let mut files = vec![("www/index.html".to_owned(), 0o100_644, b"Linux\n".to_vec())];
    for program in programs {
        add(&packages, *program, &mut files)?;
    }
    let script = |order: &[(String, Vec<String>)]| init(plan, order);
    let archive = initramfs::build_with(&parts, &MODULES, script, &files)?.archive;
    fs::create_dir_all(directory)?;
    let path = directory.join("linux.cpio");
    fs::write(&path, &archive).with_context(|| format!("{} can't be written", path.display()))?;
    step.done(format!("Linux {}", parts.kernel_version));
    Ok(Guest {
        arguments: "console=ttyS0 quiet panic=-1 mitigations=off".to_owned(),
        ..Guest::new(parts.kernel(), path)
    })
}

/// Runs a command on the peer, whose serial port is at `socket`, and gives its output.
///
/// # Errors
/// When it fails or doesn't end within `limit`.
pub fn run(socket: &Path, command: &str, limit: Duration) -> Result<String> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("the serial port {} can't be reached", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let until = Instant::now() + limit;
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some((output, status)) = ended(&String::from_utf8_lossy(&seen)) {
            ensure!(
                status == "0",
                "`{command}` failed on Linux ({status}): {}",
                output.trim()
            );
            return Ok(output);
        }
        ensure!(
            Instant::now() < until,
            "`{command}` didn't end within {} s on Linux: {}",
            limit.as_secs(),
            String::from_utf8_lossy(&seen)
        );
        match stream.read(&mut chunk) {
            Ok(0) => bail!("the serial port was closed"),
            Ok(length) => seen.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Output and exit status, when the command has ended.
fn ended(text: &str) -> Option<(String, &str)> {
    let (output, rest) = text.split_once(STATUS)?;
    let (status, _) = rest.split_once(STATUS_END)?;
    Some((output.replace('\r', ""), status))
}

/// A program and the libraries that it needs.
fn add(packages: &PackageFiles, program: Program, files: &mut Vec<(String, u32, Vec<u8>)>) -> Result<()> {
    let (file, name) = program.names();
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("{} can't be read", path.display()));
    files.push((format!("bin/{name}"), 0o100_755, read(&packages.root.join(file))?));
    for library in packages.libraries(file)? {
        let base = library.file_name().unwrap_or_default().to_string_lossy();
        let folder = if base.starts_with("ld-linux") {
            "lib64"
        } else {
            "lib"
        };
        let place = format!("{folder}/{base}");
        if files.iter().all(|(name, ..)| *name != place) {
            files.push((place, 0o100_755, read(&library)?));
        }
    }
    Ok(())
}

/// What runs first.
fn init(plan: &Plan, order: &[(String, Vec<String>)]) -> String {
    let modules: String = order
        .iter()
        .flat_map(|(_, files)| files)
        .map(|file| format!("insmod /modules/{file} 2>/dev/null\n"))
        .collect();
    let address = plan.appliance;
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mkdir -p /proc /sys /dev /tmp /data\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox mount -t sysfs sysfs /sys\n\
         /bin/busybox mount -t devtmpfs devtmpfs /dev\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin LD_LIBRARY_PATH=/lib\n\
         mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm\n\
         dmesg -n 1\n\
         {modules}\
         ip link set lo up\n\
         ip link set eth0 up\n\
         ip addr add {address} dev eth0\n\
         httpd -p 80 -h /www\n\
         exec </dev/ttyS0 >/dev/ttyS0 2>&1\n\
         stty raw -echo\n\
         while read -r line; do eval \"$line\"; echo \"{STATUS}$?{STATUS_END}\"; done\n\
         poweroff -f\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_with_its_status() {
        assert_eq!(
            ended("a\r\nb\r\n<<status 0>>\r\n"),
            Some(("a\nb\n".to_owned(), "0"))
        );
        assert_eq!(ended("a<<status 1"), None);
        assert_eq!(ended("<<status 127>>"), Some((String::new(), "127")));
    }
}
