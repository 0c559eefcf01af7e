//! What the driver does when an earlier life died, and when the device doesn't do what it should.

use crate::support::{Driver, MAC, Nic, PEER, frame, packet, push};
use dma::RegisterTimeout;
use dma::host::Model;
use interface::net::{MacAddress, NetConfiguration, NetDevice, WaitResult};
use ixgbe::{DeviceError, Start};
use rref::PacketBatch;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// A life that takes over a running device neither resets it nor touches the link, and lets nothing through to the buffers of the
/// life before.
#[test]
fn a_killed_driver_is_followed_by_a_quick_start() {
    quick_starts(Driver::kill);
}

#[test]
fn one_whose_device_rests_is_followed_by_a_quick_start() {
    quick_starts(Driver::kill_to_rest);
}

fn quick_starts(kill: impl Fn(Driver)) {
    let nic = Nic::new();
    let driver = nic.up(2);
    assert_eq!(driver.device.start_kind(), Start::Cold);
    let everything = NetConfiguration {
        promiscuous: true,
        vlan_offload: true,
        ..NetConfiguration::default()
    };
    driver.net.configure(everything).expect("configuration");
    kill(driver);

    for life in 0..20u8 {
        let (resets, changes) = {
            let model = nic.model();
            (model.counters().resets, model.link_state().1)
        };
        // Arrives while there is no driver.
        nic.model().deliver(&frame(MAC, PEER, 60, 0));
        nic.set_bus_master(true);
        let driver = nic.start(2).expect("the driver starts");
        assert_eq!(driver.device.start_kind(), Start::Quick);
        assert!(driver.net.link().expect("link").up, "frames pass at once");
        driver.send(&[frame(PEER, MAC, 60, life)]);
        assert_eq!(nic.model().take_transmitted(), [frame(PEER, MAC, 60, life)]);
        driver.receive(0);
        nic.model().deliver(&frame(MAC, PEER, 60, life));
        nic.model()
            .deliver(&frame([0x02, 0, 0, 0, 0, 0x77], PEER, 60, life));
        let received = driver.receive(0);
        assert_eq!(received.len(), 1, "the earlier life's configuration is gone");
        assert_eq!(received[0].frame(), frame(MAC, PEER, 60, life));
        {
            let model = nic.model();
            assert_eq!((model.counters().resets, model.link_state().1), (resets, changes));
        }
        kill(driver);
    }
    nic.assert_clean();
}

/// After a quick start the groups of the earlier life still pass, besides the new ones, until the table is written whole.
#[test]
fn groups_of_an_earlier_life_are_forgotten_in_the_end() {
    const OLD: [u8; 6] = [0x01, 0, 0x5E, 1, 2, 3];
    const NEW: [u8; 6] = [0x33, 0x33, 0xFF, 7, 8, 9];
    let of_group = |group| {
        let mut configuration = NetConfiguration::default();
        configuration.multicast[0] = Some(MacAddress(group));
        configuration
    };
    let nic = Nic::new();
    let driver = nic.up(1);
    driver.net.configure(of_group(OLD)).expect("configuration");
    driver.kill();
    nic.set_bus_master(true);
    let driver = nic.start(1).expect("the driver starts");
    assert_eq!(driver.device.start_kind(), Start::Quick);
    let accepted = || {
        for group in [OLD, NEW] {
            nic.model().deliver(&frame(group, PEER, 60, 0));
        }
        let received = driver.receive(0);
        received
            .iter()
            .map(|packet| packet.frame()[..6].to_vec())
            .collect::<Vec<_>>()
    };
    driver.net.configure(of_group(NEW)).expect("configuration");
    assert_eq!(accepted(), [OLD, NEW]);
    driver.device.complete_filters();
    assert_eq!(accepted(), [NEW]);
    driver.net.configure(of_group(OLD)).expect("configuration");
    assert_eq!(accepted(), [OLD]);
    nic.assert_clean();
}

/// Few reads: each costs tens of microseconds where the device is a model behind a socket, and about one on a real bus.
#[test]
fn a_quick_start_reads_few_registers() {
    let nic = Nic::new();
    let reads_after = |kill: fn(Driver)| {
        kill(nic.up(4));
        nic.set_bus_master(true);
        let before = nic.model().counters().mmio_reads;
        let driver = nic.start(4).expect("the driver starts");
        let reads = nic.model().counters().mmio_reads - before;
        assert_eq!(driver.device.start_kind(), Start::Quick);
        driver.kill();
        nic.set_bus_master(true);
        reads
    };
    // To see what there is; disable and enable of eight rings; the receive path.
    let after_stop = reads_after(Driver::kill);
    assert!(after_stop <= 21, "{after_stop} reads");
    // Nothing needs to be disabled.
    let after_rest = reads_after(Driver::kill_to_rest);
    assert!(after_rest <= 13, "{after_rest} reads");
}

/// What a quick start leaves for later is done by what looks after the device; an address that can't be a station's asks for a reset.
#[test]
fn a_quick_start_is_made_up_for() {
    const RETA: u32 = 0xEB00;
    const RAL: u32 = 0xA200;
    let nic = Nic::new();
    nic.up(2).kill_to_rest();
    let driver = nic.start(2).expect("the driver starts");
    nic.write(RETA, 0x0101_0101);
    driver.device.catch_up();
    assert_eq!(nic.read(RETA), 0x0100_0100);
    assert_eq!(driver.net.info().expect("its description").mac, MacAddress(MAC));

    nic.write(RAL, u32::MAX);
    let device = driver.device.clone();
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| device.catch_up())).is_err());
    driver.kill();
    nic.set_bus_master(true);
    assert_eq!(nic.up(2).device.start_kind(), Start::Cold);
}

#[test]
fn a_life_that_died_while_starting_is_followed_by_a_reset() {
    let nic = Nic::new();
    nic.model().set_hang_on_reset(true);
    let result = nic.start(1).map(|_| ());
    assert!(
        matches!(
            result,
            Err(DeviceError::Timeout {
                timeout: RegisterTimeout { register: 0, .. },
                ..
            })
        ),
        "{result:?}"
    );
    nic.model().set_hang_on_reset(false);
    assert_eq!(nic.up(1).device.start_kind(), Start::Cold);
    nic.assert_clean();
}

#[test]
fn a_spoilt_eeprom_is_refused() {
    let nic = Nic::new();
    nic.model().eeprom().corrupt(0x20, 0x1234);
    let result = nic.start(1).map(|_| ());
    assert!(
        matches!(result, Err(DeviceError::EepromChecksum(_))),
        "{result:?}"
    );
}

#[test]
fn a_group_address_in_the_eeprom_is_refused() {
    let nic = Nic::new();
    // The sum stays right: what one word gains the other loses.
    nic.model().eeprom().corrupt(0x61, 0x8203);
    nic.model().eeprom().corrupt(0x62, 0x0098);
    let result = nic.start(1).map(|_| ());
    assert!(matches!(result, Err(DeviceError::BadAddress(_))), "{result:?}");
}

/// Frames that find the ring full come back in order, and every packet is accounted for when the device goes on.
#[test]
fn a_stopped_device_gives_frames_back() {
    let nic = Nic::new();
    let driver = nic.up(1);
    nic.model().set_dma_stopped(true);
    let mut sent = 0u32;
    let unsent = loop {
        let mut batch = PacketBatch::new().expect("memory");
        for n in 0..32 {
            push(&mut batch, packet(&frame(PEER, MAC, 60, (sent + n) as u8)));
        }
        let (unsent, _) = driver.exchange(0, batch);
        sent += 32 - unsent.len() as u32;
        if !unsent.is_empty() {
            break unsent;
        }
    };
    let expected: Vec<_> = (sent..)
        .take(unsent.len())
        .map(|n| frame(PEER, MAC, 60, n as u8))
        .collect();
    assert_eq!(
        unsent
            .iter()
            .map(|packet| packet.frame().to_vec())
            .collect::<Vec<_>>(),
        expected
    );
    nic.model().set_dma_stopped(false);
    assert_eq!(nic.model().take_transmitted().len() as u32, sent);
    let mut batch = PacketBatch::new().expect("memory");
    for packet in unsent {
        push(&mut batch, packet);
    }
    let (unsent, _) = driver.exchange(0, batch);
    assert!(unsent.is_empty());
    assert_eq!(nic.model().take_transmitted(), expected);
    nic.assert_clean();
}

/// A ring that sends nothing for two seconds while the link is up is started anew; what was in it is lost, as on a wire.
#[test]
fn a_hanging_transmit_ring_is_started_anew() {
    let nic = Nic::new();
    let driver = nic.up(1);
    nic.model().set_dma_stopped(true);
    driver.send(&[frame(PEER, MAC, 60, 1)]);
    while driver.net.statistics().expect("statistics").transmit_hangs == 0 {
        driver.receive(0);
        std::thread::sleep(Duration::from_millis(50));
    }
    nic.model().set_dma_stopped(false);
    driver.send(&[frame(PEER, MAC, 60, 2)]);
    assert_eq!(nic.model().take_transmitted(), [frame(PEER, MAC, 60, 2)]);
    nic.assert_clean();
}

/// A sleeper finds its frames also when the interrupt for them never comes.
#[test]
fn a_lost_interrupt_costs_time_only() {
    let nic = Nic::new();
    let driver = nic.up(1);
    nic.model().faults().set_interrupt_loss(1.0);
    assert_eq!(driver.net.wait(0, 0), Ok(WaitResult::TimedOut));
    let other = nic.clone();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        other.model().deliver(&frame(MAC, PEER, 60, 1));
    });
    assert_eq!(driver.net.wait(0, u64::MAX), Ok(WaitResult::Ready));
    sender.join().expect("sender");
    assert_eq!(driver.receive(0).len(), 1);
}
