//! The driver's device in the same process: the 82599 model over the test's own heap, and frames to send through it.

use dma::host::{Model, SharedHeap};
use dma::ixgbe::{Adapter, IDENTITY};
use dma::{Device as Function, Wake};
use interface::net::NetDevice;
use ixgbe::DeviceError;
use ixgbe::device::{Device, Exported};
use nic_model::{Access, DeviceConfig, MemoryWire};
use rref::packet::Verdict;
use rref::{Packet, PacketBatch, RRef};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: SharedHeap = SharedHeap::new(1 << 30);

/// The address in the model's EEPROM.
pub const MAC: [u8; 6] = [0x02, 0x82, 0x99, 0x00, 0x00, 0x01];
/// A neighbour.
pub const PEER: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x09];

const COMMAND: usize = 4;
const MSIX_CONTROL_HIGH: usize = 0x73;

/// The model behind the driver's registers.
pub struct Nic {
    model: Mutex<nic_model::Device>,
    pending: Mutex<BTreeSet<u16>>,
    at_rest: AtomicBool,
    start: Instant,
}

impl Nic {
    /// A model that sees this process's memory as its guest's, plugged in, with MSI-X on.
    pub fn new() -> Arc<Nic> {
        host_platform::attach();
        let config = DeviceConfig {
            mac: MAC,
            link_training: Duration::from_millis(1),
            ..DeviceConfig::default()
        };
        let mut model = nic_model::Device::new(config, Box::new(MemoryWire::new()));
        let (file, base, length) = HEAP.window().expect("the heap is a file");
        model
            .memory()
            .map_file(base, length, file.as_fd(), 0, Access::READ_WRITE)
            .expect("the model maps it");
        model.set_link(true);
        let nic = Arc::new(Nic {
            model: Mutex::new(model),
            pending: Mutex::default(),
            at_rest: AtomicBool::new(false),
            start: Instant::now(),
        });
        nic.set_bus_master(true);
        nic.model().config_write(MSIX_CONTROL_HIGH, &[0x80]);
        nic
    }

    /// The model, at the present time.
    pub fn model(&self) -> MutexGuard<'_, nic_model::Device> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.advance_to(self.start.elapsed().as_nanos() as u64);
        model
    }

    /// What the kernel does when a driver is claimed or dies.
    pub fn set_bus_master(&self, on: bool) {
        self.model()
            .config_write(COMMAND, &[if on { 0b110 } else { 0b010 }, 0]);
    }

    /// A life of the driver on it.
    pub fn start(self: &Arc<Nic>, queues: u16) -> Result<Driver, DeviceError> {
        host_platform::attach();
        let adapter = Adapter::new(Function::of_model(IDENTITY, self.clone()))?;
        let device = Arc::new(Device::start(adapter, queues)?);
        Ok(Driver {
            nic: self.clone(),
            net: Exported(device.clone()),
            device,
        })
    }

    /// A life of the driver, up to the link.
    pub fn up(self: &Arc<Nic>, queues: u16) -> Driver {
        let driver = self.start(queues).expect("the driver starts");
        while !driver.net.link().expect("link").up {
            driver.device.service(false);
            std::thread::yield_now();
        }
        driver
    }

    /// Fails when the driver did what the datasheet forbids.
    pub fn assert_clean(&self) {
        assert_eq!(self.model().violations(), &[]);
    }
}

impl Model for Nic {
    fn read(&self, offset: u32) -> u32 {
        self.model().mmio_read32(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        self.model().mmio_write32(offset, value);
    }

    fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::Relaxed)
    }

    fn wait(&self, entry: u32, deadline_ns: u64) -> Wake {
        loop {
            let signalled = self.model().take_interrupts();
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.extend(signalled);
            if pending.remove(&(entry as u16)) {
                return Wake::Interrupt;
            }
            drop(pending);
            if domain_rt::clock::now_ns() >= deadline_ns {
                return Wake::TimedOut;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// A running driver.
pub struct Driver {
    pub nic: Arc<Nic>,
    pub device: Arc<Device>,
    pub net: Exported,
}

impl Driver {
    /// Ends this life at any point, as the kernel does: bus mastering goes off, and nothing of the driver runs again. What it held is
    /// leaked here instead of being freed.
    pub fn kill(self) {
        self.nic.set_bus_master(false);
        self.nic.at_rest.store(false, Ordering::Relaxed);
        std::mem::forget(self);
    }

    /// The same, with the device brought to rest instead.
    pub fn kill_to_rest(self) {
        const RXCTRL: u32 = 0x3000;
        const DMATXCTL: u32 = 0x4A80;
        let queues = self.net.info().expect("its description").queues;
        let controls =
            (0..u32::from(queues)).flat_map(|queue| [0x1028 + queue * 0x40, 0x6028 + queue * 0x40]);
        for register in [RXCTRL, DMATXCTL].into_iter().chain(controls) {
            self.nic.write(register, 0);
        }
        self.nic.at_rest.store(true, Ordering::Relaxed);
        std::mem::forget(self);
    }

    /// One exchange; frames that come back unsent, and frames that arrived.
    pub fn exchange(&self, queue: u16, transmit: PacketBatch) -> (Vec<RRef<Packet>>, Vec<RRef<Packet>>) {
        let empty = PacketBatch::new().expect("memory");
        let mut exchanged = self
            .net
            .exchange(queue, transmit, empty)
            .expect("the exchange succeeds");
        let mut unsent = Vec::new();
        while let Some(packet) = exchanged.spare.pop_front() {
            if packet.verdict == Verdict::Transmit {
                unsent.push(packet);
            }
        }
        let mut received = Vec::new();
        while let Some(packet) = exchanged.received.pop_front() {
            assert_eq!(packet.verdict, Verdict::Received);
            received.push(packet);
        }
        (unsent, received)
    }

    /// Sends frames on queue 0.
    pub fn send(&self, frames: &[Vec<u8>]) {
        let mut batch = PacketBatch::new().expect("memory");
        for frame in frames {
            push(&mut batch, packet(frame));
        }
        let (unsent, _) = self.exchange(0, batch);
        assert!(unsent.is_empty());
    }

    /// What has arrived on `queue`.
    pub fn receive(&self, queue: u16) -> Vec<RRef<Packet>> {
        self.exchange(queue, PacketBatch::new().expect("memory")).1
    }
}

/// A packet to send.
pub fn packet(frame: &[u8]) -> RRef<Packet> {
    let mut packet = Packet::allocate().expect("memory");
    packet.resize(frame.len()).copy_from_slice(frame);
    packet.verdict = Verdict::Transmit;
    packet
}

/// Adds a packet to a batch that has room.
pub fn push(batch: &mut PacketBatch, packet: RRef<Packet>) {
    assert!(batch.push(packet).is_ok(), "the batch is full");
}

/// A frame of some other protocol.
pub fn frame(to: [u8; 6], from: [u8; 6], length: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; length];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x88, 0xB5]);
    frame
}

/// One's complement sum of 16-bit words.
pub fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    total as u16
}

/// An IPv4 frame with UDP or TCP and right checksums.
pub fn ipv4_frame(protocol: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let transport_bytes = if protocol == 6 { 20 } else { 8 };
    let total = 20 + transport_bytes + payload.len();
    let mut frame = vec![0; 14 + total];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&PEER);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    {
        let ip = &mut frame[14..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = protocol;
        ip[12..16].copy_from_slice(&[10, 0, 0, 1]);
        ip[16..20].copy_from_slice(&[10, 0, 0, 2]);
        let checksum = !sum(&ip[..20], 0);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let pseudo = pseudo_sum(ip);
        let transport = &mut ip[20..];
        transport[..2].copy_from_slice(&ports.0.to_be_bytes());
        transport[2..4].copy_from_slice(&ports.1.to_be_bytes());
        if protocol == 6 {
            transport[12] = 0x50;
        } else {
            let length = (8 + payload.len()) as u16;
            transport[4..6].copy_from_slice(&length.to_be_bytes());
        }
        transport[transport_bytes..].copy_from_slice(payload);
        let checksum = !sum(transport, u32::from(pseudo));
        let at = if protocol == 6 { 16 } else { 6 };
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

/// Sum of the pseudo-header of an IPv4 packet.
pub fn pseudo_sum(ip: &[u8]) -> u16 {
    let length = u16::from_be_bytes([ip[2], ip[3]]) - 20;
    sum(&ip[12..20], u32::from(ip[9]) + u32::from(length))
}

/// The frame with its checksums taken out, as one that asks hardware for them: the transport field holds the pseudo-header's sum.
pub fn without_checksums(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let pseudo = pseudo_sum(&frame[14..]);
    frame[24..26].fill(0);
    let at = if frame[23] == 6 { 50 } else { 40 };
    frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    frame
}
