//! This side of the cable: a namespace of our own, addresses on the tap interface, pings and transfers.

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The tap interface's name in the namespace.
pub const TAP: &str = "lg0";
/// This side's address.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 82, 98, 1);
/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 82, 98, 2);
/// A ping without an answer after this time is lost; a host may let a guest wait for seconds.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// So many times nothing may come for that long before the whole thing is given up.
const MOST_SILENCES: u32 = 5;
/// Bytes of pings under way at once. A guest that is slow to take back sent buffers runs out of room for answers with more,
/// and discards them itself (Ip OutDiscards).
const PING_WINDOW: usize = 8 * 1024;
/// Pings under way at once.
const MOST_PINGS: usize = 8;

/// Leaves the machine's network for an empty one that ends with this process and its children.
///
/// Without privilege this takes a user namespace, too. Must be called while the process has one thread.
pub fn enter_namespace() -> Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if user.is_root() {
        return unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace");
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .context("can't make a user namespace; run as root or allow unprivileged user namespaces")?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(())
}

/// Gives the tap interface, which the model has made, its addresses.
pub fn configure(busybox: &Path) -> Result<()> {
    let address = format!("{HOST}/24");
    ip(busybox, &["link", "set", "lo", "up"])?;
    ip(busybox, &["link", "set", TAP, "mtu", "9000"])?;
    ip(busybox, &["link", "set", TAP, "up"])?;
    ip(busybox, &["addr", "add", &address, "dev", TAP])?;
    Ok(())
}

fn ip(busybox: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(busybox)
        .arg("ip")
        .args(arguments)
        .output()
        .context("can't run busybox ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// What pinging gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PingResult {
    /// Requests sent.
    pub sent: u32,
    /// Right answers.
    pub received: u32,
    /// Answers whose contents were wrong.
    pub damaged: u32,
    /// Median of the round trips in microseconds.
    pub median_us: u64,
}

/// Sends `count` echo requests with `size` bytes of payload, a few at a time.
pub fn ping(to: Ipv4Addr, count: u32, size: usize, progress: &mut dyn FnMut(u32)) -> Result<PingResult> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    let own_id = std::process::id() as u16;
    let target = SocketAddrV4::new(to, 0);
    let mut sent_at: Vec<Option<Instant>> = Vec::new();
    let mut trips: Vec<u64> = Vec::new();
    let (mut damaged, mut oldest, mut sent) = (0, 0u32, 0u32);
    let mut buffer = vec![0; 65_536];
    let mut last_answer = Instant::now();
    let mut silences = 0;
    let window = (PING_WINDOW / (size + 1)).clamp(1, MOST_PINGS) as u32;
    while oldest < count {
        while sent < count && sent - oldest < window {
            let request = echo_request(own_id, sent, size);
            rustix::net::sendto(&socket, &request, SendFlags::empty(), &target)
                .context("ping can't be sent")?;
            sent_at.push(Some(Instant::now()));
            sent += 1;
        }
        match rustix::net::recv(&socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                let packet = buffer.get(..length).unwrap_or_default();
                if let Some((number, whole)) = echo_reply(packet, own_id, size) {
                    let slot = sent_at.get_mut(number as usize);
                    if let Some(start) = slot.and_then(Option::take) {
                        trips.push(start.elapsed().as_micros() as u64);
                        damaged += u32::from(!whole);
                        last_answer = Instant::now();
                    }
                }
            }
            Err(rustix::io::Errno::AGAIN) if last_answer.elapsed() > PING_TIMEOUT => {
                if silences == MOST_SILENCES {
                    bail!(
                        "{to} has stopped answering pings after {} of {count}",
                        trips.len()
                    );
                }
                silences += 1;
                // Everything that is under way is lost.
                sent_at.iter_mut().for_each(|slot| *slot = None);
                last_answer = Instant::now();
            }
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(Duration::from_micros(50)),
            Err(error) => return Err(error.into()),
        }
        while oldest < sent && sent_at.get(oldest as usize).is_some_and(Option::is_none) {
            oldest += 1;
            progress(oldest);
        }
    }
    let received = trips.len() as u32 - damaged;
    trips.sort_unstable();
    Ok(PingResult {
        sent,
        received,
        damaged,
        median_us: trips.get(trips.len() / 2).copied().unwrap_or(0),
    })
}

/// Payload of request `number`: its whole number first, then a pattern made of it.
fn payload(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((4..size).map(|i| (number as usize * 31 + i) as u8));
    bytes.truncate(size);
    bytes
}

/// An ICMP echo request.
pub fn echo_request(id: u16, number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend((number as u16).to_be_bytes());
    packet.extend(payload(number, size));
    let sum = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum::<u32>();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !(((folded & 0xFFFF) + (folded >> 16)) as u16);
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The number of the request that a packet answers, and whether its payload came back whole.
pub fn echo_reply(packet: &[u8], id: u16, size: usize) -> Option<(u32, bool)> {
    let header = usize::from(packet.first()? & 0xF) * 4;
    let message = packet.get(header..)?;
    if message.get(..2)? != [0, 0] || message.get(4..6)? != id.to_be_bytes() {
        return None;
    }
    let returned = message.get(8..)?;
    let number = u32::from_be_bytes(*returned.first_chunk()?);
    Some((number, returned == payload(number, size)))
}

/// Data for a transfer, the same for the same seed.
pub fn test_data(length: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data
}

/// SHA-256 in hexadecimal digits.
pub fn sum(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Sends data to a listener in the guest, which may need a moment to listen.
pub fn send_to(address: SocketAddrV4, data: &[u8], timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error).context("the guest doesn't accept a connection"),
        }
    };
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(data).context("sending to the guest")?;
    Ok(())
}

/// Takes one connection on `listener` and everything that comes over it.
pub fn receive_from(listener: &TcpListener, timeout: Duration) -> Result<Vec<u8>> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + timeout;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).context("the guest doesn't connect"),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut data = Vec::new();
    stream
        .read_to_end(&mut data)
        .context("receiving from the guest")?;
    Ok(data)
}
