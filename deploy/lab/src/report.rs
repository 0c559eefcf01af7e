//! What `lab up --json` prints. Scripts depend on it: names here don't change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::state::{NodeState, State};

/// One object that says where everything is.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The lab's name.
    pub name: String,
    /// The appliance.
    pub appliance: ApplianceReport,
    /// The first TCP VIP, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipReport>,
    /// `host:port` of the key-value store, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<String>,
    /// The file behind the appliance's disk, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<PathBuf>,
    /// Name → namespace and address.
    pub nodes: BTreeMap<String, NodeState>,
    /// Socket of the serial console.
    pub serial: PathBuf,
    /// The NIC model's control socket.
    pub nic: PathBuf,
    /// QEMU's monitor.
    pub qmp: PathBuf,
    /// The instruction counter's socket, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<PathBuf>,
    /// What the serial port has written since the start.
    pub serial_log: PathBuf,
}

/// The appliance's addresses.
#[derive(Debug, Serialize)]
pub struct ApplianceReport {
    /// IPv4 address.
    pub ipv4: String,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// URL of its web server.
    pub http: String,
}

/// The balanced service.
#[derive(Debug, Serialize)]
pub struct VipReport {
    /// IPv4 address.
    pub ipv4: String,
    /// URL.
    pub http: String,
}

impl Report {
    pub(crate) fn new(state: &State) -> Self {
        let appliance = &state.appliance;
        Self {
            name: state.name.clone(),
            appliance: ApplianceReport {
                ipv4: appliance.ipv4.clone(),
                ipv6: appliance.ipv6.clone(),
                http: url(&appliance.ipv4, appliance.http_port),
            },
            vip: state.vip.as_ref().map(|(ipv4, port)| VipReport {
                ipv4: ipv4.clone(),
                http: url(ipv4, *port),
            }),
            kv: state.kv.clone(),
            disk: state.disk.clone(),
            nodes: state.nodes.clone(),
            serial: state.sockets.serial.clone(),
            nic: state.sockets.nic.clone(),
            qmp: state.sockets.qmp.clone(),
            instructions: state.sockets.instructions.clone(),
            serial_log: state.serial_log.clone(),
        }
    }
}

fn url(host: &str, port: u16) -> String {
    if port == 80 {
        format!("http://{host}/")
    } else {
        format!("http://{host}:{port}/")
    }
}
