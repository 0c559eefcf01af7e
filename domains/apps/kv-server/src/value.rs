//! What a key holds.
//!
//! Strings are kept here up to [`IN_MEMORY_BYTES`]; longer ones are in the store, in chunks of [`CHUNK_BYTES`], and are read when they are asked
//! for. Collections are in memory whole; each of their elements is an entry of its own in the store.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;

/// Strings up to this length are kept in memory, in bytes.
pub const IN_MEMORY_BYTES: usize = 8 * 1024;
/// Longer ones are stored in pieces of this length, in bytes.
pub const CHUNK_BYTES: usize = 16_000;

/// The type of a value: a letter in the store, a word for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A hash.
    Hash,
    /// A sorted set.
    SortedSet,
    /// A stream.
    Stream,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::String,
        Kind::List,
        Kind::Set,
        Kind::Hash,
        Kind::SortedSet,
        Kind::Stream,
    ];

    /// As TYPE says it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "zset",
            Kind::Stream => "stream",
        }
    }

    /// First byte of its elements' keys in the store.
    pub fn letter(self) -> u8 {
        match self {
            Kind::String => b'c',
            Kind::List => b'l',
            Kind::Set => b's',
            Kind::Hash => b'h',
            Kind::SortedSet => b'z',
            Kind::Stream => b'x',
        }
    }

    /// The kind of a letter.
    pub fn from_letter(letter: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.letter() == letter)
    }
}

/// What was read from the store isn't what a collection writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What the key space wants of every type that has elements.
pub trait Collection: Any + Send {
    /// Its type.
    fn kind(&self) -> Kind;
    /// Elements; a key whose collection has none is removed by the command that took the last (but a stream's).
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of memory that it takes, nearly; asked after every change, so it is to be known, not counted.
    fn memory_bytes(&self) -> usize;
    /// As OBJECT ENCODING says it.
    fn encoding(&self) -> &'static str;
    /// What is to be kept beside the elements, in the key's own entry; changed by `Context::journal_key`.
    fn metadata(&self, _out: &mut Vec<u8>) {}
    /// Takes what `metadata` wrote. Called before or after elements are loaded.
    ///
    /// # Errors
    /// When it isn't.
    fn load_metadata(&mut self, metadata: &[u8]) -> Result<(), Malformed> {
        if metadata.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
    /// Takes one element as it was journaled; they come in no order, and one may come twice.
    ///
    /// # Errors
    /// When it isn't one.
    fn load_element(&mut self, element: &[u8], value: &[u8]) -> Result<(), Malformed>;
    /// All elements are loaded.
    fn finish_loading(&mut self) {}
    /// Every element as it is journaled: for COPY, and for writing it anew.
    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// Takes up to `limit` elements out, any ones, and names them: how a collection goes whose key is gone, a little at a time.
    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8]));
    /// A copy, for COPY.
    fn duplicate(&self, seed: u64) -> Value;
}

/// A string's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringValue {
    /// Here.
    Memory(Vec<u8>),
    /// In the store, as chunks under the entry's id.
    Stored {
        /// Its length in bytes.
        length: u64,
    },
}

impl StringValue {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            StringValue::Memory(bytes) => bytes.len() as u64,
            StringValue::Stored { length } => *length,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value.
pub enum Value {
    /// A string.
    String(StringValue),
    /// Everything else.
    Collection(Box<dyn Collection>),
}

impl Value {
    /// A string that is kept in memory.
    pub fn string(bytes: &[u8]) -> Value {
        Value::String(StringValue::Memory(bytes.to_vec()))
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::String(_) => Kind::String,
            Value::Collection(collection) => collection.kind(),
        }
    }

    /// What it is as a collection.
    pub fn collection(&self) -> Option<&dyn Collection> {
        match self {
            Value::String(_) => None,
            Value::Collection(collection) => Some(&**collection),
        }
    }

    /// What it is as a collection.
    pub fn collection_mut(&mut self) -> Option<&mut dyn Collection> {
        match self {
            Value::String(_) => None,
            Value::Collection(collection) => Some(&mut **collection),
        }
    }

    /// What it is as a collection of type `T`.
    #[inline]
    pub fn downcast<T: Collection>(&self) -> Option<&T> {
        let any: &dyn Any = self.collection()?;
        any.downcast_ref()
    }

    /// What it is as a collection of type `T`.
    #[inline]
    pub fn downcast_mut<T: Collection>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = self.collection_mut()?;
        any.downcast_mut()
    }

    /// Bytes of memory that it takes, nearly.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Value::String(StringValue::Memory(bytes)) => bytes.capacity(),
            Value::String(StringValue::Stored { .. }) => 0,
            Value::Collection(collection) => collection.memory_bytes(),
        }
    }
}
