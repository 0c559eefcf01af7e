//! What the shards share: the server behind its lock, ways to wake each other, and the waiting for the store.

use crate::config::Durability;
use crate::loading::{Loading, finish_unit, scan_part};
use crate::server::{Phase, Server};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use domain_rt::sync::{Mutex, MutexGuard};
use domain_rt::thread::{self, ThreadId};
use domain_rt::{Handle, OwnerId, clock};
use interface::key_value::{KeyValueStore, StoreError};
use log::{error, info, warn};

/// How often the store is asked again that doesn't answer yet.
const RETRY_MS: u64 = 20;
/// How long a store that says that it can't be read is left alone at most: each time twice as long as before. An appliance need not have a disk.
const LONGEST_RETRY_MS: u64 = 500;
/// How long a group that failed for the device is tried again before clients are told.
const PATIENCE_MS: u64 = 2000;
/// With `appendfsync no`, the time between two commits.
const LAZY_COMMIT_MS: u64 = 5000;

/// A shard's thread, as others see it.
#[derive(Default)]
struct Bell {
    thread: AtomicU64,
    rung: AtomicBool,
}

/// What the shards share.
pub struct Service {
    /// The server.
    pub server: Mutex<Server>,
    bells: Vec<Bell>,
    /// Milliseconds since 1970 at boot.
    boot_ms: AtomicU64,
    recovering: AtomicBool,
}

impl Service {
    /// Shares a server among so many shards.
    pub fn new(server: Server, shards: u16, boot_ms: u64) -> Service {
        Service {
            server: Mutex::new(server),
            bells: (0..shards).map(|_| Bell::default()).collect(),
            boot_ms: AtomicU64::new(boot_ms),
            recovering: AtomicBool::new(false),
        }
    }

    /// Locks the server at a time of `clock::now_ns`.
    #[inline]
    pub fn lock_at(&self, now_ns: u64) -> MutexGuard<'_, Server> {
        let mut server = self.server.lock();
        server.keyspace.now_ms = self.now_ms(now_ns);
        server
    }

    /// Milliseconds since 1970 at a time of `clock::now_ns`.
    #[inline]
    pub fn now_ms(&self, now_ns: u64) -> u64 {
        self.boot_ms.load(Ordering::Relaxed) + now_ns / 1_000_000
    }

    /// Sets the time of day to the millisecond: the machine's clock has seconds, so this waits for the next one.
    pub fn set_clock(&self) {
        let first_s = clock::unix_time_s();
        for _ in 0..2000 {
            let now_s = clock::unix_time_s();
            if now_s != first_s {
                let boot_ms = (now_s * 1000).saturating_sub(clock::now_ns() / 1_000_000);
                self.boot_ms.store(boot_ms, Ordering::Relaxed);
                return;
            }
            thread::sleep_ms(1);
        }
    }

    /// The calling thread is the shard's.
    pub fn register(&self, shard: u16, thread: ThreadId) {
        if let Some(bell) = self.bells.get(usize::from(shard)) {
            bell.thread.store(thread.number(), Ordering::Release);
        }
    }

    /// Has a shard look at its clients.
    pub fn call(&self, shard: u16) {
        if let Some(bell) = self.bells.get(usize::from(shard))
            && !bell.rung.swap(true, Ordering::AcqRel)
        {
            let number = bell.thread.load(Ordering::Acquire);
            if number != 0 {
                thread::unpark(ThreadId::from_number(number));
            }
        }
    }

    /// Whether the shard was called since it last looked.
    #[inline]
    pub fn take_call(&self, shard: u16) -> bool {
        self.bells
            .get(usize::from(shard))
            .is_some_and(|bell| bell.rung.load(Ordering::Relaxed) && bell.rung.swap(false, Ordering::AcqRel))
    }

    /// Calls the shards, but for `own`, whose clients have something to hear.
    #[inline]
    pub fn call_others(&self, server: &mut Server, own: u16) {
        for (shard, list) in server.attention.iter().enumerate() {
            if !list.is_empty() && shard != usize::from(own) {
                self.call(shard as u16);
            }
        }
    }

    /// Waits until a group is durable.
    ///
    /// # Errors
    /// Why it isn't, when it won't be soon.
    pub fn settle(&self, group: u64) -> Result<(), StoreError> {
        let give_up_ns = clock::now_ns().saturating_add(PATIENCE_MS * 1_000_000);
        loop {
            let mut server = self.server.lock();
            if server.ledger.is_durable(group) {
                return Ok(());
            }
            let ticket = match server.ledger.ticket(group) {
                Some(ticket) => ticket,
                None => {
                    server.ledger.append_kept();
                    match server.ledger.ticket(group) {
                        Some(ticket) => ticket,
                        None => {
                            let failure = server.ledger.failure();
                            let store = server.ledger.store();
                            drop(server);
                            match (failure, store) {
                                (Some(error), _) if clock::now_ns() >= give_up_ns => return Err(error),
                                (Some(_), _) => thread::sleep_ms(RETRY_MS),
                                (None, Some((store, epoch))) => self.recover(store.target(), epoch),
                                (None, None) => return Ok(()),
                            }
                            continue;
                        }
                    }
                }
            };
            drop(server);
            match ticket.store.commit(ticket.sequence) {
                Ok(durable) => {
                    let mut server = self.server.lock();
                    let Server { ledger, keyspace, .. } = &mut *server;
                    ledger.committed(ticket.epoch, durable, &mut keyspace.journal);
                    if server.ledger.is_durable(group) {
                        if let Phase::WriteFailed(_) = server.phase {
                            server.phase = Phase::Ready;
                            info!("the store takes writes again");
                        }
                        return Ok(());
                    }
                }
                Err(StoreError::Dead(_)) => self.recover(ticket.store.target(), ticket.epoch),
                Err(error) => {
                    // What was appended may be lost: it is appended again.
                    let mut server = self.server.lock();
                    if let Some((store, epoch)) = server.ledger.store()
                        && epoch == ticket.epoch
                    {
                        server.ledger.use_store(store);
                    }
                    drop(server);
                    if clock::now_ns() >= give_up_ns {
                        return Err(error);
                    }
                    thread::sleep_ms(RETRY_MS);
                }
            }
        }
    }

    /// Finds the successor of a store that died and gives it what wasn't durable.
    fn recover(&self, dead: OwnerId, epoch: u64) {
        if self.recovering.swap(true, Ordering::AcqRel) {
            // Another thread is at it.
            thread::sleep_ms(1);
            return;
        }
        let still = self
            .server
            .lock()
            .ledger
            .store()
            .is_some_and(|(_, current)| current == epoch);
        if still && let Ok(store) = domain_rt::reconnect::<dyn KeyValueStore>("store", dead, 1000) {
            match store.committed() {
                Ok(_) => {
                    let mut server = self.server.lock();
                    let groups = server.ledger.kept_groups();
                    server.ledger.use_store(store);
                    drop(server);
                    info!("the store's domain died; its successor got {groups} groups again");
                }
                Err(_) => thread::sleep_ms(RETRY_MS),
            }
        }
        self.recovering.store(false, Ordering::Release);
    }

    /// The store takes no more: clients are told from now on.
    pub fn report_failure(&self, failure: StoreError, group: u64) {
        let mut server = self.server.lock();
        server.unsettled = server.unsettled.max(group);
        if server.phase != Phase::WriteFailed(failure) {
            error!("writes are refused: {failure}");
            server.phase = Phase::WriteFailed(failure);
        }
    }

    /// Reads what the store has, then makes changes durable as often as `appendfsync` says; for ever.
    pub fn keep_store(self: &Arc<Service>) {
        self.load();
        let mut waited_ms = 0;
        loop {
            thread::sleep_ms(1000);
            waited_ms += 1000;
            let mut server = self.server.lock();
            let lazy = server.config.durability == Durability::No;
            let Server { ledger, keyspace, .. } = &mut *server;
            ledger.append(&mut keyspace.journal);
            let newest = ledger.newest(&keyspace.journal);
            let idle = ledger.is_durable(newest);
            drop(server);
            if idle || lazy && waited_ms < LAZY_COMMIT_MS {
                continue;
            }
            waited_ms = 0;
            if let Err(error) = self.settle(newest) {
                self.report_failure(error, newest);
            }
        }
    }

    fn load(&self) {
        let mut told = None;
        let mut not = OwnerId::NONE;
        let mut retry_ms = RETRY_MS;
        loop {
            let store = match domain_rt::reconnect::<dyn KeyValueStore>("store", not, 1000) {
                Ok(store) => store,
                Err(domain_rt::ConnectError::NotGranted) => {
                    warn!("there is no store: keys are gone with the next restart");
                    self.server.lock().phase = Phase::Volatile;
                    return;
                }
                Err(_) => {
                    thread::sleep_ms(RETRY_MS);
                    continue;
                }
            };
            match self.load_from(&store) {
                Ok(()) => return,
                Err(StoreError::Dead(_)) => not = store.target(),
                Err(error) => {
                    if let StoreError::Opening(percent) = error {
                        self.server.lock().phase = Phase::Loading(percent / 2);
                        retry_ms = RETRY_MS;
                    } else {
                        retry_ms = (retry_ms * 2).min(LONGEST_RETRY_MS);
                        self.server.lock().phase = Phase::Unavailable(error);
                        if told != Some(error) {
                            told = Some(error);
                            error!("the store can't be read: {error}");
                        }
                    }
                    thread::sleep_ms(retry_ms);
                }
            }
        }
    }

    fn load_from(&self, store: &Handle<dyn KeyValueStore>) -> Result<(), StoreError> {
        let start_ns = clock::now_ns();
        let statistics = store.statistics()?;
        let mut server = self.server.lock();
        server.ledger.use_store(store.clone());
        let Server { ledger, keyspace, .. } = &mut *server;
        if finish_unit(store, &mut keyspace.journal, ledger)? {
            info!("a long change that was interrupted is finished");
        }
        keyspace.forget_everything();
        match ledger.read(crate::journal::SPACES_KEY, 1024) {
            Ok(spaces) => keyspace.load_spaces(&spaces).map_err(|_| StoreError::Corrupt)?,
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
        drop(server);
        let mut loading = Loading::default();
        let mut cursor = Some(0);
        let mut buffer = None;
        let (mut entries, mut told_ns) = (0_u64, start_ns);
        while let Some(from) = cursor {
            let mut server = self.server.lock();
            cursor = scan_part(store, &mut buffer, from, |name, value| {
                entries += 1;
                loading.take(&mut server.keyspace, name, value);
            })?;
            let percent = 50 + entries * 50 / statistics.keys.max(entries).max(1);
            server.phase = Phase::Loading(percent.min(99) as u8);
            drop(server);
            let now_ns = clock::now_ns();
            if now_ns.saturating_sub(told_ns) > 1_000_000_000 {
                told_ns = now_ns;
                info!("loading: {entries} of {} entries", statistics.keys);
            }
            thread::heartbeat();
        }
        let mut server = self.server.lock();
        server.keyspace.now_ms = self.now_ms(clock::now_ns());
        let loaded = loading.finish(&mut server.keyspace);
        server.loaded = loaded;
        server.keyspace.dirty = 0;
        server.phase = Phase::Ready;
        drop(server);
        let took_ms = (clock::now_ns() - start_ns) / 1_000_000;
        info!(
            "ready: {} keys of {entries} entries, read in {took_ms} ms",
            loaded.keys
        );
        if loaded.malformed > 0 {
            error!("{} entries of the store can't be read", loaded.malformed);
        }
        if loaded.strays > 0 {
            info!("{} entries belong to no key and are removed", loaded.strays);
        }
        // Who came meanwhile is served now.
        for shard in 0..self.bells.len() {
            self.call(shard as u16);
        }
        Ok(())
    }
}
