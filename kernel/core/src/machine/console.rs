//! The serial console: bytes in both directions through rings, moved by interrupts.
//!
//! Before interrupts are on, and in a kernel fault, output is polled. Output that doesn't fit into its ring
//! waits for the line, so nothing is lost; input that nobody reads is dropped when its ring is full.

use super::sync::InterruptLock;
use super::thread::{self, ThreadId, Wake};
use super::{clock, cpu, interrupts, ioapic, serial};
use crate::ring::ByteRing;
use core::fmt;

struct Console {
    uart: serial::Uart,
    output: ByteRing<16384>,
    input: ByteRing<1024>,
    /// Whether the UART's interrupts move bytes; otherwise output is polled.
    interrupts: bool,
    /// The thread that waits in [`read`].
    reader: Option<ThreadId>,
    /// The thread that sees to what [`write_later`] left.
    writer: Option<ThreadId>,
    /// It has been woken for that.
    due: bool,
}

/// How long lines of the log may wait for more before they go out, nanoseconds. They are written when something has gone wrong, and
/// that is when the CPU, and the machine's emulator if it has one, has better to do than to move bytes.
const LATER_NS: u64 = 20_000_000;

static CONSOLE: InterruptLock<Console> = InterruptLock::new(Console {
    uart: serial::Uart::ABSENT,
    output: ByteRing::new(),
    input: ByteRing::new(),
    interrupts: false,
    reader: None,
    writer: None,
    due: false,
});

impl Console {
    /// Moves bytes from the ring into the UART as far as there is room.
    fn drain(&mut self) {
        for _ in 0..self.uart.transmit_room() {
            match self.output.pop() {
                Some(byte) => self.uart.transmit(byte),
                None => break,
            }
        }
    }

    fn put(&mut self, byte: u8) {
        while !self.output.push(byte) {
            self.drain();
        }
    }

    /// Puts text, each line end as carriage return and line feed.
    fn put_text(&mut self, text: &str) {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
    }

    /// Sees to it that what is in the ring gets out.
    fn kick(&mut self) {
        if self.interrupts {
            self.drain();
            self.uart.set_interrupts(!self.output.is_empty());
        } else {
            while !self.output.is_empty() {
                self.drain();
            }
        }
    }

    fn interrupt(&mut self) -> Option<ThreadId> {
        let mut received = false;
        // Bounded: a UART that always interrupts must not hold the CPU.
        for _ in 0..64 {
            if !self.uart.acknowledge() {
                break;
            }
            while let Some(byte) = self.uart.receive() {
                self.input.push(byte);
                received = true;
            }
            self.drain();
            self.uart.set_interrupts(!self.output.is_empty());
        }
        if received { self.reader.take() } else { None }
    }
}

/// Sets the UART up for polled output.
pub(super) fn start_polled() {
    CONSOLE.lock().uart.start();
}

/// Turns the UART's interrupts on.
pub(super) fn start_interrupts() {
    let handler = || {
        let reader = CONSOLE.lock().interrupt();
        if let Some(reader) = reader {
            thread::unpark(reader);
        }
    };
    let routed = interrupts::Vector::allocate(cpu::FIRST, handler).map(|vector| {
        let number = vector.number();
        // The console is there as long as the machine runs.
        core::mem::forget(vector);
        ioapic::route_isa(serial::ISA_INTERRUPT, number, cpu::FIRST)
    });
    if routed != Some(true) {
        log::warn!("the serial port's interrupt can't be routed; there is no console input");
        return;
    }
    let mut console = CONSOLE.lock();
    console.interrupts = true;
    console.uart.set_interrupts(false);
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) {
    // In pieces, so that interrupts aren't off for long.
    for piece in bytes.chunks(256) {
        let mut console = CONSOLE.lock();
        for &byte in piece {
            console.put(byte);
        }
        console.kick();
    }
}

/// Writes text like [`Writer`], but leaves it in the ring for up to [`LATER_NS`] when interrupts move bytes. Call it with no scheduler's
/// lock held.
pub(super) fn write_later(text: &str) {
    let wake = {
        let mut console = CONSOLE.lock();
        console.put_text(text);
        match console.writer {
            Some(writer) if console.interrupts => {
                (!core::mem::replace(&mut console.due, true)).then_some(writer)
            }
            _ => {
                console.kick();
                None
            }
        }
    };
    if let Some(writer) = wake {
        thread::unpark(writer);
    }
}

/// Starts the thread that [`write_later`] needs; without it, that writes at once.
pub(super) fn start_writer() {
    extern "C" fn run(_: usize) {
        loop {
            thread::park();
            thread::sleep_until(clock::now_ns() + LATER_NS);
            let mut console = CONSOLE.lock();
            console.due = false;
            console.kick();
        }
    }
    match thread::Builder::new("console").cpu(cpu::FIRST).spawn(run, 0) {
        Ok(writer) => CONSOLE.lock().writer = Some(writer),
        Err(error) => log::warn!("the log goes to the serial port at once: {error}"),
    }
}

/// Reads what has come in, at least one byte unless the deadline passes or the thread is cancelled. One
/// thread at a time may wait; a second one takes the first one's place.
pub fn read(buffer: &mut [u8], deadline_ns: u64) -> Result<usize, Wake> {
    loop {
        {
            let mut console = CONSOLE.lock();
            let mut count = 0;
            for slot in buffer.iter_mut() {
                let Some(byte) = console.input.pop() else { break };
                *slot = byte;
                count += 1;
            }
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            console.reader = Some(thread::current_id());
        }
        match thread::park_until(deadline_ns) {
            Wake::Woken => {}
            other => return Err(other),
        }
    }
}

/// Writes formatted text, each line end as carriage return and line feed.
pub struct Writer;

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut console = CONSOLE.lock();
        console.put_text(text);
        console.kick();
        Ok(())
    }
}

/// Makes output polled for good and breaks the lock, for reporting a kernel fault: every other CPU has been
/// stopped.
pub(super) fn take_over_after_fault() {
    // SAFETY: Whoever holds the lock is stopped or is this CPU, which never returns to that code. The
    // console's state is plain data that is valid after each store.
    unsafe {
        if CONSOLE.is_locked() {
            CONSOLE.force_unlock();
        }
    }
    CONSOLE.lock().interrupts = false;
}

/// Waits until everything written has left the ring.
pub(super) fn flush() {
    let mut console = CONSOLE.lock();
    while !console.output.is_empty() {
        console.drain();
    }
}
