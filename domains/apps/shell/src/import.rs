//! Handles to domains that may be restarted between two commands.

use crate::answer::sentence;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use domain_rt::{Handle, Interface, OwnerId};

/// How long a command waits for a domain that is just starting, milliseconds.
const WAIT_MS: u64 = 1_000;

/// A handle by its import's name, connected when it is needed.
pub struct Import<T: ?Sized + Interface> {
    name: &'static str,
    /// What the operator calls what is behind it.
    title: &'static str,
    handle: Option<Handle<T>>,
}

impl<T: ?Sized + Interface> Import<T> {
    /// An import that is not connected yet.
    pub const fn new(name: &'static str, title: &'static str) -> Import<T> {
        Import {
            name,
            title,
            handle: None,
        }
    }

    /// Makes a call; an error is a sentence.
    ///
    /// A call that a death cut short is not made again: it may have had its effect.
    pub fn call<R, E: Display>(&mut self, call: impl FnOnce(&T) -> Result<R, E>) -> Result<R, String> {
        let alive = self
            .handle
            .take()
            .filter(|handle| domain_rt::is_live(handle.target()));
        let handle = match alive {
            Some(handle) => handle,
            None => domain_rt::reconnect(self.name, OwnerId::NONE, WAIT_MS)
                .map_err(|error| format!("{} can't be reached: {error}.", self.title))?,
        };
        let result = call(&handle).map_err(|error| sentence(&error.to_string()));
        self.handle = Some(handle);
        result
    }
}
