//! The domain as others see it: started with a device, called from a runner's and an application's thread.

use host_platform::{add_boot_file, attach, kill, provide, provide_mortal};
use interface::net::{
    DeviceInfo, Exchanged, LinkState, MacAddress, NetConfiguration, NetDevice, NetError, NetStatistics,
    WaitResult,
};
use interface::path::PacketProcessor;
use interface::socket::{EventList, ListenOptions, Sockets};
use netstack::stack::{Shared, Stack};
use rref::packet::Verdict;
use rref::{Handle, OwnerId, Packet, PacketBatch, RRef};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::lab::{self, CONFIG, Lab, Peer, STACK_MAC};

/// A device that only says what it is and notes how it is set.
struct Device {
    configuration: Mutex<Option<NetConfiguration>>,
    is_there: AtomicBool,
}

static DEVICE: Device = Device {
    configuration: Mutex::new(None),
    is_there: AtomicBool::new(false),
};

impl NetDevice for Device {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        if !self.is_there.load(Ordering::Relaxed) {
            return Err(NetError::NoDevice);
        }
        Ok(DeviceInfo {
            mac: MacAddress(STACK_MAC),
            queues: 2,
            frame_limit_bytes: 9014,
            receive_checksum: true,
            transmit_checksum: true,
        })
    }
    fn configure(&self, configuration: NetConfiguration) -> Result<(), NetError> {
        *self.configuration.lock().expect("unpoisoned") = Some(configuration);
        Ok(())
    }
    fn link(&self) -> Result<LinkState, NetError> {
        Ok(LinkState::default())
    }
    fn exchange(&self, _: u16, _: PacketBatch, _: PacketBatch) -> Result<Exchanged, NetError> {
        Err(NetError::Unsupported)
    }
    fn wait(&self, _: u16, _: u64) -> Result<WaitResult, NetError> {
        Ok(WaitResult::TimedOut)
    }
    fn statistics(&self) -> Result<NetStatistics, NetError> {
        Ok(NetStatistics::default())
    }
}

#[test]
fn starts_with_the_operators_file_and_configures_the_device() {
    let _attached = attach();
    add_boot_file("config/appliance.toml", CONFIG.as_bytes());
    provide_mortal::<dyn NetDevice>("nic", &DEVICE);
    // Without a card behind the shadow the start is over all the same; what it is about comes with the card.
    netstack::start().expect("a right file");
    assert_eq!(*DEVICE.configuration.lock().expect("unpoisoned"), None);
    DEVICE.is_there.store(true, Ordering::Relaxed);
    while DEVICE.configuration.lock().expect("unpoisoned").take().is_none() {
        std::thread::yield_now();
    }

    netstack::start().expect("a device and a right file");
    let configuration = DEVICE
        .configuration
        .lock()
        .expect("unpoisoned")
        .expect("configured");
    assert_eq!(configuration.frame_bytes, 1514);
    let groups: Vec<_> = configuration.multicast.iter().flatten().collect();
    for group in [
        [0x33, 0x33, 0, 0, 0, 1],
        [0x33, 0x33, 0xff, 0, 0, 0x10],
        [0x33, 0x33, 0xff, 0, 1, 0],
    ] {
        assert!(groups.contains(&&MacAddress(group)));
    }

    // Another device, which knows nothing.
    kill("nic");
    *DEVICE.configuration.lock().expect("unpoisoned") = None;
    provide_mortal::<dyn NetDevice>("nic", &DEVICE);
    while *DEVICE.configuration.lock().expect("unpoisoned") != Some(configuration) {
        std::thread::yield_now();
    }
}

/// The runner sleeps until the application has something to send, the application until something came; both through proxies.
#[test]
fn threads_wake_each_other() {
    let _attached = attach();
    let information = DeviceInfo {
        mac: MacAddress(STACK_MAC),
        queues: 1,
        frame_limit_bytes: 1514,
        receive_checksum: true,
        transmit_checksum: false,
    };
    let stack = Arc::new(Stack::new(
        netstack::config::read(CONFIG).expect("right"),
        &information,
    ));
    provide::<dyn PacketProcessor>("stack", Box::leak(Box::new(Shared(stack.clone()))));
    provide::<dyn Sockets>("sockets", Box::leak(Box::new(Shared(stack))));
    let path: Handle<dyn PacketProcessor> = Handle::connect("stack", OwnerId::NONE, 0).expect("provided");
    let sockets: Handle<dyn Sockets> = Handle::connect("sockets", OwnerId::NONE, 0).expect("provided");
    let options = ListenOptions {
        address: None,
        port: 80,
        backlog: 4,
    };
    sockets.listen(0, options).expect("free");
    path.attach(0, 0).expect("a shard");
    let second = || domain_rt::clock::now_ns() + 1_000_000_000;

    let application = std::thread::spawn(move || {
        let _attached = attach();
        let mut list = RRef::new(EventList {
            length: 0,
            events: [None; 64],
        })
        .expect("memory");
        loop {
            list = sockets.wait(0, list, domain_rt::clock::NEVER).expect("a shard");
            for event in list.events.iter().take(list.length as usize).flatten() {
                if event.readable {
                    let received = sockets
                        .receive(event.socket, lab::buffer(&[]))
                        .unwrap_or_else(|_| panic!("open"));
                    assert_eq!(received.buffer.data[..4], *b"ping");
                    assert!(sockets.send(event.socket, lab::buffer(b"pong")).is_ok());
                    return;
                }
            }
        }
    });
    let run = |frame: Option<Vec<u8>>| {
        let mut batch = PacketBatch::new().expect("memory");
        for index in 0..4 {
            let mut packet = Packet::allocate().expect("memory");
            if let (0, Some(frame)) = (index, &frame) {
                packet.resize(frame.len()).copy_from_slice(frame);
                packet.verdict = Verdict::Received;
            }
            assert!(batch.push(packet).is_ok());
        }
        let Ok(processed) = path.process(0, batch) else {
            panic!("a shard")
        };
        let sent = processed
            .packets
            .iter()
            .filter(|packet| packet.verdict == Verdict::Transmit);
        sent.map(|packet| packet.frame().to_vec()).collect::<Vec<_>>()
    };
    let mut peer = Peer::new(4000, 80);
    let answers = run(Some(peer.syn()));
    let last = peer.established(&answers[0]);
    assert!(run(Some(last)).is_empty());
    assert!(run(Some(peer.data(b"ping"))).is_empty());
    let mut answers = Vec::new();
    while answers.is_empty() {
        assert_eq!(
            domain_rt::thread::park_until(second()),
            domain_rt::thread::Wake::Woken,
            "the send wakes the runner"
        );
        answers = run(None);
    }
    assert_eq!(peer.take(&answers[0]).payload, b"pong");
    application.join().expect("no assertion failed");
}

/// An address by DHCP: discover, offer, request, acknowledgement.
#[test]
fn dhcp_configures_every_shard() {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpProtocol, IpRepr, Ipv4Address, UdpPacket,
        UdpRepr,
    };
    let mut lab = Lab::with_device("[network]\ndhcp = true\n", 2, true);
    assert_eq!(lab.stack.addresses().own().len(), 1, "link-local only");
    let server = Ipv4Address::new(192, 0, 2, 1);
    let offered = Ipv4Address::new(192, 0, 2, 77);
    let mut kinds = Vec::new();
    for _ in 0..20 {
        let sent = lab.exchange(&[]);
        for frame in &sent {
            let Ok(packet) = smoltcp::wire::Ipv4Packet::new_checked(&frame[14..]) else {
                continue;
            };
            if packet.next_header() != IpProtocol::Udp {
                continue;
            }
            let udp = UdpPacket::new_checked(packet.payload()).expect("UDP");
            let dhcp = DhcpPacket::new_checked(udp.payload()).expect("DHCP");
            let request = DhcpRepr::parse(&dhcp).expect("DHCP");
            kinds.push(request.message_type);
            let message_type = match request.message_type {
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                DhcpMessageType::Request => DhcpMessageType::Ack,
                other => panic!("{other:?}"),
            };
            let answer = DhcpRepr {
                message_type,
                your_ip: offered,
                server_ip: server,
                router: Some(server),
                subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
                server_identifier: Some(server),
                lease_duration: Some(3600),
                client_hardware_address: EthernetAddress(STACK_MAC),
                client_identifier: None,
                ..request
            };
            let header = UdpRepr {
                src_port: 67,
                dst_port: 68,
            };
            let bytes = header.header_len() + answer.buffer_len();
            let ip = IpRepr::new(server.into(), offered.into(), IpProtocol::Udp, bytes, 64);
            let mut frame = vec![0; 14 + ip.buffer_len()];
            frame[..14].copy_from_slice(&lab::link(true));
            let capabilities = ChecksumCapabilities::default();
            ip.emit(&mut frame[14..], &capabilities);
            header.emit(
                &mut UdpPacket::new_unchecked(&mut frame[34..]),
                &server.into(),
                &offered.into(),
                answer.buffer_len(),
                |room| answer.emit(&mut DhcpPacket::new_unchecked(room)).expect("room"),
                &capabilities,
            );
            // The answer comes to the other queue.
            lab.exchange_on(1, &[frame]);
        }
        lab.advance_ms(1000);
    }
    assert_eq!(kinds, [DhcpMessageType::Discover, DhcpMessageType::Request]);
    let own = lab.stack.addresses().own().to_vec();
    assert!(
        own.iter()
            .any(|own| own.address == std::net::IpAddr::V4(offered) && own.prefix_length == 24)
    );
    let mut peer = Peer::new(4000, 81);
    peer.stack = offered.into();
    let answers = lab.exchange_on(1, &[peer.syn()]);
    let mut answer = answers[0].clone();
    // Checksums are the device's on this one; only the flags matter here.
    answer[14 + 20 + 13] &= 0x04;
    assert_eq!(answer[14 + 20 + 13], 0x04, "a reset from the new address");
}
