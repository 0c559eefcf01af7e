//! A command's arguments: spans of the bytes that came, or of a copy that is kept. Reading them from a request is left to [`request`](super::request).

use alloc::vec::Vec;
use core::ops::Range;

/// Where an argument is in the bytes that it is among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A command's arguments, the command's name the first of them.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// How many.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The argument of this index; an empty one behind the last.
    #[inline]
    pub fn get(&self, index: usize) -> &'a [u8] {
        match self.spans.get(index) {
            Some(span) => self.slice(*span),
            None => &[],
        }
    }

    #[inline]
    fn slice(&self, span: Span) -> &'a [u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// The arguments from this index on.
    pub fn from(
        &self,
        first: usize,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + Clone + use<'a> {
        let own = *self;
        let rest: &'a [Span] = self.spans.get(first..).unwrap_or_default();
        rest.iter().map(move |span| own.slice(*span))
    }

    /// The arguments of a range of indices.
    pub fn range(
        &self,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + use<'a> {
        let own = *self;
        let part: &'a [Span] = self.spans.get(range).unwrap_or_default();
        part.iter().map(move |span| own.slice(*span))
    }

    /// Whether the argument of this index is `word`, in letters of any case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.get(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// A copy that can be kept.
    pub fn to_owned(&self) -> OwnedCommand {
        OwnedCommand::new(self.from(0))
    }
}

/// A command that is kept: queued in a transaction, or waiting for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedCommand {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedCommand {
    /// A command of these arguments.
    pub fn new<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> OwnedCommand {
        let mut own = OwnedCommand::default();
        for argument in arguments {
            let start = own.bytes.len() as u32;
            own.bytes.extend_from_slice(argument);
            let end = own.bytes.len() as u32;
            own.spans.push(Span { start, end });
        }
        own
    }

    /// Its arguments.
    pub fn arguments(&self) -> Arguments<'_> {
        Arguments {
            bytes: &self.bytes,
            spans: &self.spans,
        }
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}
