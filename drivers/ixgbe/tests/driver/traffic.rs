//! Frames through the driver and the 82599 model.

use crate::support::{MAC, Nic, PEER, frame, ipv4_frame, packet, push, without_checksums};
use interface::net::{MacAddress, NetConfiguration, NetDevice, NetError, WaitResult};
use rref::PacketBatch;
use rref::packet::{ChecksumRequest, ChecksumState};

#[test]
fn frames_pass_both_ways() {
    let nic = Nic::new();
    let driver = nic.up(1);
    assert_eq!(driver.net.info().expect("info").mac, MacAddress(MAC));

    let out: Vec<_> = (0..20).map(|n| frame(PEER, MAC, 60 + n * 70, n as u8)).collect();
    driver.send(&out);
    assert_eq!(nic.model().take_transmitted(), out);

    let arriving: Vec<_> = (0..20).map(|n| frame(MAC, PEER, 60 + n * 70, n as u8)).collect();
    for frame in &arriving {
        nic.model().deliver(frame);
    }
    let received = driver.receive(0);
    assert_eq!(
        received
            .iter()
            .map(|packet| packet.frame().to_vec())
            .collect::<Vec<_>>(),
        arriving
    );

    let statistics = driver.net.statistics().expect("statistics");
    assert_eq!(
        (statistics.received_frames, statistics.transmitted_frames),
        (20, 20)
    );
    nic.assert_clean();
}

#[test]
fn long_runs_wrap_the_rings() {
    let nic = Nic::new();
    let driver = nic.up(1);
    for round in 0..200u32 {
        let frames: Vec<_> = (0..31)
            .map(|n| frame(MAC, PEER, 64 + (round as usize * 7 + n) % 1400, n as u8))
            .collect();
        for frame in &frames {
            nic.model().deliver(frame);
        }
        let mut received = driver.receive(0);
        assert_eq!(received.len(), frames.len());
        let mut batch = PacketBatch::new().expect("memory");
        for (mut packet, frame) in received.drain(..).zip(&frames) {
            assert_eq!(packet.frame(), frame.as_slice());
            packet.verdict = rref::packet::Verdict::Transmit;
            push(&mut batch, packet);
        }
        let (unsent, _) = driver.exchange(0, batch);
        assert!(unsent.is_empty());
        assert_eq!(nic.model().take_transmitted(), frames);
    }
    nic.assert_clean();
}

/// A read over the bus costs more than a whole batch, so an exchange makes none, and writes each tail at most once.
#[test]
fn an_exchange_reads_no_register() {
    let nic = Nic::new();
    let driver = nic.up(1);
    for _ in 0..16 {
        driver.receive(0);
    }
    let frames: Vec<_> = (0..32).map(|n| frame(MAC, PEER, 60, n)).collect();
    for frame in &frames {
        nic.model().deliver(frame);
    }
    let accesses = || {
        let model = nic.model();
        (model.counters().mmio_reads, model.counters().mmio_writes)
    };
    let before = accesses();
    driver.send(&frames);
    let after = accesses();
    assert_eq!(after.0, before.0);
    let writes = after.1 - before.1;
    assert!((1..=2).contains(&writes), "{writes} writes");
}

#[test]
fn flows_spread_over_queues_and_stay_there() {
    let nic = Nic::new();
    let driver = nic.up(4);
    let mut used = [0; 4];
    for port in 0..64u16 {
        let mut seen = None;
        for _ in 0..2 {
            nic.model().deliver(&ipv4_frame(6, (1000 + port, 80), b"flow"));
            for queue in 0..4 {
                for packet in driver.receive(queue) {
                    assert_eq!(packet.queue, queue);
                    assert_ne!(packet.rss_hash, 0);
                    assert!(seen.is_none_or(|earlier| earlier == (queue, packet.rss_hash)));
                    seen = Some((queue, packet.rss_hash));
                    used[usize::from(queue)] += 1;
                }
            }
        }
    }
    assert_eq!(used.iter().sum::<i32>(), 128);
    assert!(used.iter().all(|count| *count > 0), "{used:?}");
    nic.assert_clean();
}

/// The hash of the published verification suite for 66.9.149.187:2794 → 161.142.100.80:1766.
#[test]
fn hash_is_the_published_one() {
    let nic = Nic::new();
    let driver = nic.up(2);
    let mut frame = ipv4_frame(6, (2794, 1766), b"");
    frame[26..30].copy_from_slice(&[66, 9, 149, 187]);
    frame[30..34].copy_from_slice(&[161, 142, 100, 80]);
    nic.model().deliver(&frame);
    let received: Vec<_> = (0..2).flat_map(|queue| driver.receive(queue)).collect();
    assert_eq!(
        received.iter().map(|packet| packet.rss_hash).collect::<Vec<_>>(),
        [0x51cc_c178]
    );
}

#[test]
fn received_checksums_are_judged() {
    let nic = Nic::new();
    let driver = nic.up(1);
    let good = ipv4_frame(6, (1, 2), b"payload");
    let mut bad_tcp = good.clone();
    bad_tcp[60] ^= 1;
    let mut bad_ip = good.clone();
    bad_ip[22] ^= 1;
    let mut bad_udp = ipv4_frame(17, (1, 2), b"payload");
    bad_udp[45] ^= 1;
    for frame in [
        &good,
        &bad_tcp,
        &bad_ip,
        &ipv4_frame(17, (1, 2), b"payload"),
        &bad_udp,
        &frame(MAC, PEER, 60, 0),
    ] {
        nic.model().deliver(frame);
    }
    let states: Vec<_> = driver.receive(0).iter().map(|packet| packet.checksum).collect();
    // Software looks again at a wrong UDP checksum, because the device calls one that isn't there wrong too.
    use ChecksumState::{Bad, Good, Unknown};
    assert_eq!(states, [Good, Bad, Bad, Good, Unknown, Unknown]);
    assert_eq!(driver.net.statistics().expect("statistics").checksum_errors, 2);
}

#[test]
fn checksums_are_filled_in_on_request() {
    let nic = Nic::new();
    let driver = nic.up(1);
    let mut batch = PacketBatch::new().expect("memory");
    let mut expected = Vec::new();
    for n in 0..10u8 {
        let protocol = if n % 3 == 0 { 6 } else { 17 };
        let whole = ipv4_frame(protocol, (u16::from(n), 80), &vec![n; 20 + usize::from(n)]);
        let mut packet = packet(&without_checksums(&whole));
        packet.request = if protocol == 6 {
            ChecksumRequest::Tcp
        } else {
            ChecksumRequest::Udp
        };
        push(&mut batch, packet);
        expected.push(whole);
    }
    driver.exchange(0, batch);
    assert_eq!(nic.model().take_transmitted(), expected);
    nic.assert_clean();
}

#[test]
fn vlan_tags_are_taken_off_put_on_and_filtered() {
    let nic = Nic::new();
    let driver = nic.up(2);
    let mut configuration = NetConfiguration {
        vlan_offload: true,
        ..NetConfiguration::default()
    };
    configuration.vlans[0] = Some(100);
    driver.net.configure(configuration).expect("configuration");

    let plain = frame(MAC, PEER, 80, 7);
    let tagged = |vlan: u16| {
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x81, 0x00]);
        tagged.extend(vlan.to_be_bytes());
        tagged.extend(&plain[12..]);
        tagged
    };
    for vlan in [100, 101] {
        nic.model().deliver(&tagged(vlan));
    }
    let received = driver.receive(0);
    assert_eq!(received.len(), 1);
    assert_eq!(
        (received[0].vlan(), received[0].frame()),
        (Some(100), plain.as_slice())
    );

    let mut batch = PacketBatch::new().expect("memory");
    for vlan in [Some(5), Some(6), None, Some(6)] {
        let mut packet = packet(&plain);
        packet.set_vlan(vlan);
        push(&mut batch, packet);
    }
    driver.exchange(0, batch);
    assert_eq!(
        nic.model().take_transmitted(),
        [tagged(5), tagged(6), plain.clone(), tagged(6)]
    );

    driver
        .net
        .configure(NetConfiguration::default())
        .expect("configuration");
    nic.model().deliver(&tagged(101));
    let received = driver.receive(0);
    assert_eq!(
        (received[0].vlan(), received[0].frame()),
        (None, tagged(101).as_slice())
    );
    nic.assert_clean();
}

#[test]
fn long_frames_are_runs_of_packets() {
    let nic = Nic::new();
    let driver = nic.up(1);
    let configuration = NetConfiguration {
        frame_bytes: 9014,
        ..NetConfiguration::default()
    };
    driver.net.configure(configuration).expect("configuration");

    for length in [1514, 2048, 2049, 4096, 9014] {
        let whole: Vec<u8> = frame(MAC, PEER, length, 0)
            .iter()
            .zip(0u32..)
            .map(|(byte, n)| byte ^ n as u8)
            .collect();
        let mut whole = whole;
        whole[..6].copy_from_slice(&MAC);
        nic.model().deliver(&whole);
        let mut received = driver.receive(0);
        assert_eq!(received.len(), length.div_ceil(2048));
        let joined: Vec<u8> = received
            .iter()
            .flat_map(|packet| packet.frame().to_vec())
            .collect();
        assert_eq!(joined, whole);
        let count = received.len();
        let mut batch = PacketBatch::new().expect("memory");
        for (index, mut packet) in received.drain(..).enumerate() {
            assert_eq!(packet.continues, index + 1 < count);
            packet.verdict = rref::packet::Verdict::Transmit;
            push(&mut batch, packet);
        }
        driver.exchange(0, batch);
        assert_eq!(nic.model().take_transmitted(), [whole]);
    }
    let too_long = NetConfiguration {
        frame_bytes: 16_000,
        ..NetConfiguration::default()
    };
    assert_eq!(driver.net.configure(too_long), Err(NetError::Unsupported));
    nic.assert_clean();
}

#[test]
fn groups_and_strangers_come_only_when_asked_for() {
    let nic = Nic::new();
    let driver = nic.up(1);
    let group = [0x01, 0x00, 0x5E, 0x00, 0x00, 0xFB];
    let other_group = [0x33, 0x33, 0x00, 0x00, 0x00, 0x01];
    let stranger = [0x02, 0, 0, 0, 0, 0x77];
    let destinations = [MAC, [0xFF; 6], group, other_group, stranger];
    let accepted = || {
        for to in destinations {
            nic.model().deliver(&frame(to, PEER, 60, 0));
        }
        driver
            .receive(0)
            .iter()
            .map(|packet| packet.frame()[..6].to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(accepted(), [MAC.to_vec(), vec![0xFF; 6]]);

    let mut configuration = NetConfiguration::default();
    configuration.multicast[3] = Some(MacAddress(group));
    driver.net.configure(configuration).expect("configuration");
    assert_eq!(accepted(), [MAC.to_vec(), vec![0xFF; 6], group.to_vec()]);

    driver
        .net
        .configure(NetConfiguration {
            all_multicast: true,
            ..NetConfiguration::default()
        })
        .expect("configuration");
    assert_eq!(accepted().len(), 4);

    driver
        .net
        .configure(NetConfiguration {
            promiscuous: true,
            ..NetConfiguration::default()
        })
        .expect("configuration");
    assert_eq!(accepted(), [MAC.to_vec(), vec![0xFF; 6], stranger.to_vec()]);
    nic.assert_clean();
}

#[test]
fn frames_that_are_none_come_back_empty() {
    let nic = Nic::new();
    let driver = nic.up(1);
    let mut batch = PacketBatch::new().expect("memory");
    push(&mut batch, packet(&frame(PEER, MAC, 16, 1)));
    push(&mut batch, packet(&frame(PEER, MAC, 1600, 2)));
    let mut endless = packet(&frame(PEER, MAC, 100, 3));
    endless.continues = true;
    push(&mut batch, packet(&frame(PEER, MAC, 100, 4)));
    push(&mut batch, endless);
    let (unsent, _) = driver.exchange(0, batch);
    assert!(unsent.is_empty());
    assert_eq!(nic.model().take_transmitted(), [frame(PEER, MAC, 100, 4)]);
    nic.assert_clean();
}

#[test]
fn a_queue_that_is_not_there_is_refused() {
    let nic = Nic::new();
    let driver = nic.up(2);
    let expected = NetError::NoQueue { queue: 2, queues: 2 };
    assert_eq!(driver.net.wait(2, 0), Err(expected));
}

#[test]
fn a_sleeper_is_woken_by_its_queue() {
    let nic = Nic::new();
    let driver = nic.up(2);
    for _ in 0..3 {
        assert_eq!(driver.net.wait(0, 0), Ok(WaitResult::TimedOut));
        let other = nic.clone();
        let sender = std::thread::spawn(move || {
            other.model().deliver(&frame(MAC, PEER, 60, 1));
        });
        assert_eq!(driver.net.wait(0, u64::MAX), Ok(WaitResult::Ready));
        sender.join().expect("sender");
        assert_eq!(driver.receive(0).len(), 1);
    }
}

#[test]
fn the_link_is_followed() {
    let nic = Nic::new();
    let driver = nic.up(1);
    nic.model().set_link(false);
    driver.device.service(true);
    let state = driver.net.link().expect("link");
    assert!(!state.up);
    // Frames for a dead wire are spent at once, not kept for later.
    driver.send(&[frame(PEER, MAC, 60, 0)]);
    nic.model().set_link(true);
    while !driver.net.link().expect("link").up {
        driver.device.service(false);
    }
    assert_eq!(driver.net.link().expect("link").changes, state.changes + 1);
    assert_eq!(nic.model().take_transmitted(), Vec::<Vec<u8>>::new());
    nic.assert_clean();
}
