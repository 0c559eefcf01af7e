//! The table of clients.

use crate::client::{Client, ClientIndex};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Clients by index.
#[derive(Default)]
pub struct Clients {
    slots: Vec<Option<Box<Client>>>,
    free: Vec<u32>,
    next_id: u64,
}

impl Clients {
    /// Adds a client that `make` makes of its number.
    pub fn add(&mut self, make: impl FnOnce(u64) -> Client) -> ClientIndex {
        self.next_id += 1;
        let client = Some(Box::new(make(self.next_id)));
        match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.slots.get_mut(index as usize) {
                    *slot = client;
                }
                ClientIndex(index)
            }
            None => {
                self.slots.push(client);
                ClientIndex((self.slots.len() - 1) as u32)
            }
        }
    }

    /// A client.
    #[inline]
    pub fn get(&self, index: ClientIndex) -> Option<&Client> {
        self.slots.get(index.0 as usize)?.as_deref()
    }

    /// A client.
    #[inline]
    pub fn get_mut(&mut self, index: ClientIndex) -> Option<&mut Client> {
        self.slots.get_mut(index.0 as usize)?.as_deref_mut()
    }

    /// Takes a client out.
    pub fn remove(&mut self, index: ClientIndex) -> Option<Box<Client>> {
        let client = self.slots.get_mut(index.0 as usize)?.take()?;
        self.free.push(index.0);
        Some(client)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ClientIndex, &Client)> {
        self.slots.iter().enumerate().filter_map(|(index, client)| {
            client
                .as_deref()
                .map(|client| (ClientIndex(index as u32), client))
        })
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ClientIndex, &mut Client)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, client)| {
            client
                .as_deref_mut()
                .map(|client| (ClientIndex(index as u32), client))
        })
    }
}
