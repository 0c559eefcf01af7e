//! What a crossing can fail with, and who called.

use crate::exchange::{Exchange, Share};
use abi::OwnerId;
use core::fmt;
use core::sync::atomic::Ordering;

/// Why a crossing has no answer. Only trusted code makes one, so a domain can't pretend to have died.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RpcError {
    target: OwnerId,
    during: bool,
}

impl RpcError {
    pub(crate) const fn dead(target: OwnerId) -> RpcError {
        RpcError {
            target,
            during: false,
        }
    }

    pub(crate) const fn died(target: OwnerId) -> RpcError {
        RpcError { target, during: true }
    }

    /// The incarnation that was called. A handle to any later one comes from connecting again.
    pub fn target(&self) -> OwnerId {
        self.target
    }

    /// Whether it died during the call, rather than before it: the call may have had effects.
    pub fn during_call(&self) -> bool {
        self.during
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.during {
            "died during the call"
        } else {
            "is dead"
        };
        write!(
            f,
            "domain {} generation {} {when}",
            self.target.slot(),
            self.target.generation()
        )
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// SAFETY: Numbers only.
unsafe impl Exchange for RpcError {}
// SAFETY: Numbers only.
unsafe impl Share for RpcError {}

/// What a method of an interface returns: something that can also say that the callee is dead.
///
/// # Safety
/// `transferred` transfers all that the answer holds, and neither function panics.
pub unsafe trait Outcome: Exchange {
    /// The answer of a crossing that had none.
    fn failed(error: RpcError) -> Self;

    /// [`Exchange::transfer`] on the way: for an answer that must be moved, since it is looked at.
    ///
    /// # Safety
    /// As of [`Exchange::transfer`].
    unsafe fn transferred(self, to: OwnerId) -> Self;
}

// SAFETY: Both variants are transferred. `From` is interface code, which makes a value of a few words.
unsafe impl<T: Exchange, E: Exchange + From<RpcError>> Outcome for Result<T, E> {
    #[inline]
    fn failed(error: RpcError) -> Self {
        Err(E::from(error))
    }

    #[inline(always)]
    unsafe fn transferred(self, to: OwnerId) -> Self {
        // Taken apart and put together again: a whole copy would read what is in the store buffer in smaller parts.
        match self {
            Ok(value) => {
                // SAFETY: Passed on from the caller.
                unsafe { value.transfer(to) };
                Ok(value)
            }
            Err(error) => {
                // SAFETY: Passed on from the caller.
                unsafe { error.transfer(to) };
                Err(error)
            }
        }
    }
}

/// The domain that made the innermost crossing of this thread: who is calling. The kernel where there is none.
pub fn caller() -> OwnerId {
    let top = abi::current().top.load(Ordering::Relaxed);
    if top.is_null() {
        return OwnerId::KERNEL;
    }
    // SAFETY: `top` and the continuations behind it live on this thread's stack until their crossings return.
    unsafe { abi::thread::owner_of((*top).previous) }
}
