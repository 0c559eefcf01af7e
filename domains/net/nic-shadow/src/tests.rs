//! The shadow over drivers that die, through the real proxies.

use crate::driver::Driver;
use crate::shadow::Shadow;
use alloc::sync::Arc;
use domain_rt::OwnerId;
use interface::net::{
    DeviceInfo, Exchanged, LinkState, MacAddress, NetConfiguration, NetDevice, NetError, NetStatistics,
    WaitResult,
};
use outage::{Outages, Since};
use proptest::prelude::*;
use rref::packet::Verdict;
use rref::{Packet, PacketBatch};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const INFO: DeviceInfo = DeviceInfo {
    mac: MacAddress([2, 0, 0, 0, 0, 1]),
    queues: 4,
    frame_limit_bytes: 9000,
    receive_checksum: true,
    transmit_checksum: true,
};

/// A driver that sends at once, and receives a frame whenever it is told to.
#[derive(Default)]
struct PlayedDriver {
    configured: Mutex<Vec<NetConfiguration>>,
    refuses: AtomicBool,
    sent: AtomicU64,
    /// Frames that were sent, by their queue and first byte.
    frames: Mutex<Vec<(u16, u8)>>,
    /// Frames that find room.
    room: Option<usize>,
    arrivals: AtomicU64,
}

impl NetDevice for PlayedDriver {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        Ok(INFO)
    }

    fn configure(&self, configuration: NetConfiguration) -> Result<(), NetError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(NetError::Unsupported);
        }
        self.configured.lock().unwrap().push(configuration);
        Ok(())
    }

    fn link(&self) -> Result<LinkState, NetError> {
        Ok(LinkState {
            up: true,
            speed_mbps: 10_000,
            changes: 0,
        })
    }

    fn exchange(
        &self,
        queue: u16,
        mut transmit: PacketBatch,
        mut empty: PacketBatch,
    ) -> Result<Exchanged, NetError> {
        let room = self.room.unwrap_or(usize::MAX);
        let mut sent = PacketBatch::new().map_err(|_| NetError::OutOfMemory)?;
        while sent.len() < room
            && let Some(mut packet) = transmit.pop_front()
        {
            self.sent.fetch_add(1, Ordering::Relaxed);
            let first = packet.frame().first().copied().unwrap_or_default();
            self.frames.lock().unwrap().push((queue, first));
            packet.reset();
            assert!(sent.push(packet).is_ok());
        }
        let mut received = PacketBatch::new().map_err(|_| NetError::OutOfMemory)?;
        while self.arrivals.load(Ordering::Relaxed) > 0 {
            let Some(mut packet) = empty.pop() else { break };
            packet.verdict = Verdict::Received;
            self.arrivals.fetch_sub(1, Ordering::Relaxed);
            assert!(received.push(packet).is_ok());
        }
        let spare = if transmit.is_empty() {
            empty.append(&mut sent);
            empty
        } else {
            transmit
        };
        Ok(Exchanged { received, spare })
    }

    fn wait(&self, _queue: u16, _deadline_ns: u64) -> Result<WaitResult, NetError> {
        Ok(WaitResult::TimedOut)
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        Ok(NetStatistics {
            transmitted_frames: self.sent.load(Ordering::Relaxed),
            ..NetStatistics::default()
        })
    }
}

/// The next driver behind `import`.
fn driver(import: &str) -> (&'static PlayedDriver, OwnerId) {
    driver_with_room(import, None)
}

fn driver_with_room(import: &str, room: Option<usize>) -> (&'static PlayedDriver, OwnerId) {
    let driver: &'static PlayedDriver = Box::leak(Box::new(PlayedDriver {
        room,
        ..PlayedDriver::default()
    }));
    let incarnation = host_platform::provide_mortal::<dyn NetDevice>(import, driver);
    (driver, incarnation)
}

fn shadow(import: &'static str) -> (Shadow, Arc<Outages>) {
    host_platform::attach();
    let outages = Arc::new(Outages::default());
    (Shadow::new(Driver::new(import, outages.clone())), outages)
}

fn packets(count: usize, verdict: Verdict) -> PacketBatch {
    let mut batch = PacketBatch::new().unwrap();
    for _ in 0..count {
        let mut packet = Packet::allocate().unwrap();
        packet.verdict = verdict;
        packet.resize(60);
        assert!(batch.push(packet).is_ok());
    }
    batch
}

fn exchange(shadow: &Shadow, queue: u16, transmit: usize, empty: usize) -> Exchanged {
    shadow
        .exchange(
            queue,
            packets(transmit, Verdict::Transmit),
            packets(empty, Verdict::Empty),
        )
        .expect("no caller sees the driver die")
}

#[test]
fn a_death_between_two_calls_is_not_seen_and_the_configuration_is_replayed() {
    let (shadow, outages) = shadow("replay");
    let (first, first_id) = driver("replay");
    assert!(shadow.connect(0));
    let configuration = NetConfiguration {
        promiscuous: true,
        ..NetConfiguration::default()
    };
    shadow.configure(configuration).unwrap();
    assert_eq!(*first.configured.lock().unwrap(), [configuration]);
    assert_eq!(exchange(&shadow, 0, 2, 4).spare.len(), 6);

    host_platform::kill("replay");
    let (second, _) = driver("replay");
    exchange(&shadow, 0, 2, 4);
    exchange(&shadow, 1, 3, 4);

    assert_eq!(
        *second.configured.lock().unwrap(),
        [configuration],
        "once, however many queues"
    );
    // What queue 0 sent into the dead driver is lost; queue 1 had no handle yet.
    assert_eq!(second.sent.load(Ordering::Relaxed), 3);
    assert_eq!(shadow.statistics().unwrap().restarts, 1);
    let measured = outages.take().expect("queue 1's frames were the first");
    assert_eq!(measured.dead, first_id);
    assert!(matches!(measured.since, Since::Death { seen_ns } if measured.end_ns >= seen_ns));
    assert_eq!(outages.take(), None);
}

fn leave_unsent(queue: u16, first: u8, continues: bool) {
    let mut packet = Packet::allocate().unwrap();
    packet.verdict = Verdict::Transmit;
    packet.queue = queue;
    packet.continues = continues;
    packet.resize(60).fill(first);
    host_platform::leave_packet(packet);
}

#[test]
fn what_the_dead_driver_was_to_send_goes_first_each_through_its_queue() {
    let (shadow, _) = shadow("unsent");
    driver("unsent");
    exchange(&shadow, 0, 0, 0);
    for number in 0..40 {
        leave_unsent(0, number, false);
    }
    leave_unsent(1, 100, false);
    host_platform::kill("unsent");
    let (second, _) = driver_with_room("unsent", Some(5));
    let mut mine = packets(3, Verdict::Transmit);
    mine.iter_mut().for_each(|packet| packet.frame_mut().fill(200));
    // As the classifier does: what comes back unsent goes again.
    let mut transmit = Some(mine);
    let mut calls = 0;
    while let Some(batch) = transmit.take() {
        calls += 1;
        let exchanged = shadow.exchange(0, batch, packets(8, Verdict::Empty)).unwrap();
        let unsent = exchanged
            .spare
            .get(0)
            .is_some_and(|packet| packet.verdict == Verdict::Transmit);
        transmit = unsent.then(|| {
            let mut frames = packets(0, Verdict::Empty);
            let mut spare = exchanged.spare;
            while let Some(packet) = spare.pop_front() {
                if packet.verdict == Verdict::Transmit {
                    assert!(frames.push(packet).is_ok());
                }
            }
            frames
        });
        if calls == 1 {
            // The call that meets the death loses its batch in the dead driver; give it again.
            let mut mine = packets(3, Verdict::Transmit);
            mine.iter_mut().for_each(|packet| packet.frame_mut().fill(200));
            transmit = Some(mine);
        }
    }
    let expected: Vec<(u16, u8)> = (0..40).map(|number| (0, number)).chain([(0, 200); 3]).collect();
    assert_eq!(*second.frames.lock().unwrap(), expected, "in {calls} calls");
    exchange(&shadow, 1, 0, 0);
    assert_eq!(second.frames.lock().unwrap().last(), Some(&(1, 100)));
}

#[test]
fn parts_of_long_frames_are_not_sent() {
    let (shadow, _) = shadow("long");
    driver("long");
    exchange(&shadow, 0, 0, 0);
    leave_unsent(0, 1, true);
    leave_unsent(0, 2, true);
    leave_unsent(0, 3, false);
    leave_unsent(0, 4, false);
    host_platform::kill("long");
    let (second, _) = driver("long");
    exchange(&shadow, 0, 0, 0);
    assert_eq!(*second.frames.lock().unwrap(), [(0, 4)]);
}

#[test]
fn the_first_received_frame_ends_an_outage_too() {
    let (shadow, outages) = shadow("receive");
    driver("receive");
    exchange(&shadow, 0, 0, 4);
    host_platform::kill("receive");
    let (second, _) = driver("receive");
    exchange(&shadow, 0, 0, 4);
    exchange(&shadow, 0, 0, 4);
    assert_eq!(outages.take(), None, "no packet has passed");
    second.arrivals.store(1, Ordering::Relaxed);
    assert_eq!(exchange(&shadow, 0, 0, 4).received.len(), 1);
    assert!(outages.take().is_some());
}

#[test]
fn a_call_blocks_until_the_next_driver_is_up() {
    let (shadow, _) = shadow("blocks");
    driver("blocks");
    exchange(&shadow, 0, 1, 1);
    host_platform::kill("blocks");
    let restart = std::thread::spawn(|| {
        host_platform::attach();
        std::thread::sleep(std::time::Duration::from_millis(20));
        driver("blocks");
    });
    assert!(shadow.link().unwrap().up);
    assert_eq!(
        shadow.wait(0, 0),
        Ok(WaitResult::Ready),
        "there may be frames: come back"
    );
    assert_eq!(shadow.wait(0, 0), Ok(WaitResult::TimedOut));
    restart.join().unwrap();
}

#[test]
fn all_queues_meet_a_death_at_once_and_one_replays() {
    let (shadow, _) = shadow("queues");
    let (first, _) = driver("queues");
    shadow.configure(NetConfiguration::default()).unwrap();
    for queue in 0..4 {
        exchange(&shadow, queue, 1, 1);
    }
    assert_eq!(first.sent.load(Ordering::Relaxed), 4);
    host_platform::kill("queues");
    let second = std::thread::scope(|scope| {
        for queue in 0..4 {
            let shadow = &shadow;
            scope.spawn(move || {
                host_platform::attach();
                for _ in 0..100 {
                    exchange(shadow, queue, 1, 1);
                }
            });
        }
        driver("queues").0
    });
    assert_eq!(second.configured.lock().unwrap().len(), 1);
    assert_eq!(second.sent.load(Ordering::Relaxed), 4 * 99);
    assert_eq!(shadow.statistics().unwrap().restarts, 1);
}

#[test]
fn a_refused_configuration_is_not_replayed() {
    let (shadow, _) = shadow("refuses");
    let (first, _) = driver("refuses");
    let good = NetConfiguration::default();
    shadow.configure(good).unwrap();
    first.refuses.store(true, Ordering::Relaxed);
    let bad = NetConfiguration {
        frame_bytes: 60_000,
        ..good
    };
    assert_eq!(shadow.configure(bad), Err(NetError::Unsupported));
    host_platform::kill("refuses");
    let (second, _) = driver("refuses");
    shadow.link().unwrap();
    assert_eq!(*second.configured.lock().unwrap(), [good]);
}

#[test]
fn a_configuration_set_before_there_is_a_driver_is_told_to_the_first() {
    let (shadow, _) = shadow("early");
    // Nothing is behind the import: the host answers at once instead of after the wait.
    assert_eq!(shadow.configure(NetConfiguration::default()), Ok(()));
    assert_eq!(shadow.info(), Err(NetError::NoDevice));
    let lost = exchange(&shadow, 0, 3, 5);
    assert_eq!((lost.received.len(), lost.spare.len()), (0, 5));
    let (first, _) = driver("early");
    assert_eq!(shadow.info(), Ok(INFO));
    assert_eq!(first.configured.lock().unwrap().len(), 1);
}

#[test]
fn a_queue_that_cannot_be_is_refused() {
    let (shadow, _) = shadow("no queue");
    assert!(matches!(
        shadow.exchange(999, packets(0, Verdict::Empty), packets(0, Verdict::Empty)),
        Err(NetError::NoQueue { queue: 999, .. })
    ));
}

#[test]
fn counters_go_on_over_a_restart() {
    let (shadow, _) = shadow("counters");
    driver("counters");
    exchange(&shadow, 0, 5, 1);
    assert_eq!(shadow.statistics().unwrap().transmitted_frames, 5);
    host_platform::kill("counters");
    driver("counters");
    exchange(&shadow, 1, 2, 1);
    assert_eq!(shadow.statistics().unwrap().transmitted_frames, 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever order of calls and deaths: no error reaches a caller, each living driver is configured once and last as
    /// asked, and each successor of a used driver counts as a restart.
    #[test]
    fn any_order_of_calls_and_deaths_is_hidden(steps in proptest::collection::vec(0u8..6, 1..60)) {
        let (shadow, outages) = shadow("any order");
        host_platform::kill("any order");
        let (mut current, _) = driver("any order");
        let mut frame_bytes = None;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    host_platform::kill("any order");
                    current = driver("any order").0;
                }
                1 => {
                    let configuration = NetConfiguration {
                        frame_bytes: number as u16,
                        ..NetConfiguration::default()
                    };
                    prop_assert_eq!(shadow.configure(configuration), Ok(()));
                    frame_bytes = Some(number as u16);
                }
                2 => prop_assert!(shadow.link().is_ok()),
                3 => prop_assert!(shadow.wait(number as u16 % 3, 0).is_ok()),
                _ => drop(exchange(&shadow, number as u16 % 3, number % 5, number % 7)),
            }
        }
        shadow.statistics().unwrap();
        let told = current.configured.lock().unwrap().last().map(|told| told.frame_bytes);
        prop_assert_eq!(told, frame_bytes);
        while outages.take().is_some() {}
    }
}
