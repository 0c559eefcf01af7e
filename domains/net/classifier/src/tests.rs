//! Runners over a played device, stack and balancer, through the real proxies.

use crate::runner::{Imports, Runner, Turn};
use domain_rt::{Handle, OwnerId};
use interface::balance::{BackendStatus, BalanceError, Balancer, Name, Protocol, ServiceStatus};
use interface::net::{
    DeviceInfo, Exchanged, LinkState, NetConfiguration, NetDevice, NetError, NetStatistics, WaitResult,
};
use interface::path::{PacketProcessor, PathError, Processed};
use proptest::prelude::*;
use rref::packet::Verdict;
use rref::{Packet, PacketBatch, RRef};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames for tests.
pub mod frames {
    /// Ports of a transport header.
    #[derive(Clone, Copy)]
    pub struct Ports {
        pub source: u16,
        pub destination: u16,
    }

    /// An IPv4 frame with a TCP or UDP header's first bytes; 60 bytes.
    pub fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: Ports) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame[34..36].copy_from_slice(&ports.source.to_be_bytes());
        frame[36..38].copy_from_slice(&ports.destination.to_be_bytes());
        frame
    }

    /// An IPv6 frame.
    pub fn ipv6(destination: [u8; 16], next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        frame[20] = next_header;
        frame[38..54].copy_from_slice(&destination);
        frame.extend(payload);
        frame
    }
}

/// Tests that count shared objects, or make some, one at a time.
pub fn serial() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    host_platform::attach();
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

const VIP: [u8; 4] = [10, 82, 99, 100];
const OWN: [u8; 4] = [10, 82, 99, 10];
const CLIENT: [u8; 4] = [10, 82, 99, 2];

/// A frame to the VIP or to the appliance itself, with a number in its last bytes.
fn numbered(to: [u8; 4], number: u16) -> Vec<u8> {
    let ports = frames::Ports {
        source: 40_000,
        destination: 80,
    };
    let mut frame = frames::ipv4(CLIENT, to, 6, ports);
    frame[58..].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[58], frame[59]])
}

/// A device with a transmit ring that is cleaned as far as there is room for what was sent.
#[derive(Default)]
struct Device {
    state: Mutex<DeviceState>,
    waits: AtomicU64,
}

#[derive(Default)]
struct DeviceState {
    arrivals: VecDeque<(Vec<u8>, bool)>,
    sent: Vec<Vec<u8>>,
    ring: Vec<RRef<Packet>>,
    /// Frames that one exchange takes; 0 for all.
    takes: usize,
}

impl NetDevice for Device {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        Err(NetError::Unsupported)
    }

    fn configure(&self, _configuration: NetConfiguration) -> Result<(), NetError> {
        Ok(())
    }

    fn link(&self) -> Result<LinkState, NetError> {
        Ok(LinkState::default())
    }

    fn exchange(
        &self,
        _queue: u16,
        mut transmit: PacketBatch,
        mut empty: PacketBatch,
    ) -> Result<Exchanged, NetError> {
        let mut state = self.state.lock().unwrap();
        let mut received = PacketBatch::new().unwrap();
        let (mut unsent, mut taken) = (PacketBatch::new().unwrap(), 0);
        while let Some(packet) = transmit.pop_front() {
            if packet.verdict == Verdict::Transmit && (state.takes == 0 || taken < state.takes) {
                taken += 1;
                state.sent.push(packet.frame().to_vec());
                state.ring.push(packet);
            } else if packet.verdict != Verdict::Transmit {
                state.ring.push(packet);
            } else {
                assert!(unsent.push(packet).is_ok());
            }
        }
        while !received.is_full() && !state.arrivals.is_empty() {
            let Some(mut packet) = empty.pop() else { break };
            if let Some((frame, continues)) = state.arrivals.pop_front() {
                packet.reset();
                packet.verdict = Verdict::Received;
                packet.continues = continues;
                packet.resize(frame.len()).copy_from_slice(&frame);
                assert!(received.push(packet).is_ok());
            }
        }
        let mut spare = unsent;
        spare.append(&mut empty);
        // What doesn't fit the answer stays here, as in a driver's free list.
        while let Some(packet) = empty.pop() {
            state.ring.push(packet);
        }
        while !spare.is_full()
            && let Some(mut packet) = state.ring.pop()
        {
            packet.reset();
            assert!(spare.push(packet).is_ok());
        }
        Ok(Exchanged { received, spare })
    }

    fn wait(&self, _queue: u16, _deadline_ns: u64) -> Result<WaitResult, NetError> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        Ok(WaitResult::TimedOut)
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        Ok(NetStatistics::default())
    }
}

/// Sends what it gets back to where it came from, marked with its own letter; uses up every `swallows`-th packet.
struct Echo {
    letter: u8,
    swallows: u16,
    seen: Mutex<Vec<u16>>,
    attached: Mutex<Vec<u64>>,
    /// Frames to send on its own.
    own: AtomicU64,
}

impl Echo {
    fn new(letter: u8, swallows: u16) -> &'static Echo {
        Box::leak(Box::new(Echo {
            letter,
            swallows,
            seen: Mutex::default(),
            attached: Mutex::default(),
            own: AtomicU64::new(0),
        }))
    }

    fn seen(&self) -> Vec<u16> {
        self.seen.lock().unwrap().clone()
    }
}

impl PacketProcessor for Echo {
    fn process(&self, _shard: u16, mut packets: PacketBatch) -> Result<Processed, PathError> {
        for packet in packets.iter_mut() {
            match packet.verdict {
                Verdict::Received => {
                    let number = number(packet.frame());
                    self.seen.lock().unwrap().push(number);
                    if self.swallows != 0 && number.is_multiple_of(self.swallows) {
                        packet.reset();
                    } else {
                        packet.frame_mut()[0] = self.letter;
                        packet.verdict = Verdict::Transmit;
                    }
                }
                Verdict::Empty if self.own.load(Ordering::Relaxed) > 0 => {
                    self.own.fetch_sub(1, Ordering::Relaxed);
                    packet.resize(60).fill(self.letter);
                    packet.verdict = Verdict::Transmit;
                }
                _ => {}
            }
        }
        Ok(Processed {
            packets,
            more: self.own.load(Ordering::Relaxed) > 0,
            wake_ns: u64::MAX,
        })
    }

    fn attach(&self, _shard: u16, runner: u64) -> Result<(), PathError> {
        self.attached.lock().unwrap().push(runner);
        Ok(())
    }
}

/// Lists one service, or none.
struct List(AtomicBool);

impl Balancer for List {
    fn service(&self, index: u16) -> Result<Option<ServiceStatus>, BalanceError> {
        Ok(
            (index == 0 && self.0.load(Ordering::Relaxed)).then(|| ServiceStatus {
                name: Name::new("web"),
                address: IpAddr::from(VIP),
                port: 80,
                protocol: Protocol::Tcp,
                backends: 1,
                packets: 0,
                bytes: 0,
                connections: 0,
                dropped: 0,
                tracked: 0,
            }),
        )
    }

    fn backend(&self, _service: Name, _index: u16) -> Result<Option<BackendStatus>, BalanceError> {
        Ok(None)
    }

    fn add(&self, _: Name, _: Name, _: IpAddr, _: u16) -> Result<(), BalanceError> {
        Err(BalanceError::NoService)
    }

    fn drain(&self, _: Name, _: Name) -> Result<(), BalanceError> {
        Err(BalanceError::NoService)
    }

    fn activate(&self, _: Name, _: Name) -> Result<(), BalanceError> {
        Err(BalanceError::NoService)
    }

    fn remove(&self, _: Name, _: Name) -> Result<(), BalanceError> {
        Err(BalanceError::NoService)
    }

    fn revision(&self) -> Result<u64, BalanceError> {
        Ok(u64::from(self.0.load(Ordering::Relaxed)))
    }
}

struct Fixture {
    device: &'static Device,
    stack: &'static Echo,
    balancer: &'static Echo,
    list: &'static List,
    runner: Runner,
    now_ns: u64,
    _serial: MutexGuard<'static, ()>,
}

const IMPORTS: Imports = Imports {
    nic: "nic",
    stack: "stack",
    balancer: "balancer",
    services: "services",
};

fn fixture(swallows: u16) -> Fixture {
    let serial = serial();
    let device: &'static Device = Box::leak(Box::default());
    let (stack, balancer) = (Echo::new(b's', swallows), Echo::new(b'b', 0));
    let list: &'static List = Box::leak(Box::new(List(AtomicBool::new(true))));
    host_platform::provide::<dyn NetDevice>(IMPORTS.nic, device);
    host_platform::provide_mortal::<dyn PacketProcessor>(IMPORTS.stack, stack);
    host_platform::provide_mortal::<dyn PacketProcessor>(IMPORTS.balancer, balancer);
    host_platform::provide_mortal::<dyn Balancer>(IMPORTS.services, list);
    let nic = Handle::connect(IMPORTS.nic, OwnerId::NONE, 0).unwrap();
    Fixture {
        device,
        stack,
        balancer,
        list,
        runner: Runner::new(0, nic, &IMPORTS),
        now_ns: 1,
        _serial: serial,
    }
}

impl Fixture {
    fn arrive(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut state = self.device.state.lock().unwrap();
        state
            .arrivals
            .extend(frames.into_iter().map(|frame| (frame, false)));
    }

    fn turn(&mut self) -> Turn {
        self.now_ns += 1_000;
        self.runner.turn(self.now_ns).unwrap()
    }

    /// Runs until there is nothing to do.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.turn() == Turn::Idle { idle + 1 } else { 0 };
        }
    }

    /// Numbers of the frames sent by whom `letter` says.
    fn sent(&self, letter: u8) -> Vec<u16> {
        let state = self.device.state.lock().unwrap();
        state
            .sent
            .iter()
            .filter(|frame| frame[0] == letter)
            .map(|frame| number(frame))
            .collect()
    }
}

#[test]
fn each_packet_goes_where_it_belongs_and_its_answer_goes_out() {
    let mut fixture = fixture(0);
    fixture.arrive((0..40).map(|count| numbered(if count % 3 == 0 { VIP } else { OWN }, count)));
    fixture.settle();
    let (to_vip, to_own): (Vec<u16>, Vec<u16>) = (0..40).partition(|count| count % 3 == 0);
    assert_eq!(fixture.balancer.seen(), to_vip);
    assert_eq!(fixture.stack.seen(), to_own);
    assert_eq!(fixture.sent(b'b'), to_vip);
    assert_eq!(fixture.sent(b's'), to_own);
    assert_eq!(fixture.stack.attached.lock().unwrap().len(), 1);
    assert_eq!(fixture.balancer.attached.lock().unwrap().len(), 1);
}

#[test]
fn an_answer_goes_out_in_the_turn_after() {
    let mut fixture = fixture(0);
    fixture.arrive([numbered(OWN, 1)]);
    assert_eq!(fixture.turn(), Turn::Busy);
    assert_eq!(fixture.turn(), Turn::Busy);
    assert_eq!(fixture.sent(b's'), [1]);
    assert_eq!(fixture.turn(), Turn::Idle);
}

#[test]
fn a_tagged_frame_is_not_the_balancers_and_a_long_one_stays_whole() {
    let mut fixture = fixture(0);
    {
        let mut state = fixture.device.state.lock().unwrap();
        let mut tail = numbered(OWN, 2);
        tail[12] = 0;
        state.arrivals.push_back((numbered(VIP, 1), true));
        state.arrivals.push_back((tail, false));
        state.arrivals.push_back((numbered(OWN, 3), true));
        state.arrivals.push_back((numbered(VIP, 4), false));
    }
    fixture.settle();
    assert_eq!(fixture.balancer.seen(), [1, 2]);
    assert_eq!(fixture.stack.seen(), [3, 4]);
}

/// A batch of the balancer's alone is told by a shorter look at each frame, once the one before was such a batch.
#[test]
fn a_long_frame_after_single_ones_goes_where_its_head_goes_whatever_its_tail_looks_like() {
    for usual in [VIP, OWN] {
        let mut fixture = fixture(0);
        fixture.arrive((0..5).map(|count| numbered(usual, count)));
        fixture.settle();
        {
            let mut state = fixture.device.state.lock().unwrap();
            for count in 10..13 {
                state.arrivals.push_back((numbered(VIP, count), false));
            }
            state.arrivals.push_back((numbered(OWN, 20), true));
            state.arrivals.push_back((numbered(VIP, 21), true));
            state.arrivals.push_back((numbered(VIP, 22), false));
            state.arrivals.push_back((numbered(VIP, 30), false));
        }
        fixture.settle();
        let after = |seen: Vec<u16>| seen.into_iter().filter(|number| *number >= 10).collect();
        let (balancers, stacks): (Vec<u16>, Vec<u16>) =
            (after(fixture.balancer.seen()), after(fixture.stack.seen()));
        assert_eq!(balancers, [10, 11, 12, 30]);
        assert_eq!(stacks, [20, 21, 22]);
    }
}

#[test]
fn steady_traffic_allocates_nothing() {
    let mut fixture = fixture(3);
    let round = |fixture: &mut Fixture| {
        fixture.arrive((0..50).map(|count| numbered(if count % 2 == 0 { VIP } else { OWN }, count)));
        fixture.arrive((0..64).map(|count| numbered(VIP, count)));
        fixture.settle();
    };
    for _ in 0..20 {
        round(&mut fixture);
    }
    let before = host_platform::shared_objects();
    for _ in 0..200 {
        round(&mut fixture);
    }
    assert_eq!(host_platform::shared_objects(), before);
    assert_eq!(fixture.balancer.seen().len(), 220 * 89);
}

#[test]
fn a_full_ring_delays_frames_and_keeps_their_order() {
    let mut fixture = fixture(0);
    fixture.device.state.lock().unwrap().takes = 5;
    fixture.arrive((0..100).map(|count| numbered(VIP, count)));
    for _ in 0..100 {
        fixture.turn();
    }
    assert_eq!(fixture.sent(b'b'), Vec::from_iter(0..100));
}

#[test]
fn the_stack_is_asked_for_more_until_it_has_none() {
    let mut fixture = fixture(0);
    fixture.arrive([numbered(OWN, 1)]);
    fixture.settle();
    fixture.stack.own.store(500, Ordering::Relaxed);
    // An application wrote: the runner finds out when it is woken, or at the latest while other traffic is handled.
    while fixture.stack.own.load(Ordering::Relaxed) > 0 {
        fixture.arrive([numbered(VIP, 9)]);
        fixture.turn();
    }
    fixture.settle();
    let state = fixture.device.state.lock().unwrap();
    assert_eq!(state.sent.iter().filter(|frame| frame[59] == b's').count(), 500);
}

#[test]
fn a_dead_stack_loses_its_own_packets_only_and_is_attached_again() {
    let mut fixture = fixture(0);
    fixture.arrive([numbered(VIP, 1), numbered(OWN, 2)]);
    fixture.settle();
    host_platform::kill(IMPORTS.stack);
    fixture.arrive([numbered(OWN, 3), numbered(VIP, 4), numbered(OWN, 5)]);
    fixture.settle();
    fixture.arrive([numbered(OWN, 6), numbered(VIP, 7)]);
    fixture.settle();
    assert_eq!(fixture.balancer.seen(), [1, 4, 7]);
    let successor = Echo::new(b'S', 0);
    host_platform::provide_mortal::<dyn PacketProcessor>(IMPORTS.stack, successor);
    fixture.now_ns += 200_000_000;
    fixture.turn();
    fixture.arrive([numbered(OWN, 8)]);
    fixture.settle();
    assert_eq!(fixture.stack.seen(), [2]);
    assert_eq!(successor.seen(), [8]);
    assert_eq!(successor.attached.lock().unwrap().len(), 1);
    assert_eq!(fixture.sent(b'S'), [8]);
}

/// Given to the stack, they would be answered with a reset.
#[test]
fn packets_to_a_virtual_service_never_reach_the_stack_while_the_balancer_is_dead() {
    let mut fixture = fixture(0);
    fixture.arrive([numbered(VIP, 1)]);
    fixture.settle();
    host_platform::kill(IMPORTS.balancer);
    host_platform::kill(IMPORTS.services);
    for count in 2..10 {
        fixture.arrive([numbered(VIP, count), numbered(OWN, 100 + count)]);
        fixture.now_ns += 60_000_000;
        fixture.settle();
    }
    assert_eq!(fixture.balancer.seen(), [1]);
    assert_eq!(fixture.stack.seen(), Vec::from_iter(102..110));
}

#[test]
fn a_changed_list_of_services_is_noticed() {
    let mut fixture = fixture(0);
    fixture.arrive([numbered(VIP, 1)]);
    fixture.settle();
    fixture.list.0.store(false, Ordering::Relaxed);
    fixture.now_ns += 200_000_000;
    fixture.arrive([numbered(VIP, 2)]);
    fixture.settle();
    assert_eq!(fixture.balancer.seen(), [1]);
    assert_eq!(fixture.stack.seen(), [2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever arrives in whatever portions, as long as the ring takes as much: each side sees its packets in order, and what
    /// they answer is sent in order, once.
    #[test]
    fn order_is_kept_on_both_sides(
        portions in proptest::collection::vec((0usize..20, any::<u32>()), 1..30), takes in 20usize..40, swallows in 2u16..5,
    ) {
        let mut fixture = fixture(swallows);
        fixture.device.state.lock().unwrap().takes = takes;
        let mut count = 0;
        let (mut to_vip, mut to_own) = (Vec::new(), Vec::new());
        for (portion, pattern) in portions {
            for index in 0..portion {
                count += 1;
                let is_virtual = pattern >> (index % 32) & 1 != 0;
                fixture.arrive([numbered(if is_virtual { VIP } else { OWN }, count)]);
                if is_virtual { to_vip.push(count) } else { to_own.push(count) }
            }
            fixture.turn();
        }
        for _ in 0..200 {
            fixture.turn();
        }
        prop_assert_eq!(fixture.balancer.seen(), to_vip.clone());
        prop_assert_eq!(fixture.stack.seen(), to_own.clone());
        prop_assert_eq!(fixture.sent(b'b'), to_vip);
        to_own.retain(|count| count % swallows != 0);
        prop_assert_eq!(fixture.sent(b's'), to_own);
    }
}
