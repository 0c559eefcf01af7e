//! The receive path, driven as a driver drives it.

use crate::harness::{Driver, EIMS, RDT, RXDCTL, SRRCTL, frame, udp};

/// A frame that finds a descriptor is in memory with length and status, and its vector is signalled.
#[test]
fn frame_arrives_with_status_and_interrupt() {
    let mut driver = Driver::started();
    driver.device.deliver(&frame(100));
    let frames = driver.harvest();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].data, frame(100));
    assert_eq!(driver.device.take_interrupts(), [0]);
    assert_eq!(driver.device.violations(), []);
}

/// Shorter frames are as long as the wire makes them.
#[test]
fn short_frame_arrives_padded() {
    let mut driver = Driver::started();
    driver.device.deliver(&frame(20));
    assert_eq!(driver.harvest()[0].data.len(), 60);
}

/// Without strip the check sequence is part of the data (HLREG0.RXCRCSTRP).
#[test]
fn kept_check_sequence_is_four_bytes_more() {
    let mut driver = Driver::cold();
    driver.write(0x4240, 0x10C01);
    driver.start();
    driver.device.deliver(&frame(100));
    assert_eq!(driver.harvest()[0].data.len(), 104);
}

/// The ring's last slot stays the hardware's: with 63 descriptors given, the 64th frame waits, and none is lost.
#[test]
fn frames_wait_in_the_packet_buffer_for_descriptors() {
    let mut driver = Driver::started();
    for _ in 0..70 {
        driver.device.deliver(&frame(200));
    }
    assert_eq!(driver.harvest().len(), 63);
    assert_eq!(driver.device.buffered_frames(), 7);
    for slot in 0..10 {
        driver.give((63 + slot) % 64);
    }
    driver.tail = 9;
    driver.write(RDT, 9);
    assert_eq!(driver.harvest().len(), 7);
    assert_eq!(driver.read(0x3FA0), 0);
}

/// When the packet buffer is full frames are missed, counted (MPC) and signalled.
#[test]
fn full_packet_buffer_counts_missed_frames() {
    let mut driver = Driver::started();
    driver.write(0x3C00, 16 << 10);
    for _ in 0..100 {
        driver.device.deliver(&frame(1000));
    }
    let missed = driver.read(0x3FA0);
    assert_eq!(missed as usize, 100 - 63 - driver.device.buffered_frames());
    assert_eq!(driver.read(0x3FA0), 0, "cleared by reading");
}

/// With DROP_EN a queue without descriptors drops its own frames instead of blocking the others.
#[test]
fn drop_enable_drops_and_counts_by_queue() {
    let mut driver = Driver::started();
    driver.write(SRRCTL, 1 << 28 | 1 << 25 | 2);
    for _ in 0..70 {
        driver.device.deliver(&frame(200));
    }
    assert_eq!((driver.harvest().len(), driver.device.buffered_frames()), (63, 0));
    assert_eq!(driver.read(0x1430), 7);
}

/// A jumbo frame takes several descriptors; only the last has the end-of-packet bit.
#[test]
fn jumbo_frame_fills_several_descriptors() {
    let mut driver = Driver::started();
    driver.device.deliver(&frame(5000));
    assert_eq!(driver.read(0x40AC), 1, "too long without jumbo support (ROC)");
    driver.write(0x4240, 0x10C07);
    driver.write(0x4268, 9018 << 16);
    driver.device.deliver(&frame(5000));
    let frames = driver.harvest();
    assert_eq!(frames[0].descriptors, 3);
    assert_eq!(frames[0].data, frame(5000));
}

/// Checksums are verified, and a wrong one is reported, not dropped.
#[test]
fn checksum_results_are_in_the_status() {
    const L4_CHECKED: u64 = 1 << 5;
    const IP_CHECKED: u64 = 1 << 6;
    const L4_ERROR: u64 = 1 << 30;
    let mut driver = Driver::started();
    let good = udp(1000, b"some payload");
    let mut bad = good.clone();
    bad[45] ^= 4;
    let mut unset = good.clone();
    unset[40..42].fill(0);
    for frame in [&good, &bad, &unset] {
        driver.device.deliver(frame);
    }
    let frames = driver.harvest();
    let checked = L4_CHECKED | IP_CHECKED;
    assert_eq!(frames[0].high & (checked | L4_ERROR), checked);
    assert_eq!(frames[1].high & (checked | L4_ERROR), checked | L4_ERROR);
    assert_eq!(frames[2].high & L4_ERROR, L4_ERROR, "erratum 44");
    assert_eq!(frames[0].low >> 4 & 0x1FFF, 0x21, "IPv4 and UDP");
}

/// Stripping moves the tag from the frame into the descriptor; the filter lets listed VLANs through.
#[test]
fn vlan_tag_is_stripped_and_filtered() {
    let mut driver = Driver::started();
    driver.write(RXDCTL, 1 << 30 | crate::harness::ENABLE);
    let mut tagged = frame(100);
    tagged.splice(12..12, [0x81, 0, 0x20, 0x05]);
    driver.device.deliver(&tagged);
    let frames = driver.harvest();
    assert_eq!(frames[0].data, frame(100));
    assert_eq!(frames[0].high >> 48, 0x2005);
    assert_ne!(frames[0].high & 1 << 3, 0);

    driver.write(0x5088, 1 << 30 | 0x8100);
    driver.device.deliver(&tagged);
    assert!(driver.harvest().is_empty());
    driver.write(0xA000, 1 << 5);
    driver.device.deliver(&tagged);
    assert_eq!(driver.harvest().len(), 1);
}

/// Frames to others are not taken, and counted only as seen.
#[test]
fn foreign_frames_are_filtered() {
    let mut driver = Driver::started();
    let mut foreign = frame(100);
    foreign[5] = 77;
    driver.device.deliver(&foreign);
    assert!(driver.harvest().is_empty());
    assert_eq!((driver.read(0x40D0), driver.read(0x4074)), (1, 0));
    driver.write(0x5080, 1 << 9);
    driver.device.deliver(&foreign);
    assert_eq!(driver.harvest().len(), 1);
    assert_eq!((driver.read(0x4074), driver.read(0x4088)), (1, 104));
}

/// RSS puts the hash into the descriptor and spreads flows over the queues that RETA names.
#[test]
fn rss_spreads_flows() {
    let mut driver = Driver::started();
    for i in 0..10 {
        driver.write(0x5C80 + 4 * i, 0x6d5a_56da_u32.rotate_left(i));
    }
    for i in 0..32 {
        driver.write(0x5C00 + 4 * i, 0x0100_0100);
    }
    driver.write(0x5818, 1 | 1 << 22);
    for port in 0..64 {
        driver.device.deliver(&udp(port, b"payload"));
    }
    let on_first = driver.harvest();
    // Queue 1 is not enabled: its frames are dropped and counted.
    let dropped = driver.read(0x1430) as usize;
    assert_eq!(on_first.len() + dropped, 64);
    assert!(on_first.len() > 10 && dropped > 10);
    assert!(
        on_first
            .iter()
            .all(|frame| frame.low & 0xF == 7 && (frame.low >> 32) & 1 == 0)
    );
}

/// A masked vector is silent; its cause stays until it is unmasked.
#[test]
fn masked_interrupt_comes_when_it_is_unmasked() {
    let mut driver = Driver::started();
    driver.write(0x888, 1);
    driver.device.deliver(&frame(100));
    assert!(driver.device.take_interrupts().is_empty());
    driver.write(EIMS, 1);
    assert_eq!(driver.device.take_interrupts(), [0]);
}

/// Frames delivered within a throttling interval cause one message at its end.
#[test]
fn throttling_gathers_messages() {
    let mut driver = Driver::started();
    driver.write(0x820, 0x028);
    for _ in 0..5 {
        driver.device.deliver(&frame(100));
    }
    assert_eq!(driver.device.take_interrupts(), [0]);
    driver.device.advance(std::time::Duration::from_micros(20));
    assert_eq!(driver.device.take_interrupts(), [0]);
    driver.device.advance(std::time::Duration::from_micros(20));
    assert!(driver.device.take_interrupts().is_empty());
}
