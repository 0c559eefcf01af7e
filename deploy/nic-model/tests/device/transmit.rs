//! The transmit path, driven as a driver drives it.

use crate::harness::{Case, Driver, TDH, TDT, TX_BUFFERS, TX_RING, fold, frame, sum, udp};
use nic_model::ViolationKind;

const INSERT_IP: u64 = 1 << 40;
const INSERT_L4: u64 = 1 << 41;
const VLAN: u64 = 1 << 30;
const SEGMENT: u64 = 1 << 31;

/// Context words: header lengths, IPv4, TCP or UDP, segment size, tag.
fn context(is_tcp: bool, l4_length: u64, segment: u64, tag: u64) -> (u64, u64) {
    let kind = 1 << 10 | if is_tcp { 1 << 11 } else { 0 };
    (20 | 14 << 9 | tag << 16, kind | l4_length << 40 | segment << 48)
}

#[test]
fn frame_goes_out_and_is_reported() {
    let mut driver = Driver::started();
    let slot = driver.send(&frame(100), None, 100, 0);
    assert_eq!(driver.device.take_transmitted(), [frame(100)]);
    assert_eq!(
        driver.word(TX_RING + u64::from(slot) * 16 + 8) >> 32 & 1,
        1,
        "descriptor done"
    );
    assert_eq!(driver.read(TDH), driver.read(TDT));
    assert_eq!(driver.device.take_interrupts(), [1]);
    assert_eq!((driver.read(0x4080), driver.read(0x4090)), (1, 104));
    assert_eq!(driver.device.violations(), []);
}

#[test]
fn short_frame_is_padded() {
    let mut driver = Driver::started();
    driver.send(&frame(30), None, 30, 0);
    assert_eq!(driver.device.take_transmitted()[0].len(), 60);
}

/// A frame in three buffers is one frame; only its last descriptor reports.
#[test]
fn buffers_are_gathered() {
    let mut driver = Driver::started();
    let data = frame(900);
    driver.device.memory().write(TX_BUFFERS, &data).expect("mapped");
    for (slot, last) in [(0, false), (1, false), (2, true)] {
        let command = if last { 0x2B30_0000 } else { 0x2230_0000 };
        driver.put_descriptor(
            slot,
            TX_BUFFERS + u64::from(slot) * 300,
            900 << 46 | command | 300,
        );
    }
    driver.write(TDT, 3);
    assert_eq!(driver.device.take_transmitted(), [data]);
    assert_eq!(driver.device.violations(), []);
}

#[test]
fn checksums_are_inserted() {
    let mut driver = Driver::started();
    let good = udp(7, b"checksummed by hardware");
    let mut raw = good.clone();
    let length = (raw.len() - 34) as u32;
    let pseudo = fold(sum(&raw[26..34]) + 17 + length);
    raw[40..42].copy_from_slice(&pseudo.to_be_bytes());
    raw[24..26].fill(0);
    driver.send(
        &raw,
        Some(context(false, 8, 0, 0)),
        raw.len(),
        INSERT_IP | INSERT_L4,
    );
    assert_eq!(driver.device.take_transmitted(), [good]);
}

#[test]
fn vlan_tag_is_inserted() {
    let mut driver = Driver::started();
    driver.send(&frame(100), Some(context(false, 0, 0, 0x6007)), 100, VLAN);
    let mut sent = driver.device.take_transmitted().remove(0);
    assert_eq!(sent.drain(12..16).collect::<Vec<_>>(), [0x81, 0, 0x60, 0x07]);
    assert_eq!(sent, frame(100));
}

/// A large send becomes segments; every one of them passes the receive path's own checks.
#[test]
fn large_send_is_segmented() {
    let mut driver = Driver::started();
    let mut large = udp(7, &[])[..34].to_vec();
    large[23] = 6;
    large[16..18].fill(0);
    large[24..26].fill(0);
    let mut tcp = vec![0; 20];
    tcp[12] = 0x50;
    tcp[13] = 0x18;
    let pseudo = fold(sum(&large[26..34]) + 6);
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    large.extend(tcp);
    large.extend((0..4000).map(|i| i as u8));
    driver.send(
        &large,
        Some(context(true, 20, 1460, 0)),
        4000,
        SEGMENT | INSERT_IP | INSERT_L4,
    );
    let sent = driver.device.take_transmitted();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 1134]);
    for segment in &sent {
        driver.device.deliver(segment);
    }
    let received = driver.harvest();
    assert_eq!(received.len(), 3);
    assert!(
        received
            .iter()
            .all(|frame| frame.high & (1 << 30 | 1 << 31) == 0 && frame.high & (1 << 5) != 0)
    );
    assert_eq!(driver.device.violations(), []);
}

/// Queues wrap: many more frames than slots, each once and in order.
#[test]
fn ring_wraps() {
    let mut driver = Driver::started();
    for i in 0..300 {
        driver.send(&frame(60 + i), None, 60 + i, 0);
    }
    let sent = driver.device.take_transmitted();
    assert_eq!(sent.len(), 300);
    assert!(sent.iter().enumerate().all(|(i, sent)| *sent == frame(60 + i)));
}

/// What can't be sent is not sent, and said.
#[test]
fn wrong_descriptors_are_refused() {
    let cases: [Case; 6] = [
        ("payload length", ViolationKind::PayloadLength, |d| {
            d.send(&frame(100), None, 99, 0);
        }),
        ("no context", ViolationKind::OffloadContext, |d| {
            d.send(&frame(100), None, 100, INSERT_L4);
        }),
        ("too short", ViolationKind::FrameLength, |d| {
            d.send(&frame(14), None, 14, 0);
        }),
        ("unmapped", ViolationKind::UnmappedDma, |d| {
            d.put_descriptor(0, 0xDEAD_0000, 100 << 46 | 0x2B30_0000 | 100);
            d.write(TDT, 1);
        }),
        ("reserved type", ViolationKind::TransmitDescriptorType, |d| {
            d.put_descriptor(0, TX_BUFFERS, 100 << 46 | 0x2B70_0000 | 100);
            d.write(TDT, 1);
        }),
        ("unfinished", ViolationKind::UnfinishedFrame, |d| {
            d.put_descriptor(0, TX_BUFFERS, 100 << 46 | 0x2230_0000 | 100);
            d.write(TDT, 1);
        }),
    ];
    for (name, kind, act) in cases {
        let mut driver = Driver::started();
        act(&mut driver);
        assert_eq!(driver.kinds(), [kind], "{name}");
        assert!(driver.device.take_transmitted().is_empty(), "{name}");
    }
}
