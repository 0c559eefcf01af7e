//! Answers about the network: the card, the stack's addresses and counters, the load balancer.

use crate::answer::Answer;
use crate::command::Change;
use crate::import::Import;
use crate::table::{Table, bytes};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::balance::{BackendState, BackendStatus, Balancer, Name, Protocol, ServiceStatus};
use interface::net::NetDevice;
use interface::socket::Sockets;
use serde_json::{Value, json};

/// `nic`.
pub fn nic(nic: &mut Import<dyn NetDevice>) -> Result<Answer, String> {
    let info = nic.call(|nic| nic.info())?;
    let link = nic.call(|nic| nic.link())?;
    let statistics = nic.call(|nic| nic.statistics())?;
    let counters = [
        ("received_frames", statistics.received_frames),
        ("received_bytes", statistics.received_bytes),
        ("received_multicast", statistics.received_multicast),
        ("transmitted_frames", statistics.transmitted_frames),
        ("transmitted_bytes", statistics.transmitted_bytes),
        ("receive_missed", statistics.receive_missed),
        ("crc_errors", statistics.crc_errors),
        ("length_errors", statistics.length_errors),
        ("checksum_errors", statistics.checksum_errors),
        ("transmit_full", statistics.transmit_full),
        ("transmit_hangs", statistics.transmit_hangs),
        ("interrupts", statistics.interrupts),
        ("restarts", statistics.restarts),
    ];
    let mut table = Table::new(&[]);
    table.row(["address".into(), info.mac.to_string()]);
    table.row(["queues".into(), info.queues.to_string()]);
    table.row([
        "link".into(),
        match link.up {
            true => format!("up, {} Mbit/s", link.speed_mbps),
            false => "down".into(),
        },
    ]);
    table.row(["link changes".into(), link.changes.to_string()]);
    let json = json!({
        "mac": info.mac.to_string(),
        "queues": info.queues,
        "link_up": link.up,
        "speed_mbps": link.speed_mbps,
        "link_changes": link.changes,
    });
    Ok(with_counters(table, json, &counters))
}

/// `ip`.
pub fn ip(sockets: &mut Import<dyn Sockets>) -> Result<Answer, String> {
    let mut addresses = Vec::new();
    for index in 0..u16::MAX {
        let Some((address, prefix)) = sockets.call(|sockets| sockets.address(index))? else {
            break;
        };
        addresses.push(format!("{address}/{prefix}"));
    }
    let statistics = sockets.call(|sockets| sockets.statistics())?;
    let counters = [
        ("connections", statistics.connections),
        ("accepted", statistics.accepted),
        ("connected", statistics.connected),
        ("aborted", statistics.aborted),
        ("dropped_syn", statistics.dropped_syn),
        ("retransmitted", statistics.retransmitted),
        ("bad_checksum", statistics.bad_checksum),
        ("unclaimed", statistics.unclaimed),
        ("received_packets", statistics.received_packets),
        ("sent_packets", statistics.sent_packets),
    ];
    let mut table = Table::new(&[]);
    for address in &addresses {
        table.row(["address".into(), address.clone()]);
    }
    let json = json!({ "addresses": addresses });
    Ok(with_counters(table, json, &counters))
}

/// A table and an object with counters added to both.
fn with_counters(mut table: Table, mut json: Value, counters: &[(&str, u64)]) -> Answer {
    for (name, count) in counters {
        table.row([name.replace('_', " "), count.to_string()]);
        if let Value::Object(fields) = &mut json {
            fields.insert((*name).into(), (*count).into());
        }
    }
    Answer {
        text: table.to_string(),
        json,
    }
}

/// Every virtual service.
pub fn services(balancer: &mut Import<dyn Balancer>) -> Result<Vec<ServiceStatus>, String> {
    let mut services = Vec::new();
    for index in 0..u16::MAX {
        let Some(service) = balancer.call(|balancer| balancer.service(index))? else {
            break;
        };
        services.push(service);
    }
    Ok(services)
}

/// Every backend of a service.
pub fn backends(balancer: &mut Import<dyn Balancer>, service: Name) -> Result<Vec<BackendStatus>, String> {
    let mut backends = Vec::new();
    for index in 0..u16::MAX {
        let Some(backend) = balancer.call(|balancer| balancer.backend(service, index))? else {
            break;
        };
        backends.push(backend);
    }
    Ok(backends)
}

/// `maglev`.
pub fn maglev(balancer: &mut Import<dyn Balancer>) -> Result<Answer, String> {
    let mut text = String::new();
    let mut json = Vec::new();
    for service in services(balancer)? {
        let backends = backends(balancer, service.name)?;
        if !text.is_empty() {
            text += "\n\n";
        }
        text += &service_text(&service, &backends);
        json.push(service_json(&service, &backends));
    }
    if text.is_empty() {
        text = "There are no virtual services.".into();
    }
    Ok(Answer {
        text,
        json: Value::Array(json),
    })
}

fn service_text(service: &ServiceStatus, backends: &[BackendStatus]) -> String {
    let slots: u64 = backends.iter().map(|backend| u64::from(backend.slots)).sum();
    let mut table = Table::new(&[
        "  BACKEND",
        "ADDRESS",
        "ETHERNET",
        "STATE",
        ">WEIGHT",
        ">SHARE",
        ">CONNECTIONS",
        ">PACKETS",
        ">BYTES",
    ]);
    for backend in backends {
        let per_mille = (u64::from(backend.slots) * 1_000).checked_div(slots).unwrap_or(0);
        table.row([
            format!("  {}", backend.name),
            backend.address.to_string(),
            backend.mac.map_or("unknown".into(), |mac| mac.to_string()),
            state(backend.state).into(),
            backend.weight.to_string(),
            format!("{}.{} %", per_mille / 10, per_mille % 10),
            backend.connections.to_string(),
            backend.packets.to_string(),
            bytes(backend.bytes),
        ]);
    }
    format!(
        "{}: {} {} port {}; {} connections, {} tracked, {} packets, {}, {} dropped\n{table}",
        service.name,
        protocol(service.protocol),
        service.address,
        service.port,
        service.connections,
        service.tracked,
        service.packets,
        bytes(service.bytes),
        service.dropped,
    )
}

fn service_json(service: &ServiceStatus, backends: &[BackendStatus]) -> Value {
    let backends: Vec<Value> = backends
        .iter()
        .map(|backend| {
            json!({
                "name": backend.name.as_str(),
                "address": backend.address.to_string(),
                "mac": backend.mac.map(|mac| mac.to_string()),
                "state": state(backend.state),
                "weight": backend.weight,
                "slots": backend.slots,
                "connections": backend.connections,
                "packets": backend.packets,
                "bytes": backend.bytes,
            })
        })
        .collect();
    json!({
        "name": service.name.as_str(),
        "address": service.address.to_string(),
        "port": service.port,
        "protocol": protocol(service.protocol),
        "packets": service.packets,
        "bytes": service.bytes,
        "connections": service.connections,
        "dropped": service.dropped,
        "tracked": service.tracked,
        "backends": backends,
    })
}

/// `maglev add`, `drain`, `activate` and `remove`.
pub fn change(
    balancer: &mut Import<dyn Balancer>,
    service: Name,
    backend: Name,
    change: Change,
) -> Result<Answer, String> {
    balancer.call(|balancer| match change {
        Change::Add { address, weight } => balancer.add(service, backend, address, weight),
        Change::Drain => balancer.drain(service, backend),
        Change::Activate => balancer.activate(service, backend),
        Change::Remove => balancer.remove(service, backend),
    })?;
    let done = match change {
        Change::Add { .. } => "now serves",
        Change::Drain => "gets no new connections of",
        Change::Activate => "gets new connections again of",
        Change::Remove => "no longer serves",
    };
    Ok(Answer::text(format!("{backend} {done} {service}.")))
}

fn state(state: BackendState) -> &'static str {
    match state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
