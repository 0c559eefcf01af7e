//! The end of a round: answers go to the stack, small ones of many connections with one call ([`Outbox`](crate::outbox::Outbox)), others one by one; and connections end
//! that were to, behind their last answer. What is to be sent, and whether it may be yet, is left to the shard's round.

use super::{Shard, new_buffer};
use alloc::vec::Vec;
use interface::socket::{STREAM_BYTES, SocketError, SocketId};
use serving::{Interruption, only_death};

impl Shard {
    /// Ends the connections whose answers can't be sent, since what they say isn't so.
    #[cold]
    pub(super) fn end_unsettled(&mut self) -> Result<(), Interruption> {
        for index in core::mem::take(&mut self.to_send) {
            if let Some(Some(connection)) = self.connections.get(index as usize) {
                let socket = connection.socket;
                self.forget(socket);
                only_death(self.sockets.abort(socket))?;
            }
        }
        Ok(())
    }

    /// Sends what connections have to send in this round, and ends those that are to end.
    pub(super) fn send_all(&mut self) -> Result<(), Interruption> {
        let mut position = 0;
        while let Some(&index) = self.to_send.get(position) {
            position += 1;
            let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
                continue;
            };
            if !connection.only_sends() {
                self.send(index)?;
                continue;
            }
            let bytes = connection.outgoing();
            if bytes.is_empty() {
                continue;
            }
            let length = bytes.len();
            if self.outbox.add(index, connection.socket, bytes)? {
                connection.sent(length);
                continue;
            }
            // What is in the list doesn't wait for this one, which is long, or finds the list empty.
            self.send_list()?;
            self.send(index)?;
        }
        self.to_send.clear();
        self.send_list()
    }

    /// Sends what is in the outbox.
    #[inline]
    fn send_list(&mut self) -> Result<(), Interruption> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let mut unsent = Vec::new();
        let connections = &mut self.connections;
        self.outbox.send(&self.sockets, self.number, |index, bytes| {
            if let Some(Some(connection)) = connections.get_mut(index as usize) {
                connection.take_back(bytes);
                unsent.push(index);
            }
        })?;
        for index in unsent {
            self.send(index)?;
        }
        Ok(())
    }

    /// Sends one connection's output, as much as there is room for; behind the last of it, does what waited for that.
    #[inline]
    fn send(&mut self, index: u32) -> Result<(), Interruption> {
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
            return Ok(());
        };
        let socket = connection.socket;
        if connection.killed {
            self.forget(socket);
            return only_death(self.sockets.abort(socket));
        }
        loop {
            let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
                return Ok(());
            };
            let part = connection.outgoing();
            if part.is_empty() {
                break;
            }
            let mut buffer = match self.output.take() {
                Some(buffer) => buffer,
                None => new_buffer()?,
            };
            let length = part.len().min(STREAM_BYTES);
            if let (Some(to), Some(from)) = (buffer.data.get_mut(..length), part.get(..length)) {
                to.copy_from_slice(from);
            }
            buffer.length = length as u32;
            match self.sockets.send(socket, buffer) {
                Ok(sent) => {
                    self.output = Some(sent.buffer);
                    let taken = (sent.taken as usize).min(length);
                    connection.sent(taken);
                    if taken < length {
                        // An event tells when there is room.
                        return Ok(());
                    }
                }
                Err(SocketError::Dead(_)) => return Err(Interruption::Dead),
                Err(_) => {
                    self.forget(socket);
                    return only_death(self.sockets.abort(socket));
                }
            }
        }
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
            return Ok(());
        };
        if connection.closing || connection.finished {
            self.forget(socket);
            return only_death(self.sockets.close(socket));
        }
        if connection.left_alone {
            connection.left_alone = false;
            self.resumed.push(index);
            self.service.call(self.number);
        }
        Ok(())
    }

    fn send_piece(&mut self, socket: SocketId, bytes: &[u8]) -> Result<(), Interruption> {
        let mut buffer = match self.output.take() {
            Some(buffer) => buffer,
            None => new_buffer()?,
        };
        if let Some(to) = buffer.data.get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
        }
        buffer.length = bytes.len() as u32;
        match self.sockets.send(socket, buffer) {
            Ok(sent) => self.output = Some(sent.buffer),
            Err(SocketError::Dead(_)) => return Err(Interruption::Dead),
            Err(_) => {}
        }
        Ok(())
    }

    /// Says that there is no room.
    pub(super) fn turn_away(&mut self, socket: SocketId) -> Result<(), Interruption> {
        self.send_piece(socket, b"-ERR max number of clients reached\r\n")?;
        only_death(self.sockets.close(socket))
    }
}
