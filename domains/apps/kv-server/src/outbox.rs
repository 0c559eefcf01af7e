//! Answers of a round on their way to the stack: small ones, of many connections, go with one call.

use alloc::vec::Vec;
use domain_rt::Handle;
use interface::socket::{EVENT_LIMIT, STREAM_BYTES, SendList, Sending, SocketError, SocketId, Sockets};
use rref::RRef;

/// Longer answers go by themselves, in bytes: they take more than a segment, which is no send that costs little.
const SMALL_BYTES: usize = 1400;

/// A list of sends that is being filled.
#[derive(Default)]
pub struct Outbox {
    list: Option<RRef<SendList>>,
    used: usize,
    /// Whose the sends are.
    places: Vec<u32>,
}

/// Not inlined: a list is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
fn new_list() -> Result<RRef<SendList>, SocketError> {
    RRef::new(SendList {
        length: 0,
        sends: [None; EVENT_LIMIT],
        data: [0; STREAM_BYTES],
    })
    .map_err(|_| SocketError::Full)
}

impl Outbox {
    /// Adds an answer of the connection at `place`; false when it is too long, or the list is full.
    ///
    /// # Errors
    /// No memory for a list.
    #[inline]
    pub fn add(&mut self, place: u32, socket: SocketId, bytes: &[u8]) -> Result<bool, SocketError> {
        if bytes.len() > SMALL_BYTES {
            return Ok(false);
        }
        let list: &mut SendList = match &mut self.list {
            Some(list) => list,
            None => self.list.insert(new_list()?),
        };
        let end = self.used + bytes.len();
        let (Some(to), Some(slot)) = (
            list.data.get_mut(self.used..end),
            list.sends.get_mut(self.places.len()),
        ) else {
            return Ok(false);
        };
        to.copy_from_slice(bytes);
        *slot = Some(Sending {
            socket,
            end: end as u32,
        });
        self.used = end;
        self.places.push(place);
        Ok(true)
    }

    /// Whether nothing was added.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sends everything and forgets it; `unsent` is told whose answers weren't sent, and what they are.
    ///
    /// # Errors
    /// The stack's.
    #[inline]
    pub fn send(
        &mut self,
        sockets: &Handle<dyn Sockets>,
        shard: u16,
        mut unsent: impl FnMut(u32, &[u8]),
    ) -> Result<(), SocketError> {
        let Some(list) = &mut self.list else {
            return Ok(());
        };
        list.length = self.places.len() as u32;
        let result = sockets.send_many(shard, list);
        if let Ok(mut left) = result {
            while left != 0 {
                let position = left.trailing_zeros() as usize;
                left &= left - 1;
                let end_of = |position: usize| {
                    list.sends
                        .get(position)
                        .copied()
                        .flatten()
                        .map(|sending| sending.end)
                };
                let start = position.checked_sub(1).and_then(end_of).unwrap_or(0);
                let end = end_of(position).unwrap_or(start);
                if let (Some(place), Some(bytes)) = (
                    self.places.get(position),
                    list.data.get(start as usize..end as usize),
                ) {
                    unsent(*place, bytes);
                }
            }
        }
        self.places.clear();
        self.used = 0;
        result.map(|_| ())
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.places.clear();
        self.used = 0;
    }
}
