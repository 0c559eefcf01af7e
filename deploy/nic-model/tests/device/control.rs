//! Everything around the data path: start-up rules, resets, bus mastering, link, faults.

use crate::harness::{
    CTRL, Case, Driver, EICR, ENABLE, RDH, RDT, RX_RING, RXDCTL, SRRCTL, TDT, TXDCTL, frame,
};
use nic_model::{Direction, FrameFault, ViolationKind};
use std::time::Duration;

const LINKS: u32 = 0x42A4;
const LINK_UP: u32 = 1 << 30;
const RESET: u32 = 1 << 26;

#[test]
fn eeprom_holds_a_valid_image_with_the_mac_address() {
    let mut driver = Driver::cold();
    let mut word = |address: u32| {
        driver.write(0x10014, address << 2 | 1);
        let value = driver.read(0x10014);
        assert_eq!(value & 2, 2, "done");
        (value >> 16) as u16
    };
    let mut sum = (0..0x40).fold(0u16, |sum, at| sum.wrapping_add(word(at)));
    for pointer in 3..0xF {
        let section = u32::from(word(pointer));
        if section != 0 && section != 0xFFFF {
            let length = u32::from(word(section));
            let length = if length == 0xFFFF { 0 } else { length };
            sum = (1..=length).fold(sum, |sum, at| sum.wrapping_add(word(section + at)));
        }
    }
    assert_eq!(sum, 0xBABA);
    assert_eq!(driver.read(0xA200), 0x0099_8202);
    assert_eq!(driver.read(0x5404), 0x8000_0100);
}

#[test]
fn start_up_in_the_wrong_order_is_noted() {
    let cases: [Case; 8] = [
        ("enable without ring", ViolationKind::EnabledWithoutRing, |d| {
            d.write(RXDCTL, ENABLE)
        }),
        ("length", ViolationKind::RingLength, |d| d.write(0x1008, 100)),
        ("base", ViolationKind::RingAlignment, |d| d.write(0x1000, 0x1010)),
        ("tail while disabled", ViolationKind::TailWhileDisabled, |d| {
            d.write(0x1008, 1024);
            d.write(RDT, 5);
        }),
        ("tail beyond", ViolationKind::TailBeyondRing, |d| {
            d.write(0x6008, 1024);
            d.write(TDT, 64);
        }),
        ("no buffer size", ViolationKind::ReceiveBufferSize, |d| {
            d.write(0x1000, RX_RING as u32);
            d.write(0x1008, 1024);
            d.write(SRRCTL, 1 << 25);
            d.write(RXDCTL, ENABLE);
        }),
        ("header split", ViolationKind::HeaderSplit, |d| {
            d.write(0x1000, RX_RING as u32);
            d.write(0x1008, 1024);
            d.write(SRRCTL, 5 << 25 | 2);
            d.write(RXDCTL, ENABLE);
        }),
        ("no such register", ViolationKind::UndefinedRegister, |d| {
            d.write(0x1FF00, 1)
        }),
    ];
    for (name, kind, act) in cases {
        let mut driver = Driver::cold();
        act(&mut driver);
        assert_eq!(driver.kinds(), [kind], "{name}");
    }
}

/// A tail that comes before software has seen the enable bit is lost, as on hardware.
#[test]
fn tail_before_the_enable_is_seen_is_lost() {
    let mut driver = Driver::cold();
    driver.write(0x1000, RX_RING as u32);
    driver.write(0x1008, 1024);
    driver.write(SRRCTL, 1 << 25 | 2);
    driver.write(RXDCTL, ENABLE);
    driver.write(RDT, 10);
    assert_eq!(driver.kinds(), [ViolationKind::TailWhileDisabled]);
    assert_eq!(driver.read(RDT), 0);
    driver.read(RXDCTL);
    driver.write(RDT, 10);
    assert_eq!(driver.read(RDT), 10);
}

#[test]
fn transmit_queue_wants_its_engine_first() {
    let mut driver = Driver::cold();
    driver.write(0x6000, 0x11_0000);
    driver.write(0x6008, 1024);
    driver.write(TXDCTL, ENABLE);
    assert_eq!(driver.kinds(), [ViolationKind::TransmitQueueBeforeEngine]);
}

/// Without bus mastering nothing is read or written; what waits goes on when it comes back.
#[test]
fn bus_mastering_gates_all_dma() {
    let mut driver = Driver::started();
    driver.device.config_write(4, &[0x02, 0x04]);
    driver.device.deliver(&frame(100));
    driver.send(&frame(100), None, 100, 0);
    assert!(driver.harvest().is_empty() && driver.device.take_transmitted().is_empty());
    assert_eq!(driver.kinds(), [ViolationKind::WorkWithoutBusMaster]);
    driver.device.config_write(4, &[0x06, 0x04]);
    assert_eq!(
        (driver.harvest().len(), driver.device.take_transmitted().len()),
        (1, 1)
    );
}

/// Master disable (CTRL bit 2) stops DMA and is acknowledged in STATUS bit 19.
#[test]
fn master_disable_is_acknowledged() {
    let mut driver = Driver::started();
    assert_ne!(driver.read(8) & 1 << 19, 0);
    driver.write(CTRL, 1 << 2);
    assert_eq!(driver.read(8) & 1 << 19, 0);
    driver.device.deliver(&frame(100));
    assert!(driver.harvest().is_empty());
}

/// A software reset stops the queues and clears itself; memories and the link survive, LRST takes the link down.
#[test]
fn software_reset_spares_memories_and_link() {
    let mut driver = Driver::started();
    driver.write(0x5200, 0x1234);
    driver.device.take_interrupts();
    driver.write(CTRL, RESET);
    assert_eq!(driver.read(CTRL) & RESET, 0);
    assert_eq!(
        (
            driver.read(RXDCTL) & ENABLE,
            driver.read(RDH),
            driver.read(0x5200)
        ),
        (0, 0, 0x1234)
    );
    assert_ne!(driver.read(LINKS) & LINK_UP, 0);
    driver.write(CTRL, RESET | 1 << 3);
    assert_eq!(driver.read(LINKS) & LINK_UP, 0);
    driver.device.advance(Duration::from_millis(20));
    assert_ne!(driver.read(LINKS) & LINK_UP, 0);
}

/// Pulling the cable is a link event; frames to be sent wait for the link.
#[test]
fn link_events_are_signalled_and_frames_wait() {
    let mut driver = Driver::started();
    driver.device.set_link(false);
    assert_eq!(driver.device.take_interrupts(), [2]);
    assert_ne!(driver.read(EICR) & 1 << 20, 0);
    driver.send(&frame(100), None, 100, 0);
    assert!(driver.device.take_transmitted().is_empty());
    driver.device.set_link(true);
    driver.device.advance(Duration::from_millis(20));
    assert_eq!(driver.device.take_transmitted().len(), 1);
    assert!(driver.device.take_interrupts().contains(&2));
}

#[test]
fn stopped_dma_engine_holds_everything_back() {
    let mut driver = Driver::started();
    driver.device.set_dma_stopped(true);
    driver.device.deliver(&frame(100));
    driver.send(&frame(100), None, 100, 0);
    assert!(driver.harvest().is_empty() && driver.device.take_transmitted().is_empty());
    driver.device.clear_faults();
    assert_eq!(
        (driver.harvest().len(), driver.device.take_transmitted().len()),
        (1, 1)
    );
}

#[test]
fn hanging_reset_never_clears_by_itself() {
    let mut driver = Driver::started();
    driver.device.set_hang_on_reset(true);
    driver.write(CTRL, RESET);
    assert_ne!(driver.read(CTRL) & RESET, 0);
    driver.device.deliver(&frame(100));
    assert!(driver.harvest().is_empty());
    driver.device.set_hang_on_reset(false);
    assert_ne!(driver.read(CTRL) & RESET, 0, "this one goes on hanging");
    driver.write(CTRL, RESET);
    assert_eq!(driver.read(CTRL) & RESET, 0);
}

#[test]
fn lost_interrupts_leave_their_frames() {
    let mut driver = Driver::started();
    driver.device.faults().set_interrupt_loss(1.0);
    driver.device.deliver(&frame(100));
    assert!(driver.device.take_interrupts().is_empty());
    assert_eq!(driver.harvest().len(), 1);
    assert_eq!(driver.device.faults().summary().interrupts_lost, 1);
}

/// A frame held back for reordering comes by itself when no other follows.
#[test]
fn reordered_frame_is_not_kept_for_ever() {
    let mut driver = Driver::started();
    driver
        .device
        .faults()
        .set(FrameFault::Reorder, Direction::Rx, 1.0, Some(3));
    driver.device.deliver(&frame(100));
    assert!(driver.harvest().is_empty());
    driver.device.advance(Duration::from_millis(6));
    assert_eq!(driver.harvest().len(), 1);
}

/// A function-level reset takes interrupts, queues and bus mastering away.
#[test]
fn function_level_reset_returns_to_power_on() {
    let mut driver = Driver::started();
    driver.device.config_write(0xA8, &[0, 0x80]);
    assert_eq!(driver.read(RXDCTL) & ENABLE, 0);
    let mut command = [0; 2];
    driver.device.config_read(4, &mut command);
    assert_eq!(command, [0, 0]);
}

/// Receive buffers outside of guest memory lose their frames and are noted; the ring goes on.
#[test]
fn receive_buffer_outside_of_memory_is_noted() {
    let mut driver = Driver::started();
    driver
        .device
        .memory()
        .store_u64(RX_RING, 0xDEAD_0000)
        .expect("mapped");
    driver.device.deliver(&frame(100));
    driver.device.deliver(&frame(101));
    assert_eq!(driver.kinds(), [ViolationKind::UnmappedDma]);
    assert_eq!(driver.read(RDH), 2);
}
