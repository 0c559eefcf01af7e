//! Imports, exports and boot files for tests, and providers that can die.

use crate::text;
use abi::sys::{RawBytes, RawHandle, RawObject, status};
use abi::{DomainHeader, OwnerId};
use core::sync::atomic::Ordering;
use rref::{Interface, ProxyFactory};
use std::collections::HashMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

static HOST: DomainHeader = DomainHeader::new(1);
static START: Once = Once::new();
static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
static PROVIDED: Condvar = Condvar::new();
/// Slots below are the kernel's and the host domain's.
const FIRST_MORTAL_SLOT: usize = 2;

#[derive(Default)]
struct State {
    imports: HashMap<String, Provider>,
    /// Headers of mortal providers by slot, from [`FIRST_MORTAL_SLOT`].
    mortals: Vec<&'static DomainHeader>,
    /// Slots of drivers whose heir the host domain is.
    heir_of: Vec<u16>,
    files: Vec<(String, &'static [u8])>,
}

#[derive(Clone, Copy)]
struct Provider {
    factory: ProxyFactory,
    object: RawObject,
    header: &'static DomainHeader,
    incarnation: OwnerId,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one domain of the host: every attached thread runs in it.
pub fn host_domain() -> OwnerId {
    OwnerId::new(1, 1)
}

pub fn start() {
    START.call_once(|| {
        HOST.live.store(host_domain().0, Ordering::Release);
        // SAFETY: The functions of this crate do what the table's documentation says, with the process's memory.
        unsafe { abi::install(&crate::TABLE) };
    });
}

/// Makes `object` what `Handle::connect(name, …)` reaches, through its real proxy.
pub fn provide<T: ?Sized + Interface>(name: &str, object: &'static T) {
    let provider = Provider {
        factory: T::FACTORY,
        object: T::into_raw(object),
        header: &HOST,
        incarnation: host_domain(),
    };
    state().imports.insert(name.to_owned(), provider);
    PROVIDED.notify_all();
}

/// As [`provide`], but in a domain of its own that [`kill`] ends. Called again, it is that domain's next generation.
pub fn provide_mortal<T: ?Sized + Interface>(name: &str, object: &'static T) -> OwnerId {
    start();
    let mut state = state();
    let known = state.imports.get(name).copied();
    let header = match known.filter(|provider| !core::ptr::eq(provider.header, &HOST)) {
        Some(provider) => provider.header,
        None => {
            let slot = u16::try_from(FIRST_MORTAL_SLOT + state.mortals.len()).unwrap_or(u16::MAX);
            // A test's providers are few.
            let header: &'static DomainHeader = Box::leak(Box::new(DomainHeader::new(slot)));
            state.mortals.push(header);
            header
        }
    };
    let generation = known.map_or(0, |provider| provider.incarnation.generation()) + 1;
    let incarnation = OwnerId::new(header.slot, generation);
    let provider = Provider {
        factory: T::FACTORY,
        object: T::into_raw(object),
        header,
        incarnation,
    };
    state.imports.insert(name.to_owned(), provider);
    header.live.store(incarnation.0, Ordering::Release);
    PROVIDED.notify_all();
    incarnation
}

/// Makes the host domain the heir of the mortal provider `name`: storage requests that are handed to it when it is dead can be inherited, on the same
/// thread.
pub fn inherit_from(name: &str) {
    let mut state = state();
    if let Some(slot) = state.imports.get(name).map(|provider| provider.header.slot) {
        state.heir_of.push(slot);
    }
}

pub fn is_heir_of(dead: OwnerId) -> bool {
    state().heir_of.contains(&dead.slot())
}

/// Lets the mortal provider `name` be dead: every later call through a handle to it answers so. Calls in it go on.
pub fn kill(name: &str) {
    if let Some(provider) = state().imports.get(name) {
        provider.header.live.store(OwnerId::NONE.0, Ordering::Release);
    }
}

/// Puts a file into the boot archive.
pub fn add_boot_file(path: &str, content: &[u8]) {
    state().files.push((path.to_owned(), Box::leak(content.into())));
}

pub extern "C" fn connect(
    import: RawBytes,
    interface: RawBytes,
    not: OwnerId,
    deadline_ns: u64,
    handle: &mut RawHandle,
) -> u32 {
    let mut state = state();
    let provider = loop {
        let Some(provider) = state.imports.get(text(import)).copied() else {
            return status::NOT_GRANTED;
        };
        if provider.factory.name != text(interface) {
            return status::WRONG_INTERFACE;
        }
        // The host domain can't die, so whoever asks for another incarnation of it gets the same.
        let immortal = provider.incarnation == host_domain();
        if immortal || provider.incarnation != not && provider.header.is_live(provider.incarnation) {
            break provider;
        }
        let left_ns = deadline_ns.saturating_sub(crate::thread::now_ns());
        if left_ns == 0 {
            return status::UNAVAILABLE;
        }
        let wait = Duration::from_nanos(left_ns.min(1_000_000_000));
        state = PROVIDED
            .wait_timeout(state, wait)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    };
    drop(state);
    // SAFETY: `provide` and `provide_mortal` stored the factory of the object's own interface; the object is `'static`.
    let proxy = unsafe { (provider.factory.make)(provider.header, provider.incarnation, provider.object) };
    *handle = RawHandle {
        proxy,
        id: 0,
        target: provider.incarnation,
    };
    status::OK
}

/// A host never ends a proxy: a test's are few.
pub extern "C" fn handle_release(_id: u64) {}

pub extern "C" fn export(_interface: RawBytes, _object: RawObject) -> u32 {
    status::OK
}

pub extern "C" fn is_live(id: OwnerId) -> bool {
    let mortal = usize::from(id.slot())
        .checked_sub(FIRST_MORTAL_SLOT)
        .is_some_and(|index| {
            state()
                .mortals
                .get(index)
                .is_some_and(|header| header.is_live(id))
        });
    mortal || id == host_domain() || id == OwnerId::KERNEL
}

pub extern "C" fn boot_file(path: RawBytes) -> RawBytes {
    let path = text(path);
    let state = state();
    let file = state.files.iter().find(|(name, _)| name == path);
    file.map_or(RawBytes::NONE, |(_, content)| RawBytes {
        data: content.as_ptr(),
        length: content.len(),
    })
}

pub extern "C" fn boot_file_name(index: usize) -> RawBytes {
    // Names are leaked with the table: they are never removed, but the vector may move its strings' headers, not their bytes.
    state()
        .files
        .get(index)
        .map_or(RawBytes::NONE, |(name, _)| RawBytes {
            data: name.as_ptr(),
            length: name.len(),
        })
}
