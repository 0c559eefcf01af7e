//! What Linux's driver has to get done with the model, in order.

use crate::guest::{Guest, Model};
use crate::network::{self, GUEST, HOST, PingResult};
use crate::vlan::{self, GUEST_VLAN, HOST_VLAN, TaggedPort, VLAN};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use std::net::{SocketAddrV4, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

/// Limit of an ordinary command.
const SHORT: Duration = Duration::from_secs(30);
/// Limit of a transfer, of loading and of unloading the driver.
const LONG: Duration = Duration::from_secs(120);
/// Share of frames for each fault.
const FAULT_RATE: f64 = 0.01;
const TRANSFER_PORT: u16 = 5001;
/// Kernel messages that mean that something went wrong.
const BAD_MESSAGES: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "Call Trace",
    "Oops",
    "Tx Unit Hang",
    "Detected Tx",
    "Reset adapter",
    "HW Init failed",
    "Adapter removed",
];

/// A transfer's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// Bytes of payload.
    pub bytes: usize,
    /// Whether the SHA-256 was that of what was sent.
    pub intact: bool,
    /// Megabytes (10^6) a second, with the time of starting the guest's program.
    pub megabytes_per_second: f64,
}

/// Everything a run found out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Seconds from starting QEMU to the guest's first command.
    pub boot_seconds: f64,
    /// Seconds to load the driver.
    pub probe_seconds: f64,
    /// PCI identity as the guest sees it.
    pub device: String,
    /// MAC address that the driver read from the EEPROM.
    pub mac: String,
    /// Link speed in Mb/s.
    pub speed: String,
    /// Queue pairs the driver uses.
    pub queues: usize,
    /// The many small pings.
    pub ping: Option<PingResult>,
    /// Pings of several descriptors, with jumbo frames.
    pub ping_jumbo: Option<PingResult>,
    /// Pings through a VLAN: the device filters, strips and inserts tags.
    pub ping_vlan: Option<PingResult>,
    /// Frames with that VLAN's tag that the guest sent meanwhile, as captured on the wire.
    pub tagged_frames: u32,
    /// Data to the guest.
    pub to_guest: Option<Transfer>,
    /// Data from the guest.
    pub from_guest: Option<Transfer>,
    /// Seconds from pulling the cable and plugging it in again to the interface's being up again.
    pub link_event_seconds: f64,
    /// Data both ways while frames are dropped, duplicated, reordered and corrupted.
    pub with_faults: Vec<Transfer>,
    /// How often each of these faults happened.
    pub faults: Value,
    /// Error and drop counters of the guest's interface that aren't zero.
    pub errors: Vec<String>,
    /// Kernel messages that mean trouble.
    pub kernel_messages: Vec<String>,
    /// What the model holds against the driver.
    pub violations: Value,
    /// The model's counters at the end.
    pub counters: Value,
}

impl Report {
    /// What is wrong, as sentences; empty when everything is right.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, ping) in [
            ("ping", &self.ping),
            ("jumbo ping", &self.ping_jumbo),
            ("VLAN ping", &self.ping_vlan),
        ] {
            if let Some(result) = ping
                && result.received != result.sent
            {
                problems.push(format!(
                    "{name}: {} of {} answers are missing or wrong",
                    result.sent - result.received,
                    result.sent
                ));
            }
        }
        if self
            .ping_vlan
            .as_ref()
            .is_some_and(|ping| self.tagged_frames < ping.received)
        {
            problems.push(format!(
                "VLAN: only {} frames from the guest were tagged",
                self.tagged_frames
            ));
        }
        for (name, transfer) in [
            ("transfer to the guest", &self.to_guest),
            ("transfer from the guest", &self.from_guest),
        ] {
            match transfer {
                Some(transfer) if transfer.intact => {}
                _ => problems.push(format!("{name}: SHA-256 differs")),
            }
        }
        problems.extend(
            self.errors
                .iter()
                .map(|error| format!("interface counter {error}")),
        );
        problems.extend(
            self.kernel_messages
                .iter()
                .map(|message| format!("kernel: {message}")),
        );
        problems
    }
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Small pings.
    pub pings: u32,
    /// Bytes of each transfer.
    pub transfer: usize,
}

/// Runs every check; `say` is told what goes on.
pub fn run(
    guest: &mut Guest,
    model: &Model,
    load_order: &[(String, Vec<String>)],
    amounts: Amounts,
    folder: &Path,
    say: &dyn Fn(&str),
) -> Result<Report> {
    let mut report = Report::default();
    probe(guest, load_order, say, &mut report)?;
    link(guest, say, &mut report)?;
    pings(guest, model, amounts, folder, say, &mut report)?;
    transfers(guest, amounts, say, &mut report)?;
    report.errors = interface_errors(guest)?;
    link_events(guest, model, say, &mut report)?;
    faulty_transfers(guest, model, amounts, say, &mut report)?;
    unload(guest, say, &mut report)?;
    report.counters = model.ask(&json!({ "cmd": "counters" }))?;
    report.violations = model.ask(&json!({ "cmd": "violations" }))?["violations"].take();
    Ok(report)
}

/// Writes the guest's kernel messages and the model's registers and counters beside the other logs, as far as they answer.
pub fn leave_evidence(guest: &mut Guest, model: &Model, folder: &Path) {
    let put = |name: &str, text: String| {
        if let Err(error) = std::fs::write(folder.join(name), text) {
            eprintln!("linux-guest: {name} can't be written: {error}");
        }
    };
    if let Ok(messages) = guest.run("dmesg", SHORT) {
        put("dmesg.log", messages);
    }
    if let Ok(statistics) = guest.run("cat /proc/net/snmp /proc/net/softnet_stat", SHORT) {
        put("network.log", statistics);
    }
    for question in ["registers", "counters", "violations"] {
        if let Ok(answer) = model.ask(&json!({ "cmd": question })) {
            put(&format!("{question}.json"), format!("{answer:#}"));
        }
    }
}

fn probe(
    guest: &mut Guest,
    load_order: &[(String, Vec<String>)],
    say: &dyn Fn(&str),
    report: &mut Report,
) -> Result<()> {
    report.device = guest.run(
        "cat /sys/bus/pci/devices/0000:01:00.0/vendor /sys/bus/pci/devices/0000:01:00.0/device",
        SHORT,
    )?;
    report.device = report.device.replace('\n', ":").replace("0x", "");
    if report.device != "8086:10fb" {
        bail!("the guest sees {} where 8086:10fb should be", report.device);
    }
    say("loading ixgbe");
    let start = Instant::now();
    for (_, files) in load_order {
        for file in files {
            guest.run(
                &format!("test -d /sys/module/$(basename {file} .ko | tr - _) || insmod /modules/{file}"),
                LONG,
            )?;
        }
    }
    report.probe_seconds = start.elapsed().as_secs_f64();
    let Ok(interface) = guest.run("ls /sys/bus/pci/drivers/ixgbe/0000:01:00.0/net", SHORT) else {
        let messages = guest.run("dmesg | grep ixgbe", SHORT)?;
        bail!("ixgbe doesn't drive the device; its messages:\n{messages}");
    };
    guest.run(&format!("export IF={interface}"), SHORT)?;
    report.mac = guest.run("cat /sys/class/net/$IF/address", SHORT)?;
    let announced = guest.run(
        "dmesg | sed -n 's/.*Rx Queue count = \\([0-9]*\\).*/\\1/p'",
        SHORT,
    )?;
    report.queues = announced
        .lines()
        .last()
        .and_then(|line| line.parse().ok())
        .unwrap_or(1);
    Ok(())
}

fn link(guest: &mut Guest, say: &dyn Fn(&str), report: &mut Report) -> Result<()> {
    say("bringing the link up");
    guest.run(
        &format!("ip addr add {GUEST}/24 dev $IF && ip link set $IF up"),
        LONG,
    )?;
    if wait_for_state(guest, "up")? != "up" {
        bail!("the link doesn't come up");
    }
    report.speed = guest.run("cat /sys/class/net/$IF/speed", SHORT)?;
    bind_queues(guest, report.queues)
}

/// Gives each queue pair's interrupt the CPU of its number, as Intel's set_irq_affinity script does on a real machine. Otherwise one CPU may answer pings while
/// another one has to take back what was sent: when the host lets that one wait, there is no more room, and the guest discards answers (Ip OutDiscards).
fn bind_queues(guest: &mut Guest, queues: usize) -> Result<()> {
    for queue in 0..queues {
        let command = format!(
            "irq=$(awk -v name=$IF-TxRx-{queue} '$NF == name {{ print $1 + 0 }}' /proc/interrupts) \
             && echo {queue} > /proc/irq/$irq/smp_affinity_list"
        );
        guest.run(&command, SHORT)?;
    }
    Ok(())
}

/// Waits until the interface's operational state is `state`, and gives what it is in the end.
///
/// The carrier is up earlier than the kernel's queue behind it: until then the guest discards what it sends.
fn wait_for_state(guest: &mut Guest, state: &str) -> Result<String> {
    let command = format!(
        "i=0; while [ \"$(cat /sys/class/net/$IF/operstate)\" != {state} ] && [ $i -lt 400 ]; do usleep 50000; i=$((i+1)); \
         done; cat /sys/class/net/$IF/operstate"
    );
    guest.run(&command, LONG)
}

fn pings(
    guest: &mut Guest,
    model: &Model,
    amounts: Amounts,
    folder: &Path,
    say: &dyn Fn(&str),
    report: &mut Report,
) -> Result<()> {
    let mut last = Instant::now();
    let mut progress = |done: u32| {
        if last.elapsed() > Duration::from_secs(1) {
            last = Instant::now();
            say(&format!("{done} of {} pings", amounts.pings));
        }
    };
    say(&format!("{} pings", amounts.pings));
    report.ping = Some(network::ping(GUEST, amounts.pings, 56, &mut progress)?);
    let some = amounts.pings.div_ceil(20).min(500);
    say("pings through a VLAN");
    vlan_pings(guest, model, some, folder, report)?;
    say("pings in jumbo frames");
    change_mtu(guest, 9000)?;
    report.ping_jumbo = Some(network::ping(GUEST, some, 8900, &mut |_| {})?);
    change_mtu(guest, 1500)
}

/// Changes the MTU, for which the driver restarts the port, and waits until the link has settled.
fn change_mtu(guest: &mut Guest, mtu: u32) -> Result<()> {
    guest.run(&format!("ip link set $IF mtu {mtu}"), LONG)?;
    let settled = "n=0; while [ $n -lt 15 ]; do usleep 100000; n=$((n+1)); \
                   [ \"$(cat /sys/class/net/$IF/operstate)\" = up ] || n=0; done";
    guest.run(settled, LONG)?;
    Ok(())
}

fn vlan_pings(
    guest: &mut Guest,
    model: &Model,
    count: u32,
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let port = TaggedPort::open(&report.mac)?;
    let own_mac = port.own_mac();
    guest.run(
        &format!(
            "ip link add link $IF name vlan0 type vlan id {VLAN} && ip addr add {GUEST_VLAN}/24 dev vlan0 && \
             ip link set vlan0 up && arp -i vlan0 -s {HOST_VLAN} {own_mac}"
        ),
        SHORT,
    )?;
    let capture = folder.join("vlan.pcap");
    model.ask(&json!({ "cmd": "pcap", "file": capture }))?;
    let result = port.ping(count);
    model.ask(&json!({ "cmd": "pcap" }))?;
    report.ping_vlan = Some(result?);
    report.tagged_frames = vlan::count_tagged(&std::fs::read(&capture)?, &report.mac)?;
    guest.run("ip link del vlan0", SHORT)?;
    Ok(())
}

fn transfers(guest: &mut Guest, amounts: Amounts, say: &dyn Fn(&str), report: &mut Report) -> Result<()> {
    let data = network::test_data(amounts.transfer, 82_599);
    say(&format!("{} MB to the guest", data.len() / 1_000_000));
    report.to_guest = Some(send(guest, &data)?);
    say(&format!("{} MB from the guest", data.len() / 1_000_000));
    report.from_guest = Some(fetch(guest, &data)?);
    Ok(())
}

/// Sends data to the guest, which keeps it and says its SHA-256.
fn send(guest: &mut Guest, data: &[u8]) -> Result<Transfer> {
    let receive = format!("nc -l -p {TRANSFER_PORT} > /tmp/data");
    let start = Instant::now();
    guest.send(&receive)?;
    network::send_to(SocketAddrV4::new(GUEST, TRANSFER_PORT), data, LONG)?;
    guest.finish(&receive, LONG)?;
    let seconds = start.elapsed().as_secs_f64();
    let got = guest.run("sha256sum /tmp/data", LONG)?;
    let intact = got.split_whitespace().next() == Some(network::sum(data).as_str());
    Ok(Transfer {
        bytes: data.len(),
        intact,
        megabytes_per_second: data.len() as f64 / 1e6 / seconds,
    })
}

/// Has the guest send back what it keeps, which should be `data`.
fn fetch(guest: &mut Guest, data: &[u8]) -> Result<Transfer> {
    let listener = TcpListener::bind(SocketAddrV4::new(HOST, TRANSFER_PORT))?;
    let command = format!("nc {HOST} {TRANSFER_PORT} < /tmp/data");
    let start = Instant::now();
    guest.send(&command)?;
    let back = network::receive_from(&listener, LONG)?;
    let seconds = start.elapsed().as_secs_f64();
    guest.finish(&command, LONG)?;
    let intact = network::sum(&back) == network::sum(data);
    Ok(Transfer {
        bytes: back.len(),
        intact,
        megabytes_per_second: back.len() as f64 / 1e6 / seconds,
    })
}

/// Error and drop counters of the interface that aren't zero.
fn interface_errors(guest: &mut Guest) -> Result<Vec<String>> {
    let counters = guest.run(
        "cd /sys/class/net/$IF/statistics; for f in *error* *drop* *missed* collisions; do echo $f $(cat $f); done; cd /",
        SHORT,
    )?;
    Ok(counters
        .lines()
        .filter(|line| !line.ends_with(" 0"))
        .map(str::to_owned)
        .collect())
}

/// Pulls the cable and plugs it in again; the driver has to notice both.
fn link_events(guest: &mut Guest, model: &Model, say: &dyn Fn(&str), report: &mut Report) -> Result<()> {
    say("pulling the cable");
    let start = Instant::now();
    for (plugged, state) in [(false, "down"), (true, "up")] {
        model.ask(&json!({ "cmd": "link", "up": plugged }))?;
        if wait_for_state(guest, state)? != state {
            bail!(
                "the driver doesn't notice that the cable is {}",
                if plugged { "plugged in" } else { "pulled" }
            );
        }
    }
    report.link_event_seconds = start.elapsed().as_secs_f64();
    Ok(())
}

/// A part of the data again, while the wire misbehaves: TCP and the checksums have to keep it whole.
fn faulty_transfers(
    guest: &mut Guest,
    model: &Model,
    amounts: Amounts,
    say: &dyn Fn(&str),
    report: &mut Report,
) -> Result<()> {
    const PART: usize = 10;
    let data = network::test_data(amounts.transfer / PART, 10_082);
    say(&format!(
        "{} MB both ways, {FAULT_RATE} of the frames with each fault",
        data.len() as f64 / 1e6
    ));
    for (seed, kind) in ["drop", "duplicate", "reorder", "corrupt"]
        .into_iter()
        .enumerate()
    {
        model.ask(
            &json!({ "cmd": "fault", "kind": kind, "direction": "both", "rate": FAULT_RATE, "seed": seed }),
        )?;
    }
    report.with_faults = vec![send(guest, &data)?, fetch(guest, &data)?];
    report.faults = model.ask(&json!({ "cmd": "faults" }))?["faults"]["frames"].take();
    model.ask(&json!({ "cmd": "clear" }))?;
    Ok(())
}

fn unload(guest: &mut Guest, say: &dyn Fn(&str), report: &mut Report) -> Result<()> {
    say("unloading ixgbe");
    guest.run("rmmod ixgbe", LONG)?;
    let messages = guest.run("dmesg", SHORT)?;
    report.kernel_messages = messages
        .lines()
        .filter(|line| BAD_MESSAGES.iter().any(|bad| line.contains(bad)))
        .map(str::to_owned)
        .collect();
    Ok(())
}
