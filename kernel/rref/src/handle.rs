//! Handles: what a domain holds of another domain's interface.
//!
//! A handle points to a proxy in the kernel's image and heap; it derefs to the interface trait, so a crossing reads like a
//! call. It names one incarnation: when that dies, every call answers with an error until the domain connects again.

use crate::crossing::Target;
use abi::sys::{RawBytes, RawHandle, RawObject, status};
use abi::{DomainHeader, Method, OwnerId, sys};
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

/// Implemented for `dyn Trait` by `#[interface]`, and by nothing else.
///
/// # Safety
/// `from_raw` and `into_raw` are inverse, for trait objects of the same trait only; `NAME` is unique to the trait.
pub unsafe trait Interface: Send + Sync {
    /// The trait's name, as in config/domains.toml.
    const NAME: &'static str;
    /// Makes proxies for it; called in the kernel.
    const FACTORY: ProxyFactory;

    /// The two words of a trait object.
    fn into_raw(object: *const Self) -> RawObject;

    /// The trait object of two words.
    ///
    /// # Safety
    /// `raw` came from `into_raw` of the same interface.
    unsafe fn from_raw(raw: RawObject) -> *const Self;
}

/// Makes proxies of one interface: what the kernel knows of it.
#[derive(Clone, Copy)]
pub struct ProxyFactory {
    /// The interface's name.
    pub name: &'static str,
    /// Its methods.
    pub methods: &'static [Method],
    /// Makes a proxy on the kernel's heap.
    ///
    /// # Safety
    /// The object is a trait object of this interface, valid as [`Target::new`] wants it.
    pub make: unsafe fn(&'static DomainHeader, OwnerId, RawObject) -> RawObject,
    /// Frees a proxy that `make` made.
    ///
    /// # Safety
    /// It is what `make` returned, is passed once, and nobody uses it any more.
    pub free: unsafe fn(RawObject),
}

/// A counted handle to an interface of one incarnation of another domain.
pub struct Handle<T: ?Sized + Interface> {
    proxy: NonNull<T>,
    release: Arc<Release>,
}

struct Release {
    id: u64,
    target: OwnerId,
}

impl Drop for Release {
    fn drop(&mut self) {
        (sys().handle_release)(self.id);
    }
}

// SAFETY: A proxy is `Sync` and belongs to the kernel until the last clone is dropped.
unsafe impl<T: ?Sized + Interface> Send for Handle<T> {}
// SAFETY: As above.
unsafe impl<T: ?Sized + Interface> Sync for Handle<T> {}

impl<T: ?Sized + Interface> Handle<T> {
    /// Connects the import `name` to an incarnation other than `not`, waiting for one until `deadline_ns`.
    pub fn connect(name: &str, not: OwnerId, deadline_ns: u64) -> Result<Handle<T>, ConnectError> {
        let mut raw = RawHandle {
            proxy: RawObject { data: 0, vtable: 0 },
            id: 0,
            target: OwnerId::NONE,
        };
        let code = (sys().connect)(
            RawBytes::of(name),
            RawBytes::of(T::NAME),
            not,
            deadline_ns,
            &mut raw,
        );
        match code {
            status::OK => {}
            status::NOT_GRANTED => return Err(ConnectError::NotGranted),
            status::WRONG_INTERFACE => return Err(ConnectError::WrongInterface),
            status::NO_MEMORY => return Err(ConnectError::OutOfMemory),
            _ => return Err(ConnectError::Unavailable),
        }
        // SAFETY: The kernel made the proxy by the factory of the interface named `T::NAME`, which is `T`'s (names are unique).
        let proxy = unsafe { T::from_raw(raw.proxy) };
        let release = Arc::new(Release {
            id: raw.id,
            target: raw.target,
        });
        NonNull::new(proxy.cast_mut())
            .map(|proxy| Handle { proxy, release })
            .ok_or(ConnectError::Unavailable)
    }

    /// The incarnation that it reaches.
    pub fn target(&self) -> OwnerId {
        self.release.target
    }
}

impl<T: ?Sized + Interface> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Handle {
            proxy: self.proxy,
            release: self.release.clone(),
        }
    }
}

impl<T: ?Sized + Interface> Deref for Handle<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: The kernel keeps the proxy until `Release` is dropped, after the last clone.
        unsafe { self.proxy.as_ref() }
    }
}

/// Why there is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// config/domains.toml grants no import of this name to this domain.
    NotGranted,
    /// The import is of another interface.
    WrongInterface,
    /// The provider isn't up (or not in a new incarnation) at the deadline.
    Unavailable,
    /// No memory for a handle.
    OutOfMemory,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectError::NotGranted => "the manifest grants no such import",
            ConnectError::WrongInterface => "the import is of another interface",
            ConnectError::Unavailable => "the provider is not up",
            ConnectError::OutOfMemory => "out of memory for a handle",
        })
    }
}

/// For generated code: what `#[interface]` needs of other crates.
#[doc(hidden)]
pub mod generated {
    pub use abi::sys::RawObject;
    pub use abi::{Deadline, DomainHeader, Method};
    pub use alloc::boxed::Box;

    /// Proves at compile time that an argument or result may cross.
    pub const fn assert_exchange<T: crate::Exchange>() {}
    /// Proves at compile time that a method can say that its callee is dead.
    pub const fn assert_outcome<T: crate::Outcome>() {}

    /// The words of a wide pointer.
    pub const fn split<T: ?Sized>(object: *const T) -> RawObject {
        const { assert!(size_of::<*const T>() == size_of::<RawObject>()) };
        // SAFETY: A pointer to a trait object is two words (asserted), data and vtable, both plain addresses.
        unsafe { core::mem::transmute_copy(&object) }
    }

    /// The wide pointer of two words.
    ///
    /// # Safety
    /// `raw` came from [`split`] of the same `T`.
    pub const unsafe fn join<T: ?Sized>(raw: RawObject) -> *const T {
        const { assert!(size_of::<*const T>() == size_of::<RawObject>()) };
        // SAFETY: As `split`; the caller promises the type.
        unsafe { core::mem::transmute_copy(&raw) }
    }
}

/// Makes a proxy of type `P`; the body of each generated factory.
///
/// # Safety
/// `object` is a trait object of `O`'s interface, valid as [`Target::new`] wants it.
#[doc(hidden)]
pub unsafe fn make_proxy<O: ?Sized + Interface, P: 'static>(
    header: &'static DomainHeader,
    incarnation: OwnerId,
    object: RawObject,
    build: impl FnOnce(Target<O>) -> P,
    widen: impl FnOnce(*const P) -> *const O,
) -> RawObject {
    // SAFETY: Passed on from the caller.
    let target = unsafe { Target::new(header, incarnation, O::from_raw(object)) };
    let proxy = alloc::boxed::Box::into_raw(alloc::boxed::Box::new(build(target)));
    O::into_raw(widen(proxy))
}
