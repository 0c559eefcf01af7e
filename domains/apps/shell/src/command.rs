//! What can be typed at the shell: the commands, and the way from words to a command. Their usage is in `usage.rs`.

use crate::disk::{self, Change as DiskChange};
use crate::disk_bench::Plan;
use crate::disk_verify;
use crate::kv;
use crate::nvme::View;
use crate::usage::{USAGES, misused};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use interface::balance;
use interface::kernel::DomainName;
use interface::update::ImageSource;

/// Deaths and log lines that are shown unless asked otherwise.
const DEFAULT_COUNT: u32 = 20;

/// The domain that is killed only by force.
const SUPERVISOR: &str = "init";

/// Second words of `maglev`.
pub const MAGLEV_ACTIONS: &[&str] = &["activate", "add", "drain", "remove", "show"];

/// A change of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add it.
    Add {
        /// Its address.
        address: IpAddr,
        /// Its weight.
        weight: u16,
    },
    /// No new connections.
    Drain,
    /// New connections again.
    Activate,
    /// Remove it.
    Remove,
}

/// A command, with all it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show the commands, or those that begin with a word.
    Help(Option<String>),
    /// Show the domains.
    Domains,
    /// Show all that is known of a domain.
    Domain(DomainName),
    /// Show what the domains hold.
    Holdings,
    /// Show what doesn't add up.
    Leaks,
    /// Show deaths.
    Deaths(u32),
    /// Show one death.
    Death(u64),
    /// Kill a domain.
    Kill(DomainName),
    /// Kill the supervisor.
    KillSupervisor,
    /// Stop a domain.
    Stop(DomainName),
    /// Start a domain.
    Start(DomainName),
    /// Stop and start a domain.
    Restart(DomainName),
    /// Start a held domain.
    Release(DomainName),
    /// Run another image of a domain.
    Update(DomainName, Option<ImageSource>),
    /// Show images and updates.
    Updates,
    /// Show the network card.
    Nic,
    /// Show NVMe controllers, or reset one.
    Nvme(View),
    /// Show disks and partitions.
    Disk,
    /// Change partitions.
    DiskChange(DiskChange),
    /// Measure a disk.
    DiskBench(Plan),
    /// See whether a disk holds what it acknowledged.
    DiskVerify(disk_verify::Plan),
    /// The key-value store.
    Kv(kv::Request),
    /// Show addresses and sockets.
    Ip,
    /// Show services and backends.
    Maglev,
    /// Change a backend.
    MaglevChange {
        /// Of this service.
        service: balance::Name,
        /// Its name.
        backend: balance::Name,
        /// What to do.
        change: Change,
    },
    /// Show the log.
    Log(u32),
    /// Show memory.
    Memory,
    /// Show the time since boot.
    Uptime,
    /// Restart.
    Reboot,
    /// Switch off.
    PowerOff,
}

/// A command and how its answer is to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// As JSON rather than as a table.
    pub json: bool,
}

/// Parses a line; `None` for an empty one. An error is a sentence for the operator.
pub fn parse(line: &str) -> Result<Option<Request>, String> {
    let (mut json, mut force) = (false, false);
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        match word {
            "--json" => json = true,
            "--force" => force = true,
            option if option.starts_with('-') => {
                return Err(format!(
                    "There is no option {option}; there are --json and, for `kill`, --force."
                ));
            }
            word => words.push(word),
        }
    }
    let Some((name, arguments)) = words.split_first() else {
        return match json {
            true => Err("Which command is --json for? Try `help`.".to_string()),
            false => Ok(None),
        };
    };
    let command = match (*name, arguments) {
        ("help", []) => Command::Help(None),
        ("help", [command]) => Command::Help(Some(command.to_string())),
        ("domains", []) => Command::Domains,
        ("domains", [domain]) => Command::Domain(DomainName::new(domain)),
        ("holdings", []) => Command::Holdings,
        ("leaks", []) => Command::Leaks,
        ("deaths", []) => Command::Deaths(DEFAULT_COUNT),
        ("kill", [domain]) if *domain == SUPERVISOR && force => Command::KillSupervisor,
        ("deaths", ["last", limit]) => Command::Deaths(count(limit)?),
        ("deaths", ["last"]) => return Err(misused("deaths")),
        ("deaths", [number]) => Command::Death(
            number
                .parse()
                .map_err(|_| format!("{number} is not a death's number; `deaths` shows them."))?,
        ),
        ("kill", [domain]) => Command::Kill(DomainName::new(domain)),
        ("stop", [domain]) => Command::Stop(DomainName::new(domain)),
        ("start", [domain]) => Command::Start(DomainName::new(domain)),
        ("restart", [domain]) => Command::Restart(DomainName::new(domain)),
        ("release", [domain]) => Command::Release(DomainName::new(domain)),
        ("update", [domain]) => Command::Update(DomainName::new(domain), None),
        ("update", [domain, "upload"]) => Command::Update(DomainName::new(domain), Some(ImageSource::Upload)),
        ("update", [domain, "spare"]) => Command::Update(DomainName::new(domain), Some(ImageSource::Spare)),
        ("updates", []) => Command::Updates,
        ("nic", []) => Command::Nic,
        ("nvme", []) => Command::Nvme(View::Controllers),
        ("nvme", ["health"]) => Command::Nvme(View::Health),
        ("nvme", ["errors"]) => Command::Nvme(View::Errors),
        ("nvme", ["events"]) => Command::Nvme(View::Events),
        ("nvme", ["reset"]) => Command::Nvme(View::Reset(0)),
        ("nvme", ["reset", number]) => {
            Command::Nvme(View::Reset(number.parse().map_err(|_| {
                format!("{number} is not a controller's number; they count from 0.")
            })?))
        }
        ("disk", []) => Command::Disk,
        ("disk", ["bench", plan @ ..]) => Command::DiskBench(Plan::parse(plan)?),
        ("disk", ["verify", plan @ ..]) => Command::DiskVerify(disk_verify::Plan::parse(plan)?),
        ("disk", words) => match disk::change(words) {
            Some(change) => Command::DiskChange(change?),
            None => return Err(misused("disk")),
        },
        ("kv", words) => match kv::request(words) {
            Some(request) => Command::Kv(request?),
            None => return Err(misused("kv")),
        },
        ("ip", []) => Command::Ip,
        ("maglev", [] | ["show"]) => Command::Maglev,
        ("maglev", [action, service, backend, rest @ ..]) => Command::MaglevChange {
            service: balance::Name::new(service),
            backend: balance::Name::new(backend),
            change: change(action, rest)?,
        },
        ("log", []) => Command::Log(DEFAULT_COUNT),
        ("log", [limit]) => Command::Log(count(limit)?),
        ("memory", []) => Command::Memory,
        ("uptime", []) => Command::Uptime,
        ("reboot", []) => Command::Reboot,
        ("poweroff", []) => Command::PowerOff,
        (name, _) => return Err(misused(name)),
    };
    let takes_json = USAGES
        .iter()
        .any(|usage| usage.name == *name && usage.arguments.contains("--json"));
    if json
        && (!takes_json
            || matches!(
                command,
                Command::MaglevChange { .. } | Command::Nvme(View::Reset(_)) | Command::DiskChange(_)
            )
            || matches!(&command, Command::Kv(request) if !request.has_json()))
    {
        return Err(format!("There is no answer in JSON to `{name}`."));
    }
    if force && !matches!(command, Command::Kill(_) | Command::KillSupervisor) {
        return Err(format!("There is nothing for --force to do in `{name}`."));
    }
    Ok(Some(Request { command, json }))
}

fn change(action: &str, rest: &[&str]) -> Result<Change, String> {
    match (action, rest) {
        ("add", [address]) => Ok(Change::Add {
            address: parse_address(address)?,
            weight: 1,
        }),
        ("add", [address, weight]) => Ok(Change::Add {
            address: parse_address(address)?,
            weight: weight
                .parse()
                .map_err(|_| format!("{weight} is not a weight: it takes a number from 1 to 1000."))?,
        }),
        ("drain", []) => Ok(Change::Drain),
        ("activate", []) => Ok(Change::Activate),
        ("remove", []) => Ok(Change::Remove),
        _ => Err(misused("maglev")),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text} is not an IPv4 or IPv6 address."))
}

fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("{text} is not a count: it takes a whole number."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::help;
    use proptest::prelude::*;

    fn command(line: &str) -> Command {
        parse(line).unwrap().unwrap().command
    }

    #[test]
    fn words_make_commands() {
        assert_eq!(parse("  "), Ok(None));
        assert_eq!(
            parse(" domains  --json "),
            Ok(Some(Request {
                command: Command::Domains,
                json: true
            }))
        );
        assert_eq!(command("deaths"), Command::Deaths(20));
        assert_eq!(command("deaths last 5"), Command::Deaths(5));
        assert_eq!(command("deaths 5"), Command::Death(5));
        assert_eq!(command("kill ixgbe"), Command::Kill(DomainName::new("ixgbe")));
        assert_eq!(
            command("update httpd"),
            Command::Update(DomainName::new("httpd"), None)
        );
        assert_eq!(
            command("update httpd spare"),
            Command::Update(DomainName::new("httpd"), Some(ImageSource::Spare))
        );
        assert_eq!(command("kill init"), Command::Kill(DomainName::new("init")));
        assert_eq!(command("kill init --force"), Command::KillSupervisor);
        assert_eq!(
            command("domains ixgbe"),
            Command::Domain(DomainName::new("ixgbe"))
        );
        assert_eq!(
            command("release ixgbe"),
            Command::Release(DomainName::new("ixgbe"))
        );
        assert_eq!(command("nvme"), Command::Nvme(View::Controllers));
        assert_eq!(command("nvme health --json"), Command::Nvme(View::Health));
        assert_eq!(command("nvme reset 1"), Command::Nvme(View::Reset(1)));
        assert_eq!(command("disk --json"), Command::Disk);
        assert_eq!(
            command("disk create 1 scratch 64"),
            Command::DiskChange(DiskChange::Create {
                disk: 1,
                kind: 0,
                mib: 64
            })
        );
        assert_eq!(
            command("disk delete 0 2"),
            Command::DiskChange(DiskChange::Delete { disk: 0, number: 2 })
        );
        assert!(matches!(
            command("disk bench read depth 32 --json"),
            Command::DiskBench(_)
        ));
        assert_eq!(command("maglev"), Command::Maglev);
        let add = |weight| Command::MaglevChange {
            service: balance::Name::new("web"),
            backend: balance::Name::new("b5"),
            change: Change::Add {
                address: "10.82.99.15".parse().unwrap(),
                weight,
            },
        };
        assert_eq!(command("maglev add web b5 10.82.99.15"), add(1));
        assert_eq!(command("maglev add web b5 10.82.99.15 3"), add(3));
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        for line in [
            "format c:",
            "kill",
            "kill a b",
            "deaths many",
            "deaths last",
            "deaths last few",
            "maglev drain web",
            "maglev melt web b1",
            "update",
            "update httpd floppy",
            "maglev add web b1 here",
            "maglev add web b1 10.0.0.1 heavy",
            "reboot --json",
            "reboot --force",
            "stop",
            "maglev drain web b1 --json",
            "domains --xml",
            "nvme melt",
            "nvme reset first",
            "nvme reset --json",
            "disk melt",
            "disk table first",
            "disk create 0 floppy",
            "disk create 0 store much",
            "disk create 0 store --json",
            "disk delete 0",
            "disk bench melt",
            "disk verify melt",
            "--json",
        ] {
            let error = parse(line).expect_err(line);
            let is_sentence = error.starts_with(char::is_uppercase) || error.contains(" is not ");
            assert!(is_sentence, "{error}");
        }
        assert!(parse("kill").unwrap_err().contains("kill NAME"));
    }

    #[test]
    fn every_command_in_the_help_is_one() {
        for usage in USAGES {
            let words: Vec<&str> = usage
                .arguments
                .split(' ')
                .filter_map(|word| match word {
                    "NUMBER" | "DISK" => Some("1"),
                    "store|scratch" => Some("store"),
                    "read|write" => Some("read"),
                    "NAME" | "SERVICE" | "BACKEND" | "KEY" | "VALUE" => Some("x"),
                    "ADDRESS" => Some("::1"),
                    _ => None,
                })
                .collect();
            let line = format!("{} {}", usage.name, words.join(" "));
            assert!(parse(&line).is_ok_and(|request| request.is_some()), "{line}");
        }
        assert!(help(None).unwrap().lines().count() == USAGES.len());
        assert!(help(Some("maglev")).unwrap().lines().count() == 5);
        assert!(help(Some("nothing")).is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".{0,200}") {
            let _ = parse(&line);
        }
    }
}
