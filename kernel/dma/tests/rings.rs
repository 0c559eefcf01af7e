//! The promises of the 82599 rings, attacked: by drivers that do as they please, and by hardware that writes nonsense.

use dma::host::Model;
use dma::ixgbe::{Adapter, IDENTITY, ReceiveRing, ResetError, RingError, TransmitFlags};
use dma::{ClaimError, Device, Identity, Wake};
use proptest::prelude::*;
use rref::packet::{BUFFER_BYTES, HEADROOM_BYTES};
use rref::{Packet, RRef};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const RECEIVE: u32 = 0x1000;
const TRANSMIT: u32 = 0x6000;
const BASE_LOW: u32 = 0x00;
const BASE_HIGH: u32 = 0x04;
const LENGTH: u32 = 0x08;
const TAIL: u32 = 0x18;
const CONTROL: u32 = 0x28;
const ENABLE: u32 = 1 << 25;
const RECEIVE_DONE: u64 = 0b11;
const TRANSMIT_DONE: u64 = 1 << 32;
const REPORT: u64 = 1 << 27;

/// Just enough of an 82599: registers that keep their value, and somebody who uses descriptors.
#[derive(Default)]
struct Hardware {
    registers: Mutex<HashMap<u32, u32>>,
    writes: Mutex<Vec<(u32, u32)>>,
    /// Queues don't turn off.
    stuck: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model for Hardware {
    fn read(&self, offset: u32) -> u32 {
        lock(&self.registers).get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u32, value: u32) {
        lock(&self.writes).push((offset, value));
        let is_control = (0x1000..0x2000).contains(&offset) || (0x6000..0x8000).contains(&offset);
        let value = if is_control && offset % 0x40 == CONTROL && self.stuck.load(Ordering::Relaxed) {
            value | ENABLE
        } else {
            value
        };
        // Resets end at once.
        lock(&self.registers).insert(offset, if offset == 0 { 0 } else { value });
    }

    fn wait(&self, _entry: u32, _deadline_ns: u64) -> Wake {
        Wake::TimedOut
    }
}

impl Hardware {
    /// A word of a descriptor of queue 0.
    fn word(&self, queue: u32, slot: u32, word: u32) -> *mut u64 {
        let base = u64::from(self.read(queue + BASE_HIGH)) << 32 | u64::from(self.read(queue + BASE_LOW));
        assert!(slot * 16 < self.read(queue + LENGTH), "hardware left the ring");
        (base + u64::from(slot * 16 + word * 8)) as *mut u64
    }

    /// Writes `length` bytes of `fill` (as many as the register allows) to the buffer in `slot`, and reports `claimed` bytes.
    fn receive(&self, slot: u32, length: usize, fill: u8, claimed: u16) {
        let (low, high) = (self.word(RECEIVE, slot, 0), self.word(RECEIVE, slot, 1));
        let size = (self.read(RECEIVE + 0x14) & 0x1F) as usize * 1024;
        // SAFETY: The ring's memory lives as long as the process, and the slot is below the tail, so that its first word is
        // the address of a posted packet, with `size` bytes from there on: that is what is tested.
        unsafe {
            assert_eq!(high.read_volatile() & 1, 0, "the slot is software's");
            (low.read_volatile() as *mut u8).write_bytes(fill, length.min(size));
            high.write_volatile(RECEIVE_DONE | u64::from(claimed) << 32);
        }
    }

    /// The bytes that the transmit descriptor in `slot` names, marked as sent if it asks for that.
    fn transmit(&self, slot: u32) -> Vec<u8> {
        let (low, high) = (self.word(TRANSMIT, slot, 0), self.word(TRANSMIT, slot, 1));
        // SAFETY: As above.
        unsafe {
            let command = high.read_volatile();
            if command & REPORT != 0 {
                high.write_volatile(command | TRANSMIT_DONE);
            }
            std::slice::from_raw_parts(low.read_volatile() as *const u8, (command & 0xFFFF) as usize).to_vec()
        }
    }
}

fn adapter() -> (Arc<Hardware>, Adapter) {
    host_platform::attach();
    let hardware = Arc::new(Hardware::default());
    let adapter = Adapter::new(Device::of_model(IDENTITY, hardware.clone())).expect("an 82599");
    (hardware, adapter)
}

fn packet(length: usize, fill: u8) -> RRef<Packet> {
    let mut packet = Packet::allocate().expect("memory");
    packet.resize(length).fill(fill);
    packet
}

fn filled(ring: &mut ReceiveRing<8>, count: usize) {
    for _ in 0..count {
        assert!(ring.post(packet(0, 0)).is_ok());
    }
    ring.publish();
}

#[test]
fn registers_that_concern_memory_are_refused() {
    let (_, adapter) = adapter();
    let registers = adapter.registers();
    let mut refused = vec![
        0x0, // CTRL
        0x2410,
        0x2414,
        0x2418,
        0x2420, // FCoE
        0x11088,
        0x1108C, // CIAA, CIAD
        0x10010,
        0x10018,
        0x1001C,
        0x1013C, // EEPROM and flash
        0x2F08,
        0x2F20,
        0x82B0, // descriptor caches
        0x1_FFFC,
        0x2_0000,
        0xFFFF_FFFC, // the end, and beyond
        0x881,       // not a register's start
    ];
    for queue in 0..128u32 {
        let receive = if queue < 64 {
            0x1000 + queue * 0x40
        } else {
            0xD000 + (queue - 64) * 0x40
        };
        refused.extend([0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x28, 0x2C].map(|at| receive + at));
        let transmit = 0x6000 + queue * 0x40;
        refused.extend([0x00, 0x04, 0x08, 0x0C, 0x10, 0x18, 0x28, 0x38, 0x3C].map(|at| transmit + at));
    }
    // Old places of SRRCTL and DCA_RXCTRL.
    refused.extend((0..16).flat_map(|queue| [0x2100 + 4 * queue, 0x2200 + 4 * queue]));
    for offset in refused {
        assert!(!registers.is_writable(offset), "{offset:#x}");
    }
    for offset in [0x18, 0x880, 0x888, 0x3000, 0x5080, 0xA000, 0xEC80] {
        assert!(registers.is_writable(offset), "{offset:#x}");
    }
}

#[test]
#[should_panic(expected = "register 0x1018 is not a driver's to write")]
fn writing_a_tail_ends_the_driver() {
    let (_, adapter) = adapter();
    adapter.registers().write(RECEIVE + TAIL, 1);
}

#[test]
fn only_an_82599_is_one() {
    host_platform::attach();
    let other = Identity {
        vendor: 0x8086,
        device: 0x100E,
    };
    let result = Adapter::new(Device::of_model(other, Arc::new(Hardware::default()))).map(|_| ());
    assert_eq!(result, Err(ClaimError::WrongDevice(other)));
}

/// Before a ring has memory, every queue that an earlier life may have left on is off.
#[test]
fn an_earlier_lifes_queues_are_turned_off_first() {
    host_platform::attach();
    let hardware = Arc::new(Hardware::default());
    for queue in 0..128u32 {
        let receive = if queue < 64 {
            0x1000 + queue * 0x40
        } else {
            0xD000 + (queue - 64) * 0x40
        };
        for base in [receive, 0x6000 + queue * 0x40] {
            lock(&hardware.registers).insert(base + CONTROL, ENABLE);
        }
    }
    let _adapter = Adapter::new(Device::of_model(IDENTITY, hardware.clone())).expect("an 82599");
    let on: Vec<u32> = lock(&hardware.registers)
        .iter()
        .filter(|(_, value)| **value & ENABLE != 0)
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(on, []);
    assert_eq!(
        hardware.read(0x3000) & 1,
        0,
        "receive is off before any queue is looked at"
    );
}

#[test]
fn a_queue_has_one_ring() {
    let (_, adapter) = adapter();
    let first = adapter.receive_ring::<8>(3).expect("a ring");
    assert_eq!(
        adapter.receive_ring::<8>(3).err(),
        Some(RingError::InUse { queue: 3 })
    );
    assert!(adapter.transmit_ring::<8>(3).is_ok());
    drop(first);
    assert!(adapter.receive_ring::<8>(3).is_ok());
    assert_eq!(
        adapter.receive_ring::<8>(16).err(),
        Some(RingError::NoQueue { queue: 16 })
    );
}

#[test]
fn a_reset_needs_every_ring_off() {
    let (_, adapter) = adapter();
    let mut ring = adapter.receive_ring::<8>(0).expect("a ring");
    assert_eq!(adapter.reset(false, 1000), Ok(()));
    ring.start().expect("it starts");
    assert_eq!(adapter.reset(false, 1000), Err(ResetError::RingsRunning));
    ring.stop().expect("it stops");
    assert_eq!(adapter.reset(true, 1000), Ok(()));
}

/// A queue that doesn't turn off keeps its buffers for ever: hardware may still write to them. So it keeps the queue.
#[test]
fn buffers_of_a_stuck_queue_are_not_freed() {
    let (hardware, adapter) = adapter();
    let mut ring = adapter.receive_ring::<8>(0).expect("a ring");
    ring.start().expect("it starts");
    filled(&mut ring, 5);
    hardware.stuck.store(true, Ordering::Relaxed);
    drop(ring);
    // They are still there to be written.
    for slot in 0..5 {
        hardware.receive(slot, BUFFER_BYTES, 0xEE, BUFFER_BYTES as u16);
    }
    hardware.stuck.store(false, Ordering::Relaxed);
    assert_eq!(
        adapter.receive_ring::<8>(0).err(),
        Some(RingError::InUse { queue: 0 })
    );
    assert_eq!(adapter.reset(false, 1000), Err(ResetError::RingsRunning));
}

/// Whatever length hardware reports, a packet is no longer than its buffer, and its headroom is untouched.
#[test]
fn hardwares_lengths_are_bounded() {
    let (hardware, adapter) = adapter();
    let mut ring = adapter.receive_ring::<8>(0).expect("a ring");
    ring.start().expect("it starts");
    let mut first = packet(0, 0);
    assert_eq!(
        first.prepend(HEADROOM_BYTES).map(|bytes| bytes.fill(0x11)),
        Some(())
    );
    assert!(ring.post(first).is_ok());
    ring.publish();
    hardware.receive(0, usize::MAX, 0xEE, u16::MAX);
    let (mut packet, status) = ring.take().expect("a packet");
    assert_eq!((status.length(), packet.len()), (u16::MAX, BUFFER_BYTES));
    assert!(packet.frame().iter().all(|byte| *byte == 0xEE));
    assert!(
        packet
            .prepend(HEADROOM_BYTES)
            .is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0x11))
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Post,
    Publish,
    Fill(u16),
    Take,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Post),
        4 => Just(Step::Publish),
        6 => any::<u16>().prop_map(Step::Fill),
        6 => Just(Step::Take),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// In any order of calls, what comes out is what hardware wrote, in order; the tail never passes what was published; one
    /// slot stays free; and a packet that was not filled is never given out.
    #[test]
    fn receive_ring_keeps_order(steps in steps()) {
        let (hardware, adapter) = adapter();
        let mut ring = adapter.receive_ring::<8>(0).expect("a ring");
        ring.start().expect("it starts");
        let (mut posted, mut published, mut filled, mut taken) = (0u32, 0u32, 0u32, 0u32);
        let mut lengths = Vec::new();
        for step in steps {
            match step {
                Step::Post => {
                    let fits = ring.post(packet(7, 7)).is_ok();
                    prop_assert_eq!(fits, posted - taken < 7);
                    posted += u32::from(fits);
                }
                Step::Publish => {
                    ring.publish();
                    published = posted;
                }
                Step::Fill(length) => {
                    if filled < published {
                        hardware.receive(filled % 8, usize::from(length), filled as u8, length);
                        lengths.push(usize::from(length).min(BUFFER_BYTES));
                        filled += 1;
                    }
                }
                Step::Take => {
                    let packet = ring.take().map(|(packet, _)| packet);
                    prop_assert_eq!(packet.is_some(), taken < filled);
                    if let Some(packet) = packet {
                        prop_assert_eq!(packet.len(), lengths[taken as usize]);
                        prop_assert!(packet.frame().iter().all(|byte| *byte == taken as u8));
                        taken += 1;
                    }
                }
                Step::Restart => {
                    ring.start().expect("it starts");
                    (posted, published, filled, taken) = (0, 0, 0, 0);
                    lengths.clear();
                }
            }
            prop_assert_eq!(hardware.read(RECEIVE + TAIL), published % 8);
            prop_assert_eq!(ring.len() as u32, posted - taken);
        }
    }

    /// In any order of calls, hardware sees each packet's own bytes, and none comes back before hardware has reported it.
    #[test]
    fn transmit_ring_keeps_packets_until_sent(
        steps in proptest::collection::vec((0u8..4, 1usize..3000), 0..300)
    ) {
        let (hardware, adapter) = adapter();
        let mut ring = adapter.transmit_ring::<8>(0).expect("a ring");
        ring.start().expect("it starts");
        let mut lengths: Vec<usize> = Vec::new();
        let (mut published, mut sent, mut returned) = (0usize, 0usize, 0usize);
        for (step, length) in steps {
            match step {
                0 => {
                    let packet = packet(length, lengths.len() as u8);
                    let bytes = packet.len();
                    if ring.push(packet, bytes as u32, TransmitFlags::END).is_ok() {
                        lengths.push(bytes);
                    }
                }
                1 => {
                    ring.publish();
                    published = lengths.len();
                }
                2 => {
                    if sent < published {
                        let bytes = hardware.transmit((sent % 8) as u32);
                        prop_assert_eq!(bytes.len(), lengths[sent]);
                        prop_assert!(bytes.iter().all(|byte| *byte == sent as u8));
                        sent += 1;
                    }
                }
                _ => {
                    ring.look();
                    if let Some(packet) = ring.take_sent() {
                        prop_assert!(returned < sent, "a packet came back that hardware still has");
                        prop_assert_eq!(packet.len(), lengths[returned]);
                        returned += 1;
                    }
                }
            }
            prop_assert!(ring.len() < 8);
        }
    }
}
