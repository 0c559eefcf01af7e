//! Frames into the TCP/IP stack.

use interface::net::{DeviceInfo, MacAddress};
use netstack::stack::Stack;
use rref::packet::{ChecksumState, Verdict};
use rref::{Packet, PacketBatch};

const CONFIG: &str = "[network]\nipv4 = \"10.82.99.10/24\"\nipv6 = \"fd82:99::10/64\"\n[tcp]\nconnections = 64\n\
    [[maglev.vip]]\naddress = \"10.82.99.100\"\n[[maglev.vip]]\naddress = \"fd82:99::100\"\n";

/// Frames of a fresh stack's first moments. Each is its length in two bytes, little-endian, and then that many; of these the first bit of
/// the length says whether the card has checked its sums.
pub fn netstack_frames(mut input: &[u8]) {
    host_platform::attach();
    let information = DeviceInfo {
        mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
        queues: 1,
        frame_limit_bytes: 9014,
        receive_checksum: true,
        transmit_checksum: false,
    };
    let Ok(config) = netstack::config::read(CONFIG) else {
        return;
    };
    let stack = Stack::new(config, &information);
    let mut now_ns = 1_000_000_000;
    // As many as a fuzzer has patience for.
    for _ in 0..64 {
        let Some((length, rest)) = input.split_first_chunk::<2>() else {
            return;
        };
        let word = u16::from_le_bytes(*length);
        let length = usize::from(word & 0x7fff).min(rest.len()).min(1514);
        let (frame, rest) = rest.split_at(length);
        input = rest;
        let Ok(mut batch) = PacketBatch::new() else { return };
        while !batch.is_full() {
            let Ok(mut packet) = Packet::allocate() else {
                return;
            };
            if batch.is_empty() {
                packet.resize(frame.len()).copy_from_slice(frame);
                packet.verdict = Verdict::Received;
                packet.checksum = if word & 0x8000 != 0 {
                    ChecksumState::Good
                } else {
                    ChecksumState::Unknown
                };
            }
            if batch.push(packet).is_err() {
                return;
            }
        }
        if let Some(shard) = stack.shards.first() {
            shard.lock().process(&mut batch, now_ns);
        }
        assert!(
            batch.iter().all(|packet| packet.verdict != Verdict::Received),
            "a frame is left undecided"
        );
        now_ns += 10_000_000;
    }
}
