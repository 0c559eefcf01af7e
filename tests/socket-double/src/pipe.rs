//! A connection in memory.

use interface::socket::{ReceivedBytes, SocketError, StreamBuffer};
use rref::RRef;
use std::collections::VecDeque;

/// One connection, as the stack would keep it.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Bytes that are there for `receive`.
    pub arrived: VecDeque<u8>,
    /// The client has closed its side, behind those bytes.
    pub client_closed: bool,
    /// The end is told by a `receive` of its own, like a stack that sees it after the last byte; else with the last byte.
    pub end_comes_alone: bool,
    /// What the server has sent and the client hasn't read.
    pub answers: Vec<u8>,
    /// Bytes that are taken before the client reads.
    pub room: usize,
    /// A send took fewer than offered, so a `writable` event is due.
    pub blocked: bool,
    /// The server has closed it.
    pub closed: bool,
    /// The server has reset it.
    pub aborted: bool,
}

impl Pipe {
    /// A new connection that takes so many bytes before its client reads.
    pub fn with_room(room: usize) -> Pipe {
        Pipe {
            room,
            ..Pipe::default()
        }
    }

    /// The answer to `receive`: as much of what has arrived as the buffer holds.
    pub fn receive(&mut self, mut buffer: RRef<StreamBuffer>) -> ReceivedBytes {
        let count = self.arrived.len().min(buffer.data.len());
        for (to, from) in buffer.data.iter_mut().zip(self.arrived.drain(..count)) {
            *to = from;
        }
        buffer.length = count as u32;
        ReceivedBytes {
            buffer,
            finished: self.client_closed && self.arrived.is_empty() && (count == 0 || !self.end_comes_alone),
            from: None,
        }
    }

    /// Takes as many of the server's bytes as there is room for, from the front; how many.
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        self.answers.extend_from_slice(&bytes[..taken]);
        self.blocked |= taken < bytes.len();
        taken as u32
    }

    /// As [`send`](Self::send), of the bytes in a buffer.
    ///
    /// # Errors
    /// [`SocketError::Invalid`] when the buffer says that it has more than it holds.
    pub fn send_buffer(&mut self, buffer: &StreamBuffer) -> Result<u32, SocketError> {
        let bytes = buffer.data.get(..buffer.length as usize);
        Ok(self.send(bytes.ok_or(SocketError::Invalid)?))
    }

    /// The client reads all that is there, which makes room for as much.
    pub fn read(&mut self) -> Vec<u8> {
        self.room = self.room.saturating_add(self.answers.len());
        std::mem::take(&mut self.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interface::socket::STREAM_BYTES;

    fn buffer() -> RRef<StreamBuffer> {
        host_platform::attach();
        let empty = StreamBuffer {
            length: 0,
            data: [0; STREAM_BYTES],
        };
        RRef::new(empty).expect("unlimited")
    }

    #[test]
    fn a_full_connection_takes_the_rest_after_its_client_has_read() {
        let mut pipe = Pipe::with_room(3);
        assert_eq!(pipe.send(b"hello"), 3);
        assert!(pipe.blocked);
        assert_eq!(pipe.send(b"lo"), 0);
        assert_eq!(pipe.read(), b"hel");
        assert_eq!(pipe.send(b"lo"), 2);
        assert_eq!(pipe.read(), b"lo");
    }

    #[test]
    fn a_buffer_that_claims_more_than_it_holds_is_refused() {
        let mut wrong = buffer();
        wrong.length = STREAM_BYTES as u32 + 1;
        let mut pipe = Pipe::with_room(usize::MAX);
        assert_eq!(pipe.send_buffer(&wrong), Err(SocketError::Invalid));
    }

    #[test]
    fn the_end_comes_with_the_last_byte_or_alone() {
        for end_comes_alone in [false, true] {
            let mut pipe = Pipe {
                client_closed: true,
                end_comes_alone,
                ..Pipe::default()
            };
            pipe.arrived.extend([7; STREAM_BYTES + 1]);
            let first = pipe.receive(buffer());
            assert_eq!(
                (first.buffer.length as usize, first.finished),
                (STREAM_BYTES, false)
            );
            let second = pipe.receive(buffer());
            assert_eq!((second.buffer.length, second.finished), (1, !end_comes_alone));
            let third = pipe.receive(buffer());
            assert_eq!((third.buffer.length, third.finished), (0, true));
        }
    }
}
