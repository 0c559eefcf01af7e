//! The collections that a key can hold, as data structures: they know nothing of keys, clients or the journal.

pub mod geo;
pub mod hash;
pub mod hyper_log_log;
pub mod limits;
pub mod list;
pub mod number;
pub mod ordered;
pub mod range;
pub mod set;
pub mod sorted_set;
pub mod stream;
pub mod stream_group;

pub use hash::Hash;
pub use limits::Limits;
pub use list::List;
pub use set::Set;
pub use sorted_set::SortedSet;
pub use stream::Stream;

use crate::value::{Collection, Kind, Value};
use alloc::boxed::Box;

/// An empty collection of a kind, to be loaded; `None` for a string. `seed` is for its hashing.
pub fn empty(kind: Kind, seed: u64) -> Option<Value> {
    let collection: Box<dyn Collection> = match kind {
        Kind::String => return None,
        Kind::List => Box::new(List::default()),
        Kind::Set => Box::new(Set::new(seed)),
        Kind::Hash => Box::new(Hash::new(seed)),
        Kind::SortedSet => Box::new(SortedSet::new(seed)),
        Kind::Stream => Box::new(Stream::default()),
    };
    Some(Value::Collection(collection))
}
