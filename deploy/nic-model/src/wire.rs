//! What the port is plugged into: a tap device, or a list for a host that runs the model in its own process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The other end of the cable. Frames come and go without their frame check sequence.
pub trait Wire {
    /// Sends a frame; what can't be sent is lost, as on a real wire.
    fn transmit(&mut self, frame: &[u8]);

    /// Takes a frame that has arrived into `buffer` and gives its length; `None` when there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;

    /// Something to sleep on until a frame arrives, if there is.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Frames sent since the last call, for wires that keep them.
    fn take_transmitted(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Frames that could not be sent.
    fn lost(&self) -> u64 {
        0
    }
}

/// A tap device.
pub struct TapWire {
    tap: OwnedFd,
    lost: u64,
}

impl TapWire {
    /// A wire to an open tap device that doesn't block.
    pub fn new(tap: OwnedFd) -> Self {
        Self { tap, lost: 0 }
    }

    /// Attaches to the tap interface `name` of this network namespace.
    pub fn open(name: &str) -> io::Result<Self> {
        tap::open(name).map(Self::new)
    }
}

impl Wire for TapWire {
    fn transmit(&mut self, frame: &[u8]) {
        if let Err(error) = rustix::io::write(&self.tap, frame) {
            if self.lost == 0 {
                log::warn!("the tap device refused a frame ({error}); is the interface up?");
            }
            self.lost += 1;
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        rustix::io::read(&self.tap, buffer)
            .ok()
            .filter(|length| *length > 0)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}

/// A wire that keeps what is sent, and from which nothing comes but what was put in.
#[derive(Default)]
pub struct MemoryWire {
    transmitted: Vec<Vec<u8>>,
    arriving: VecDeque<Vec<u8>>,
}

impl MemoryWire {
    /// An empty wire.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame on the wire for the device to take.
    pub fn put(&mut self, frame: Vec<u8>) {
        self.arriving.push_back(frame);
    }
}

impl Wire for MemoryWire {
    fn transmit(&mut self, frame: &[u8]) {
        self.transmitted.push(frame.to_vec());
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let frame = self.arriving.pop_front()?;
        let length = frame.len().min(buffer.len());
        buffer.get_mut(..length)?.copy_from_slice(frame.get(..length)?);
        Some(length)
    }

    fn take_transmitted(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.transmitted)
    }
}
