//! `nvme`: storage controllers, their health, the errors that they logged and what happened to them.

use crate::answer::Answer;
use crate::import::Import;
use crate::table::{Table, bytes, seconds};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::storage_health::{
    ControllerInfo, ErrorEntry, EventKind, LatencyHistogram, SmartLog, StorageEvent, StorageHealth,
};
use serde_json::{Value, json};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The controllers.
    Controllers,
    /// SMART, and how long commands take.
    Health,
    /// The error logs.
    Errors,
    /// What happened.
    Events,
    /// To reset a controller.
    Reset(u16),
}

/// Second words of `nvme`.
pub const WORDS: &[&str] = &["errors", "events", "health", "reset"];

/// Critical warnings by their bits.
const WARNINGS: [&str; 6] = [
    "spare capacity",
    "temperature",
    "reliability",
    "read only",
    "volatile memory backup",
    "persistent memory",
];

type Storage = Import<dyn StorageHealth>;

/// Answers `nvme`.
pub fn answer(storage: &mut Storage, view: View) -> Result<Answer, String> {
    if let View::Reset(controller) = view {
        storage.call(|storage| storage.reset(controller))?;
        return Ok(Answer::text(format!(
            "Controller {controller} is being reset; `nvme events` shows how it went."
        )));
    }
    let controllers = controllers(storage)?;
    if controllers.is_empty() {
        return Ok(Answer {
            text: "There is no NVMe controller.".into(),
            json: json!([]),
        });
    }
    match view {
        View::Health => each(&controllers, |index| health(storage, index)),
        View::Errors => each(&controllers, |index| errors(storage, index)),
        View::Events => each(&controllers, |index| events(storage, index)),
        _ => Ok(overview(&controllers)),
    }
}

/// Has every controller write its caches, before power goes. What can't be reached has nothing to write.
pub fn shut_down(storage: &mut Storage) {
    for index in 0..controllers(storage).map_or(0, |controllers| controllers.len()) {
        storage
            .call(|storage| storage.shut_down(index as u16))
            .unwrap_or_else(|error| log::warn!("a storage controller isn't shut down: {error}"));
    }
}

fn controllers(storage: &mut Storage) -> Result<Vec<ControllerInfo>, String> {
    let mut found = Vec::new();
    while let Some(info) = storage.call(|storage| storage.controller(found.len() as u16))? {
        found.push(info);
    }
    Ok(found)
}

/// One controller's answer after the other's.
fn each(
    controllers: &[ControllerInfo],
    mut show: impl FnMut(u16) -> Result<Answer, String>,
) -> Result<Answer, String> {
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for index in 0..controllers.len() {
        let Answer { text, json } = show(index as u16)?;
        texts.push(match controllers {
            [_] => text,
            _ => format!("controller {index}\n{text}"),
        });
        values.push(json);
    }
    Ok(Answer {
        text: texts.join("\n\n"),
        json: Value::Array(values),
    })
}

fn version(info: &ControllerInfo) -> String {
    format!("{}.{}", info.version >> 16, info.version >> 8 & 0xFF)
}

fn overview(controllers: &[ControllerInfo]) -> Answer {
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for info in controllers {
        let mut table = Table::new(&[]);
        let mut row = |name: &str, value: String| table.row([name.into(), value]);
        row("state", info.state.to_string());
        row("model", info.model.to_string());
        row("serial", info.serial.to_string());
        row("firmware", info.firmware.to_string());
        row("NVMe version", version(info));
        row("namespaces", info.namespaces.to_string());
        row(
            "queues",
            format!("{} of {} commands", info.queues, info.queue_depth),
        );
        row("longest transfer", bytes(u64::from(info.transfer_limit_bytes)));
        let cache = if info.volatile_cache {
            "volatile, on"
        } else {
            "none"
        };
        row("write cache", cache.into());
        let why = match info.last_reset.as_str() {
            "" => String::new(),
            why => format!(", the last because {why}"),
        };
        row("resets", format!("{}{why}", info.resets));
        texts.push(table.to_string());
        values.push(json!({
            "state": info.state.to_string(),
            "model": info.model.as_str(),
            "serial": info.serial.as_str(),
            "firmware": info.firmware.as_str(),
            "vendor": info.vendor,
            "version": version(info),
            "namespaces": info.namespaces,
            "queues": info.queues,
            "queue_depth": info.queue_depth,
            "transfer_limit_bytes": info.transfer_limit_bytes,
            "volatile_cache": info.volatile_cache,
            "resets": info.resets,
            "last_reset": info.last_reset.as_str(),
        }));
    }
    Answer {
        text: texts.join("\n\n"),
        json: Value::Array(values),
    }
}

fn warnings(smart: &SmartLog) -> Vec<&'static str> {
    let bits = (0..).zip(WARNINGS);
    bits.filter(|(bit, _)| smart.critical_warning >> bit & 1 != 0)
        .map(|(_, name)| name)
        .collect()
}

fn health(storage: &mut Storage, index: u16) -> Result<Answer, String> {
    let smart = storage.call(|storage| storage.smart(index))?;
    let latency = storage.call(|storage| storage.latency(index))?;
    let warnings = warnings(&smart);
    let celsius = i32::from(smart.temperature_kelvin) - 273;
    // A unit is a thousand blocks of 512 bytes.
    let data_bytes = |units: u64| units.saturating_mul(512_000);
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.into(), value]);
    row(
        "warnings",
        match warnings.as_slice() {
            [] => "none".into(),
            some => some.join(", "),
        },
    );
    row("temperature", format!("{celsius} C"));
    row(
        "spare capacity",
        format!(
            "{} %, warns below {} %",
            smart.available_spare_percent, smart.spare_threshold_percent
        ),
    );
    row("life used", format!("{} %", smart.percentage_used));
    row("read", bytes(data_bytes(smart.data_units_read)));
    row("written", bytes(data_bytes(smart.data_units_written)));
    row("read commands", smart.host_reads.to_string());
    row("write commands", smart.host_writes.to_string());
    row("power cycles", smart.power_cycles.to_string());
    row("hours on", smart.power_on_hours.to_string());
    row("unsafe shutdowns", smart.unsafe_shutdowns.to_string());
    row("media errors", smart.media_errors.to_string());
    row("errors logged", smart.error_log_entries.to_string());
    for (name, share) in [("median latency", 500), ("99th percentile", 990)] {
        if let Some(ns) = percentile_ns(&latency, share) {
            row(name, format!("below {} us", ns.div_ceil(1000)));
        }
    }
    if latency.longest_ns != 0 {
        row("longest latency", format!("{} us", latency.longest_ns / 1000));
    }
    let json = json!({
        "warnings": warnings,
        "temperature_celsius": celsius,
        "available_spare_percent": smart.available_spare_percent,
        "spare_threshold_percent": smart.spare_threshold_percent,
        "percentage_used": smart.percentage_used,
        "read_bytes": data_bytes(smart.data_units_read),
        "written_bytes": data_bytes(smart.data_units_written),
        "host_reads": smart.host_reads,
        "host_writes": smart.host_writes,
        "busy_minutes": smart.busy_minutes,
        "power_cycles": smart.power_cycles,
        "power_on_hours": smart.power_on_hours,
        "unsafe_shutdowns": smart.unsafe_shutdowns,
        "media_errors": smart.media_errors,
        "error_log_entries": smart.error_log_entries,
        "warning_minutes": smart.warning_minutes,
        "critical_minutes": smart.critical_minutes,
        "latency_ns_log2": latency.counts.as_slice(),
        "longest_latency_ns": latency.longest_ns,
    });
    Ok(Answer {
        text: table.to_string(),
        json,
    })
}

/// An upper bound of what `share` per thousand of the commands took.
fn percentile_ns(latency: &LatencyHistogram, share: u64) -> Option<u64> {
    let total: u64 = latency.counts.iter().sum();
    let wanted = (total * share).div_ceil(1000);
    let mut sum = 0;
    for (bucket, count) in (0u32..).zip(latency.counts) {
        sum += count;
        if sum >= wanted && count != 0 {
            return Some(2u64 << bucket);
        }
    }
    None
}

fn errors(storage: &mut Storage, index: u16) -> Result<Answer, String> {
    let mut entries: Vec<ErrorEntry> = Vec::new();
    while let Some(entry) = storage.call(|storage| storage.error_entry(index, entries.len() as u16))? {
        entries.push(entry);
    }
    let mut table = Table::new(&[">NUMBER", ">QUEUE", ">COMMAND", "STATUS", ">NAMESPACE", ">BLOCK"]);
    let known = |value: u16| match value {
        u16::MAX => "-".to_string(),
        value => value.to_string(),
    };
    for entry in &entries {
        table.row([
            entry.number.to_string(),
            known(entry.queue),
            known(entry.command),
            format!("{:#06x}", entry.status),
            entry.namespace.to_string(),
            entry.address.to_string(),
        ]);
    }
    let json = entries
        .iter()
        .map(|entry| {
            json!({
                "number": entry.number,
                "queue": entry.queue,
                "command": entry.command,
                "status": entry.status,
                "parameter": entry.parameter,
                "namespace": entry.namespace,
                "block": entry.address,
            })
        })
        .collect();
    Ok(Answer {
        text: match entries.is_empty() {
            true => "The controller has logged no errors.".into(),
            false => table.to_string(),
        },
        json: Value::Array(json),
    })
}

fn events(storage: &mut Storage, index: u16) -> Result<Answer, String> {
    let mut events: Vec<StorageEvent> = Vec::new();
    while let Some(event) = storage.call(|storage| {
        let next = events.last().map_or(1, |last: &StorageEvent| last.number + 1);
        storage.event(index, next)
    })? {
        events.push(event);
    }
    let mut table = Table::new(&[">NUMBER", ">TIME", "WHAT"]);
    for event in &events {
        table.row([event.number.to_string(), seconds(event.at_ns), what(event.kind)]);
    }
    let json = events
        .iter()
        .map(|event| json!({ "number": event.number, "at_ns": event.at_ns, "what": what(event.kind) }))
        .collect();
    Ok(Answer {
        text: table.to_string(),
        json: Value::Array(json),
    })
}

fn what(kind: EventKind) -> String {
    let command = |which: u32| format!("command {:#06x} of queue {}", which & 0xFFFF, which >> 16);
    match kind {
        EventKind::Started => "started".into(),
        EventKind::Warning(bits) => format!("warning, bits {bits:#04x}"),
        EventKind::Error(code) => format!("error {code}"),
        EventKind::NamespacesChanged => "namespaces changed".into(),
        EventKind::FirmwareActivation => "firmware is being activated".into(),
        EventKind::Other(event) => format!("event {event:#08x}"),
        EventKind::TimedOut(which) => format!("{} wasn't answered in time", command(which)),
        EventKind::Aborted(which) => format!("{} is to be aborted", command(which)),
        EventKind::Reset => "reset".into(),
        EventKind::ResetFailed => "a reset didn't help".into(),
        EventKind::ShutDown => "shut down".into(),
        EventKind::Removed => "removed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interface::storage_health::LATENCY_BUCKETS;

    #[test]
    fn a_percentile_is_where_so_many_have_been_counted() {
        let mut latency = LatencyHistogram {
            counts: [0; LATENCY_BUCKETS],
            longest_ns: 0,
        };
        assert_eq!(percentile_ns(&latency, 500), None);
        latency.counts[10] = 98;
        latency.counts[20] = 2;
        assert_eq!(percentile_ns(&latency, 500), Some(2048));
        assert_eq!(percentile_ns(&latency, 980), Some(2048));
        assert_eq!(percentile_ns(&latency, 990), Some(1 << 21));
    }
}
