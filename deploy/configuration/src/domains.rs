//! config/domains.toml: the manifest of domains, and the only place where they are named.
//!
//! ```toml
//! [defaults]
//! memory = "8 MiB"                     # image, heap and stacks
//! shared = "16 MiB"                    # shared-heap objects that it owns
//! restart = { immediate = 3, backoff_floor_ms = 10, backoff_ceiling_ms = 5000, budget = 20, window_s = 60 }
//! start_ms = 10000                     # its `start` returns within this, waits for providers not counted
//! heartbeat_ms = 2000                  # its own threads show progress this often; 0 for no limit
//! deadline_ms = 1000                   # calls into it, where the interface says nothing
//!
//! [[domain]]
//! name = "nic-shadow"
//! crate = "nic-shadow"                 # the package
//! exports = ["NetDevice"]
//! imports = { driver = "ixgbe.NetDevice" }
//! devices = ["8086:10fb"]              # PCI functions, vendor:device or class:CCSSPP
//! deadlines = { "NetDevice.exchange" = 8000 }  # calls with another deadline than the interface says; 0 for none
//! heir = "nic-shadow"                  # who gets what it leaves when it dies; itself for its next incarnation
//! trial_ms = 10000                     # an updated image that dies within this time makes place for the one before
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use abi::manifest::{DeadlineOverride, DeviceClaim, DomainManifest, Import, RestartPolicy, SystemManifest};
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
    defaults: Defaults,
    domain: Vec<Entry>,
}

/// What a domain has that doesn't say otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    memory: Spanned<String>,
    shared: Spanned<String>,
    restart: Restart,
    trial_ms: Option<u32>,
    #[serde(default = "default_start_ms")]
    start_ms: u32,
    #[serde(default = "default_heartbeat_ms")]
    heartbeat_ms: u32,
    #[serde(default = "default_deadline_ms")]
    deadline_ms: u32,
}

fn default_start_ms() -> u32 {
    10_000
}

fn default_heartbeat_ms() -> u32 {
    2_000
}

fn default_deadline_ms() -> u32 {
    1_000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    #[serde(rename = "crate")]
    package: String,
    memory: Option<Spanned<String>>,
    shared: Option<Spanned<String>>,
    #[serde(default)]
    imports: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    exports: Vec<String>,
    #[serde(default)]
    devices: Vec<Spanned<String>>,
    restart: Option<Restart>,
    start_ms: Option<u32>,
    heartbeat_ms: Option<u32>,
    deadline_ms: Option<u32>,
    #[serde(default)]
    deadlines: BTreeMap<Spanned<String>, u32>,
    heir: Option<Spanned<String>>,
    trial_ms: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    immediate: u32,
    backoff_floor_ms: u32,
    backoff_ceiling_ms: u32,
    budget: u32,
    window_s: u32,
    #[serde(default = "default_cpu_percent")]
    cpu_percent: f64,
}

/// Share of one CPU for a crash loop, where the file names none.
fn default_cpu_percent() -> f64 {
    2.0
}

/// How long an updated image is on trial unless the file says otherwise, milliseconds.
const TRIAL_MS: u32 = 10_000;
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
            .map(|entry| entry.compile(source, &file.defaults, &exports))
            .collect::<Result<Vec<_>, _>>()?;
        let packages = file
            .domain
            .iter()
            .map(|entry| (entry.name.get_ref().clone(), entry.package.clone()))
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
        defaults: &Defaults,
        exports: &BTreeMap<&str, &[String]>,
    ) -> Result<DomainManifest, ConfigError> {
        let devices = self
            .devices
            .iter()
            .map(|claim| {
                parse_device(claim.get_ref()).ok_or_else(|| {
                    let message = format!(
                        "`{}` is no PCI id such as \"8086:10fb\" or class such as \"class:010802\"",
                        claim.get_ref()
                    );
                    source.error(claim.span(), message)
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let imports = self
            .imports
            .iter()
            .map(|(name, target)| import(source, exports, name, target))
            .collect::<Result<Vec<_>, _>>()?;
        let deadlines = self
            .deadlines
            .iter()
            .map(|(method, &ms)| deadline(source, &self.exports, method, ms))
            .collect::<Result<Vec<_>, _>>()?;
        let heir = self
            .heir
            .as_ref()
            .map(|heir| match exports.get_key_value(heir.get_ref().as_str()) {
                Some((name, _)) => Ok((*name).to_owned()),
                None => Err(source.error(
                    heir.span(),
                    format!("there is no domain called `{}`", heir.get_ref()),
                )),
            });
        let restart = self.restart.unwrap_or(defaults.restart);
        Ok(DomainManifest {
            name: self.name.get_ref().clone(),
            memory_quota_bytes: size(source, self.memory.as_ref().unwrap_or(&defaults.memory))?,
            shared_quota_bytes: size(source, self.shared.as_ref().unwrap_or(&defaults.shared))?,
            imports,
            exports: self.exports.clone(),
            devices,
            restart: RestartPolicy {
                immediate: restart.immediate,
                backoff_floor_ms: restart.backoff_floor_ms,
                backoff_ceiling_ms: restart.backoff_ceiling_ms,
                budget: restart.budget,
                window_ms: restart.window_s.saturating_mul(1000),
                cpu_permille: (restart.cpu_percent.clamp(0.0, 100.0) * 10.0).round() as u32,
            },
            start_ms: self.start_ms.unwrap_or(defaults.start_ms),
            heartbeat_ms: self.heartbeat_ms.unwrap_or(defaults.heartbeat_ms),
            deadline_ms: self.deadline_ms.unwrap_or(defaults.deadline_ms),
            deadlines,
            heir: heir.transpose()?,
            trial_ms: self.trial_ms.or(defaults.trial_ms).unwrap_or(TRIAL_MS),
        })
    }
}

/// An import such as `driver = "ixgbe.NetDevice"`. The provider must exist and export what is asked for; what the kernel
/// offers is known only to the kernel.
fn import(
    source: &Source,
    exports: &BTreeMap<&str, &[String]>,
    name: &str,
    target: &Spanned<String>,
) -> Result<Import, ConfigError> {
    let error = |message: String| source.error(target.span(), message);
    let (provider, interface) = target.get_ref().split_once('.').ok_or_else(|| {
        error(format!(
            "`{}` is no import such as \"ixgbe.NetDevice\"",
            target.get_ref()
        ))
    })?;
    if provider != KERNEL {
        let offered = exports
            .get(provider)
            .ok_or_else(|| error(format!("there is no domain called `{provider}`")))?;
        if !offered.iter().any(|known| known == interface) {
            return Err(error(format!("domain `{provider}` doesn't export `{interface}`")));
        }
    }
    Ok(Import {
        name: name.to_owned(),
        provider: provider.to_owned(),
        interface: interface.to_owned(),
    })
}

/// A deadline such as `"NetDevice.exchange" = 8000`. The domain must export the interface; methods of the appliance's own interfaces are
/// known here.
fn deadline(
    source: &Source,
    exports: &[String],
    target: &Spanned<String>,
    ms: u32,
) -> Result<DeadlineOverride, ConfigError> {
    let error = |message: String| source.error(target.span(), message);
    let (interface, method) = target.get_ref().split_once('.').ok_or_else(|| {
        error(format!(
            "`{}` is no method such as \"NetDevice.exchange\"",
            target.get_ref()
        ))
    })?;
    if !exports.iter().any(|known| known == interface) {
        return Err(error(format!("the domain doesn't export `{interface}`")));
    }
    let known = interface::FACTORIES
        .iter()
        .find(|factory| factory.name == interface);
    if known.is_some_and(|factory| factory.methods.iter().all(|known| known.name != method)) {
        return Err(error(format!("`{interface}` has no method `{method}`")));
    }
    Ok(DeadlineOverride {
        interface: interface.to_owned(),
        method: method.to_owned(),
        ms,
    })
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn parse_device(text: &str) -> Option<DeviceClaim> {
    if let Some(code) = text.strip_prefix("class:") {
        let is_code = code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_hexdigit());
        let [_, class, subclass, interface] = u32::from_str_radix(code, 16)
            .ok()
            .filter(|_| is_code)?
            .to_be_bytes();
        return Some(DeviceClaim::Class {
            class,
            subclass,
            interface,
        });
    }
    let (vendor, device) = text.split_once(':')?;
    let number = |digits: &str| u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4);
    Some(DeviceClaim::Id {
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
[defaults]
memory = "8 MiB"
shared = "16 MiB"
restart = { immediate = 3, backoff_floor_ms = 10, backoff_ceiling_ms = 5000, budget = 100, window_s = 60 }

[[domain]]
name = "ixgbe"
crate = "ixgbe"
exports = ["NetDevice"]
devices = ["8086:10fb"]
heir = "shadow"

[[domain]]
name = "shadow"
crate = "nic-shadow"
memory = "512 KiB"
imports = { driver = "ixgbe.NetDevice", log = "kernel.LogReader" }
trial_ms = 500
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
            [DeviceClaim::Id {
                vendor: 0x8086,
                device: 0x10fb
            }]
        );
        assert_eq!(ixgbe.memory_quota_bytes, 8 << 20);
        assert_eq!(ixgbe.heir.as_deref(), Some("shadow"));
        assert_eq!(shadow.memory_quota_bytes, 512 << 10);
        assert_eq!(shadow.shared_quota_bytes, 16 << 20);
        assert_eq!(shadow.restart.window_ms, 60_000);
        assert_eq!((ixgbe.trial_ms, shadow.trial_ms), (10_000, 500));
        assert_eq!(shadow.imports[0].provider, "ixgbe");
        assert_eq!(shadow.imports[1].interface, "LogReader");
        assert_eq!(domains.packages["shadow"], "nic-shadow");
    }

    #[test]
    fn a_device_may_be_claimed_by_its_class() {
        let domains = check(&TWO.replace("8086:10fb", "class:010802")).unwrap();
        let claim = domains.system.domains[0].devices[0];
        assert_eq!(
            claim,
            DeviceClaim::Class {
                class: 1,
                subclass: 8,
                interface: 2
            }
        );
        assert_eq!(claim.to_string(), "class:010802");
    }

    #[test]
    fn the_shipped_manifest_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/domains.toml");
        assert_eq!(Domains::read(&path).unwrap().system.domains[0].name, "init");
    }

    #[test]
    fn wrong_wiring_is_refused_with_its_line() {
        let refused = |from: &str, to: &str, expected: &str| {
            let error = check(&TWO.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(
            "ixgbe.NetDevice",
            "e1000.NetDevice",
            "domains.toml:18: there is no domain called `e1000`",
        );
        refused(
            "ixgbe.NetDevice",
            "ixgbe.Block",
            "domains.toml:18: domain `ixgbe` doesn't export `Block`",
        );
        refused(
            "ixgbe.NetDevice",
            "ixgbe",
            "domains.toml:18: `ixgbe` is no import",
        );
        refused(
            "\"shadow\"",
            "\"ixgbe\"",
            "domains.toml:15: there is another domain called `ixgbe`",
        );
        refused("\"shadow\"", "\"Shadow\"", "can't be a domain's name");
        refused("8086:10fb", "8086-10fb", "domains.toml:11: ");
        refused("8086:10fb", "class:0108", "domains.toml:11: ");
        refused("8086:10fb", "class:+10802", "domains.toml:11: ");
        refused("512 KiB", "512", "domains.toml:17: ");
        refused("exports", "export", "domains.toml:10: ");
        refused(
            "heir = \"shadow\"",
            "heir = \"heaven\"",
            "domains.toml:12: there is no domain called `heaven`",
        );
    }

    #[test]
    fn deadlines_are_compiled() {
        let text = TWO.replace(
            "devices =",
            "heartbeat_ms = 0\ndeadlines = { \"NetDevice.exchange\" = 50 }\ndevices =",
        );
        let domains = check(&text).unwrap();
        let [ixgbe, shadow] = domains.system.domains.as_slice() else {
            panic!("two domains")
        };
        assert_eq!(
            ixgbe.deadlines,
            [DeadlineOverride {
                interface: "NetDevice".into(),
                method: "exchange".into(),
                ms: 50
            }]
        );
        assert_eq!(
            (ixgbe.start_ms, ixgbe.heartbeat_ms, ixgbe.deadline_ms),
            (10_000, 0, 1_000)
        );
        assert_eq!((shadow.heartbeat_ms, shadow.deadlines.len()), (2_000, 0));
    }

    #[test]
    fn deadlines_of_what_is_not_there_are_refused() {
        let refused = |method: &str, expected: &str| {
            let to = format!("deadlines = {{ \"{method}\" = 50 }}\ndevices =");
            let error = check(&TWO.replace("devices =", &to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(
            "NetDevice.receive",
            "domains.toml:11: `NetDevice` has no method `receive`",
        );
        refused(
            "Sockets.wait",
            "domains.toml:11: the domain doesn't export `Sockets`",
        );
        refused("exchange", "domains.toml:11: `exchange` is no method");
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(parse_size("99999999999999999 GiB"), None);
        assert_eq!(parse_size("-1 KiB"), None);
        assert_eq!(parse_size("3 GiB"), Some(3 << 30));
    }
}
