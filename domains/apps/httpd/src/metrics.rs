//! The text of `/metrics`: Prometheus' exposition format, version 0.0.4.
//!
//! Turns what others count into lines; who is asked and when is `collector`'s.

use crate::counters::{Counter, Counters};
use crate::status::Status;
use alloc::string::String;
use core::fmt::{self, Display, Write};
use interface::balance::{BackendState, BackendStatus, Protocol, ServiceStatus};
use interface::kernel::{DomainState, MemoryStatus};
use interface::net::{LinkState, NetStatistics};
use interface::socket::SocketStatistics;
use interface::supervise::SupervisedStatus;

const PAGE_BYTES: u64 = 4096;

/// What a family's numbers are.
#[derive(Clone, Copy)]
pub enum Kind {
    /// One that only ever grows.
    Counter,
    /// One that goes up and down.
    Gauge,
    /// Counts by bounds, each with those below it.
    Histogram,
}

/// A text that grows family by family. Writing to a `String` doesn't fail.
#[derive(Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The text so far.
    pub fn into_text(self) -> String {
        self.text
    }

    /// A line that is no metric.
    pub fn comment(&mut self, text: impl Display) {
        writeln!(self.text, "# {}", Escaped(text)).ok();
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    /// A number of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(self.text, "{before}{label}=\"{}\"", Escaped(value)).ok();
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").ok();
    }

    /// A family of one number without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// One family over all of `items`: their labels and their numbers.
    pub fn each<T>(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        items: &[T],
        mut write: impl FnMut(&mut dyn FnMut(&[(&str, &dyn Display)], u64), &T),
    ) {
        self.family(name, kind, help);
        for item in items {
            write(&mut |labels, value| self.sample(name, labels, value), item);
        }
    }
}

/// A label's value: backslash, quote and line end escaped.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.split_inclusive(['\\', '"', '\n']) {
                    match part.as_bytes().last() {
                        Some(b'\n') => write!(self.0, "{}\\n", part.trim_end_matches('\n'))?,
                        Some(last @ (b'\\' | b'"')) => {
                            let rest = part.get(..part.len() - 1).unwrap_or_default();
                            write!(self.0, "{rest}\\{}", char::from(*last))?;
                        }
                        _ => self.0.write_str(part)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

/// What the supervisor knows.
pub struct Supervision<'a> {
    /// Every domain.
    pub domains: &'a [SupervisedStatus],
    /// Deaths since boot.
    pub deaths: u64,
    /// The machine's memory.
    pub memory: MemoryStatus,
}

const STATES: [(DomainState, &str); 5] = [
    (DomainState::Stopped, "stopped"),
    (DomainState::Starting, "starting"),
    (DomainState::Running, "running"),
    (DomainState::Dying, "dying"),
    (DomainState::Dead, "dead"),
];

/// Domains, deaths and memory.
pub fn supervision(text: &mut Exposition, data: &Supervision<'_>) {
    use Kind::{Counter, Gauge};
    type Read = fn(&SupervisedStatus) -> u64;
    let families: [(&str, Kind, &str, Read); 10] = [
        (
            "redleaf_domain_restarts_total",
            Counter,
            "Restarts since boot.",
            |status| status.restarts,
        ),
        (
            "redleaf_domain_restart_cpu_nanoseconds_total",
            Counter,
            "CPU time that its deaths and the starts before them have cost.",
            |status| status.restart_cpu_ns,
        ),
        (
            "redleaf_domain_generation",
            Gauge,
            "Incarnations so far.",
            |status| status.domain.generation,
        ),
        (
            "redleaf_domain_threads",
            Gauge,
            "Threads in the domain.",
            |status| status.domain.threads.into(),
        ),
        (
            "redleaf_domain_memory_bytes",
            Gauge,
            "Private memory: image, heap, stacks.",
            |status| status.domain.memory_bytes,
        ),
        (
            "redleaf_domain_shared_bytes",
            Gauge,
            "Shared-heap objects that the domain owns.",
            |status| status.domain.shared_bytes,
        ),
        (
            "redleaf_domain_crossings_total",
            Counter,
            "Calls into the domain since boot.",
            |status| status.domain.crossings,
        ),
        (
            "redleaf_domain_held",
            Gauge,
            "1 when held for the operator after too many deaths.",
            |status| status.held.into(),
        ),
        (
            "redleaf_domain_stopped",
            Gauge,
            "1 when stopped by the operator.",
            |status| status.stopped.into(),
        ),
        (
            "redleaf_domain_refused",
            Gauge,
            "1 when its image was refused at boot.",
            |status| status.refused.into(),
        ),
    ];
    for (name, kind, help, read) in families {
        text.each((name, kind, help), data.domains, |sample, status| {
            sample(&[("domain", &status.domain.name)], read(status));
        });
    }
    let family = (
        "redleaf_domain_state",
        Gauge,
        "1 for the state that the domain is in.",
    );
    text.each(family, data.domains, |sample, status| {
        for (state, name) in STATES {
            let is = u64::from(status.domain.state == state);
            sample(&[("domain", &status.domain.name), ("state", &name)], is);
        }
    });
    text.single(
        "redleaf_deaths_total",
        Counter,
        "Deaths of domains since boot.",
        data.deaths,
    );
    let memory = &data.memory;
    for (name, help, value) in [
        (
            "redleaf_memory_total_bytes",
            "RAM that is managed.",
            memory.total_pages * PAGE_BYTES,
        ),
        (
            "redleaf_memory_free_bytes",
            "Free RAM.",
            memory.free_pages * PAGE_BYTES,
        ),
        (
            "redleaf_shared_heap_bytes",
            "RAM that the shared heap holds.",
            memory.shared_pages * PAGE_BYTES,
        ),
        (
            "redleaf_shared_heap_used_bytes",
            "Of it, in use.",
            memory.shared_used_bytes,
        ),
    ] {
        text.single(name, Gauge, help, value);
    }
}

/// The network card.
pub fn network_device(text: &mut Exposition, link: &LinkState, statistics: &NetStatistics) {
    use Kind::{Counter, Gauge};
    text.single(
        "redleaf_nic_up",
        Gauge,
        "1 when the link is up.",
        u8::from(link.up),
    );
    text.single(
        "redleaf_nic_speed_mbps",
        Gauge,
        "Megabits a second; 0 when down.",
        link.speed_mbps,
    );
    text.single(
        "redleaf_nic_link_changes_total",
        Counter,
        "Changes of the link's state.",
        link.changes,
    );
    for (name, help, value) in [
        (
            "redleaf_nic_received_frames_total",
            "Frames received.",
            statistics.received_frames,
        ),
        (
            "redleaf_nic_received_bytes_total",
            "Their bytes, without FCS.",
            statistics.received_bytes,
        ),
        (
            "redleaf_nic_received_multicast_total",
            "Of them, multicast and broadcast.",
            statistics.received_multicast,
        ),
        (
            "redleaf_nic_transmitted_frames_total",
            "Frames sent.",
            statistics.transmitted_frames,
        ),
        (
            "redleaf_nic_transmitted_bytes_total",
            "Their bytes, without FCS.",
            statistics.transmitted_bytes,
        ),
        (
            "redleaf_nic_receive_missed_total",
            "Frames lost for want of a descriptor.",
            statistics.receive_missed,
        ),
        (
            "redleaf_nic_crc_errors_total",
            "Frames with a wrong FCS.",
            statistics.crc_errors,
        ),
        (
            "redleaf_nic_length_errors_total",
            "Frames of a wrong length.",
            statistics.length_errors,
        ),
        (
            "redleaf_nic_checksum_errors_total",
            "Frames with a wrong checksum.",
            statistics.checksum_errors,
        ),
        (
            "redleaf_nic_transmit_full_total",
            "Frames given back by a full ring.",
            statistics.transmit_full,
        ),
        (
            "redleaf_nic_transmit_hangs_total",
            "Hangs of the transmitter, each reset.",
            statistics.transmit_hangs,
        ),
        (
            "redleaf_nic_interrupts_total",
            "Interrupts taken.",
            statistics.interrupts,
        ),
        (
            "redleaf_nic_driver_restarts_total",
            "Restarts of the driver.",
            statistics.restarts,
        ),
    ] {
        text.single(name, Counter, help, value);
    }
}

/// The stack.
pub fn sockets(text: &mut Exposition, statistics: &SocketStatistics) {
    use Kind::{Counter, Gauge};
    text.single(
        "redleaf_tcp_connections",
        Gauge,
        "TCP connections now.",
        statistics.connections,
    );
    for (name, help, value) in [
        (
            "redleaf_tcp_accepted_total",
            "Connections accepted.",
            statistics.accepted,
        ),
        (
            "redleaf_tcp_connected_total",
            "Connections made.",
            statistics.connected,
        ),
        (
            "redleaf_tcp_aborted_total",
            "Connections reset or timed out.",
            statistics.aborted,
        ),
        (
            "redleaf_tcp_dropped_syn_total",
            "SYNs dropped at a limit.",
            statistics.dropped_syn,
        ),
        (
            "redleaf_tcp_retransmitted_total",
            "Segments sent again.",
            statistics.retransmitted,
        ),
        (
            "redleaf_ip_bad_checksum_total",
            "Packets with a wrong checksum.",
            statistics.bad_checksum,
        ),
        (
            "redleaf_ip_unclaimed_total",
            "Packets that no socket wanted.",
            statistics.unclaimed,
        ),
        (
            "redleaf_ip_received_packets_total",
            "Packets handled.",
            statistics.received_packets,
        ),
        (
            "redleaf_ip_sent_packets_total",
            "Packets sent.",
            statistics.sent_packets,
        ),
    ] {
        text.single(name, Counter, help, value);
    }
}

/// The load balancer: services, and backends each with its service's index in `services`.
pub fn balancer(text: &mut Exposition, services: &[ServiceStatus], backends: &[(usize, BackendStatus)]) {
    use Kind::{Counter, Gauge};
    type ReadService = fn(&ServiceStatus) -> u64;
    let families: [(&str, Kind, &str, ReadService); 6] = [
        (
            "redleaf_maglev_vip_packets_total",
            Counter,
            "Packets forwarded.",
            |service| service.packets,
        ),
        (
            "redleaf_maglev_vip_bytes_total",
            Counter,
            "Their bytes.",
            |service| service.bytes,
        ),
        (
            "redleaf_maglev_vip_connections_total",
            Counter,
            "Connections begun.",
            |service| service.connections,
        ),
        (
            "redleaf_maglev_vip_dropped_total",
            Counter,
            "Packets that no backend could take.",
            |service| service.dropped,
        ),
        (
            "redleaf_maglev_vip_tracked_connections",
            Gauge,
            "Connections in the tables.",
            |service| service.tracked,
        ),
        (
            "redleaf_maglev_vip_backends",
            Gauge,
            "Backends of any state.",
            |service| service.backends.into(),
        ),
    ];
    for (name, kind, help, read) in families {
        text.each((name, kind, help), services, |sample, service| {
            let protocol = match service.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let labels: [(&str, &dyn Display); 4] = [
                ("vip", &service.name),
                ("address", &service.address),
                ("port", &service.port),
                ("protocol", &protocol),
            ];
            sample(&labels, read(service));
        });
    }
    type ReadBackend = fn(&BackendStatus) -> u64;
    let families: [(&str, Kind, &str, ReadBackend); 6] = [
        (
            "redleaf_maglev_backend_packets_total",
            Counter,
            "Packets forwarded.",
            |backend| backend.packets,
        ),
        (
            "redleaf_maglev_backend_bytes_total",
            Counter,
            "Their bytes.",
            |backend| backend.bytes,
        ),
        (
            "redleaf_maglev_backend_connections_total",
            Counter,
            "Connections begun.",
            |backend| backend.connections,
        ),
        (
            "redleaf_maglev_backend_weight",
            Gauge,
            "Configured weight.",
            |backend| backend.weight.into(),
        ),
        (
            "redleaf_maglev_backend_slots",
            Gauge,
            "Slots of the lookup table.",
            |backend| backend.slots.into(),
        ),
        (
            "redleaf_maglev_backend_active",
            Gauge,
            "1 when it gets new connections, 0 when draining.",
            |backend| (backend.state == BackendState::Active).into(),
        ),
    ];
    for (name, kind, help, read) in families {
        text.each((name, kind, help), backends, |sample, (service, backend)| {
            if let Some(service) = services.get(*service) {
                sample(
                    &[("vip", &service.name), ("backend", &backend.name)],
                    read(backend),
                );
            }
        });
    }
}

/// This server, over all shards.
pub fn server(text: &mut Exposition, shards: &[impl AsRef<Counters>]) {
    use Kind::{Counter as Grows, Gauge};
    let sum =
        |read: fn(&Counters) -> &Counter| shards.iter().map(|shard| read(shard.as_ref()).get()).sum::<u64>();
    let family = (
        "redleaf_http_requests_total",
        Grows,
        "Requests answered, by status.",
    );
    text.each(family, Status::ALL, |sample, status| {
        let count = shards.iter().map(|shard| shard.as_ref().answers(*status)).sum();
        sample(&[("code", &status.code())], count);
    });
    text.single(
        "redleaf_http_connections",
        Gauge,
        "Connections open now.",
        sum(|shard| &shard.open),
    );
    for (name, help, value) in [
        (
            "redleaf_http_connections_total",
            "Connections taken.",
            sum(|shard| &shard.accepted),
        ),
        (
            "redleaf_http_connections_refused_total",
            "Refused at the limit.",
            sum(|shard| &shard.refused),
        ),
        (
            "redleaf_http_timeouts_total",
            "Connections ended by a deadline.",
            sum(|shard| &shard.timed_out),
        ),
        (
            "redleaf_http_starved_total",
            "Connections ended for want of buffers.",
            sum(|shard| &shard.starved),
        ),
        (
            "redleaf_http_sent_bytes_total",
            "Bytes sent, heads and bodies.",
            sum(|shard| &shard.sent_bytes),
        ),
        (
            "redleaf_http_received_bytes_total",
            "Bytes received.",
            sum(|shard| &shard.received_bytes),
        ),
    ] {
        text.single(name, Grows, help, value);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
