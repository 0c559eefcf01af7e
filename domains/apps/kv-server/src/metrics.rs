//! The server's numbers in Prometheus' text format, for `/metrics`.

use crate::server::{Phase, Server};
use crate::service::Service;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use interface::metrics::{Metrics, MetricsError, MetricsPage, PAGE_BYTES};
use rref::RRef;

/// What other domains see of the server.
pub struct Exported(pub Arc<Service>);

impl Metrics for Exported {
    fn page(&self, index: u32, mut page: RRef<MetricsPage>) -> Result<RRef<MetricsPage>, MetricsError> {
        page.length = 0;
        if index == 0 {
            let text = text(&self.0.server.lock());
            // Some twenty lines: a page holds them.
            let length = text.len().min(PAGE_BYTES);
            if let (Some(to), Some(from)) = (page.text.get_mut(..length), text.as_bytes().get(..length)) {
                to.copy_from_slice(from);
                page.length = length as u32;
            }
        }
        Ok(page)
    }
}

/// The lines.
fn text(server: &Server) -> String {
    let mut text = String::new();
    let counters = &server.statistics;
    let keys: usize = (0..crate::keyspace::DATABASES)
        .filter_map(|number| server.keyspace.database(number))
        .map(|database| database.keys.len())
        .sum();
    let ready = matches!(server.phase, Phase::Ready | Phase::Volatile);
    for (name, kind, help, value) in [
        (
            "ready",
            "gauge",
            "Whether all commands are served.",
            u64::from(ready),
        ),
        (
            "clients",
            "gauge",
            "Connections now.",
            server.clients.len() as u64,
        ),
        (
            "blocked_clients",
            "gauge",
            "Clients that wait for a key.",
            server.waiting_count() as u64,
        ),
        (
            "connections_total",
            "counter",
            "Connections accepted.",
            counters.connections,
        ),
        (
            "rejected_connections_total",
            "counter",
            "Connections turned away.",
            counters.rejected,
        ),
        (
            "commands_total",
            "counter",
            "Commands executed.",
            counters.commands,
        ),
        (
            "error_replies_total",
            "counter",
            "Answers that are errors.",
            counters.errors,
        ),
        (
            "hits_total",
            "counter",
            "Keys that were looked for and found.",
            counters.hits,
        ),
        (
            "misses_total",
            "counter",
            "Keys that were looked for and not found.",
            counters.misses,
        ),
        (
            "expired_keys_total",
            "counter",
            "Keys removed because their time was over.",
            server.keyspace.expired,
        ),
        (
            "received_bytes_total",
            "counter",
            "Bytes of requests.",
            counters.received_bytes,
        ),
        (
            "sent_bytes_total",
            "counter",
            "Bytes of answers.",
            counters.sent_bytes,
        ),
        ("keys", "gauge", "Keys.", keys as u64),
        (
            "memory_bytes",
            "gauge",
            "Memory of keys and values.",
            server.keyspace.used_bytes as u64,
        ),
        (
            "memory_limit_bytes",
            "gauge",
            "What writes are refused at; 0 for no limit.",
            server.config.maximum_memory_bytes,
        ),
        (
            "undurable_bytes",
            "gauge",
            "Bytes of changes that are not yet on the disk.",
            server.ledger.kept_bytes() as u64,
        ),
    ] {
        // Writing to memory doesn't fail.
        let _ = write!(
            text,
            "# HELP redleaf_kv_{name} {help}\n# TYPE redleaf_kv_{name} {kind}\nredleaf_kv_{name} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use std::prelude::v1::*;

    #[test]
    fn every_line_has_a_value() {
        let mut bench = Bench::default();
        bench.run("set a 1");
        let text = text(&bench.server);
        assert!(text.contains("\nredleaf_kv_keys 1\n") && text.contains("\nredleaf_kv_commands_total 1\n"));
        assert!(text.len() < PAGE_BYTES);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line
                .split_once(' ')
                .and_then(|(_, value)| value.parse::<u64>().ok());
            assert!(value.is_some(), "{line}");
        }
    }
}
