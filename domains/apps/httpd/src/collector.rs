//! Asks the other domains for their numbers, without letting the server wait for any of them.
//!
//! A call into another domain can take as long as that domain's recovery: just then somebody wants to see the metrics. So each source
//! has a thread of its own, which sleeps until it is asked; a source that doesn't answer in time is left out, with a line that says so.

use crate::counters::Counters;
use crate::death_metrics;
use crate::disk_metrics;
use crate::holdings;
use crate::metrics::{self, Exposition, Supervision};
use crate::store_metrics;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, SpawnError, ThreadId};
use domain_rt::{Interface, OwnerId, clock};
use interface::balance::Balancer;
use interface::block::{BlockDevice, BlockError};
use interface::key_value::{KeyValueStore, StoreError};
use interface::metrics::{Metrics, MetricsError, MetricsPage, PAGE_BYTES};
use interface::net::NetDevice;
use interface::socket::Sockets;
use interface::storage_health::{HealthError, StorageHealth};
use interface::supervise::Supervisor;
use rref::{Handle, RRef};

/// An answer waits this long for its sources.
pub const PATIENCE_NS: u64 = 250_000_000;

/// Services, and backends of each, that are shown at most: a bound for a loop over what another domain says.
const SERVICE_LIMIT: u16 = 1024;

/// Pages of one source at most.
const PAGE_LIMIT: u32 = 64;

/// Lines of a source, or why there are none.
type Answer = Result<String, String>;

/// A source's last answer and the question that it belongs to.
struct Slot {
    name: &'static str,
    question: AtomicU64,
    answer: Mutex<(u64, Answer)>,
}

/// Every source.
pub struct Collector {
    slots: Vec<(Arc<Slot>, ThreadId)>,
    questions: AtomicU64,
    shards: Vec<Arc<Counters>>,
}

/// An import that is connected when it is needed, and again when its provider has died.
struct Source<T: ?Sized + Interface> {
    import: &'static str,
    handle: Option<Handle<T>>,
}

impl<T: ?Sized + Interface + 'static> Source<T> {
    /// Asks by `read`; when that fails, a provider that was restarted meanwhile once more.
    fn ask<E: core::fmt::Display>(&mut self, read: impl Fn(&T) -> Result<String, E>) -> Answer {
        if let Some(handle) = &self.handle
            && let Ok(text) = read(handle)
        {
            return Ok(text);
        }
        let not = self.handle.take().map_or(OwnerId::NONE, |handle| handle.target());
        // The handle that failed may be of a live provider: then there is no other, and what it says counts.
        let handle = domain_rt::reconnect::<T>(self.import, not, 0)
            .or_else(|_| domain_rt::connect::<T>(self.import, 0))
            .map_err(|error| alloc::format!("{error}"))?;
        let answer = read(&handle).map_err(|error| alloc::format!("{error}"));
        self.handle = Some(handle);
        answer
    }
}

impl Collector {
    /// Starts a thread for each source. `shards` are the server's own counters.
    pub fn start(shards: Vec<Arc<Counters>>) -> Result<Collector, SpawnError> {
        let mut collector = Collector {
            slots: Vec::new(),
            questions: AtomicU64::new(0),
            shards,
        };
        collector.source("supervisor", read_supervisor)?;
        collector.source("sockets", read_sockets)?;
        collector.source("nic", read_network_device)?;
        collector.source("balancer", read_balancer)?;
        collector.source("disk", read_disk)?;
        collector.source("storage", read_storage)?;
        collector.source("store", read_store)?;
        collector.source("kv", read_pages)?;
        Ok(collector)
    }

    fn source<T: ?Sized + Interface + 'static, E: core::fmt::Display + 'static>(
        &mut self,
        import: &'static str,
        read: fn(&T) -> Result<String, E>,
    ) -> Result<(), SpawnError> {
        let slot = Arc::new(Slot {
            name: import,
            question: AtomicU64::new(0),
            answer: Mutex::new((0, Err(String::new()))),
        });
        let own = slot.clone();
        let mut source = Source { import, handle: None };
        let body: Box<dyn FnOnce() + Send> = Box::new(move || {
            let mut answered = 0;
            loop {
                thread::park_until(clock::NEVER);
                let question = own.question.load(Ordering::Acquire);
                if question != answered {
                    let answer = source.ask(read);
                    *own.answer.lock() = (question, answer);
                    answered = question;
                }
            }
        });
        let thread = thread::spawn(import, None, body)?;
        self.slots.push((slot, thread));
        Ok(())
    }

    /// Asks every source; the question's number.
    pub fn ask(&self) -> u64 {
        let question = self.questions.fetch_add(1, Ordering::Relaxed) + 1;
        for (slot, thread) in &self.slots {
            slot.question.fetch_max(question, Ordering::Release);
            thread::unpark(*thread);
        }
        question
    }

    /// Whether every source has answered the question or a later one.
    pub fn is_answered(&self, question: u64) -> bool {
        self.slots
            .iter()
            .all(|(slot, _)| slot.answer.lock().0 >= question)
    }

    /// All that the sources have answered to the question or to a later one, and the server's own numbers.
    pub fn text(&self, question: u64) -> Arc<[u8]> {
        let mut text = Exposition::default();
        metrics::server(&mut text, &self.shards);
        let mut lines = Vec::new();
        for (slot, _) in &self.slots {
            match &*slot.answer.lock() {
                (answered, _) if *answered < question => {
                    text.comment(format_args!("{}: no answer in time", slot.name));
                }
                (_, Err(error)) => text.comment(format_args!("{}: {error}", slot.name)),
                (_, Ok(answer)) => lines.extend_from_slice(answer.as_bytes()),
            }
        }
        let mut all = text.into_text().into_bytes();
        all.append(&mut lines);
        all.into()
    }
}

fn read_supervisor(supervisor: &dyn Supervisor) -> Result<String, interface::supervise::SuperviseError> {
    let mut domains = Vec::new();
    let mut held = Vec::new();
    for index in 0..SERVICE_LIMIT {
        let Some(status) = supervisor.domain(index)? else {
            break;
        };
        held.push((
            status.domain.name,
            supervisor.holdings(index)?.unwrap_or_default(),
        ));
        domains.push(status);
    }
    let mut text = Exposition::default();
    let supervision = Supervision {
        domains: &domains,
        deaths: supervisor.deaths()?,
        memory: supervisor.memory()?,
    };
    metrics::supervision(&mut text, &supervision);
    holdings::holdings(&mut text, &held);
    holdings::frame_uses(&mut text, &supervision.memory.uses);
    let mut deaths = Vec::new();
    for (index, status) in (0..).zip(&domains) {
        if let Some(counts) = supervisor.death_counts(index)? {
            deaths.push((status.domain.name, counts));
        }
    }
    death_metrics::deaths(&mut text, &deaths);
    Ok(text.into_text())
}

fn read_sockets(sockets: &dyn Sockets) -> Result<String, interface::socket::SocketError> {
    let mut text = Exposition::default();
    metrics::sockets(&mut text, &sockets.statistics()?);
    Ok(text.into_text())
}

fn read_network_device(device: &dyn NetDevice) -> Result<String, interface::net::NetError> {
    let mut text = Exposition::default();
    metrics::network_device(&mut text, &device.link()?, &device.statistics()?);
    Ok(text.into_text())
}

fn read_disk(device: &dyn BlockDevice) -> Result<String, BlockError> {
    let info = match device.info() {
        // An appliance need not have one.
        Err(BlockError::NoDevice) => return Ok(String::new()),
        result => result?,
    };
    let mut units = Vec::new();
    for unit in 0..info.units {
        let info = device.unit(unit)?;
        // The numbers of deleted partitions stay empty.
        if info.blocks != 0 {
            units.push((unit, info));
        }
    }
    let mut text = Exposition::default();
    disk_metrics::device(&mut text, &device.statistics()?);
    disk_metrics::partitions(&mut text, &units);
    Ok(text.into_text())
}

fn read_storage(storage: &dyn StorageHealth) -> Result<String, HealthError> {
    let mut controllers = Vec::new();
    for index in 0..SERVICE_LIMIT {
        let Some(info) = storage.controller(index)? else {
            break;
        };
        controllers.push((info, storage.smart(index).ok()));
    }
    if controllers.is_empty() {
        return Ok(String::new());
    }
    let mut text = Exposition::default();
    disk_metrics::controllers(&mut text, &controllers);
    Ok(text.into_text())
}

fn read_store(store: &dyn KeyValueStore) -> Result<String, StoreError> {
    let mut text = Exposition::default();
    match store.statistics() {
        Ok(statistics) => {
            store_metrics::up(&mut text, true);
            store_metrics::store(&mut text, &statistics);
        }
        Err(StoreError::Dead(error)) => return Err(StoreError::Dead(error)),
        // An appliance need not have one.
        Err(_) => store_metrics::up(&mut text, false),
    }
    Ok(text.into_text())
}

/// A source that writes its lines itself.
fn read_pages(source: &dyn Metrics) -> Result<String, PageError> {
    let mut text = String::new();
    let mut page = new_page()?;
    for index in 0..PAGE_LIMIT {
        page = source.page(index, page).map_err(PageError::Source)?;
        let length = page.length as usize;
        if length == 0 {
            break;
        }
        let bytes = page.text.get(..length).ok_or(PageError::Malformed)?;
        text.push_str(core::str::from_utf8(bytes).map_err(|_| PageError::Malformed)?);
    }
    Ok(text)
}

/// Not inlined: a page is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
fn new_page() -> Result<RRef<MetricsPage>, PageError> {
    RRef::new(MetricsPage {
        length: 0,
        text: [0; PAGE_BYTES],
    })
    .map_err(|_| PageError::OutOfMemory)
}

/// Why there are no lines of a source that writes them itself.
#[derive(thiserror::Error, Debug)]
enum PageError {
    #[error("{0}")]
    Source(MetricsError),
    #[error("out of shared memory")]
    OutOfMemory,
    #[error("malformed text")]
    Malformed,
}

fn read_balancer(balancer: &dyn Balancer) -> Result<String, interface::balance::BalanceError> {
    let mut services = Vec::new();
    let mut backends = Vec::new();
    for index in 0..SERVICE_LIMIT {
        let Some(service) = balancer.service(index)? else {
            break;
        };
        for backend_index in 0..SERVICE_LIMIT {
            let Some(backend) = balancer.backend(service.name, backend_index)? else {
                break;
            };
            backends.push((services.len(), backend));
        }
        services.push(service);
    }
    let mut text = Exposition::default();
    metrics::balancer(&mut text, &services, &backends);
    Ok(text.into_text())
}
