//! Who listens where, and how many connections wait for them.

use crate::demultiplex::{FlowKey, WideAddress};
use crate::table::{Slab, Ticket};
use rref::OwnerId;

/// A listening socket of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// The domain that listens.
    pub owner: OwnerId,
    /// Its address; `None` for all of the appliance's own.
    pub address: Option<WideAddress>,
    /// Its port.
    pub port: u16,
    /// Connections at most that are not handed over.
    pub backlog: u16,
    /// Half-open and complete connections that are not handed over.
    pub waiting: u32,
}

/// The listeners of a shard: a handful, so they are looked through in order.
#[derive(Default)]
pub struct Listeners {
    slab: Slab<Listener>,
}

impl Listeners {
    /// Adds one; `Err` with the one that is in its way.
    pub fn insert(&mut self, listener: Listener) -> Result<Ticket, Ticket> {
        let conflict = self.slab.iter().find(|(_, other)| {
            other.port == listener.port
                && (other.address.is_none()
                    || listener.address.is_none()
                    || other.address == listener.address)
        });
        match conflict {
            Some((ticket, _)) => Err(ticket),
            None => Ok(self.slab.insert(listener)),
        }
    }

    /// Who a SYN of this flow is for.
    pub fn find(&self, key: &FlowKey) -> Option<Ticket> {
        self.slab
            .iter()
            .find(|(_, listener)| {
                listener.port == key.local_port && listener.address.is_none_or(|address| address == key.local)
            })
            .map(|(ticket, _)| ticket)
    }

    /// One of them.
    pub fn get(&self, ticket: Ticket) -> Option<&Listener> {
        self.slab.get(ticket)
    }

    /// Takes one out.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Listener> {
        self.slab.remove(ticket)
    }

    /// Whether another connection may wait; counts it if so.
    pub fn reserve(&mut self, ticket: Ticket) -> bool {
        match self.slab.get_mut(ticket) {
            Some(listener) if listener.waiting < u32::from(listener.backlog) => {
                listener.waiting += 1;
                true
            }
            _ => false,
        }
    }

    /// A connection was handed over, or is gone.
    pub fn release(&mut self, ticket: Ticket) {
        if let Some(listener) = self.slab.get_mut(ticket) {
            listener.waiting = listener.waiting.saturating_sub(1);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &Listener)> {
        self.slab.iter()
    }
}
