//! The start of a domain, and the handles that its manifest entry grants.

use abi::sys::{RawBytes, status};
use abi::{SysTable, sys};
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use rref::handle::ConnectError;
use rref::{Handle, Interface, OutOfMemory, OwnerId, RpcError};

/// One wait for whoever a start waits for, milliseconds.
const LONG_WAIT_MS: u64 = 60_000;
/// Until somebody who answers, but has nothing to give, is asked again, milliseconds.
const ANSWER_PAUSE_MS: u64 = 1_000;

/// Why a domain can't start; it then dies with this as its cause.
#[derive(Clone, Debug)]
pub struct StartError(String);

impl StartError {
    /// An error of this text.
    pub fn new(arguments: fmt::Arguments<'_>) -> StartError {
        StartError(alloc::fmt::format(arguments))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! from_display {
    ($($type:ty),*) => {$(
        impl From<$type> for StartError {
            fn from(error: $type) -> Self {
                StartError::new(format_args!("{error}"))
            }
        }
    )*};
}

from_display!(ConnectError, RpcError, OutOfMemory, &str);

impl From<crate::thread::SpawnError> for StartError {
    fn from(_: crate::thread::SpawnError) -> Self {
        StartError::new(format_args!("no memory for a thread"))
    }
}

/// Runs `start` in a freshly loaded image; the body of [`crate::entry!`].
///
/// # Safety
/// `table` is the kernel's.
pub unsafe fn enter(table: &'static SysTable, start: fn() -> Result<(), StartError>) {
    // SAFETY: It is the kernel's by this function's contract.
    unsafe { abi::install(table) };
    crate::logger::install();
    if let Err(error) = start() {
        panic!("cannot start: {error}");
    }
}

/// Connects the import `name`, waiting up to `wait_ms` for its provider to be up.
pub fn connect<T: ?Sized + Interface>(name: &str, wait_ms: u64) -> Result<Handle<T>, ConnectError> {
    reconnect(name, OwnerId::NONE, wait_ms)
}

/// Connects the import `name` and makes a first call, waiting up to `wait_ms` for a provider that lives through it: one that dies in
/// between is no reason not to start.
pub fn connect_and<T: ?Sized + Interface, R, E: fmt::Display>(
    name: &str,
    wait_ms: u64,
    call: impl Fn(&Handle<T>) -> Result<R, E>,
) -> Result<(Handle<T>, R), StartError> {
    first_answer(name, wait_ms, &call)?.map_err(|reason| StartError::new(format_args!("{name}: {reason}")))
}

/// Has a start go on with `then` once somebody answers behind the import `name`: connects it, makes a first call, and hands over what that gave.
///
/// When there is no answer within `wait_ms`, or one that there is nothing to give, the start is over without it: the domain runs, offers nothing yet, and
/// goes on in a thread of its own as soon as there is one. So a device that isn't there is no reason to die, nor for domains that start later to wait.
///
/// # Errors
/// When the manifest doesn't let it connect, and what `then` says; later than `wait_ms`, the domain dies of either.
pub fn start_with<T: ?Sized + Interface, R, E: fmt::Display>(
    name: &'static str,
    wait_ms: u64,
    call: impl Fn(&Handle<T>) -> Result<R, E> + Send + 'static,
    then: impl FnOnce(Handle<T>, R) -> Result<(), StartError> + Send + 'static,
) -> Result<(), StartError> {
    match first_answer(name, wait_ms, &call)? {
        Ok((handle, answer)) => return then(handle, answer),
        Err(reason) => log::warn!("waiting for `{name}`: {reason}"),
    }
    crate::thread::spawn(name, None, move || {
        let outcome = loop {
            match first_answer(name, LONG_WAIT_MS, &call) {
                Ok(Ok((handle, answer))) => break then(handle, answer),
                Ok(Err(_)) => crate::thread::sleep_ms(ANSWER_PAUSE_MS),
                Err(error) => break Err(error),
            }
        };
        match outcome {
            Ok(()) => log::info!("`{name}` is there"),
            Err(error) => panic!("cannot start: {error}"),
        }
    })?;
    Ok(())
}

/// What the import `name` answers to a first call, or why there is no answer by then.
fn first_answer<T: ?Sized + Interface, R, E: fmt::Display>(
    name: &str,
    wait_ms: u64,
    call: &impl Fn(&Handle<T>) -> Result<R, E>,
) -> Result<Result<(Handle<T>, R), String>, StartError> {
    let deadline = crate::clock::now_ns().saturating_add(wait_ms.saturating_mul(1_000_000));
    let mut not = OwnerId::NONE;
    loop {
        let handle = match Handle::connect(name, not, deadline) {
            Ok(handle) => handle,
            Err(error @ ConnectError::Unavailable) => return Ok(Err(alloc::format!("{error}"))),
            Err(error) => return Err(error.into()),
        };
        match call(&handle) {
            Ok(answer) => return Ok(Ok((handle, answer))),
            Err(_) if !is_live(handle.target()) => not = handle.target(),
            Err(error) => return Ok(Err(alloc::format!("{error}"))),
        }
    }
}

/// Connects the import `name` to another incarnation than `not`, which is dead.
pub fn reconnect<T: ?Sized + Interface>(
    name: &str,
    not: OwnerId,
    wait_ms: u64,
) -> Result<Handle<T>, ConnectError> {
    let deadline = crate::clock::now_ns().saturating_add(wait_ms.saturating_mul(1_000_000));
    Handle::connect(name, not, deadline)
}

/// Offers `object` to the domains that the manifest lets call it. It lives as long as the domain.
pub fn export<T: ?Sized + Interface>(object: Box<T>) -> Result<(), StartError> {
    let raw = T::into_raw(Box::into_raw(object));
    match (sys().export)(RawBytes::of(T::NAME), raw) {
        status::OK => Ok(()),
        _ => Err(StartError::new(format_args!(
            "the manifest doesn't let this domain export {}",
            T::NAME
        ))),
    }
}

/// Whether this incarnation of a domain (see `rref::caller`) is alive.
pub fn is_live(domain: OwnerId) -> bool {
    (sys().is_live)(domain)
}
