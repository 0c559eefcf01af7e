//! A connection's transport: a socket of the stack, reached by crossings, with the shard's two shared buffers.

use crate::pump::{Received, Transport};
use interface::socket::{STREAM_BYTES, SocketError, SocketId, Sockets, StreamBuffer};
use rref::{BootBytes, RRef};

/// A shard's buffers on the shared heap. A call that fails keeps its buffer; another takes its place.
#[derive(Default)]
pub struct Buffers {
    input: Option<RRef<StreamBuffer>>,
    output: Option<RRef<StreamBuffer>>,
}

/// Not inlined: a buffer is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
fn allocate() -> Result<RRef<StreamBuffer>, SocketError> {
    let empty = StreamBuffer {
        length: 0,
        data: [0; STREAM_BYTES],
    };
    RRef::new(empty).map_err(|_| SocketError::Full)
}

#[inline]
fn ready(buffer: &mut Option<RRef<StreamBuffer>>) -> Result<&mut RRef<StreamBuffer>, SocketError> {
    match buffer {
        Some(buffer) => Ok(buffer),
        None => Ok(buffer.insert(allocate()?)),
    }
}

#[inline]
fn take(buffer: &mut Option<RRef<StreamBuffer>>) -> Result<RRef<StreamBuffer>, SocketError> {
    buffer.take().map_or_else(allocate, Ok)
}

/// One socket, for as long as it is worked on.
pub struct SocketTransport<'a> {
    /// The stack.
    pub sockets: &'a dyn Sockets,
    /// The socket.
    pub socket: SocketId,
    /// The shard's buffers.
    pub buffers: &'a mut Buffers,
}

impl Transport for SocketTransport<'_> {
    type Error = SocketError;

    #[inline]
    fn receive(&mut self) -> Result<Received, SocketError> {
        let buffer = take(&mut self.buffers.input)?;
        let received = self.sockets.receive(self.socket, buffer)?;
        let length = (received.buffer.length as usize).min(STREAM_BYTES);
        self.buffers.input = Some(received.buffer);
        Ok(Received {
            length,
            // A socket that doesn't fill the buffer is empty, and tells when there is more.
            more: length == STREAM_BYTES && !received.finished,
            finished: received.finished,
        })
    }

    #[inline]
    fn buffers(&mut self) -> Result<(&[u8], &mut [u8]), SocketError> {
        let input = ready(&mut self.buffers.input)?;
        let output = ready(&mut self.buffers.output)?;
        Ok((&input.data, &mut output.data))
    }

    #[inline]
    fn send(&mut self, length: usize) -> Result<usize, SocketError> {
        let mut buffer = take(&mut self.buffers.output)?;
        buffer.length = length.min(STREAM_BYTES) as u32;
        let sent = self.sockets.send(self.socket, buffer)?;
        self.buffers.output = Some(sent.buffer);
        Ok((sent.taken as usize).min(length))
    }

    #[inline]
    fn send_file(&mut self, part: BootBytes) -> Result<usize, SocketError> {
        let taken = self.sockets.send_file(self.socket, part)?;
        Ok((taken as usize).min(part.as_slice().len()))
    }
}
