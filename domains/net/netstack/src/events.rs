//! What applications are told: a queue for each domain that has sockets on a shard.
//!
//! A socket is in its owner's queue once, with all its news; so queues are bounded by the number of sockets. A
//! connection's closing is an entry of its own, since the connection is gone when it is read.

use crate::table::Ticket;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use domain_rt::thread::ThreadId;
use rref::OwnerId;

/// An entry of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A listener has a connection to hand over.
    Accepted {
        /// The listener.
        listener: Ticket,
        /// The connection.
        connection: Ticket,
    },
    /// A connection has news.
    Connection(Ticket),
    /// A datagram socket has something to receive.
    Datagram(Ticket),
    /// A connection is gone.
    Closed(Ticket),
}

struct Owner {
    id: OwnerId,
    queue: VecDeque<Entry>,
    waiter: Option<ThreadId>,
}

/// Domains that have sockets on a shard: a handful.
#[derive(Default)]
pub struct Owners {
    list: Vec<Owner>,
    /// Some queue of a waiting owner may have got its first entry.
    rung: bool,
}

impl Owners {
    #[inline]
    fn get(&mut self, id: OwnerId) -> &mut Owner {
        let position = self.list.iter().position(|owner| owner.id == id);
        let position = position.unwrap_or_else(|| {
            self.list.push(Owner {
                id,
                queue: VecDeque::new(),
                waiter: None,
            });
            self.list.len() - 1
        });
        // The position was found or made above.
        &mut self.list[position]
    }

    /// Notes that a domain has sockets, so that its death is seen.
    pub fn enroll(&mut self, id: OwnerId) {
        self.get(id);
    }

    /// Adds an entry to a domain's queue.
    #[inline]
    pub fn push(&mut self, id: OwnerId, entry: Entry) {
        self.rung = true;
        self.get(id).queue.push_back(entry);
    }

    /// Takes a domain's queue, to be put back; nothing is pushed meanwhile.
    #[inline]
    pub fn take_queue(&mut self, id: OwnerId) -> VecDeque<Entry> {
        core::mem::take(&mut self.get(id).queue)
    }

    /// Puts a domain's queue back.
    #[inline]
    pub fn put_queue_back(&mut self, id: OwnerId, queue: VecDeque<Entry>) {
        self.get(id).queue = queue;
    }

    /// Has `thread` woken when there is an entry for its domain.
    pub fn wait(&mut self, id: OwnerId, thread: ThreadId) {
        self.get(id).waiter = Some(thread);
    }

    /// The threads to wake now, each once.
    pub fn take_waiters(&mut self, mut wake: impl FnMut(ThreadId)) {
        if !self.rung {
            return;
        }
        self.rung = false;
        for owner in &mut self.list {
            if !owner.queue.is_empty()
                && let Some(thread) = owner.waiter.take()
            {
                wake(thread);
            }
        }
    }

    /// The domains.
    pub fn ids(&self) -> impl Iterator<Item = OwnerId> {
        self.list.iter().map(|owner| owner.id)
    }

    /// Forgets a domain.
    pub fn remove(&mut self, id: OwnerId) {
        self.list.retain(|owner| owner.id != id);
    }

    /// Whether there are domains.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
