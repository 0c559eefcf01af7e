//! Who may call whom: exports, imports, and the proxies between them (docs/soundness.md, invariant 10).
//!
//! A domain gets a handle only for an import that the manifest gives it. The handle is a proxy on the kernel's heap, made for one
//! incarnation of the provider, and freed when its holder releases it or dies.

use super::black_box;
use super::domain::{self, Domain, KERNEL, State, by_name, domain_of, is_live};
use super::thread::{self, Change};
use crate::black_box::EventKind;
use abi::sys::{RawHandle, RawObject, status};
use abi::{OwnerId, current};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::clock;
use kernel::machine::sync::InterruptLock;
use rref::ProxyFactory;
use spin::Once;

static FACTORIES: Once<&'static [ProxyFactory]> = Once::new();
static KERNEL_OBJECTS: InterruptLock<Vec<(&'static str, RawObject)>> = InterruptLock::new(Vec::new());
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

/// Objects that an incarnation offers, by interface name.
#[derive(Default)]
pub struct Exports(Vec<(String, RawObject)>);

impl Exports {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

struct HandleRecord {
    id: u64,
    proxy: RawObject,
    factory: ProxyFactory,
}

/// Proxies that an incarnation holds.
#[derive(Default)]
pub struct Handles(Vec<HandleRecord>);

impl Handles {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Drop for HandleRecord {
    fn drop(&mut self) {
        // SAFETY: The factory made it; the holder has released it or is dead with no thread left in it.
        unsafe { (self.factory.free)(self.proxy) };
    }
}

/// Tells the kernel every interface that it can make proxies of. Two of one name are a mistake in the sources.
pub fn register_factories(factories: &'static [ProxyFactory]) {
    for (index, factory) in factories.iter().enumerate() {
        assert!(
            factories
                .iter()
                .take(index)
                .all(|other| other.name != factory.name),
            "two interfaces of one name"
        );
    }
    FACTORIES.call_once(|| factories);
}

/// Offers an object of the kernel's own to domains that import it from `kernel`.
pub fn export_kernel_object<T: ?Sized + rref::Interface>(object: &'static T) {
    KERNEL_OBJECTS.lock().push((T::NAME, T::into_raw(object)));
}

/// Offers an object of the running domain's.
pub fn export(interface: &str, object: RawObject) -> u32 {
    let owner = current().owner();
    let Some(domain) = domain_of(owner) else {
        return status::NOT_FOUND;
    };
    if !domain.manifest.exports.iter().any(|name| name == interface) {
        return status::NOT_GRANTED;
    }
    let mut life = domain.life.lock();
    if !is_live(owner) {
        return status::CANCELLED;
    }
    life.holdings.exports.0.push((interface.into(), object));
    // Else nobody is given it yet (`find`), and who waits is woken when it runs.
    let is_running = life.state == State::Running;
    drop(life);
    black_box::trace(owner, EventKind::Exported, format_args!("{interface}"));
    if is_running {
        thread::wake_waiters(Change::Start);
    }
    status::OK
}

/// A provider's object, as far as it is up.
struct Found {
    header: &'static abi::DomainHeader,
    incarnation: OwnerId,
    object: RawObject,
}

fn find(provider: &str, interface: &str, not: OwnerId) -> Option<Found> {
    if provider == "kernel" {
        let objects = KERNEL_OBJECTS.lock();
        let (_, object) = objects.iter().find(|(name, _)| *name == interface)?;
        return Some(Found {
            header: &KERNEL,
            incarnation: OwnerId::KERNEL,
            object: *object,
        });
    }
    let domain: &'static Domain = by_name(provider)?;
    let life = domain.life.lock();
    let incarnation = domain.header.live()?;
    if life.state != State::Running || incarnation == not {
        return None;
    }
    let (_, object) = life
        .holdings
        .exports
        .0
        .iter()
        .find(|(name, _)| name == interface)?;
    Some(Found {
        header: &domain.header,
        incarnation,
        object: *object,
    })
}

/// Makes a handle for the running domain; waits for the provider until `deadline_ns`.
pub fn connect(name: &str, interface: &str, not: OwnerId, deadline_ns: u64, handle: &mut RawHandle) -> u32 {
    let result = make_handle(name, interface, not, deadline_ns, handle);
    let owner = current().owner();
    match result {
        status::OK => black_box::trace(
            owner,
            EventKind::Connected,
            format_args!(
                "{name}: {}.{interface}, generation {}",
                domain::domain_name(handle.target),
                handle.target.generation()
            ),
        ),
        status::CANCELLED => {}
        refusal => black_box::trace(
            owner,
            EventKind::NotConnected,
            format_args!("{name}: {interface}: {}", refusal_text(refusal)),
        ),
    }
    result
}

fn refusal_text(refusal: u32) -> &'static str {
    match refusal {
        status::NOT_GRANTED => "not in the manifest",
        status::WRONG_INTERFACE => "the manifest says another interface",
        status::UNAVAILABLE => "the provider isn't up",
        _ => "no memory",
    }
}

fn make_handle(name: &str, interface: &str, not: OwnerId, deadline_ns: u64, handle: &mut RawHandle) -> u32 {
    let owner = current().owner();
    let Some(domain) = domain_of(owner) else {
        return status::NOT_GRANTED;
    };
    let Some(import) = domain.manifest.imports.iter().find(|import| import.name == name) else {
        return status::NOT_GRANTED;
    };
    if import.interface != interface {
        return status::WRONG_INTERFACE;
    }
    let Some(factory) = FACTORIES
        .get()
        .and_then(|all| all.iter().find(|factory| factory.name == interface))
    else {
        return status::WRONG_INTERFACE;
    };
    let found = loop {
        let ticket = thread::WaitTicket::new(Change::Start);
        if let Some(found) = find(&import.provider, interface, not) {
            break found;
        }
        if clock::now_ns() >= deadline_ns {
            return status::UNAVAILABLE;
        }
        // For the watch: what a provider takes to come up isn't this domain's time.
        let wake = thread::waiting_for_others(|| ticket.wait(deadline_ns));
        if wake == abi::sys::wake::CANCELLED {
            return status::CANCELLED;
        }
    };
    // SAFETY: The provider exported the object under this interface's name through `domain_rt::export::<T>`, so it is a trait object
    // of `T`, leaked in the provider's private heap: valid as long as that incarnation lives.
    let proxy = unsafe { (factory.make)(found.header, found.incarnation, found.object) };
    let id = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
    let record = HandleRecord {
        id,
        proxy,
        factory: *factory,
    };
    let mut life = domain.life.lock();
    if !is_live(owner) {
        // Dead meanwhile: its holdings may be given back already.
        drop(life);
        return status::CANCELLED;
    }
    life.holdings.handles.0.push(record);
    *handle = RawHandle {
        proxy,
        id,
        target: found.incarnation,
    };
    status::OK
}

/// Frees a handle of the running domain.
pub fn release(id: u64) {
    let Some(domain) = domain_of(current().owner()) else {
        return;
    };
    let mut life = domain.life.lock();
    let handles = &mut life.holdings.handles.0;
    let record = handles
        .iter()
        .position(|record| record.id == id)
        .map(|index| handles.swap_remove(index));
    drop(life);
    drop(record);
}

/// Whether every import of the manifest names a provider and an interface that exist; the first that doesn't.
pub fn check_imports() -> Option<(&'static str, &'static str)> {
    let known = |interface: &str| {
        FACTORIES
            .get()
            .is_some_and(|all| all.iter().any(|factory| factory.name == interface))
    };
    domain::domains().iter().find_map(|domain| {
        let wrong = domain.manifest.imports.iter().find(|import| {
            !known(&import.interface) || (import.provider != "kernel" && by_name(&import.provider).is_none())
        })?;
        Some((domain.manifest.name.as_str(), wrong.name.as_str()))
    })
}
