//! What smoltcp sees as its network device: one packet in, one packet out, no queue.
//!
//! Bare IP packets (`Medium::Ip`); the Ethernet header in front is [`crate::transmit`]'s.

use crate::demultiplex::ETHERNET_BYTES;
use alloc::vec;
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// What smoltcp is told of the device.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Longest IP packet, bytes.
    pub mtu: u16,
    /// Checksums of TCP and UDP are left to the device ([`crate::transmit::finish`] asks it).
    pub transmit_checksum: bool,
    /// Packets have Ethernet headers: for DHCP only.
    pub ethernet: bool,
}

impl Capabilities {
    /// Bare IP packets of at most `mtu` bytes, checksums computed here.
    pub const fn plain(mtu: u16) -> Capabilities {
        Capabilities {
            mtu,
            transmit_checksum: false,
            ethernet: false,
        }
    }

    fn describe(self) -> DeviceCapabilities {
        if self.ethernet {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.medium = Medium::Ethernet;
            capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_BYTES;
            return capabilities;
        }
        let mut checksum = ChecksumCapabilities::ignored();
        // Received ones were verified when the frame was claimed.
        let transport = if self.transmit_checksum {
            Checksum::None
        } else {
            Checksum::Tx
        };
        checksum.tcp = transport;
        checksum.udp = transport;
        checksum.icmpv4 = Checksum::Tx;
        checksum.icmpv6 = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities.checksum = checksum;
        capabilities
    }
}

/// A device that has one packet to receive, or none, and takes one to send.
pub struct Exchange<'a> {
    capabilities: Capabilities,
    received: Option<&'a [u8]>,
    sent: &'a mut [u8],
    sent_bytes: usize,
}

impl<'a> Exchange<'a> {
    /// A device with `received` to give, that puts what is sent at the start of `sent`.
    #[inline]
    pub fn new(capabilities: Capabilities, received: Option<&'a [u8]>, sent: &'a mut [u8]) -> Exchange<'a> {
        Exchange {
            capabilities,
            received,
            sent,
            sent_bytes: 0,
        }
    }

    /// Length of the packet that was sent; 0 for none.
    #[inline]
    pub fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }
}

impl Device for Exchange<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sent<'t>
    where
        Self: 't;

    #[inline]
    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let packet = self.received.take()?;
        Some((
            Received(packet),
            Sent {
                buffer: self.sent,
                length: &mut self.sent_bytes,
            },
        ))
    }

    #[inline]
    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        Some(Sent {
            buffer: self.sent,
            length: &mut self.sent_bytes,
        })
    }

    #[inline]
    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.describe()
    }
}

/// The right to read the packet.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// The right to write a packet.
pub struct Sent<'a> {
    buffer: &'a mut [u8],
    length: &'a mut usize,
}

impl TxToken for Sent<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        match self.buffer.get_mut(..length) {
            Some(buffer) => {
                *self.length = length;
                write(buffer)
            }
            // Longer than the MTU that it was told: smoltcp doesn't do that. The packet is lost.
            None => write(&mut vec![0; length]),
        }
    }
}
