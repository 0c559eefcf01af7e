//! A frame for tests.

use alloc::vec::Vec;

/// A TCP segment without data, from one host and port to port 80 of another; 60 bytes, checksums left out.
pub fn segment(source: [u8; 4], source_port: u16, destination: [u8; 4], flags: u8) -> Vec<u8> {
    let mut frame = Vec::from([0; 60]);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[17] = 40;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    frame[34..36].copy_from_slice(&source_port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    frame
}
