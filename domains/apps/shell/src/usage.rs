//! How each command is used, and what it does: for `help`, for completion, and for whom it is misused by.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// A command's usage and what it does.
pub struct Usage {
    /// First word.
    pub name: &'static str,
    /// Further words: capitals stand for what the operator chooses, brackets for what may be left out.
    pub arguments: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn usage(name: &'static str, arguments: &'static str, about: &'static str) -> Usage {
    Usage {
        name,
        arguments,
        about,
    }
}

/// Every command.
pub const USAGES: &[Usage] = &[
    usage("help", "[COMMAND]", "shows the commands, or one of them"),
    usage(
        "domains",
        "[NAME] [--json]",
        "shows the domains, or all that is known of one",
    ),
    usage(
        "holdings",
        "[--json]",
        "shows what each domain holds: pages, threads, handles, shared objects, devices",
    ),
    usage(
        "leaks",
        "[--json]",
        "compares what the domains hold with what the allocators have given out",
    ),
    usage(
        "deaths",
        "[last COUNT] [--json]",
        "shows the newest deaths of domains and how long the outages were",
    ),
    usage(
        "deaths",
        "NUMBER [--json]",
        "shows all that is known of one: stacks, registers, what the domain did before",
    ),
    usage(
        "kill",
        "NAME [--force]",
        "kills a domain, which its restart policy then starts again; the supervisor only with --force",
    ),
    usage("stop", "NAME [--json]", "stops a domain, which then stays down"),
    usage(
        "start",
        "NAME [--json]",
        "starts a domain that is stopped or waits for its restart",
    ),
    usage("restart", "NAME [--json]", "stops a domain and starts it at once"),
    usage(
        "release",
        "NAME [--json]",
        "starts a domain that is held after too many deaths, and forgets them",
    ),
    usage(
        "update",
        "NAME [upload|spare]",
        "restarts a domain with another image: the uploaded one, or the spare slot's",
    ),
    usage(
        "updates",
        "[--json]",
        "shows which image each domain runs, what is there to update to, and the newest updates",
    ),
    usage(
        "nic",
        "[--json]",
        "shows the network card: address, link, counters",
    ),
    usage(
        "nvme",
        "[health|errors|events] [--json]",
        "shows the NVMe controllers, their health, the errors that they logged, and resets and other events",
    ),
    usage(
        "nvme reset",
        "[NUMBER]",
        "resets an NVMe controller; nothing is lost",
    ),
    usage("disk", "[--json]", "shows the disks and their partitions"),
    usage(
        "disk table",
        "DISK",
        "writes an empty partition table to a blank disk",
    ),
    usage(
        "disk create",
        "DISK store|scratch [MEBIBYTES]",
        "makes a partition for the store, or for measurements; of all that is free without a size",
    ),
    usage(
        "disk delete",
        "DISK NUMBER",
        "deletes a partition that nobody uses; its content stays on the disk",
    ),
    usage(
        "disk bench",
        "read|write [depth COUNT] [block BYTES] [seconds COUNT] [sequential] [--json]",
        "measures the disk, on the partition for measurements only",
    ),
    usage(
        "disk verify",
        "[depth COUNT] [seconds COUNT] [kill DOMAIN] [--json]",
        "writes to the partition for measurements and reads all back; kills a domain once a second meanwhile",
    ),
    usage("kv", "[stats] [--json]", "shows how the key-value store is"),
    usage(
        "kv get",
        "KEY [--json]",
        "shows an entry of the store as it is on the disk; \\xNN stands for a byte",
    ),
    usage(
        "kv set",
        "KEY VALUE",
        "writes an entry to the disk; a server that is running doesn't know of it",
    ),
    usage("kv keys", "[COUNT] [--json]", "shows some keys of the store"),
    usage(
        "kv check",
        "[--json]",
        "reads the whole store and compares it with its checksums and its index",
    ),
    usage("kv compact", "", "frees all segments that can be freed"),
    usage("ip", "[--json]", "shows the addresses and the TCP/IP counters"),
    usage(
        "maglev",
        "[show] [--json]",
        "shows the virtual services and their backends",
    ),
    usage(
        "maglev add",
        "SERVICE BACKEND ADDRESS [WEIGHT]",
        "adds a backend to a service",
    ),
    usage(
        "maglev drain",
        "SERVICE BACKEND",
        "gives a backend no new connections",
    ),
    usage(
        "maglev activate",
        "SERVICE BACKEND",
        "gives a draining backend new connections again",
    ),
    usage(
        "maglev remove",
        "SERVICE BACKEND",
        "removes a backend; its connections go to others",
    ),
    usage("log", "[COUNT]", "shows the newest lines of the log"),
    usage("memory", "[--json]", "shows the machine's memory"),
    usage("uptime", "", "shows how long the machine has been running"),
    usage("reboot", "", "restarts the machine"),
    usage("poweroff", "", "switches the machine off"),
];

/// What to say of a command that isn't one, or isn't used as it can be.
pub fn misused(name: &str) -> String {
    let lines = matching(name);
    if lines.is_empty() {
        return format!("There is no command {name}. Try `help`.");
    }
    let mut text = String::from("It is used like this:");
    for usage in lines {
        // Writing to a string doesn't fail.
        write!(text, "\n  {} {}", usage.name, usage.arguments).ok();
    }
    text
}

/// The usages of a command.
pub fn matching(name: &str) -> Vec<&'static Usage> {
    USAGES
        .iter()
        .filter(|usage| usage.name.split(' ').next() == Some(name))
        .collect()
}

/// What `help` answers.
pub fn help(name: Option<&str>) -> Result<String, String> {
    let usages: Vec<&Usage> = match name {
        Some(name) => matching(name),
        None => USAGES.iter().collect(),
    };
    if let (Some(name), true) = (name, usages.is_empty()) {
        return Err(format!("There is no command {name}. Try `help`."));
    }
    let mut table = crate::table::Table::new(&[]);
    for usage in usages {
        table.row([
            format!("{} {}", usage.name, usage.arguments)
                .trim_end()
                .to_string(),
            usage.about.to_string(),
        ]);
    }
    Ok(table.to_string())
}
