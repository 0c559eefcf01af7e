//! The domain around the engine: the store's partition, opening it, and what is done in the background.
//!
//! The interface answers from the start, that the store is opening, or why it can't be. One thread looks for the partition, opens the store and
//! then keeps house: it cleans when segments run short, for no more than half of the time, and brings to the disk what nobody has
//! committed for a while. An appliance without a disk has this thread ask once in a while, and nothing else.

use crate::config;
use crate::device::Partition;
use crate::engine::{Engine, Limits};
use crate::missing;
use crate::open::Options;
use alloc::boxed::Box;
use alloc::sync::Arc;
use domain_rt::sync::Mutex;
use domain_rt::{ConnectError, StartError, clock, thread};
use interface::block::BlockDevice;
use interface::key_value::{
    Appended, CheckReport, KeyValueStore, ReadValue, Scanned, StoreBuffer, StoreError, StoreStatistics,
};
use interface::partition::{Disks, STORE_PARTITION};
use log::{error, info, warn};
use rref::RRef;
use spin::Once;

/// The import that is the disk.
const IMPORT: &str = "disk";
/// The import that knows what is on the disks.
const TABLES: &str = "tables";
/// How often a store that can't be opened is tried again, and how long the disk's domain is waited for, milliseconds.
const LOOK_MS: u64 = 1_000;
/// How often the house is kept when nothing asks for it.
const HOUSEKEEPING_MS: u64 = 5_000;
const NS_PER_MS: u64 = 1_000_000;

/// What all threads share.
struct Shared {
    engine: Once<Engine<Partition>>,
    /// Why there is no engine.
    status: Mutex<StoreError>,
}

impl Shared {
    fn engine(&self) -> Result<&Engine<Partition>, StoreError> {
        self.engine.get().ok_or_else(|| *self.status.lock())
    }

    /// Says why there is no store, once for each reason.
    fn report(&self, reason: StoreError) {
        let before = core::mem::replace(&mut *self.status.lock(), reason);
        if before != reason {
            warn!("no store: {reason}");
        }
    }

    /// Looks for the partition and opens the store on it; it may be long until there is one.
    fn open(&self, limits: Limits) -> &Engine<Partition> {
        loop {
            match self.try_open(limits) {
                Ok(engine) => return self.engine.call_once(|| engine),
                Err(reason) => {
                    self.report(reason);
                    thread::sleep_ms(LOOK_MS);
                }
            }
        }
    }

    fn try_open(&self, limits: Limits) -> Result<Engine<Partition>, StoreError> {
        let handle = domain_rt::connect::<dyn BlockDevice>(IMPORT, LOOK_MS).map_err(|error| match error {
            ConnectError::NotGranted => StoreError::NoDisk,
            _ => StoreError::Unreachable,
        })?;
        let partition = Partition::find(IMPORT, handle, STORE_PARTITION).map_err(|error| {
            missing::reason(error, || domain_rt::connect::<dyn Disks>(TABLES, LOOK_MS).ok())
        })?;
        *self.status.lock() = StoreError::Opening(0);
        let start_ns = clock::now_ns();
        let options = Options {
            limits,
            segment_bytes: None,
            random: clock::entropy,
        };
        let mut engine = Engine::open(partition, options, |percent| {
            *self.status.lock() = StoreError::Opening(percent);
        })?;
        engine.set_opening_time((clock::now_ns() - start_ns) / NS_PER_MS);
        let (opened, statistics) = (engine.opened(), engine.statistics());
        info!(
            "store open: {} keys, {} MiB live, {} KiB read in {} ms",
            statistics.keys,
            statistics.live_bytes >> 20,
            opened.read_bytes >> 10,
            opened.duration_ms
        );
        if opened.dropped_bytes > 0 {
            info!(
                "behind the end of the log {} groups, {} bytes, were dropped: none of them had been committed",
                opened.dropped_groups, opened.dropped_bytes
            );
        }
        if opened.damaged_segments > 0 {
            error!(
                "{} segments of the store are damaged; `kv check` tells more",
                opened.damaged_segments
            );
        }
        Ok(engine)
    }
}

/// Cleans, and commits what nobody has committed.
fn keep_house(engine: &Engine<Partition>) {
    let mut seen = engine.appended();
    engine.set_cleaner(thread::id());
    loop {
        while engine.wants_cleaning() {
            let start_ns = clock::now_ns();
            match engine.clean(engine.is_short()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    warn!("cleaning stopped: {reason}");
                    thread::sleep_ms(LOOK_MS);
                    break;
                }
            }
            if !engine.is_short() {
                // As long as it took, so that cleaning has half of the disk's time at most.
                let now_ns = clock::now_ns();
                thread::park_until(now_ns.saturating_add(now_ns - start_ns));
            }
        }
        let deadline_ns = clock::now_ns().saturating_add(HOUSEKEEPING_MS * NS_PER_MS);
        thread::park_until(deadline_ns);
        let appended = engine.appended();
        if clock::now_ns() >= deadline_ns {
            // A failure is found by whoever commits next, and counted.
            if engine.committed() < seen && engine.commit(seen).is_err() {
                warn!("what was appended can't be written to the disk");
            }
            seen = appended;
        }
    }
}

/// The exported interface.
struct Store(Arc<Shared>);

impl KeyValueStore for Store {
    fn append(&self, group: RRef<StoreBuffer>) -> Result<Appended, StoreError> {
        let sequence = self.0.engine()?.append(&group)?;
        Ok(Appended {
            buffer: group,
            sequence,
        })
    }

    fn stage(
        &self,
        value: u64,
        offset: u64,
        piece: RRef<StoreBuffer>,
    ) -> Result<RRef<StoreBuffer>, StoreError> {
        let engine = self.0.engine()?;
        let bytes = piece
            .data
            .get(..piece.length as usize)
            .ok_or(StoreError::Malformed)?;
        engine.stage(value, offset, bytes)?;
        Ok(piece)
    }

    fn commit(&self, sequence: u64) -> Result<u64, StoreError> {
        self.0.engine()?.commit(sequence)
    }

    fn committed(&self) -> Result<u64, StoreError> {
        Ok(self.0.engine()?.committed())
    }

    fn read(&self, mut buffer: RRef<StoreBuffer>, offset: u64) -> Result<ReadValue, StoreError> {
        let value_bytes = self.0.engine()?.read(&mut buffer, offset)?;
        Ok(ReadValue { buffer, value_bytes })
    }

    fn scan(
        &self,
        cursor: u64,
        value_limit_bytes: u32,
        mut buffer: RRef<StoreBuffer>,
    ) -> Result<Scanned, StoreError> {
        let next = self.0.engine()?.scan(cursor, value_limit_bytes, &mut buffer)?;
        Ok(Scanned { buffer, next })
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.0.engine()?.compact()
    }

    fn check(&self, cursor: u64) -> Result<CheckReport, StoreError> {
        self.0.engine()?.check(cursor)
    }

    fn statistics(&self) -> Result<StoreStatistics, StoreError> {
        Ok(self.0.engine()?.statistics())
    }
}

/// Starts the store. It doesn't wait for a disk: an appliance without one serves as well.
pub fn start() -> Result<(), StartError> {
    let limits = settings::at_start(config::read)?;
    let shared = Arc::new(Shared {
        engine: Once::new(),
        status: Mutex::new(StoreError::Opening(0)),
    });
    let background = shared.clone();
    thread::spawn("store", None, move || keep_house(background.open(limits)))?;
    domain_rt::export::<dyn KeyValueStore>(Box::new(Store(shared)))
}
