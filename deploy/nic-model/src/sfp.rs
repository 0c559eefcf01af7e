//! The SFP+ module behind I2CCTL: a two-wire slave with the identification EEPROM of an SR optic (SFF-8472, A0h).
//!
//! The driver moves both wires by hand (datasheet 8.2.3.1.6 "I2CCTL"); this follows start, stop, address and data bits.

const CLOCK_IN: u32 = 1;
const CLOCK_OUT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;
/// Identification pages of an optic, and of its diagnostics.
const ADDRESSES: [u8; 2] = [0xA0, 0xA2];

/// Where the bus is within a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between stop and start, or after an address that isn't ours.
    Idle,
    /// Taking bits of the device address (0) or the word address (1) or data to be written (2).
    Receiving { byte: u8, bits: u8, index: u8 },
    /// Holding data low while the ninth clock passes.
    Acknowledging { index: u8, reading: bool },
    /// Giving bits of a byte.
    Sending { byte: u8, bits: u8 },
    /// Waiting for the master's acknowledge of a byte.
    AwaitingAcknowledge { accepted: bool },
}

/// A module in the cage.
pub struct SfpModule {
    identification: [u8; 256],
    diagnostics: [u8; 256],
    page: u8,
    word: u8,
    phase: Phase,
    clock: bool,
    data: bool,
    /// What the module drives on the data wire; true leaves it high.
    drive: bool,
}

impl SfpModule {
    /// A 10GBASE-SR module whose checksums are right.
    pub fn short_range() -> Self {
        let mut id = [0u8; 256];
        let mut put = |at: usize, bytes: &[u8]| id[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0x03, 0x04, 0x07]); // SFP, two-wire identification, LC connector.
        put(3, &[0x10]); // 10GBASE-SR.
        put(11, &[0x06, 0x67]); // 64B/66B, 10.3 Gb/s.
        put(16, &[0x08, 0x02]); // 80 m and 20 m over OM2 and OM1 fibre.
        put(20, b"RedLeaf Model   ");
        put(37, &[0x00, 0x1B, 0x21]); // Vendor identifier that 82599 drivers know.
        put(40, b"RL-10G-SR       ");
        put(56, b"1   ");
        put(60, &[0x03, 0x52]); // 850 nm.
        put(64, &[0x00, 0x1A]); // Transmit disable, fault and loss of signal are wired.
        put(68, b"MODEL0000000001 ");
        put(84, b"260101  ");
        put(92, &[0x68, 0xF0, 0x03]); // Internally calibrated diagnostics.
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        id[63] = sum(&id[..63]);
        id[95] = sum(&id[64..95]);
        let mut diagnostics = [0u8; 256];
        diagnostics[96..106].copy_from_slice(&[0x23, 0x00, 0x80, 0xE8, 0x0B, 0xB8, 0x16, 0xC0, 0x13, 0x88]);
        Self {
            identification: id,
            diagnostics,
            page: 0xA0,
            word: 0,
            phase: Phase::Idle,
            clock: true,
            data: true,
            drive: true,
        }
    }

    /// The value I2CCTL has after software wrote `value`.
    pub fn write(&mut self, value: u32) -> u32 {
        let clock = value & CLOCK_OUT != 0;
        let data = value & DATA_OUT != 0;
        if self.clock && clock && self.data != data {
            // Data changes while the clock is high: start or stop.
            self.drive = true;
            self.phase = if data {
                Phase::Idle
            } else {
                Phase::Receiving {
                    byte: 0,
                    bits: 0,
                    index: 0,
                }
            };
        } else if !self.clock && clock {
            self.rising(data);
        } else if self.clock && !clock {
            self.falling();
        }
        self.clock = clock;
        self.data = data;
        let mut result = value & (CLOCK_OUT | DATA_OUT);
        if clock {
            result |= CLOCK_IN;
        }
        if data && self.drive {
            result |= DATA_IN;
        }
        result
    }

    /// The clock rises: the master samples what we drive, we sample what it drives.
    fn rising(&mut self, data: bool) {
        match self.phase {
            Phase::Receiving { byte, bits, index } => {
                self.phase = Phase::Receiving {
                    byte: byte << 1 | u8::from(data),
                    bits: bits + 1,
                    index,
                };
            }
            Phase::AwaitingAcknowledge { .. } => self.phase = Phase::AwaitingAcknowledge { accepted: !data },
            Phase::Idle | Phase::Acknowledging { .. } | Phase::Sending { .. } => {}
        }
    }

    /// The clock falls: what is driven may change.
    fn falling(&mut self) {
        match self.phase {
            Phase::Receiving { byte, bits: 8, index } => self.take(byte, index),
            Phase::Acknowledging { reading: true, .. } => self.send_next(),
            Phase::Acknowledging {
                index,
                reading: false,
            } => {
                self.drive = true;
                self.phase = Phase::Receiving {
                    byte: 0,
                    bits: 0,
                    index: (index + 1).min(2),
                };
            }
            Phase::Sending { bits: 8, .. } => {
                self.drive = true;
                self.phase = Phase::AwaitingAcknowledge { accepted: false };
            }
            Phase::Sending { byte, bits } => {
                self.drive = byte & 0x80 != 0;
                self.phase = Phase::Sending {
                    byte: byte << 1,
                    bits: bits + 1,
                };
            }
            Phase::AwaitingAcknowledge { accepted: true } => self.send_next(),
            Phase::AwaitingAcknowledge { accepted: false } => self.phase = Phase::Idle,
            Phase::Idle | Phase::Receiving { .. } => {}
        }
    }

    /// A whole byte has come in.
    fn take(&mut self, byte: u8, index: u8) {
        let reading = index == 0 && byte & 1 != 0;
        match index {
            0 if !ADDRESSES.contains(&(byte & 0xFE)) => {
                self.phase = Phase::Idle;
                return;
            }
            0 => self.page = byte & 0xFE,
            1 => self.word = byte,
            _ => {} // The pages are write-protected; the byte is acknowledged and lost.
        }
        self.drive = false;
        self.phase = Phase::Acknowledging { index, reading };
    }

    /// Starts to give the byte at the current address, which then moves on.
    fn send_next(&mut self) {
        let page = if self.page == 0xA0 {
            &self.identification
        } else {
            &self.diagnostics
        };
        let byte = page[usize::from(self.word)];
        self.word = self.word.wrapping_add(1);
        self.drive = byte & 0x80 != 0;
        self.phase = Phase::Sending {
            byte: byte << 1,
            bits: 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bus master that moves the wires one at a time, as drivers do.
    struct Master {
        module: SfpModule,
        out: u32,
        seen: u32,
    }

    impl Master {
        fn new() -> Self {
            Self {
                module: SfpModule::short_range(),
                out: CLOCK_OUT | DATA_OUT,
                seen: 0,
            }
        }

        fn wire(&mut self, wire: u32, high: bool) {
            self.out = if high { self.out | wire } else { self.out & !wire };
            self.seen = self.module.write(self.out);
        }

        fn start(&mut self) {
            self.wire(DATA_OUT, true);
            self.wire(CLOCK_OUT, true);
            self.wire(DATA_OUT, false);
            self.wire(CLOCK_OUT, false);
        }

        fn stop(&mut self) {
            self.wire(DATA_OUT, false);
            self.wire(CLOCK_OUT, true);
            self.wire(DATA_OUT, true);
        }

        fn bit(&mut self, high: bool) -> bool {
            self.wire(DATA_OUT, high);
            self.wire(CLOCK_OUT, true);
            let seen = self.seen & DATA_IN != 0;
            self.wire(CLOCK_OUT, false);
            seen
        }

        /// Sends a byte; true when it was acknowledged.
        fn send(&mut self, byte: u8) -> bool {
            for i in (0..8).rev() {
                self.bit(byte >> i & 1 != 0);
            }
            !self.bit(true)
        }

        fn receive(&mut self, acknowledge: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
            self.bit(!acknowledge);
            byte
        }

        fn read(&mut self, device: u8, word: u8, count: usize) -> Option<Vec<u8>> {
            self.start();
            if !self.send(device) || !self.send(word) {
                self.stop();
                return None;
            }
            self.start();
            assert!(self.send(device | 1));
            let bytes = (0..count).map(|i| self.receive(i + 1 < count)).collect();
            self.stop();
            Some(bytes)
        }
    }

    #[test]
    fn identification_reads_byte_by_byte_and_in_a_row() {
        let mut master = Master::new();
        assert_eq!(master.read(0xA0, 0, 1), Some(vec![0x03]));
        assert_eq!(master.read(0xA0, 3, 1), Some(vec![0x10]));
        assert_eq!(master.read(0xA0, 20, 7).as_deref(), Some(b"RedLeaf".as_slice()));
        let page = master.read(0xA0, 0, 96).expect("whole page");
        let sum = page[..63].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, page[63]);
    }

    #[test]
    fn other_addresses_are_not_acknowledged() {
        let mut master = Master::new();
        assert_eq!(master.read(0xF8, 0, 1), None);
        assert_eq!(master.read(0xA0, 37, 3), Some(vec![0x00, 0x1B, 0x21]));
    }
}
