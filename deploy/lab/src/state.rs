//! What is up, kept in `state.json`, so that later commands find it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::process::Process;

/// Longest path of a Unix socket (unix(7): 108 bytes with the terminating zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// The sockets of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// The appliance's serial console; one client at a time.
    pub serial: PathBuf,
    /// QEMU's monitor.
    pub qmp: PathBuf,
    /// The NIC model's control socket.
    pub nic: PathBuf,
    /// The NIC model's device, for QEMU.
    pub device: PathBuf,
    /// The instruction counter, when there is one.
    pub instructions: Option<PathBuf>,
}

/// A running (or half-started) lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The lab's name.
    pub name: String,
    /// What the names of its namespaces begin with.
    pub prefix: String,
    /// The way into them.
    pub access: Access,
    /// Nodes with their addresses.
    pub nodes: BTreeMap<String, NodeState>,
    /// The appliance's addresses.
    pub appliance: ApplianceState,
    /// The VIP, as address and port.
    pub vip: Option<(String, u16)>,
    /// Address and port of the key-value store, when the configuration has one.
    #[serde(default)]
    pub kv: Option<String>,
    /// The file behind the disk, when there is one.
    #[serde(default)]
    pub disk: Option<PathBuf>,
    /// Sockets.
    pub sockets: Sockets,
    /// What the serial port has written.
    pub serial_log: PathBuf,
    /// All processes, in the order of their start.
    pub processes: Vec<Process>,
}

/// A node of a running lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its network namespace.
    pub namespace: String,
    /// Its IPv4 address.
    pub ipv4: String,
    /// Its IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// The appliance's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplianceState {
    /// IPv4 address.
    pub ipv4: String,
    /// IPv6 address.
    pub ipv6: Option<String>,
    /// Port of the web server.
    pub http_port: u16,
}

/// Directories of a lab.
pub struct Places {
    /// State and logs.
    pub directory: PathBuf,
    /// Sockets: the same directory, unless its path is too long for them.
    pub sockets: PathBuf,
    /// What namespaces' names begin with: different for each clone and name.
    pub prefix: String,
}

impl Places {
    /// The places of the lab `name` of the project at `root`.
    pub fn of(root: &Path, name: &str) -> Result<Self> {
        let valid = (1..=24).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        ensure!(
            valid,
            "`{name}` can't be a lab's name: lower-case letters, digits and hyphens, at most 24"
        );
        let directory = root.join("target/lab").join(name);
        let mut hasher = DefaultHasher::new();
        directory.hash(&mut hasher);
        let clone = hasher.finish() & 0xffff;
        let longest = directory.join("instructions.sock");
        let sockets = if longest.as_os_str().len() <= SOCKET_PATH_LIMIT {
            directory.clone()
        } else {
            std::env::temp_dir().join(format!(
                "redleaf-lab-{}-{clone:04x}-{name}",
                nix::unistd::getuid()
            ))
        };
        Ok(Self {
            directory,
            sockets,
            prefix: format!("rl-{name}-{clone:04x}"),
        })
    }

    /// The file that says what is up.
    pub fn state_file(&self) -> PathBuf {
        self.directory.join("state.json")
    }
}

impl State {
    /// Reads the state of a lab, if there is one.
    pub fn read(places: &Places) -> Result<Option<Self>> {
        let path = places.state_file();
        match fs::read(&path) {
            Ok(bytes) => {
                let state = serde_json::from_slice(&bytes).with_context(|| {
                    format!(
                        "{} can't be understood; remove it when nothing of that lab runs",
                        path.display()
                    )
                })?;
                Ok(Some(state))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// Writes it in one step, so that a reader never sees half.
    pub fn write(&self, places: &Places) -> Result<()> {
        let path = places.state_file();
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("{} can't be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_names_do_not_share_namespaces() {
        let prefix = |root: &str, name| Places::of(Path::new(root), name).unwrap().prefix;
        assert_ne!(prefix("/a", "lab"), prefix("/b", "lab"));
        assert_ne!(prefix("/a", "lab"), prefix("/a", "other"));
        assert_eq!(prefix("/a", "lab"), prefix("/a", "lab"));
    }

    #[test]
    fn a_deep_clone_keeps_its_sockets_elsewhere() {
        let deep = format!("/{}", "directory/".repeat(12));
        let places = Places::of(Path::new(&deep), "lab").unwrap();
        assert!(places.sockets.join("instructions.sock").as_os_str().len() <= SOCKET_PATH_LIMIT);
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "../x", "a b", "Lab", "x".repeat(25).as_str()] {
            assert!(Places::of(Path::new("/a"), name).is_err(), "{name}");
        }
    }
}
