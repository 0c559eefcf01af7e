//! Tests of `balancer.rs` with `control.rs`: frames in, frames out, and what operators do in between.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::control::{BackendSpec, BackendState, Control, ControlError};
use crate::hash::HashSeed;
use crate::lifetime::Timeouts;
use crate::packet::MacAddress;

const SECOND: u64 = 1_000_000_000;
const OUR_MAC: MacAddress = [2, 0, 0, 0, 0, 10];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x11;

fn backend_address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 82, 99, 10 + number).into()
}

fn backend_mac(number: u8) -> MacAddress {
    [2, 0, 0, 0, 1, number]
}

/// The lab's VIP, TCP and UDP, with as many backends as asked for, all reachable.
fn control(backends: u8) -> Control {
    let list: Vec<_> = (1..=backends)
        .map(|number| {
            format!(
                "{{ name = \"backend{number}\", address = \"{}\" }}",
                backend_address(number)
            )
        })
        .collect();
    let vip = |name, protocol, port| {
        let list = list.join(", ");
        format!(
            "[[maglev.vip]]\nname = \"{name}\"\naddress = \"10.82.99.100\"\nport = {port}\n\
             protocol = \"{protocol}\"\nbackends = [{list}]\n"
        )
    };
    let text = format!("[maglev]\n{}{}", vip("web", "tcp", 80), vip("dns", "udp", 53));
    let config = Config::from_toml(&text).unwrap();
    host_platform::attach();
    let mut control = Control::new(&config, HashSeed([5; 16]), OUR_MAC).unwrap();
    for number in 1..=backends {
        control.set_neighbour(backend_address(number), Some(backend_mac(number)));
    }
    control
}

fn ipv4_frame(flow: u32, protocol: u8, port: u16, fragment: u16, tail: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 10, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((20 + 4 + tail.len() as u16).to_be_bytes());
    frame.extend([0, 77]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 82, 99, 2, 10, 82, 99, 100]);
    // The flow's number is the client's address and port.
    frame[27] = (flow >> 16) as u8;
    frame.extend((flow as u16).to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(tail);
    frame.resize(60, 0);
    frame
}

fn tcp(flow: u32, flags: u8) -> Vec<u8> {
    ipv4_frame(
        flow,
        6,
        80,
        0x4000,
        &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 255, 255, 0, 0, 0, 0],
    )
}

fn udp(flow: u32) -> Vec<u8> {
    ipv4_frame(flow, 17, 53, 0, &[0, 8, 0, 0])
}

/// The number of the backend that a frame is sent to.
fn send(balancer: &mut Balancer, now_ns: u64, mut frame: Vec<u8>) -> Result<u8, Verdict> {
    let before = frame.clone();
    let mut verdict = [Verdict::NotMine];
    balancer.forward(now_ns, core::slice::from_mut(&mut frame), &mut verdict);
    assert_eq!(
        frame.get(12..),
        before.get(12..),
        "nothing but MAC addresses changes"
    );
    match verdict {
        [Verdict::Transmit(_)] => {
            assert_eq!(frame[6..12], OUR_MAC);
            assert_eq!(frame[..5], backend_mac(0)[..5]);
            Ok(frame[5])
        }
        [verdict] => {
            assert_eq!(frame, before, "only what is sent on is changed");
            Err(verdict)
        }
    }
}

/// Opens a TCP connection and gives the backend it got.
fn connect(balancer: &mut Balancer, now_ns: u64, flow: u32) -> u8 {
    let backend = send(balancer, now_ns, tcp(flow, SYN)).unwrap();
    assert_eq!(send(balancer, now_ns, tcp(flow, ACK)), Ok(backend));
    backend
}

#[test]
fn connections_are_shared_equally_and_counted() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let mut shares = [0_u32; 5];
    for flow in 0..10_000 {
        shares[usize::from(connect(&mut balancer, SECOND, flow))] += 1;
    }
    for share in &shares[1..] {
        assert!((2_375..=2_625).contains(share), "{shares:?}");
    }
    let report = control.report();
    assert_eq!(
        (report[0].traffic.packets, report[0].traffic.connections),
        (20_000, 10_000)
    );
    assert_eq!(report[0].traffic.bytes, 20_000 * 60);
    for (backend, share) in report[0].backends.iter().zip(&shares[1..]) {
        assert_eq!(backend.traffic.connections, u64::from(*share));
        assert!((16_384..=16_385).contains(&backend.table_entries));
    }
    assert_eq!(control.totals().connection_entries, 10_000);
}

#[test]
fn what_is_for_no_vip_is_left_alone() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let other_port = ipv4_frame(1, 6, 81, 0, &[0; 16]);
    assert_eq!(send(&mut balancer, 0, other_port), Err(Verdict::NotMine));
    assert_eq!(send(&mut balancer, 0, vec![0; 60]), Err(Verdict::NotMine));
}

#[test]
fn malformed_frames_are_dropped_and_counted() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let mut frame = tcp(1, SYN);
    frame[14] = 0x42;
    assert_eq!(
        send(&mut balancer, 0, frame),
        Err(Verdict::Drop(DropReason::Malformed))
    );
    assert_eq!(
        send(&mut balancer, 0, vec![]),
        Err(Verdict::Drop(DropReason::Malformed))
    );
    assert_eq!(control.totals().malformed, 2);
}

/// Draining moves none of 500 established connections, and none of 1,000 new ones goes to the drained backend.
#[test]
fn draining_moves_no_connection() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let before: Vec<u8> = (0..500)
        .map(|flow| connect(&mut balancer, SECOND, flow))
        .collect();
    control.drain("web", "backend2").unwrap();
    for (flow, &backend) in (0..).zip(&before) {
        assert_eq!(send(&mut balancer, 2 * SECOND, tcp(flow, ACK)), Ok(backend));
    }
    assert!((1_000..2_000).all(|flow| connect(&mut balancer, 2 * SECOND, flow) != 2));
    // A client that comes back with the same port after its connection ended is new.
    let flow = before.iter().position(|&backend| backend == 2).unwrap() as u32;
    assert_eq!(send(&mut balancer, 3 * SECOND, tcp(flow, FIN)), Ok(2));
    assert_ne!(send(&mut balancer, 3 * SECOND, tcp(flow, SYN)), Ok(2));
    // Taken into use again, it gets its old share of the table.
    control
        .set_state("web", "backend2", BackendState::Active)
        .unwrap();
    assert!((3_000..3_500).any(|flow| connect(&mut balancer, 3 * SECOND, flow) == 2));
}

/// Removing a backend moves its own flows, and none that is remembered of the others.
#[test]
fn removing_moves_only_the_backends_own_flows() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let before: Vec<u8> = (0..2_000)
        .map(|flow| connect(&mut balancer, SECOND, flow))
        .collect();
    control.remove("web", "backend3").unwrap();
    for (flow, &backend) in (0..).zip(&before) {
        let now = send(&mut balancer, 2 * SECOND, tcp(flow, ACK)).unwrap();
        assert!(
            if backend == 3 { now != 3 } else { now == backend },
            "flow {flow}: {backend} to {now}"
        );
        assert_eq!(
            send(&mut balancer, 2 * SECOND, tcp(flow, ACK)),
            Ok(now),
            "and it stays there"
        );
    }
    assert_eq!(
        control.remove("web", "backend3").unwrap_err().to_string(),
        "VIP web has no backend named backend3"
    );
}

/// A new tenant of a removed backend's slot must not inherit its flows or its counters.
#[test]
fn a_slots_next_tenant_starts_afresh() {
    let mut control = control(2);
    let mut balancer = control.balancer().unwrap();
    let before: Vec<u8> = (0..400)
        .map(|flow| connect(&mut balancer, SECOND, flow))
        .collect();
    control.remove("web", "backend1").unwrap();
    let spec = BackendSpec {
        name: "backend9".into(),
        address: backend_address(9),
        weight: 1,
    };
    control.add("web", spec.clone()).unwrap();
    control.set_neighbour(backend_address(9), Some(backend_mac(9)));
    for (flow, &backend) in (0..).zip(&before) {
        let now = send(&mut balancer, SECOND, tcp(flow, ACK)).unwrap();
        assert!(if backend == 1 { now != 1 } else { now == backend });
    }
    let report = control.report();
    let newcomer = report[0]
        .backends
        .iter()
        .find(|backend| backend.spec == spec)
        .unwrap();
    assert_eq!(newcomer.traffic.connections, 0);
    assert!(newcomer.traffic.packets < 250);
    assert_eq!(
        report[0].traffic.packets, 1_200,
        "the VIP's sum includes what its removed backend was sent"
    );
}

/// Adding a backend and changing weights move no remembered connection either; new ones follow the weights.
#[test]
fn adding_and_weighting_move_no_connection() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let before: Vec<u8> = (0..500)
        .map(|flow| connect(&mut balancer, SECOND, flow))
        .collect();
    control
        .add(
            "web",
            BackendSpec {
                name: "new".into(),
                address: backend_address(5),
                weight: 4,
            },
        )
        .unwrap();
    control.set_neighbour(backend_address(5), Some(backend_mac(5)));
    control.set_weight("web", "backend1", 0).unwrap();
    for (flow, &backend) in (0..).zip(&before) {
        assert_eq!(send(&mut balancer, SECOND, tcp(flow, ACK)), Ok(backend));
    }
    let new: Vec<u8> = (10_000..17_000)
        .map(|flow| connect(&mut balancer, SECOND, flow))
        .collect();
    let share = |number| new.iter().filter(|&&backend| backend == number).count();
    assert_eq!(share(1), 0);
    assert!((3_800..4_200).contains(&share(5)), "{} of 7,000", share(5));
}

#[test]
fn without_backends_or_neighbours_frames_are_dropped() {
    let mut control = control(1);
    let mut balancer = control.balancer().unwrap();
    control.set_neighbour(backend_address(1), None);
    assert_eq!(control.unresolved(), [backend_address(1)]);
    assert_eq!(
        send(&mut balancer, 0, tcp(1, SYN)),
        Err(Verdict::Drop(DropReason::NeighbourUnknown))
    );
    control.set_neighbour(backend_address(1), Some(backend_mac(1)));
    assert_eq!(send(&mut balancer, 0, tcp(1, SYN)), Ok(1));
    control.remove("web", "backend1").unwrap();
    assert_eq!(
        send(&mut balancer, 0, tcp(1, ACK)),
        Err(Verdict::Drop(DropReason::NoBackend))
    );
    assert_eq!(
        (control.totals().no_backend, control.totals().neighbour_unknown),
        (1, 1)
    );
}

/// All fragments of a datagram follow the first, the 5-tuple's backend; one that comes too early goes by the 3-tuple.
#[test]
fn fragments_follow_the_first() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    for flow in 0..200 {
        let early = send(&mut balancer, SECOND, ipv4_frame(flow, 17, 53, 0x2001, &[1; 20]));
        assert!(matches!(early, Ok(1..=4)));
        let whole = send(&mut balancer, SECOND, udp(flow)).unwrap();
        // The datagram's number and addresses are the same for all of these flows, so each takes the place of the last.
        assert_eq!(
            send(
                &mut balancer,
                SECOND,
                ipv4_frame(flow, 17, 53, 0x2000, &[0, 100, 0, 0])
            ),
            Ok(whole)
        );
        for fragment in [0x2002, 0x0003] {
            let later = ipv4_frame(flow, 17, 53, fragment, &[1; 20]);
            assert_eq!(send(&mut balancer, SECOND, later), Ok(whole));
        }
    }
}

/// "Packet too big" reaches the backend that sent the big packet, and changes nothing about the flow.
#[test]
fn icmp_errors_reach_the_flows_backend() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    for flow in 0..100_u32 {
        let backend = connect(&mut balancer, SECOND, flow);
        let [high, low] = (flow as u16).to_be_bytes();
        let mut frame = vec![
            2, 0, 0, 0, 0, 10, 2, 0, 0, 0, 0, 3, 8, 0, 0x45, 0, 0, 56, 0, 1, 0, 0, 64, 1, 0, 0,
        ];
        frame.extend([10, 0, 0, 1, 10, 82, 99, 100, 3, 4, 0, 0, 0, 0, 5, 0]);
        frame.extend([
            0x45, 0, 5, 0xdc, 0, 1, 0x40, 0, 63, 6, 0, 0, 10, 82, 99, 100, 10, 0, 99, 2,
        ]);
        frame.extend([0, 80, high, low, 0, 0, 0, 1]);
        // The flow's number is in the client's second address byte, too (see `ipv4_frame`).
        frame[42 + 17] = 0;
        assert_eq!(send(&mut balancer, SECOND, frame), Ok(backend), "flow {flow}");
    }
    assert_eq!(control.report()[0].traffic.connections, 100);
    for (index, vip) in (0..).zip(control.report()) {
        let summary = control.summary(index).unwrap();
        assert_eq!(
            (summary.spec, summary.traffic, summary.backends),
            (&vip.spec, vip.traffic, vip.backends.len())
        );
    }
}

#[test]
fn idle_flows_are_forgotten_by_their_state() {
    let timeouts = Timeouts::default();
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let count = |balancer: &mut Balancer, control: &Control, second: u64| {
        // The sweep takes a minute to come round.
        for second in second..second + 130 {
            balancer.forward::<Vec<u8>>(second * SECOND, &mut [], &mut []);
        }
        control.totals().connection_entries
    };
    send(&mut balancer, 0, tcp(1, SYN)).unwrap();
    connect(&mut balancer, 0, 2);
    connect(&mut balancer, 0, 3);
    send(&mut balancer, 0, tcp(3, FIN)).unwrap();
    send(&mut balancer, 0, udp(4)).unwrap();
    assert_eq!(control.totals().connection_entries, 4);
    assert_eq!(count(&mut balancer, &control, u64::from(timeouts.udp_seconds)), 1);
    assert_eq!(
        count(
            &mut balancer,
            &control,
            u64::from(timeouts.tcp_established_seconds)
        ),
        0
    );
}

/// A batch may be longer than 32, and verdicts stand in the frames' order.
#[test]
fn long_batches_are_cut() {
    let mut control = control(4);
    let mut balancer = control.balancer().unwrap();
    let mut frames: Vec<_> = (0..100)
        .map(|flow| if flow % 3 == 0 { udp(flow) } else { tcp(flow, SYN) })
        .collect();
    frames[50] = vec![0; 60];
    frames[51] = vec![1];
    let mut verdicts = vec![Verdict::NotMine; 100];
    balancer.forward(0, &mut frames, &mut verdicts);
    for (index, (frame, verdict)) in frames.iter().zip(&verdicts).enumerate() {
        match index {
            50 => assert_eq!(*verdict, Verdict::NotMine),
            51 => assert_eq!(*verdict, Verdict::Drop(DropReason::Malformed)),
            _ => assert!(matches!(verdict, Verdict::Transmit(_)) && frame[6..12] == OUR_MAC),
        }
    }
}

#[test]
fn refused_changes_say_why() {
    let mut control = control(2);
    assert_eq!(
        control.drain("mail", "backend1"),
        Err(ControlError::UnknownVip("mail".into()))
    );
    let twice = BackendSpec {
        name: "backend1".into(),
        address: backend_address(1),
        weight: 1,
    };
    let error = control.add("web", twice).unwrap_err();
    assert_eq!(error.to_string(), "VIP web has a backend named backend1 already");
}

/// Something an operator or the network does.
#[derive(Clone, Debug)]
enum Event {
    Drain(u8),
    Activate(u8),
    SetWeight(u8, u16),
    Add(u8),
    Send(u16),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..5_u8).prop_map(Event::Drain),
        (1..5_u8).prop_map(Event::Activate),
        (1..5_u8, 0..5_u16).prop_map(|(number, weight)| Event::SetWeight(number, weight)),
        (5..100_u8).prop_map(Event::Add),
        any::<u16>().prop_map(Event::Send),
        (0..100_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// No sequence of changes but a removal moves an established connection.
    #[test]
    fn established_connections_never_move(events in prop::collection::vec(event(), 1..40)) {
        let mut control = control(4);
        let mut balancer = control.balancer().unwrap();
        let homes: Vec<u8> = (0..300).map(|flow| connect(&mut balancer, 0, flow)).collect();
        let mut now = 0;
        for event in events {
            match event {
                Event::Drain(number) => control.drain("web", &format!("backend{number}")).unwrap(),
                Event::Activate(number) => {
                    control.set_state("web", &format!("backend{number}"), BackendState::Active).unwrap();
                }
                Event::SetWeight(number, weight) => {
                    control.set_weight("web", &format!("backend{number}"), weight).unwrap();
                }
                Event::Add(number) => {
                    let address = backend_address(number);
                    let _ = control.add("web", BackendSpec { name: format!("backend{number}"), address, weight: 2 });
                    control.set_neighbour(address, Some(backend_mac(number)));
                }
                Event::Send(flow) => {
                    let _ = send(&mut balancer, now, tcp(1_000 + u32::from(flow), SYN));
                }
                Event::Wait(seconds) => now += seconds * SECOND,
            }
            for (flow, &home) in (0..).zip(&homes) {
                prop_assert_eq!(send(&mut balancer, now, tcp(flow, ACK)), Ok(home));
            }
        }
    }

    /// No frame can make the balancer panic, and it never changes what it doesn't send.
    #[test]
    fn no_frame_does_harm(
        flow in 0..50_u32,
        protocol: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in 0..70_usize,
    ) {
        let mut control = control(2);
        let mut balancer = control.balancer().unwrap();
        let mut frame = if protocol { tcp(flow, SYN) } else { udp(flow) };
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(length);
        let _ = send(&mut balancer, 0, frame);
    }
}
