//! What may cross from one domain to another (docs/soundness.md, invariant 2).
//!
//! Two traits, both only for trusted code and derives to implement:
//! - [`Exchange`]: a value may be an argument or result of a crossing. Plain values, shared-heap handles, and structs and
//!   enums of them.
//! - [`Share`]: a value may live on the shared heap. Plain values only, so that an object can be reclaimed by its size.
//!
//! Neither is implemented for references, raw or function pointers, `Box`, `Vec`, `String`, `Arc`, `Cell` or atomics: each
//! could carry a pointer into a domain's image or heap, or a way to change what another domain owns.

use abi::OwnerId;

/// A type that may cross between domains by value.
///
/// # Safety
/// No pointer into a private heap or image can be hidden in a value, now or by interior mutability, and `transfer` moves
/// the ownership of every shared object that the value holds. A type that holds shared objects needs drop: one that doesn't
/// need it may cross without a call of `transfer`.
pub unsafe trait Exchange: Send {
    /// Makes `to` the owner of the shared objects that this value holds; objects inside them go along.
    ///
    /// # Safety
    /// For crossings: `to` is the domain that has the value from here on. An object under another's name is freed by that one's death
    /// under its handle.
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        let _ = to;
    }

    /// What becomes of an argument that was for `dead`, which was dead before it could have it: it is dropped. Storage requests
    /// in a batch are the exception: they go where those go that the dead domain had.
    #[inline(always)]
    fn undelivered(self, dead: OwnerId)
    where
        Self: Sized,
    {
        let _ = dead;
    }
}

/// A type that may live on the shared heap: exchangeable, without handles in it and without drop code.
///
/// # Safety
/// As [`Exchange`]; further, the type holds no shared-heap handle and needs no drop.
pub unsafe trait Share: Exchange {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: A plain value without pointers.
        unsafe impl Exchange for $type {}
        // SAFETY: As above; no handle, no drop.
        unsafe impl Share for $type {}
    )*};
}

plain!(
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    bool,
    char,
    ()
);
plain!(
    core::net::IpAddr,
    core::net::Ipv4Addr,
    core::net::Ipv6Addr,
    core::net::SocketAddr
);

// SAFETY: An incarnation's number, no pointer.
unsafe impl Exchange for OwnerId {}
// SAFETY: As above.
unsafe impl Share for OwnerId {}

// SAFETY: Holds what its elements hold.
unsafe impl<T: Exchange, const N: usize> Exchange for [T; N] {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        for element in self {
            // SAFETY: Passed on from the caller.
            unsafe { element.transfer(to) };
        }
    }
}
// SAFETY: Holds what its elements hold.
unsafe impl<T: Share, const N: usize> Share for [T; N] {}

// SAFETY: Holds what its value holds.
unsafe impl<T: Exchange> Exchange for Option<T> {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        if let Some(value) = self {
            // SAFETY: Passed on from the caller.
            unsafe { value.transfer(to) };
        }
    }
}
// SAFETY: Holds what its value holds.
unsafe impl<T: Share> Share for Option<T> {}

// SAFETY: Holds what its variants hold.
unsafe impl<T: Exchange, E: Exchange> Exchange for Result<T, E> {
    #[inline(always)]
    unsafe fn transfer(&self, to: OwnerId) {
        match self {
            // SAFETY: Passed on from the caller.
            Ok(value) => unsafe { value.transfer(to) },
            // SAFETY: As above.
            Err(error) => unsafe { error.transfer(to) },
        }
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        // SAFETY: Holds what its fields hold.
        unsafe impl<$($name: Exchange),+> Exchange for ($($name,)+) {
            #[inline(always)]
            unsafe fn transfer(&self, to: OwnerId) {
                #[allow(non_snake_case, reason = "one name for the type parameter and the field")]
                let ($($name,)+) = self;
                $(
                    // SAFETY: Passed on from the caller.
                    unsafe { $name.transfer(to) };
                )+
            }

            #[inline(always)]
            fn undelivered(self, dead: OwnerId) {
                #[allow(non_snake_case, reason = "one name for the type parameter and the field")]
                let ($($name,)+) = self;
                $($name.undelivered(dead);)+
            }
        }
        // SAFETY: Holds what its fields hold.
        unsafe impl<$($name: Share),+> Share for ($($name,)+) {}
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
