//! The 16550 UART of COM1, as bytes: 115200 baud, 8 data bits, no parity, one stop bit, FIFOs on.
//!
//! Registers only; buffering and waiting are `console`'s.

use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
/// The ISA interrupt of COM1.
pub const ISA_INTERRUPT: u8 = 4;
/// What the transmit FIFO holds.
const FIFO_BYTES: usize = 16;

const LINE_STATUS_DATA_READY: u8 = 1;
const LINE_STATUS_TRANSMIT_EMPTY: u8 = 1 << 5;

/// The port; there is one, and `console` owns it.
pub struct Uart {
    present: bool,
}

fn read(register: u16) -> u8 {
    // SAFETY: COM1's registers; reading one changes nothing but the UART's own state.
    unsafe { Port::<u8>::new(BASE + register).read() }
}

fn write(register: u16, value: u8) {
    // SAFETY: COM1's registers; a UART can't reach memory.
    unsafe { Port::<u8>::new(BASE + register).write(value) }
}

impl Uart {
    /// A port that drops everything, until [`start`](Self::start).
    pub const ABSENT: Self = Self { present: false };

    /// Sets the line up, interrupts off. A missing UART (its scratch register doesn't hold a value) is left
    /// alone.
    pub fn start(&mut self) {
        write(7, 0x5a);
        self.present = read(7) == 0x5a;
        if !self.present {
            return;
        }
        write(1, 0);
        write(3, 0x80);
        write(0, 1);
        write(1, 0);
        write(3, 0x03);
        write(2, 0xc7);
        write(4, 0x0b);
    }

    /// Switches the interrupts for received bytes, and for an empty transmit FIFO if `transmit`.
    pub fn set_interrupts(&mut self, transmit: bool) {
        if self.present {
            write(1, if transmit { 0x03 } else { 0x01 });
        }
    }

    /// A byte that was received.
    pub fn receive(&mut self) -> Option<u8> {
        (self.present && read(5) & LINE_STATUS_DATA_READY != 0).then(|| read(0))
    }

    /// How many bytes may be given to [`transmit`](Self::transmit) now.
    pub fn transmit_room(&mut self) -> usize {
        if !self.present || read(5) & LINE_STATUS_TRANSMIT_EMPTY != 0 {
            FIFO_BYTES
        } else {
            0
        }
    }

    /// Sends one byte; only after [`transmit_room`](Self::transmit_room) said that there is room.
    pub fn transmit(&mut self, byte: u8) {
        if self.present {
            write(0, byte);
        }
    }

    /// Reads the register that says why the UART interrupts, which acknowledges it; false if it doesn't.
    pub fn acknowledge(&mut self) -> bool {
        self.present && read(2) & 1 == 0
    }
}
