//! The key-value store: what it holds, and what it did.

use crate::metrics::{Exposition, Kind};
use interface::key_value::StoreStatistics;

/// Whether there is a store that takes requests.
pub fn up(text: &mut Exposition, is_up: bool) {
    let help = "1 when the key-value store takes requests.";
    text.single("redleaf_store_up", Kind::Gauge, help, u64::from(is_up));
}

/// The store.
pub fn store(text: &mut Exposition, statistics: &StoreStatistics) {
    use Kind::{Counter, Gauge};
    for (name, kind, help, value) in [
        ("redleaf_store_keys", Gauge, "Live keys.", statistics.keys),
        (
            "redleaf_store_live_bytes",
            Gauge,
            "Bytes of live keys and values, as they stand in the log.",
            statistics.live_bytes,
        ),
        (
            "redleaf_store_used_bytes",
            Gauge,
            "Bytes of the partition that segments take.",
            statistics.used_bytes,
        ),
        (
            "redleaf_store_capacity_bytes",
            Gauge,
            "Bytes of all segments.",
            statistics.capacity_bytes,
        ),
        (
            "redleaf_store_index_bytes",
            Gauge,
            "Memory of the index.",
            statistics.index_bytes,
        ),
        (
            "redleaf_store_segments",
            Gauge,
            "Segments.",
            statistics.segments.into(),
        ),
        (
            "redleaf_store_free_segments",
            Gauge,
            "Segments that hold nothing.",
            statistics.free_segments.into(),
        ),
        (
            "redleaf_store_uncommitted_groups",
            Gauge,
            "Groups that are not durable yet.",
            statistics.appended.saturating_sub(statistics.committed),
        ),
        (
            "redleaf_store_groups_total",
            Counter,
            "Groups appended.",
            statistics.groups,
        ),
        (
            "redleaf_store_flushes_total",
            Counter,
            "Flushes and forced writes that made them durable.",
            statistics.flushes,
        ),
        (
            "redleaf_store_written_bytes_total",
            Counter,
            "Bytes written to the disk.",
            statistics.written_bytes,
        ),
        (
            "redleaf_store_cleaned_bytes_total",
            Counter,
            "Bytes of them that cleaning moved.",
            statistics.cleaned_bytes,
        ),
        (
            "redleaf_store_open_milliseconds",
            Gauge,
            "How long opening took.",
            statistics.open_ms,
        ),
        (
            "redleaf_store_open_read_bytes",
            Gauge,
            "Bytes read for it.",
            statistics.open_read_bytes,
        ),
        (
            "redleaf_store_open_dropped_groups",
            Gauge,
            "Groups that had not been committed and were dropped then.",
            statistics.dropped_groups,
        ),
    ] {
        text.single(name, kind, help, value);
    }
}
