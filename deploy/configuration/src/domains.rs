//! config/domains.toml: the manifest of domains, and the only place where they are named.
//!
//! ```toml
//! [[domain]]
//! name = "nic-shadow"
//! crate = "nic-shadow"                 # the package; the domain's name when left out
//! memory = "4 MiB"                     # image, heap and stacks
//! shared_memory = "8 MiB"              # shared-heap objects that it owns
//! exports = ["NetDevice"]
//! imports = [{ name = "driver", provider = "ixgbe", interface = "NetDevice" }]
//! devices = ["8086:10fb"]              # PCI functions, vendor:device
//! restart = { immediate = 5, budget = 0 }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use abi::manifest::{DeviceClaim, DomainManifest, Import, RestartPolicy, SystemManifest};
use serde::Deserialize;
use toml::Spanned;

use crate::error::{ConfigError, Source};

/// The checked manifest: what the kernel is given, and which package each domain is built from.
#[derive(Clone, Debug)]
pub struct Domains {
    /// For the kernel, in the file's order, which is the order of starting.
    pub system: SystemManifest,
    /// Domain → Cargo package.
    pub packages: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    domain: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    #[serde(rename = "crate")]
    package: Option<String>,
    memory: Spanned<String>,
    shared_memory: Spanned<String>,
    #[serde(default)]
    imports: Vec<ImportEntry>,
    #[serde(default)]
    exports: Vec<String>,
    #[serde(default)]
    devices: Vec<Spanned<String>>,
    #[serde(default)]
    restart: RestartEntry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportEntry {
    name: Spanned<String>,
    provider: Spanned<String>,
    interface: Spanned<String>,
}

/// A restart policy with defaults for what is left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RestartEntry {
    immediate: u32,
    backoff_floor_ms: u32,
    backoff_ceiling_ms: u32,
    budget: u32,
    window_ms: u32,
}

impl Default for RestartEntry {
    fn default() -> Self {
        Self {
            immediate: 5,
            backoff_floor_ms: 10,
            backoff_ceiling_ms: 5_000,
            budget: 100,
            window_ms: 60_000,
        }
    }
}

/// The provider that stands for the kernel itself.
const KERNEL: &str = "kernel";

impl Domains {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With file and line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::check(&Source::read(path)?)
    }

    fn check(source: &Source) -> Result<Self, ConfigError> {
        let file: File = source.parse()?;
        let mut exports: BTreeMap<&str, &[String]> = BTreeMap::new();
        for entry in &file.domain {
            let name = entry.name.get_ref();
            let error = |message: String| Err(source.error(entry.name.span(), message));
            if !is_name(name) || name == KERNEL {
                return error(format!(
                    "`{name}` can't be a domain's name: lower-case letters, digits and hyphens, at most 32, and not `{KERNEL}`"
                ));
            }
            if exports.insert(name, &entry.exports).is_some() {
                return error(format!("there is another domain called `{name}`"));
            }
        }
        let domains = file
            .domain
            .iter()
            .map(|entry| entry.compile(source, &exports))
            .collect::<Result<Vec<_>, _>>()?;
        let packages = file
            .domain
            .iter()
            .map(|entry| {
                let name = entry.name.get_ref().clone();
                (name.clone(), entry.package.clone().unwrap_or(name))
            })
            .collect();
        Ok(Self {
            system: SystemManifest { domains },
            packages,
        })
    }
}

impl Entry {
    fn compile(
        &self,
        source: &Source,
        exports: &BTreeMap<&str, &[String]>,
    ) -> Result<DomainManifest, ConfigError> {
        let mut names = BTreeSet::new();
        for import in &self.imports {
            if !names.insert(import.name.get_ref()) {
                let message = format!("there is another import called `{}`", import.name.get_ref());
                return Err(source.error(import.name.span(), message));
            }
            import.check(source, exports)?;
        }
        let devices = self
            .devices
            .iter()
            .map(|claim| {
                parse_device(claim.get_ref()).ok_or_else(|| {
                    let message = format!("`{}` is no PCI id such as \"8086:10fb\"", claim.get_ref());
                    source.error(claim.span(), message)
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(DomainManifest {
            name: self.name.get_ref().clone(),
            memory_quota_bytes: size(source, &self.memory)?,
            shared_quota_bytes: size(source, &self.shared_memory)?,
            imports: self
                .imports
                .iter()
                .map(|import| Import {
                    name: import.name.get_ref().clone(),
                    provider: import.provider.get_ref().clone(),
                    interface: import.interface.get_ref().clone(),
                })
                .collect(),
            exports: self.exports.clone(),
            devices,
            restart: RestartPolicy {
                immediate: self.restart.immediate,
                backoff_floor_ms: self.restart.backoff_floor_ms,
                backoff_ceiling_ms: self.restart.backoff_ceiling_ms,
                budget: self.restart.budget,
                window_ms: self.restart.window_ms,
            },
        })
    }
}

impl ImportEntry {
    /// The provider must exist and export what is asked for; what the kernel offers is known only to the kernel.
    fn check(&self, source: &Source, exports: &BTreeMap<&str, &[String]>) -> Result<(), ConfigError> {
        let provider = self.provider.get_ref();
        if provider == KERNEL {
            return Ok(());
        }
        let error = |place: Range<usize>, message: String| Err(source.error(place, message));
        match exports.get(provider.as_str()) {
            None => error(
                self.provider.span(),
                format!("there is no domain called `{provider}`"),
            ),
            Some(offered) if !offered.contains(self.interface.get_ref()) => error(
                self.interface.span(),
                format!(
                    "domain `{provider}` doesn't export `{}`",
                    self.interface.get_ref()
                ),
            ),
            Some(_) => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn parse_device(text: &str) -> Option<DeviceClaim> {
    let (vendor, device) = text.split_once(':')?;
    let number = |digits: &str| u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4);
    Some(DeviceClaim {
        vendor: number(vendor)?,
        device: number(device)?,
    })
}

/// A size such as `512 KiB` or `16 MiB`.
fn size(source: &Source, text: &Spanned<String>) -> Result<u64, ConfigError> {
    parse_size(text.get_ref()).ok_or_else(|| {
        source.error(
            text.span(),
            format!(
                "`{}` is no size such as \"512 KiB\" or \"16 MiB\"",
                text.get_ref()
            ),
        )
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let factor = match unit.trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
[[domain]]
name = "ixgbe"
memory = "4 MiB"
shared_memory = "16 MiB"
exports = ["NetDevice"]
devices = ["8086:10fb"]

[[domain]]
name = "shadow"
crate = "nic-shadow"
memory = "512 KiB"
shared_memory = "1 GiB"
imports = [{ name = "driver", provider = "ixgbe", interface = "NetDevice" }]
restart = { budget = 0 }
"#;

    fn check(text: &str) -> Result<Domains, String> {
        let source = Source {
            path: "domains.toml".into(),
            text: text.to_owned(),
        };
        Domains::check(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_is_compiled() {
        let domains = check(TWO).unwrap();
        let [ixgbe, shadow] = domains.system.domains.as_slice() else {
            panic!("two domains")
        };
        assert_eq!(
            ixgbe.devices,
            [DeviceClaim {
                vendor: 0x8086,
                device: 0x10fb
            }]
        );
        assert_eq!(ixgbe.memory_quota_bytes, 4 << 20);
        assert_eq!(shadow.memory_quota_bytes, 512 << 10);
        assert_eq!(shadow.restart.budget, 0);
        assert_eq!(shadow.restart.immediate, RestartEntry::default().immediate);
        assert_eq!(domains.packages["shadow"], "nic-shadow");
        assert_eq!(domains.packages["ixgbe"], "ixgbe");
    }

    #[test]
    fn wrong_wiring_is_refused_with_its_line() {
        let refused = |from: &str, to: &str, expected: &str| {
            let error = check(&TWO.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(
            "provider = \"ixgbe\"",
            "provider = \"e1000\"",
            "domains.toml:14: there is no domain called `e1000`",
        );
        refused(
            "interface = \"NetDevice\"",
            "interface = \"Block\"",
            "doesn't export `Block`",
        );
        refused(
            "\"shadow\"",
            "\"ixgbe\"",
            "domains.toml:10: there is another domain called `ixgbe`",
        );
        refused("\"shadow\"", "\"Shadow\"", "can't be a domain's name");
        refused("8086:10fb", "8086-10fb", "domains.toml:7: ");
        refused("512 KiB", "512", "domains.toml:12: ");
        refused("exports", "export", "domains.toml:6: ");
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(parse_size("99999999999999999 GiB"), None);
        assert_eq!(parse_size("-1 KiB"), None);
        assert_eq!(parse_size("3 GiB"), Some(3 << 30));
    }
}
