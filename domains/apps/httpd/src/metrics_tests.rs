//! The exposition format's rules, on a text with every family.

use super::*;
use crate::holdings::{frame_uses, holdings};
use alloc::vec::Vec;
use core::net::IpAddr;
use interface::balance::Name;
use interface::black_box::DeathCounts;
use interface::block::UnitInfo;
use interface::holdings::{FrameUses, Holdings};
use interface::kernel::{DeathCause, DomainName, DomainStatus};
use interface::storage_health::{ControllerInfo, ControllerState, SmartLog};
use rref::Text;
use std::collections::HashSet;
use std::string::ToString;
use std::sync::Arc;

fn domain(name: &str) -> SupervisedStatus {
    SupervisedStatus {
        domain: DomainStatus {
            name: DomainName::new(name),
            state: DomainState::Running,
            generation: 3,
            threads: 2,
            memory_bytes: 4096,
            shared_bytes: 64,
            crossings: 12,
            restart_immediate: 0,
            backoff_floor_ms: 0,
            backoff_ceiling_ms: 0,
            restart_budget: 0,
            window_ms: 0,
            restart_cpu_permille: 0,
        },
        restarts: 2,
        restart_cpu_ns: 0,
        held: false,
        stopped: false,
        refused: false,
        restart_at_ns: 0,
    }
}

fn everything() -> String {
    let mut text = Exposition::default();
    let counters = Arc::new(Counters::default());
    counters.answered(Status::NotFound);
    server(&mut text, &[counters.clone(), counters]);
    let memory = MemoryStatus {
        total_pages: 2,
        free_pages: 1,
        shared_used_bytes: 5,
        shared_pages: 1,
        uses: FrameUses::default(),
    };
    let domains = [domain("ixgbe"), domain("a\"b\\c")];
    supervision(
        &mut text,
        &Supervision {
            domains: &domains,
            deaths: 7,
            memory,
        },
    );
    let held = domains.map(|status| (status.domain.name, Holdings::default()));
    holdings(&mut text, &held);
    frame_uses(&mut text, &memory.uses);
    let mut counts = DeathCounts::default();
    counts.add(DeathCause::Panic);
    counts.restarts.add(1_500_000);
    counts.outages.add(2_500_000);
    let names = domains.map(|status| status.domain.name);
    crate::death_metrics::deaths(&mut text, &names.map(|name| (name, counts)));
    network_device(&mut text, &LinkState::default(), &NetStatistics::default());
    crate::disk_metrics::device(&mut text, &interface::block::BlockStatistics::default());
    let unit = UnitInfo {
        block_bytes: 512,
        blocks: 2048,
        volatile_cache: true,
        forced_writes: true,
        read_only: false,
        deallocate: true,
        atomic_blocks: 1,
        transfer_blocks: 256,
        kind: [0; 16],
        name: Text::new("store"),
    };
    crate::disk_metrics::partitions(&mut text, &[(0, unit), (2, unit)]);
    let controller = ControllerInfo {
        state: ControllerState::Ready,
        serial: Text::new("S1"),
        model: Text::new("Played"),
        firmware: Text::EMPTY,
        vendor: 1,
        version: 0,
        namespaces: 1,
        queues: 1,
        queue_depth: 1,
        transfer_limit_bytes: 0,
        volatile_cache: true,
        resets: 0,
        last_reset: Text::EMPTY,
    };
    crate::disk_metrics::controllers(&mut text, &[(controller, Some(SmartLog::default()))]);
    crate::store_metrics::up(&mut text, true);
    crate::store_metrics::store(&mut text, &interface::key_value::StoreStatistics::default());
    sockets(&mut text, &SocketStatistics::default());
    let service = ServiceStatus {
        name: Name::new("web"),
        address: IpAddr::from([10, 82, 99, 100]),
        port: 80,
        protocol: Protocol::Tcp,
        backends: 1,
        packets: 9,
        bytes: 8,
        connections: 7,
        dropped: 6,
        tracked: 5,
    };
    let backend = BackendStatus {
        name: Name::new("backend1"),
        address: IpAddr::from([10, 82, 99, 11]),
        mac: None,
        weight: 1,
        state: BackendState::Draining,
        slots: 65_537,
        packets: 4,
        bytes: 3,
        connections: 2,
    };
    balancer(&mut text, &[service], &[(0, backend)]);
    text.comment("nic: two\nlines");
    text.into_text()
}

#[test]
fn values_are_where_they_belong() {
    let text = everything();
    for line in [
        "redleaf_http_requests_total{code=\"404\"} 2",
        "redleaf_domain_restarts_total{domain=\"ixgbe\"} 2",
        "redleaf_domain_crossings_total{domain=\"a\\\"b\\\\c\"} 12",
        "redleaf_domain_state{domain=\"ixgbe\",state=\"running\"} 1",
        "redleaf_domain_state{domain=\"ixgbe\",state=\"dead\"} 0",
        "redleaf_deaths_total 7",
        "redleaf_memory_free_bytes 4096",
        "redleaf_maglev_vip_packets_total{vip=\"web\",address=\"10.82.99.100\",port=\"80\",protocol=\"tcp\"} 9",
        "redleaf_maglev_backend_slots{vip=\"web\",backend=\"backend1\"} 65537",
        "redleaf_partition_bytes{unit=\"2\",name=\"store\"} 1048576",
        "redleaf_nvme_ready{serial=\"S1\",model=\"Played\"} 1",
        "redleaf_maglev_backend_active{vip=\"web\",backend=\"backend1\"} 0",
        "# nic: two\\nlines",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

/// Prometheus refuses a text in which a family comes twice, or a sample without its family or twice.
#[test]
fn each_family_comes_once_with_its_samples() {
    let text = everything();
    let mut families = HashSet::new();
    let mut samples = HashSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family.to_string()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let words: Vec<_> = rest.split(' ').collect();
            assert_eq!(words[0], family);
            assert_eq!(words[1] == "counter", family.ends_with("_total"), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let own = name.split('{').next().unwrap();
            let is_part = ["", "_bucket", "_sum", "_count"]
                .iter()
                .any(|part| own.strip_suffix(part) == Some(family));
            assert!(is_part, "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(name.to_string()), "{line}");
        }
    }
    assert!(text.ends_with('\n'));
}
