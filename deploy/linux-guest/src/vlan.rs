//! Pings with an 802.1Q tag, built by hand: the kernel this runs on needs no VLAN support.

use crate::network::{self, PingResult, TAP};
use anyhow::{Context, Result, bail};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The VLAN that is tried.
pub const VLAN: u16 = 42;
/// The guest's address in it.
pub const GUEST_VLAN: Ipv4Addr = Ipv4Addr::new(10, 82, 97, 2);
/// This side's.
pub const HOST_VLAN: Ipv4Addr = Ipv4Addr::new(10, 82, 97, 1);
const PAYLOAD_LENGTH: usize = 56;

/// A raw socket on the tap interface.
pub struct TaggedPort {
    socket: OwnedFd,
    own: [u8; 6],
    guest: [u8; 6],
}

impl TaggedPort {
    /// Opens the socket; `guest` is the guest's MAC address as text.
    pub fn open(guest: &str) -> Result<Self> {
        let link = nix::ifaddrs::getifaddrs()?
            .filter(|entry| entry.interface_name == TAP)
            .find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()))
            .context("the tap interface has no link address")?;
        let own = link.addr().context("the tap interface has no MAC address")?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        socket::bind(socket.as_raw_fd(), &link).context("can't attach to the tap interface")?;
        Ok(Self {
            socket,
            own,
            guest: parse_mac(guest)?,
        })
    }

    /// This side's MAC address as text.
    pub fn own_mac(&self) -> String {
        self.own.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Sends `count` echo requests, one at a time.
    pub fn ping(&self, count: u32) -> Result<PingResult> {
        let own_id = std::process::id() as u16;
        let (mut trips, mut damaged) = (Vec::new(), 0);
        for number in 0..count {
            let frame = self.frame(&network::echo_request(own_id, number, PAYLOAD_LENGTH));
            let start = Instant::now();
            socket::send(self.socket.as_raw_fd(), &frame, MsgFlags::empty())
                .context("a frame can't be sent")?;
            match self.answer(own_id, number, start)? {
                Some(true) => trips.push(start.elapsed().as_micros() as u64),
                Some(false) => damaged += 1,
                None if trips.is_empty() && number == 4 => bail!("nothing comes back through VLAN {VLAN}"),
                None => {}
            }
        }
        trips.sort_unstable();
        let received = trips.len() as u32;
        Ok(PingResult {
            sent: count,
            received,
            damaged,
            median_us: trips.get(trips.len() / 2).copied().unwrap_or(0),
        })
    }

    /// Waits for the answer to one request; whether its payload was right, `None` when none came.
    fn answer(&self, id: u16, number: u32, start: Instant) -> Result<Option<bool>> {
        let mut buffer = [0; 2048];
        while start.elapsed() < network::PING_TIMEOUT {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    // The kernel has taken the tag off; the capture shows that it was there.
                    let frame = buffer.get(..length).unwrap_or_default();
                    let from_guest =
                        frame.get(6..12) == Some(&self.guest) && frame.get(12..14) == Some(&[0x08, 0x00]);
                    let packet = frame.get(14..).unwrap_or_default();
                    if from_guest
                        && let Some((answered, whole)) = network::echo_reply(packet, id, PAYLOAD_LENGTH)
                        && answered == number
                    {
                        return Ok(Some(whole));
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_micros(50)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// An ICMP message in IPv4 in a tagged frame.
    fn frame(&self, message: &[u8]) -> Vec<u8> {
        let total = (20 + message.len()) as u16;
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0];
        ip.extend(HOST_VLAN.octets());
        ip.extend(GUEST_VLAN.octets());
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let sum: u32 = ip
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let [high, low] = VLAN.to_be_bytes();
        [
            &self.guest[..],
            &self.own,
            &[0x81, 0x00, high, low, 0x08, 0x00],
            &ip,
            message,
        ]
        .concat()
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()?;
    bytes
        .try_into()
        .ok()
        .with_context(|| format!("{text:?} is no MAC address"))
}

/// Frames with the VLAN's tag that a capture shows coming from the guest.
pub fn count_tagged(capture: &[u8], guest: &str) -> Result<u32> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    let guest = parse_mac(guest)?;
    let tag = [[0x81, 0x00], VLAN.to_be_bytes()].concat();
    let mut rest = capture.get(FILE_HEADER..).context("the capture is empty")?;
    let mut count = 0;
    while let Some(length) = rest.get(8..12).and_then(|bytes| bytes.first_chunk()) {
        let end = RECORD_HEADER + u32::from_le_bytes(*length) as usize;
        let frame = rest.get(RECORD_HEADER..end).context("the capture is cut off")?;
        // Priority bits may be set beside the VLAN's number; the guest sets none.
        if frame.get(6..12) == Some(&guest) && frame.get(12..16) == Some(&tag) {
            count += 1;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tagged_frames_of_the_guest_are_counted() {
        let frame = [&[0u8; 6][..], &[2, 0, 0, 0, 0, 1], &[0x81, 0, 0, 42], &[0; 44]].concat();
        let mut capture = vec![0; 24];
        for _ in 0..3 {
            capture.extend([0; 8]);
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend(&frame);
        }
        assert_eq!(
            count_tagged(&capture, "02:00:00:00:00:01").expect("well-formed"),
            3
        );
        assert_eq!(
            count_tagged(&capture, "02:00:00:00:00:02").expect("well-formed"),
            0
        );
        assert!(count_tagged(&capture[..40], "02:00:00:00:00:01").is_err());
    }
}
