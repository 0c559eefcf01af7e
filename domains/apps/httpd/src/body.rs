//! Finding the end of a request's body (RFC 9112, 6 and 7.1), to throw it away.
//!
//! Works on whatever bytes have arrived, keeps none of them, and is strict where leniency would let two readers see two ends: line
//! ends are CR LF, sizes are hexadecimal digits and nothing else.

use crate::request::Framing;

/// Bytes of chunk extensions and trailers of one body at most.
const EXTRA_LIMIT: u32 = 8192;

/// Why a body has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Its chunks aren't well-formed.
    Malformed,
    /// It is longer than allowed.
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a body of a known length, or in a chunk's data.
    Data,
    /// Before the first digit of a chunk's size.
    SizeStart,
    /// In the size.
    Size,
    /// In an extension.
    Extension,
    /// Behind the CR of the size's line.
    SizeEnd,
    /// Before the CR behind the data.
    DataCarriageReturn,
    /// Before its LF.
    DataLineFeed,
    /// At the start of a trailer line or of the last, empty line.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// Behind the CR of a trailer line.
    TrailerEnd,
    /// Behind the CR of the empty line.
    LastLineFeed,
    Done,
}

/// Where in a body a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyReader {
    state: State,
    chunked: bool,
    /// Bytes of data left, of the body or of the chunk.
    left: u64,
    /// Bytes of data that may still come.
    allowed: u64,
    extra: u32,
}

impl BodyReader {
    /// At the start of a body of at most `limit` bytes.
    pub fn new(framing: Framing, limit: u64) -> Result<BodyReader, BodyError> {
        let (state, left) = match framing {
            Framing::Length(0) => (State::Done, 0),
            Framing::Length(length) if length > limit => return Err(BodyError::TooLong),
            Framing::Length(length) => (State::Data, length),
            Framing::Chunked => (State::SizeStart, 0),
        };
        Ok(BodyReader {
            state,
            chunked: framing == Framing::Chunked,
            left,
            allowed: limit,
            extra: 0,
        })
    }

    /// Whether the body's end has been seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Skips what of `bytes` is the body's; the count of those bytes.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let count = self.left.min((bytes.len() - position) as u64);
                    self.left -= count;
                    position += count as usize;
                    if self.left == 0 {
                        self.state = if self.chunked {
                            State::DataCarriageReturn
                        } else {
                            State::Done
                        };
                    }
                }
                _ => {
                    self.state = self.step(byte)?;
                    position += 1;
                }
            }
        }
        Ok(position)
    }

    /// The state behind a byte that isn't data.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::SizeStart | State::Size, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left.checked_mul(16).ok_or(BodyError::TooLong)? + u64::from(digit);
                Ok(State::Size)
            }
            (State::Size, b';') => Ok(State::Extension),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension | State::Trailer, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.count_extra()?;
                Ok(self.state)
            }
            (State::SizeEnd, b'\n') if self.left == 0 => Ok(State::TrailerStart),
            (State::SizeEnd, b'\n') => {
                self.allowed = self.allowed.checked_sub(self.left).ok_or(BodyError::TooLong)?;
                Ok(State::Data)
            }
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::SizeStart),
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerStart, byte) if byte.is_ascii_graphic() => {
                self.count_extra()?;
                Ok(State::Trailer)
            }
            (State::Trailer, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(BodyError::Malformed),
        }
    }

    /// A body of empty chunks' trimmings is no way around the limit.
    fn count_extra(&mut self) -> Result<(), BodyError> {
        self.extra += 1;
        if self.extra > EXTRA_LIMIT {
            Err(BodyError::TooLong)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use std::string::String;

    fn skip(framing: Framing, limit: u64, bytes: &[u8]) -> Result<(usize, bool), BodyError> {
        let mut reader = BodyReader::new(framing, limit)?;
        let count = reader.skip(bytes)?;
        Ok((count, reader.is_done()))
    }

    #[test]
    fn a_length_is_counted() {
        assert_eq!(skip(Framing::Length(0), 0, b"GET"), Ok((0, true)));
        assert_eq!(skip(Framing::Length(3), 3, b"abcGET"), Ok((3, true)));
        assert_eq!(skip(Framing::Length(3), 3, b"ab"), Ok((2, false)));
        assert_eq!(skip(Framing::Length(4), 3, b""), Err(BodyError::TooLong));
    }

    #[test]
    fn chunks_are_followed_to_the_last() {
        let body = b"4\r\nRust\r\nA;name=\"v\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        let mut bytes = body.to_vec();
        bytes.extend(b"GET /");
        assert_eq!(skip(Framing::Chunked, 14, &bytes), Ok((body.len(), true)));
        assert_eq!(skip(Framing::Chunked, 13, &bytes), Err(BodyError::TooLong));
        assert_eq!(skip(Framing::Chunked, 14, b"0\r\n\r\n"), Ok((5, true)));
    }

    #[test]
    fn two_readings_are_not_possible() {
        for bytes in [
            &b"\r\n"[..],
            b"g\r\n",
            b"4 \r\nRust\r\n",
            b"0x4\r\nRust\r\n",
            b"+4\r\nRust\r\n",
            b"4\nRust\n",
            b"4\r\nRustX\r\n",
            b"4\r\nRust\n0\r\n\r\n",
            b"4;\n\r\nRust\r\n",
            b"0\r\n\n",
            b"0\r\n x\r\n\r\n",
            b"0\r\nA: b\n\r\n",
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(
                skip(Framing::Chunked, 100, bytes),
                Err(BodyError::Malformed),
                "{text:?}"
            );
        }
        assert_eq!(
            skip(Framing::Chunked, 100, b"10000000000000000\r\n"),
            Err(BodyError::TooLong)
        );
        let long = [b"1;".as_slice(), &[b'x'; 9000], b"\r\n"].concat();
        assert_eq!(skip(Framing::Chunked, 100, &long), Err(BodyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(bytes: Vec<u8>, text in "[0-9a-f;\r\n]{0,60}", limit in 0u64..100, at: prop::sample::Index) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
                let whole = skip(Framing::Chunked, limit, bytes);
                let mut reader = BodyReader::new(Framing::Chunked, limit).unwrap();
                let parts = reader.skip(first).and_then(|count| {
                    let rest = if reader.is_done() { 0 } else { reader.skip(second)? };
                    Ok((count + rest, reader.is_done()))
                });
                prop_assert_eq!(whole, parts);
            }
        }

        #[test]
        fn what_is_chunked_is_skipped_whole(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6)) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            prop_assert_eq!(skip(Framing::Chunked, 1000, &bytes), Ok((bytes.len(), true)));
        }
    }
}
