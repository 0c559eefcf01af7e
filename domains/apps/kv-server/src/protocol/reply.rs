//! Replies, in RESP2 or RESP3 as the client chose with HELLO.
//!
//! A reply is written once, front to back, into the client's output. RESP3's own types have the RESP2 forms that Redis gives them: a map is an
//! array of keys and values, a double a bulk string, a null a bulk string or an array without length.

use crate::number::Digits;
use alloc::vec::Vec;
use core::fmt;

/// Where an array whose length isn't known yet begins.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// What a reply is written to.
#[derive(Debug, Default)]
pub struct Reply {
    /// The bytes so far.
    pub bytes: Vec<u8>,
    /// The client speaks RESP3.
    pub resp3: bool,
}

impl Reply {
    #[inline]
    fn head(&mut self, kind: u8, number: i64) {
        if let Ok(digit @ 0..=9) = u8::try_from(number) {
            self.bytes.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']);
            return;
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(Digits::default().of(number));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string: one line.
    pub fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An error, its code the first word; line ends in it become blanks.
    pub fn error(&mut self, text: impl fmt::Display) {
        use fmt::Write;
        self.bytes.push(b'-');
        let start = self.bytes.len();
        // Writing to memory doesn't fail.
        let _ = write!(Text(&mut self.bytes), "{text}");
        for byte in self.bytes.iter_mut().skip(start) {
            if matches!(*byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.head(b':', value);
    }

    /// A count, as an integer.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.head(b':', value as i64);
    }

    /// Whether something is so or was done, as the integer 1 or 0.
    pub fn flag(&mut self, value: bool) {
        self.head(b':', i64::from(value));
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        self.head(b'$', value.len() as i64);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An integer as a string.
    pub fn bulk_integer(&mut self, value: i64) {
        let mut digits = Digits::default();
        self.bulk(digits.of(value));
    }

    /// A string, or null.
    pub fn bulk_or_null(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// A text for people, in `txt` format.
    pub fn verbatim(&mut self, text: &[u8]) {
        if self.resp3 {
            self.head(b'=', text.len() as i64 + 4);
            self.bytes.extend_from_slice(b"txt:");
            self.bytes.extend_from_slice(text);
            self.bytes.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// Null where a string could be.
    #[inline]
    pub fn null(&mut self) {
        self.bytes
            .extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Null where an array could be.
    pub fn null_array(&mut self) {
        self.bytes
            .extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// A truth value; the integer 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match (self.resp3, value) {
            (true, true) => self.bytes.extend_from_slice(b"#t\r\n"),
            (true, false) => self.bytes.extend_from_slice(b"#f\r\n"),
            (false, value) => self.flag(value),
        }
    }

    /// A floating-point number of this text; a string in RESP2.
    pub fn double_text(&mut self, text: &[u8]) {
        if self.resp3 {
            self.bytes.push(b',');
            self.bytes.extend_from_slice(text);
            self.bytes.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// An array of `length` replies, which follow.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.head(b'*', length as i64);
    }

    /// A map of `pairs` keys and values, which follow in turn.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3 {
            self.head(b'%', pairs as i64);
        } else {
            self.head(b'*', pairs as i64 * 2);
        }
    }

    /// A set of `length` replies, which follow.
    pub fn set(&mut self, length: usize) {
        self.head(if self.resp3 { b'~' } else { b'*' }, length as i64);
    }

    /// A message that answers no request, of `length` replies.
    pub fn push(&mut self, length: usize) {
        self.head(if self.resp3 { b'>' } else { b'*' }, length as i64);
    }

    /// Begins an array whose length is not known yet; [`end_array`](Self::end_array) says it.
    pub fn begin(&mut self) -> Mark {
        Mark(self.bytes.len())
    }

    fn end(&mut self, mark: Mark, write_head: impl FnOnce(&mut Reply)) {
        let mut head = Reply {
            bytes: Vec::with_capacity(24),
            resp3: self.resp3,
        };
        write_head(&mut head);
        let at = mark.0.min(self.bytes.len());
        self.bytes.splice(at..at, head.bytes);
    }

    /// Ends the array that began at `mark`: it had `length` replies.
    pub fn end_array(&mut self, mark: Mark, length: usize) {
        self.end(mark, |head| head.array(length));
    }

    /// Ends what began at `mark` as a map of `pairs`.
    pub fn end_map(&mut self, mark: Mark, pairs: usize) {
        self.end(mark, |head| head.map(pairs));
    }

    /// Ends what began at `mark` as a set.
    pub fn end_set(&mut self, mark: Mark, length: usize) {
        self.end(mark, |head| head.set(length));
    }
}

/// Bytes as a text's destination.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::prelude::v1::*;

    fn written(resp3: bool, write: impl FnOnce(&mut Reply)) -> String {
        let mut reply = Reply {
            bytes: Vec::new(),
            resp3,
        };
        write(&mut reply);
        String::from_utf8(reply.bytes).expect("text")
    }

    #[test]
    fn each_type_has_its_form_in_both_versions() {
        let write = |reply: &mut Reply| {
            reply.map(1);
            reply.bulk(b"a");
            reply.null();
            reply.set(1);
            reply.integer(-12);
            reply.double_text(b"1.5");
            reply.boolean(true);
            reply.verbatim(b"x");
            reply.error("ERR a\nb");
        };
        assert_eq!(
            written(false, write),
            "*2\r\n$1\r\na\r\n$-1\r\n*1\r\n:-12\r\n$3\r\n1.5\r\n:1\r\n$1\r\nx\r\n-ERR a b\r\n"
        );
        assert_eq!(
            written(true, write),
            "%1\r\n$1\r\na\r\n_\r\n~1\r\n:-12\r\n,1.5\r\n#t\r\n=5\r\ntxt:x\r\n-ERR a b\r\n"
        );
    }

    #[test]
    fn a_length_can_come_last() {
        let write = |reply: &mut Reply| {
            reply.ok();
            let mark = reply.begin();
            reply.integer(1);
            reply.integer(2);
            reply.end_array(mark, 2);
        };
        assert_eq!(written(false, write), "+OK\r\n*2\r\n:1\r\n:2\r\n");
    }
}
