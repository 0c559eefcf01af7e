//! The types that have elements.

use crate::value::{Kind, Value};

/// An empty collection of this kind, to be loaded; `None` for a string. `seed` is for its hashing.
pub fn empty(kind: Kind, seed: u64) -> Option<Value> {
    let _ = seed;
    match kind {
        Kind::String | Kind::List | Kind::Set | Kind::Hash | Kind::SortedSet | Kind::Stream => None,
    }
}
