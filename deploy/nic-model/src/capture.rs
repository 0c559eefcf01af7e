//! Captures of what passes on the wire, in the classic pcap format (Ethernet, microseconds).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0xA1B2_C3D4;
const SNAPSHOT_LENGTH: u32 = 65_535;
const LINK_TYPE_ETHERNET: u32 = 1;

/// A capture file that is being written. What is buffered reaches the file when the capture ends or is flushed.
pub struct Capture {
    out: BufWriter<File>,
    frames: u64,
}

impl Capture {
    /// Starts a capture in a new file; an existing one is replaced.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&MAGIC.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        out.write_all(&SNAPSHOT_LENGTH.to_le_bytes())?;
        out.write_all(&LINK_TYPE_ETHERNET.to_le_bytes())?;
        Ok(Self { out, frames: 0 })
    }

    /// Adds a frame with the present time.
    pub fn add(&mut self, frame: &[u8]) -> io::Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = frame.get(..SNAPSHOT_LENGTH as usize).unwrap_or(frame);
        let mut header = [0; 16];
        header[..4].copy_from_slice(&(time.as_secs() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&time.subsec_micros().to_le_bytes());
        header[8..12].copy_from_slice(&(kept.len() as u32).to_le_bytes());
        header[12..].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(kept)?;
        self.frames += 1;
        Ok(())
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Frames captured so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}
