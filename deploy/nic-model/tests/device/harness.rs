//! A minimal driver for tests: the datasheet's start-up, one ring each way, offsets written out on purpose.

use nic_model::{Device, DeviceConfig, MemoryWire};

pub const MEMORY: u64 = 0x10_0000;
pub const MEMORY_LENGTH: u64 = 0x40_0000;
pub const RX_RING: u64 = MEMORY;
pub const TX_RING: u64 = MEMORY + 0x1_0000;
pub const RX_BUFFERS: u64 = MEMORY + 0x10_0000;
pub const TX_BUFFERS: u64 = MEMORY + 0x20_0000;
pub const RX_BUFFER_LENGTH: u64 = 2048;

pub const CTRL: u32 = 0x0;
pub const EICR: u32 = 0x800;
pub const EIMS: u32 = 0x880;
pub const RXDCTL: u32 = 0x1028;
pub const SRRCTL: u32 = 0x1014;
pub const RDT: u32 = 0x1018;
pub const RDH: u32 = 0x1010;
pub const TXDCTL: u32 = 0x6028;
pub const TDT: u32 = 0x6018;
pub const TDH: u32 = 0x6010;
pub const ENABLE: u32 = 1 << 25;

pub struct Driver {
    pub device: Device,
    pub slots: u32,
    pub tail: u32,
    pub clean: u32,
}

/// Something wrong, what it must be noted as, and how to do it.
pub type Case = (&'static str, nic_model::ViolationKind, fn(&mut Driver));

/// A received frame as its last descriptor describes it.
#[derive(Debug)]
pub struct Received {
    pub data: Vec<u8>,
    pub low: u64,
    pub high: u64,
    pub descriptors: u32,
}

impl Driver {
    /// A device whose guest has mapped memory and switched bus mastering and MSI-X on.
    pub fn cold() -> Self {
        let mut device = Device::new(DeviceConfig::default(), Box::new(MemoryWire::new()));
        device.memory().map_anonymous(MEMORY, MEMORY_LENGTH).expect("map");
        device.config_write(4, &[0x06, 0x04]);
        device.config_write(0x72, &[0, 0x80]);
        Self {
            device,
            slots: 64,
            tail: 0,
            clean: 0,
        }
    }

    /// The same, started: rings of 64, receive descriptors handed over, interrupts on vectors 0 (rx), 1 (tx), 2 (other).
    pub fn started() -> Self {
        let mut driver = Self::cold();
        driver.start();
        driver
    }

    pub fn read(&mut self, offset: u32) -> u32 {
        self.device.mmio_read32(offset)
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        self.device.mmio_write32(offset, value);
    }

    pub fn read_memory(&mut self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.device.memory().read(address, &mut bytes).expect("mapped");
        bytes
    }

    pub fn word(&mut self, address: u64) -> u64 {
        u64::from_le_bytes(self.read_memory(address, 8).try_into().expect("eight bytes"))
    }

    pub fn start(&mut self) {
        self.write(0x898, 1 << 4 | 1 << 30); // GPIE: MSI-X, automatic masking off by an empty EIAM.
        self.write(0x900, 0x8180); // IVAR: rx 0 on vector 0, tx 0 on vector 1.
        self.write(0xA00, 0x8200); // Other causes on vector 2.
        self.write(0x810, 0x3); // EIAC: 0 and 1 clear themselves.
        self.write(EIMS, 0x3 | 1 << 20);
        self.write(0x5080, 1 << 10); // FCTRL: broadcasts.
        self.write(0x5000, 1 << 13); // RXCSUM: hash instead of fragment checksum.
        self.write(0x2F00, 1 << 1); // RDRXCTL: strip, as HLREG0 does.
        self.start_receive();
        self.start_transmit();
    }

    pub fn start_receive(&mut self) {
        self.write(0x1000, RX_RING as u32);
        self.write(0x1004, 0);
        self.write(0x1008, self.slots * 16);
        self.write(SRRCTL, 1 << 25 | 2);
        self.write(RXDCTL, ENABLE);
        assert_ne!(self.read(RXDCTL) & ENABLE, 0);
        self.write(0x3000, 1);
        for slot in 0..self.slots - 1 {
            self.give(slot);
        }
        self.tail = self.slots - 1;
        self.write(RDT, self.tail);
    }

    pub fn give(&mut self, slot: u32) {
        let address = RX_BUFFERS + u64::from(slot) * RX_BUFFER_LENGTH;
        let at = RX_RING + u64::from(slot) * 16;
        self.device.memory().store_u64(at, address).expect("mapped");
        self.device.memory().store_u64(at + 8, 0).expect("mapped");
    }

    pub fn start_transmit(&mut self) {
        let engine = self.read(0x4A80);
        self.write(0x4A80, engine | 1);
        self.write(0x6000, TX_RING as u32);
        self.write(0x6004, 0);
        self.write(0x6008, self.slots * 16);
        self.write(TXDCTL, ENABLE);
        assert_ne!(self.read(TXDCTL) & ENABLE, 0);
    }

    /// Takes every frame that has arrived; gives no buffers back.
    pub fn harvest(&mut self) -> Vec<Received> {
        let mut frames = vec![];
        let mut data = vec![];
        let mut descriptors = 0;
        loop {
            let at = RX_RING + u64::from(self.clean) * 16;
            let (low, high) = (self.word(at), self.word(at + 8));
            if high & 1 == 0 || self.clean == self.tail {
                return frames;
            }
            let address = RX_BUFFERS + u64::from(self.clean) * RX_BUFFER_LENGTH;
            data.extend(self.read_memory(address, (high >> 32 & 0xFFFF) as usize));
            descriptors += 1;
            self.clean = (self.clean + 1) % self.slots;
            if high & 2 != 0 {
                let data = std::mem::take(&mut data);
                frames.push(Received {
                    data,
                    low,
                    high,
                    descriptors: std::mem::take(&mut descriptors),
                });
            }
        }
    }

    /// Puts a descriptor into the transmit ring at the tail, without moving it.
    pub fn put_descriptor(&mut self, slot: u32, low: u64, high: u64) {
        let at = TX_RING + u64::from(slot) * 16;
        self.device.memory().store_u64(at, low).expect("mapped");
        self.device.memory().store_u64(at + 8, high).expect("mapped");
    }

    /// Sends a frame in one buffer with an optional context; `options` are POPTS and command bits.
    pub fn send(&mut self, frame: &[u8], context: Option<(u64, u64)>, payload: usize, options: u64) -> u32 {
        let mut slot = self.read(TDT);
        if let Some((low, high)) = context {
            self.put_descriptor(slot, low, high | 1 << 29 | 2 << 20);
            slot = (slot + 1) % self.slots;
        }
        self.device.memory().write(TX_BUFFERS, frame).expect("mapped");
        let command = 0x2B30_0000u64; // DEXT, RS, IFCS, EOP, data.
        let high = (payload as u64) << 46 | options | command | frame.len() as u64;
        self.put_descriptor(slot, TX_BUFFERS, high);
        let last = slot;
        self.write(TDT, (slot + 1) % self.slots);
        last
    }

    pub fn kinds(&self) -> Vec<nic_model::ViolationKind> {
        self.device
            .violations()
            .iter()
            .map(|violation| violation.kind)
            .collect()
    }
}

/// A frame to the device's own address with a known payload.
pub fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0x82, 0x99, 0, 0, 1, 0x02, 0, 0, 0, 0, 9, 0x88, 0xB5];
    frame.extend((14..length).map(|i| (i * 7) as u8));
    frame
}

/// A UDP datagram over IPv4 to the device's address, with a source port; checksums are right.
pub fn udp(source_port: u16, payload: &[u8]) -> Vec<u8> {
    let total = 28 + payload.len() as u16;
    let mut ip = vec![
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let header_sum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&header_sum.to_be_bytes());
    let mut segment = vec![];
    for field in [source_port, 53, total - 20, 0] {
        segment.extend(field.to_be_bytes());
    }
    segment.extend_from_slice(payload);
    let checksum = !fold(sum(&ip[12..20]) + u32::from(total - 20) + 17 + sum(&segment));
    segment[6..8].copy_from_slice(&checksum.to_be_bytes());
    [&frame(14)[..12], &[0x08, 0x00], &ip, &segment].concat()
}

pub fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    ((once & 0xFFFF) + (once >> 16)) as u16
}
