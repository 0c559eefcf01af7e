//! Imports, exports and boot files for tests.

use crate::text;
use abi::sys::{RawBytes, RawHandle, RawObject, status};
use abi::{DomainHeader, OwnerId};
use rref::{Interface, ProxyFactory};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};

static HOST: DomainHeader = DomainHeader::new(1);
static START: Once = Once::new();
static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct State {
    imports: HashMap<String, (ProxyFactory, RawObject)>,
    files: Vec<(String, &'static [u8])>,
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
        HOST.live
            .store(host_domain().0, core::sync::atomic::Ordering::Release);
        abi::install(&crate::TABLE);
    });
}

/// Makes `object` what `Handle::connect(name, …)` reaches, through its real proxy.
pub fn provide<T: ?Sized + Interface>(name: &str, object: &'static T) {
    state()
        .imports
        .insert(name.to_owned(), (T::FACTORY, T::into_raw(object)));
}

/// Puts a file into the boot archive.
pub fn add_boot_file(path: &str, content: &[u8]) {
    state().files.push((path.to_owned(), Box::leak(content.into())));
}

pub extern "C" fn connect(
    import: RawBytes,
    interface: RawBytes,
    _not: OwnerId,
    _deadline_ns: u64,
    handle: &mut RawHandle,
) -> u32 {
    let Some((factory, object)) = state().imports.get(text(import)).copied() else {
        return status::NOT_GRANTED;
    };
    if factory.name != text(interface) {
        return status::WRONG_INTERFACE;
    }
    // SAFETY: `provide` stored the factory of the object's own interface; the object is `'static`.
    let proxy = unsafe { (factory.make)(&HOST, host_domain(), object) };
    *handle = RawHandle {
        proxy,
        id: 0,
        target: host_domain(),
    };
    status::OK
}

/// A host never ends a proxy: a test's are few.
pub extern "C" fn handle_release(_id: u64) {}

pub extern "C" fn export(_interface: RawBytes, _object: RawObject) -> u32 {
    status::OK
}

pub extern "C" fn is_live(id: OwnerId) -> bool {
    id == host_domain() || id == OwnerId::KERNEL
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
