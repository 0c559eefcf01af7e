//! A disk in memory for tests: it remembers every write since the last flush, so that a power cut can be tried at any point with any part of them
//! there, and it fails on request.

use crate::disk::{Disk, DiskError, Shape};
use rref::RRef;
use rref::block::{Block, Fault, Operation};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

pub const BLOCK_BYTES: usize = 512;

/// One logical block that was written.
#[derive(Clone)]
pub struct Written {
    pub address: u64,
    pub data: [u8; BLOCK_BYTES],
}

/// What happened, in order.
#[derive(Clone)]
pub enum Event {
    /// A request's blocks.
    Write {
        blocks: Vec<Written>,
        forced: bool,
    },
    Flush,
}

#[derive(Default)]
pub struct Inner {
    /// What a read gives.
    pub content: Vec<u8>,
    /// All writes and flushes.
    pub events: Vec<Event>,
    /// Whether to keep them.
    pub is_recording: bool,
    /// Requests of this kind from the count-th on (0: the next) fail, so many.
    pub failing: Option<(Operation, u64, u64, Fault)>,
    /// Logical blocks that take no writes.
    pub bad: BTreeSet<u64>,
    /// Writes that met one.
    pub refusals: u64,
    /// Reads done.
    pub reads: u64,
    pub volatile_cache: bool,
    pub forced_writes: bool,
}

#[derive(Clone)]
pub struct SimulatedDisk(pub Arc<Mutex<Inner>>);

impl SimulatedDisk {
    pub fn new(bytes: usize) -> SimulatedDisk {
        SimulatedDisk::with_content(vec![0; bytes])
    }

    pub fn with_content(content: Vec<u8>) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(Inner {
            content,
            volatile_cache: true,
            forced_writes: true,
            ..Inner::default()
        })))
    }

    /// It doesn't do what a forced write asks for, and says so.
    pub fn without_forced_writes(self) -> SimulatedDisk {
        self.0.lock().unwrap().forced_writes = false;
        self
    }

    pub fn record(&self) {
        self.0.lock().unwrap().is_recording = true;
    }

    pub fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().content.clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().events.clone()
    }

    /// From the count-th request of a kind on, `times` of them fail.
    pub fn fail(&self, operation: Operation, from: u64, times: u64, fault: Fault) {
        self.0.lock().unwrap().failing = Some((operation, from, times, fault));
    }

    pub fn heal(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.failing = None;
        inner.bad.clear();
    }

    /// The logical block at this byte takes no writes from now on.
    pub fn spoil(&self, byte: u64) {
        self.0.lock().unwrap().bad.insert(byte / BLOCK_BYTES as u64);
    }
}

/// Puts a block into a disk's content.
pub fn put(content: &mut [u8], written: &Written) {
    let start = written.address as usize * BLOCK_BYTES;
    content[start..start + BLOCK_BYTES].copy_from_slice(&written.data);
}

impl Disk for SimulatedDisk {
    fn shape(&self) -> Shape {
        let inner = self.0.lock().unwrap();
        Shape {
            block_bytes: BLOCK_BYTES as u32,
            blocks: (inner.content.len() / BLOCK_BYTES) as u64,
            volatile_cache: inner.volatile_cache,
            forced_writes: inner.forced_writes,
            deallocate: false,
        }
    }

    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        let mut inner = self.0.lock().unwrap();
        let inner = &mut *inner;
        for block in requests.iter_mut() {
            let operation = block.operation().unwrap();
            if let Some((which, from, times, fault)) = &mut inner.failing
                && *which == operation
            {
                if *from > 0 {
                    *from -= 1;
                } else if *times > 0 {
                    *times -= 1;
                    block.fail(*fault, 0);
                    continue;
                }
            }
            let start = block.address as usize * BLOCK_BYTES;
            let length = block.count as usize * BLOCK_BYTES;
            match operation {
                Operation::Read => {
                    inner.reads += 1;
                    block.data_mut()[..length].copy_from_slice(&inner.content[start..start + length]);
                }
                Operation::Write => {
                    let mut blocks: Vec<Written> = (0..block.count as usize)
                        .map(|index| Written {
                            address: block.address + index as u64,
                            data: block.data()[index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES]
                                .try_into()
                                .unwrap(),
                        })
                        .collect();
                    // Around a bad block the others may be written.
                    let count = blocks.len();
                    blocks.retain(|written| !inner.bad.contains(&written.address));
                    let is_whole = blocks.len() == count;
                    for written in &blocks {
                        put(&mut inner.content, written);
                    }
                    if inner.is_recording {
                        // A controller without the feature takes the wish and keeps the data in its cache.
                        let forced = block.force_unit_access() && inner.forced_writes && is_whole;
                        inner.events.push(Event::Write { blocks, forced });
                    }
                    if !is_whole {
                        inner.refusals += 1;
                        block.fail(Fault::WriteFault, 0);
                        continue;
                    }
                }
                Operation::Flush if inner.is_recording => inner.events.push(Event::Flush),
                Operation::Flush => {}
                Operation::WriteZeroes | Operation::Deallocate => {
                    block.fail(Fault::Unsupported, 0);
                    continue;
                }
            }
            block.complete();
        }
        // Answers come in any order.
        requests.reverse();
        Ok(())
    }
}
