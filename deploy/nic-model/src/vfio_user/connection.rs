//! A stream of messages and the file descriptors that come with them.
//!
//! Reads as much as there is at once: posted register writes come in bursts. Descriptors belong to the last message that
//! starts within what one receive call returned, because the kernel ends a call behind the data that carried them.

use super::message::{HEADER_LENGTH, Header, LONGEST_MESSAGE};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that one message may carry.
pub const LONGEST_DESCRIPTORS: usize = 64;
const CHUNK: usize = 32 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The client closed it.
    #[error("the client closed the connection")]
    Closed,
    /// A message's length is impossible, so the stream can't be followed any more.
    #[error("message of {0} bytes")]
    Length(usize),
    /// The operating system reports an error.
    #[error("socket: {0}")]
    System(#[from] Errno),
}

/// A connected client.
pub struct Connection {
    socket: OwnedFd,
    /// Room for received bytes; those from `start` to `end` have not been taken yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Stream position of `buffer[start]`.
    position: u64,
    /// Descriptors, with the stream position of the message they came with.
    descriptors: VecDeque<(u64, Vec<OwnedFd>)>,
}

/// A request that has arrived whole.
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The descriptors it carried.
    pub descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// Takes over a connected stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
            position: 0,
            descriptors: VecDeque::new(),
        }
    }

    /// The socket, to sleep on.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in what the socket has, without waiting; false when there was nothing.
    pub fn receive(&mut self) -> Result<bool, ConnectionError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.resize(self.end + CHUNK, 0);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LONGEST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let result = rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(room)], &mut ancillary, flags);
        let length = match result {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.end += length;
        let descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            })
            .flatten()
            .collect();
        if length == 0 {
            return Err(ConnectionError::Closed);
        }
        if !descriptors.is_empty() {
            let at = self.last_message_start();
            self.descriptors.push_back((at, descriptors));
        }
        Ok(true)
    }

    /// Stream position of the last message that starts in what was received, even if it isn't whole yet.
    fn last_message_start(&self) -> u64 {
        let mut at = 0;
        let received = self.buffer.get(self.start..self.end).unwrap_or_default();
        while let Some(header) = received.get(at..).and_then(Header::decode) {
            let next = at + header.length.max(HEADER_LENGTH);
            if next >= received.len() {
                break;
            }
            at = next;
        }
        self.position + at as u64
    }

    /// The next request that has arrived whole.
    pub fn next_message(&mut self) -> Result<Option<Message>, ConnectionError> {
        let available = self.buffer.get(self.start..self.end).unwrap_or_default();
        if available.len() < HEADER_LENGTH {
            return Ok(None);
        }
        let header = Header::decode(available).ok_or(ConnectionError::Length(available.len()))?;
        if !(HEADER_LENGTH..=LONGEST_MESSAGE).contains(&header.length) {
            return Err(ConnectionError::Length(header.length));
        }
        let Some(payload) = available.get(HEADER_LENGTH..header.length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        let mut descriptors = Vec::new();
        while let Some((at, _)) = self.descriptors.front()
            && *at <= self.position
        {
            descriptors.extend(
                self.descriptors
                    .pop_front()
                    .map(|(_, fds)| fds)
                    .unwrap_or_default(),
            );
        }
        self.start += header.length;
        self.position += header.length as u64;
        Ok(Some(Message {
            header,
            payload,
            descriptors,
        }))
    }

    /// Sends bytes, waiting for the client when its socket is full.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType};
    use std::io::IoSlice;

    fn pair() -> (OwnedFd, Connection) {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("pair");
        (ours, Connection::new(theirs))
    }

    fn message(id: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![id, 0, 9, 0, (16 + payload) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.resize(16 + payload, id);
        bytes
    }

    fn send_with_descriptors(socket: &OwnedFd, bytes: &[u8], count: usize) {
        let files: Vec<OwnedFd> = (0..count)
            .map(|_| std::fs::File::open("/dev/null").expect("open").into())
            .collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty())
            .expect("send");
    }

    #[test]
    fn descriptors_stay_with_their_message() {
        let (client, mut connection) = pair();
        rustix::io::write(&client, &message(1, 8)).expect("write");
        rustix::io::write(&client, &message(2, 0)).expect("write");
        send_with_descriptors(&client, &message(3, 4), 2);
        rustix::io::write(&client, &message(4, 0)).expect("write");
        send_with_descriptors(&client, &message(5, 0), 1);

        let mut seen = vec![];
        while connection.receive().expect("open") {
            while let Some(message) = connection.next_message().expect("well-formed") {
                seen.push((message.payload.len(), message.descriptors.len()));
            }
        }
        assert_eq!(seen, [(8, 0), (0, 0), (4, 2), (0, 0), (0, 1)]);
    }

    #[test]
    fn messages_in_pieces_are_put_together() {
        let (client, mut connection) = pair();
        for byte in message(1, 5) {
            assert!(connection.next_message().expect("well-formed").is_none());
            rustix::io::write(&client, &[byte]).expect("write");
            assert!(connection.receive().expect("open"));
        }
        assert_eq!(
            connection
                .next_message()
                .expect("well-formed")
                .expect("whole")
                .payload,
            [1; 5]
        );
        drop(client);
        assert!(matches!(connection.receive(), Err(ConnectionError::Closed)));
    }

    #[test]
    fn impossible_length_ends_the_stream() {
        let (client, mut connection) = pair();
        rustix::io::write(&client, &[0; 16]).expect("write");
        connection.receive().expect("open");
        assert!(matches!(
            connection.next_message(),
            Err(ConnectionError::Length(0))
        ));
    }
}
