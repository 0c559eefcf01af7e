//! The lab's network: namespaces, bridge, virtual cables, tap.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::access::Access;
use crate::plan::{Node, Plan};

/// The node that holds the bridge.
pub const SWITCH: &str = "switch";
/// The appliance's end of the bridge.
pub const TAP: &str = "tap0";

/// Adds the appliance's end of the bridge.
pub fn create_tap(access: &Access, prefix: &str, mtu: u16) -> Result<()> {
    let batch = format!(
        "tuntap add dev {TAP} mode tap\nlink set {TAP} mtu {mtu} txqueuelen 10000 master bridge0\nlink set {TAP} up\n"
    );
    ip(access, Some(&namespace(prefix, SWITCH)), &batch)
        .context("the appliance's network device can't be made; /dev/net/tun must be writable for this user")
}

/// A node's namespace.
pub fn namespace(prefix: &str, node: &str) -> String {
    format!("{prefix}-{node}")
}

/// Makes namespaces, bridge and cables.
pub fn create(access: &Access, prefix: &str, plan: &Plan) -> Result<()> {
    let switch = namespace(prefix, SWITCH);
    let mut all = format!("netns add {switch}\n");
    for name in plan.nodes.keys() {
        let space = namespace(prefix, name);
        let _ = write!(
            all,
            "netns add {space}\nlink add eth0 netns {space} type veth peer name {name} netns {switch}\n"
        );
    }
    ip(access, None, &all)?;

    let mtu = plan.mtu;
    // Snooping would hold back neighbour discovery until the bridge has seen a querier, and there is none.
    let mut bridge = String::from(
        "link set lo up\nlink add bridge0 type bridge forward_delay 0 mcast_snooping 0\nlink set bridge0 up\n",
    );
    for name in plan.nodes.keys() {
        let _ = write!(
            bridge,
            "link set {name} mtu {mtu} master bridge0\nlink set {name} up\n"
        );
    }
    settings(access, &switch, &[("net/ipv6/conf/all/disable_ipv6", "1")])?;
    ip(access, Some(&switch), &bridge)?;
    for (name, node) in &plan.nodes {
        create_node(access, &namespace(prefix, name), node, mtu)?;
    }
    Ok(())
}

fn create_node(access: &Access, space: &str, node: &Node, mtu: u16) -> Result<()> {
    settings(
        access,
        space,
        &[
            // Thousands of connections from one client, and backlogs for them.
            ("net/ipv4/ip_local_port_range", "1024 65535"),
            // For programs that choose their source ports: nobody else's connections, nor what is left of them, are in the way.
            ("net/ipv4/ip_local_reserved_ports", "20000-29999"),
            ("net/core/somaxconn", "8192"),
            ("net/ipv4/tcp_max_syn_backlog", "8192"),
            // A VIP on the loopback interface must not be answered for or announced (direct routing), and packets for it
            // come in by another interface than answers would leave by.
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            // The lab's addresses are known to be unique; checking delays the start by a second.
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/eth0/accept_dad", "0"),
        ],
    )?;
    let mut text = format!(
        "link set lo up\nlink set eth0 mtu {mtu}\naddr add {} dev eth0\n",
        node.ipv4
    );
    if let Some(ipv6) = &node.ipv6 {
        let _ = writeln!(text, "addr add {ipv6} dev eth0 nodad");
    }
    for vip in &node.vips {
        // Without `nodad` the kernel finds out in its own time that nobody on this interface can have the address, and until then nobody can listen.
        let form = if vip.is_ipv4() {
            "32 dev lo"
        } else {
            "128 dev lo nodad"
        };
        let _ = writeln!(text, "addr add {vip}/{form}");
    }
    text.push_str("link set eth0 up\n");
    ip(access, Some(space), &text)
}

/// Removes what [`create`] made; what isn't there is no error.
pub fn remove(access: &Access, prefix: &str, nodes: impl IntoIterator<Item = String>) {
    for node in nodes.into_iter().chain([SWITCH.to_owned()]) {
        let mut command = access.command("ip");
        command.args(["netns", "delete", &namespace(prefix, &node)]);
        // Gone already, or never made: either is what was wanted.
        let _ = access.run(command, "");
    }
}

fn ip(access: &Access, space: Option<&str>, batch: &str) -> Result<()> {
    let mut command = access.command("ip");
    if let Some(space) = space {
        command.args(["-netns", space]);
    }
    command.args(["-batch", "-"]);
    access.run(command, batch)
}

/// Writes kernel settings of a namespace; one that this kernel lacks is passed over.
fn settings(access: &Access, space: &str, values: &[(&str, &str)]) -> Result<()> {
    let mut script = String::new();
    for (name, value) in values {
        let _ = writeln!(
            script,
            "[ ! -e /proc/sys/{name} ] || echo {value} > /proc/sys/{name}"
        );
    }
    access.run(access.command_in(space, "sh"), &script)
}
