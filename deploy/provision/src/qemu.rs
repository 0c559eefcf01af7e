//! Which QEMU to run: one that has `vfio-user-pci`, which came with 10.1.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{find_program, run};
use crate::error::Error;
use crate::private_qemu;

/// A QEMU's version, as `--version` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The first version with `vfio-user-pci`.
const OLDEST: QemuVersion = QemuVersion { major: 10, minor: 1 };

/// A QEMU that can run the appliance.
#[derive(Clone, Debug)]
pub struct QemuPaths {
    /// `qemu-system-x86_64`, or a script that runs a private one. End it by its process id or over QMP: a private one's
    /// process is named after its loader.
    pub system: PathBuf,
    /// `qemu-img`, where there is one.
    pub image_tool: Option<PathBuf>,
    /// OVMF's code and variables, to boot through UEFI, where they exist.
    pub uefi: Option<(PathBuf, PathBuf)>,
    /// Its version.
    pub version: QemuVersion,
}

/// Finds a QEMU: the one `APPLIANCE_QEMU` names, else the system's if it is new enough, else the private copy in the
/// cache, which is fetched from the machine's Debian mirror the first time (some 45 MB).
///
/// # Errors
/// When the named one is unusable, or none is there and none can be fetched.
pub fn qemu() -> Result<QemuPaths, Error> {
    if let Some(path) = env::var_os("APPLIANCE_QEMU").map(PathBuf::from) {
        let version = check(&path)?;
        return Ok(beside(path, version));
    }
    if let Some(path) = find_program("qemu-system-x86_64")
        && let Ok(version) = check(&path)
    {
        return Ok(beside(path, version));
    }
    private_qemu::get()
}

fn beside(system: PathBuf, version: QemuVersion) -> QemuPaths {
    let image_tool = system
        .parent()
        .map(|bin| bin.join("qemu-img"))
        .filter(|path| path.exists());
    let uefi = (
        PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        PathBuf::from("/usr/share/OVMF/OVMF_VARS_4M.fd"),
    );
    let uefi = (uefi.0.exists() && uefi.1.exists()).then_some(uefi);
    QemuPaths {
        system,
        image_tool,
        uefi,
        version,
    }
}

/// Asks a QEMU for its version and whether it has the device, rather than trusting the version alone: a build may leave
/// the device out.
pub(crate) fn check(path: &Path) -> Result<QemuVersion, Error> {
    let unusable = |reason: String| Error::UnusableQemu {
        path: path.to_owned(),
        reason,
    };
    let text = run(Command::new(path).arg("--version"))?;
    let version = parse_version(&text).ok_or_else(|| unusable("its version can't be read".to_owned()))?;
    if version < OLDEST {
        return Err(unusable(format!(
            "it is version {version}; {OLDEST} or newer is needed"
        )));
    }
    let devices = run(Command::new(path).args(["-device", "help"]))?;
    if !devices.contains("\"vfio-user-pci\"") {
        return Err(unusable(
            "it was built without the device vfio-user-pci".to_owned(),
        ));
    }
    Ok(version)
}

/// The version in a line like `QEMU emulator version 10.1.2 (Debian 1:10.1.2+ds-1)`.
fn parse_version(text: &str) -> Option<QemuVersion> {
    let (_, rest) = text.split_once("version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some(QemuVersion {
        major: numbers.next()?.ok()?,
        minor: numbers.next()?.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let old = parse_version("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)\n").unwrap();
        let new = parse_version("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)").unwrap();
        assert_eq!(old, QemuVersion { major: 7, minor: 2 });
        assert!(old < OLDEST && OLDEST < new);
        assert!(QemuVersion { major: 10, minor: 0 } < OLDEST);
        assert_eq!(parse_version("something else"), None);
    }
}
