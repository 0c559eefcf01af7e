//! Storage: what the device did, its partitions, and its controllers' health.

use crate::metrics::{Exposition, Kind};
use core::fmt::Display;
use interface::block::{BlockStatistics, UnitInfo};
use interface::storage_health::{ControllerInfo, ControllerState, SmartLog};

/// What the storage device did.
pub fn device(text: &mut Exposition, statistics: &BlockStatistics) {
    for (name, help, value) in [
        (
            "redleaf_disk_reads_total",
            "Read requests done.",
            statistics.reads,
        ),
        (
            "redleaf_disk_read_bytes_total",
            "Their bytes.",
            statistics.read_bytes,
        ),
        (
            "redleaf_disk_writes_total",
            "Write requests done.",
            statistics.writes,
        ),
        (
            "redleaf_disk_written_bytes_total",
            "Their bytes.",
            statistics.written_bytes,
        ),
        ("redleaf_disk_flushes_total", "Flushes done.", statistics.flushes),
        (
            "redleaf_disk_discards_total",
            "Deallocations and writes of zeros done.",
            statistics.discards,
        ),
        (
            "redleaf_disk_commands_total",
            "Commands that requests became.",
            statistics.commands,
        ),
        (
            "redleaf_disk_errors_total",
            "Requests that failed.",
            statistics.errors,
        ),
        (
            "redleaf_disk_timeouts_total",
            "Commands that were not answered in time.",
            statistics.timeouts,
        ),
        (
            "redleaf_disk_aborts_total",
            "Commands aborted.",
            statistics.aborts,
        ),
        (
            "redleaf_disk_resets_total",
            "Resets of the controller.",
            statistics.resets,
        ),
        (
            "redleaf_disk_interrupts_total",
            "Interrupts taken.",
            statistics.interrupts,
        ),
        (
            "redleaf_disk_driver_restarts_total",
            "Restarts of the driver.",
            statistics.restarts,
        ),
        (
            "redleaf_disk_replayed_total",
            "Requests handed to a further driver because the one before died with them.",
            statistics.replayed,
        ),
    ] {
        text.single(name, Kind::Counter, help, value);
    }
}

/// The partitions, by their units.
pub fn partitions(text: &mut Exposition, units: &[(u16, UnitInfo)]) {
    let family = ("redleaf_partition_bytes", Kind::Gauge, "Size of a partition.");
    text.each(family, units, |sample, (unit, info)| {
        let labels: [(&str, &dyn Display); 2] = [("unit", unit), ("name", &info.name)];
        sample(&labels, info.blocks.saturating_mul(u64::from(info.block_bytes)));
    });
}

/// The controllers, with their health where they tell it.
pub fn controllers(text: &mut Exposition, controllers: &[(ControllerInfo, Option<SmartLog>)]) {
    let up = (
        "redleaf_nvme_ready",
        Kind::Gauge,
        "1 when the controller takes requests.",
    );
    text.each(up, controllers, |sample, (info, _)| {
        let labels: [(&str, &dyn Display); 2] = [("serial", &info.serial), ("model", &info.model)];
        sample(&labels, u64::from(info.state == ControllerState::Ready));
    });
    type Read = fn(&SmartLog) -> u64;
    let families: [(&str, Kind, &str, Read); 7] = [
        (
            "redleaf_nvme_critical_warning",
            Kind::Gauge,
            "Critical warnings of SMART, a bit each.",
            |smart| smart.critical_warning.into(),
        ),
        (
            "redleaf_nvme_temperature_kelvin",
            Kind::Gauge,
            "Composite temperature.",
            |smart| smart.temperature_kelvin.into(),
        ),
        (
            "redleaf_nvme_available_spare_percent",
            Kind::Gauge,
            "Spare capacity left.",
            |smart| smart.available_spare_percent.into(),
        ),
        (
            "redleaf_nvme_used_percent",
            Kind::Gauge,
            "Life used up, as the maker estimates it.",
            |smart| smart.percentage_used.into(),
        ),
        (
            "redleaf_nvme_unsafe_shutdowns_total",
            Kind::Counter,
            "Times that its power went without a shutdown.",
            |smart| smart.unsafe_shutdowns,
        ),
        (
            "redleaf_nvme_media_errors_total",
            Kind::Counter,
            "Unrecovered errors of the medium or of data on the way.",
            |smart| smart.media_errors,
        ),
        (
            "redleaf_nvme_error_log_entries_total",
            Kind::Counter,
            "Entries ever written to its error log.",
            |smart| smart.error_log_entries,
        ),
    ];
    for (name, kind, help, read) in families {
        text.each((name, kind, help), controllers, |sample, (info, smart)| {
            if let Some(smart) = smart {
                sample(&[("serial", &info.serial)], read(smart));
            }
        });
    }
}
