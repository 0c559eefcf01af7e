//! Commands: what the table says of each, and what one has while it runs.

use crate::client::{Client, ClientFlags, ClientIndex, TimeoutReply};
use crate::error::CommandError;
use crate::journal::{Journal, USER_KEY_LIMIT_BYTES};
use crate::keyspace::{Entry, Events};
use crate::number;
use crate::protocol::{Arguments, Reply};
use crate::server::Server;
use crate::stable_map::Slot;
use crate::value::{Collection, Kind, Value};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitflags::bitflags;

bitflags! {
    /// What a command does and where it may be used, named as COMMAND INFO names it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Changes keys.
        const WRITE = 1;
        /// Reads keys only.
        const READONLY = 1 << 1;
        /// May take more memory: refused when there is none left.
        const DENYOOM = 1 << 2;
        /// For operators.
        const ADMIN = 1 << 3;
        /// Publishes or subscribes.
        const PUBSUB = 1 << 4;
        /// May wait.
        const BLOCKING = 1 << 5;
        /// Answers while the store is being read.
        const LOADING = 1 << 6;
        /// Answers without data that is up to date.
        const STALE = 1 << 7;
        /// Takes constant or logarithmic time.
        const FAST = 1 << 8;
        /// Needs no password.
        const NO_AUTH = 1 << 9;
        /// Not in a transaction.
        const NO_MULTI = 1 << 10;
        /// Its keys aren't at fixed places.
        const MOVABLE_KEYS = 1 << 11;
        /// Not for scripts.
        const NOSCRIPT = 1 << 12;
        /// Not shown to MONITOR.
        const SKIP_MONITOR = 1 << 13;
        /// Has subcommands, which are commands of their own, named "command|subcommand".
        const CONTAINER = 1 << 14;
        /// Takes no longer than its request was long; no flag of Redis.
        const BRIEF = 1 << 15;
    }
}

/// Where a command's keys are: the first, the last (counted from the end if negative), and how many arguments from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Index of the first; 0 for no keys.
    pub first: i16,
    /// Index of the last; -1 is the last argument.
    pub last: i16,
    /// Arguments from one to the next.
    pub step: i16,
}

/// No keys.
pub const NO_KEYS: Keys = Keys {
    first: 0,
    last: 0,
    step: 0,
};
/// The first argument.
pub const ONE_KEY: Keys = Keys {
    first: 1,
    last: 1,
    step: 1,
};
/// Every argument.
pub const ALL_KEYS: Keys = Keys {
    first: 1,
    last: -1,
    step: 1,
};

/// What runs a command.
pub type Run = fn(&mut Context<'_>) -> Result<(), CommandError>;

/// A command.
pub struct Command {
    /// Its name in lower case; "config|get" for a subcommand.
    pub name: &'static str,
    /// Arguments with the name; at least so many if negative.
    pub arity: i16,
    /// What it does.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// Runs it.
    pub run: Run,
}

/// A command's line in a table.
pub const fn command(name: &'static str, arity: i16, flags: Flags, keys: Keys, run: Run) -> Command {
    Command {
        name,
        arity,
        flags,
        keys,
        run,
    }
}

impl Command {
    /// Whether so many arguments, the name among them, are right.
    #[inline]
    pub fn takes(&self, arguments: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            arguments >= least
        } else {
            arguments == least
        }
    }
}

/// What a command has while it runs: the server, locked; who asked; what; and where the answer goes.
pub struct Context<'a> {
    /// The server.
    pub server: &'a mut Server,
    /// Who asked.
    pub client: ClientIndex,
    /// What.
    pub arguments: Arguments<'a>,
    /// The answer.
    pub reply: Reply,
    /// The client's database.
    pub database: usize,
    /// What it looks up counts as used.
    pub touches: bool,
    /// The command waited for a key that has changed now.
    pub retried: bool,
    /// Waiting is no use: in a transaction, or where nobody is there to wait.
    pub deny_blocking: bool,
}

impl<'a> Context<'a> {
    /// The argument of this index; 0 is the command's name.
    #[inline]
    pub fn argument(&self, index: usize) -> &'a [u8] {
        self.arguments.get(index)
    }

    /// The argument of this index as an integer.
    ///
    /// # Errors
    /// When it is none.
    #[inline]
    pub fn integer(&self, index: usize) -> Result<i64, CommandError> {
        number::integer(self.argument(index)).ok_or(CommandError::NotInteger)
    }

    /// The argument of this index as a floating-point number.
    ///
    /// # Errors
    /// When it is none.
    pub fn float(&self, index: usize) -> Result<f64, CommandError> {
        number::float(self.argument(index)).ok_or(CommandError::NotFloat)
    }

    /// A time to wait in seconds, with decimals, as milliseconds; `None` for ever.
    ///
    /// # Errors
    /// When it is none, or negative.
    pub fn timeout_ms(&self, index: usize) -> Result<Option<u64>, CommandError> {
        let seconds = number::float(self.argument(index))
            .ok_or(CommandError::Plain("ERR timeout is not a float or out of range"))?;
        if seconds < 0.0 {
            return Err(CommandError::Plain("ERR timeout is negative"));
        }
        // Beyond this the sum with the time of day wouldn't be an integer of 64 bits.
        if seconds > 9_000_000_000_000_000.0 {
            return Err(CommandError::Plain("ERR timeout is out of range"));
        }
        let milliseconds = seconds * 1000.0;
        let whole = milliseconds as u64;
        let whole = whole + u64::from((whole as f64) < milliseconds);
        Ok((whole > 0).then_some(whole))
    }

    /// Who asked.
    pub fn own(&self) -> Option<&Client> {
        self.server.clients.get(self.client)
    }

    /// Who asked.
    pub fn own_mut(&mut self) -> Option<&mut Client> {
        self.server.clients.get_mut(self.client)
    }

    /// Whether the client is in a state.
    pub fn has_flag(&self, flag: ClientFlags) -> bool {
        self.own().is_some_and(|client| client.flags.contains(flag))
    }

    /// Where a key is in the client's database.
    #[inline]
    pub fn find(&mut self, key: &[u8]) -> Option<Slot> {
        let found = self.server.keyspace.find(self.database, key);
        match found {
            Some(slot) => {
                self.server.statistics.hits += 1;
                if self.touches {
                    self.server.keyspace.touch(self.database, slot);
                }
            }
            None => self.server.statistics.misses += 1,
        }
        found
    }

    /// Where a key is; asking is no use of it.
    pub fn look(&mut self, key: &[u8]) -> Option<Slot> {
        let touches = core::mem::replace(&mut self.touches, false);
        let found = self.find(key);
        self.touches = touches;
        found
    }

    /// What the key in a slot has.
    #[inline]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.server.keyspace.entry(self.database, slot)
    }

    /// Where the collection of type `T` of a key is; `None` if there is no such key.
    ///
    /// # Errors
    /// When the key holds another type.
    #[inline]
    pub fn collection<T: Collection>(&mut self, key: &[u8]) -> Result<Option<Slot>, CommandError> {
        let Some(slot) = self.find(key) else {
            return Ok(None);
        };
        match self.entry(slot).and_then(|entry| entry.value.downcast::<T>()) {
            Some(_) => Ok(Some(slot)),
            None => Err(CommandError::WrongType),
        }
    }

    /// The same, with an empty one made if there is no such key; the caller adds an element or removes the key again.
    ///
    /// # Errors
    /// When the key holds another type, or its name is too long.
    pub fn collection_or_new<T: Collection>(
        &mut self,
        key: &[u8],
        new: impl FnOnce(u64) -> T,
    ) -> Result<Slot, CommandError> {
        if let Some(slot) = self.collection::<T>(key)? {
            return Ok(slot);
        }
        let seed = self.server.keyspace.random();
        self.insert(key, Value::Collection(Box::new(new(seed))))
    }

    /// The collection in a slot.
    #[inline]
    pub fn get<T: Collection>(&self, slot: Slot) -> Option<&T> {
        self.entry(slot)?.value.downcast()
    }

    /// The collection in a slot to be changed, its identity, and the journal that is to hear of each element that changes.
    #[inline]
    pub fn get_mut<T: Collection>(&mut self, slot: Slot) -> Option<(&mut T, u64, &mut Journal)> {
        let (entry, journal) = self.server.keyspace.entry_and_journal(self.database, slot)?;
        let id = entry.id;
        Some((entry.value.downcast_mut()?, id, journal))
    }

    /// Puts a value under a key, whatever was there, and journals it with all of its elements.
    ///
    /// # Errors
    /// When the key's name is too long.
    pub fn insert(&mut self, key: &[u8], value: Value) -> Result<Slot, CommandError> {
        if key.len() > USER_KEY_LIMIT_BYTES {
            return Err(CommandError::KeyTooLong);
        }
        let database = self.database;
        let is_new = self.server.keyspace.find(database, key).is_none();
        let slot = self
            .server
            .keyspace
            .insert(database, key, value)
            .ok_or(CommandError::NoSuchKey)?;
        if is_new {
            self.server.keyspace.notify(Events::NEW, "new", database, key);
        }
        Ok(slot)
    }

    /// Journals the key's own entry: after a change of a collection's metadata.
    pub fn journal_key(&mut self, slot: Slot) {
        self.server.keyspace.journal_key(self.database, slot);
    }

    /// The key in a slot has changed: to be called by every command that changes one, after it did.
    #[inline]
    pub fn changed(&mut self, slot: Slot, class: Events, event: &'static str, key: &[u8]) {
        self.server.keyspace.changed(self.database, slot);
        self.server.keyspace.notify(class, event, self.database, key);
    }

    /// Removes the key in a slot; its elements follow by themselves.
    pub fn remove(&mut self, slot: Slot) {
        self.server.keyspace.remove(self.database, slot);
    }

    /// Removes the key in a slot if its collection has become empty, with the event "del"; whether it had.
    pub fn remove_if_empty(&mut self, slot: Slot, key: &[u8]) -> bool {
        let empty = self
            .entry(slot)
            .and_then(|entry| entry.value.collection())
            .is_some_and(Collection::is_empty);
        if empty {
            self.remove(slot);
            self.notify(Events::GENERIC, "del", key);
        }
        empty
    }

    /// Tells an event of a key.
    #[inline]
    pub fn notify(&mut self, class: Events, event: &'static str, key: &[u8]) {
        self.server.keyspace.notify(class, event, self.database, key);
    }

    /// Has the client wait until one of `keys` holds something that makes the command go on, or the time is over; then it hears `timeout`. In a
    /// transaction it hears that at once. The command is run again from its start when a key changes; it finds `retried` set.
    pub fn block(&mut self, keys: Vec<Box<[u8]>>, timeout_ms: Option<u64>, timeout: TimeoutReply) {
        if self.deny_blocking {
            self.server.reply_timeout(&mut self.reply, timeout);
            return;
        }
        let command = self.arguments.to_owned();
        self.server
            .block(self.client, keys, command, timeout_ms, timeout, self.retried);
    }

    /// The type of the key in a slot.
    pub fn kind(&self, slot: Slot) -> Option<Kind> {
        self.entry(slot).map(|entry| entry.value.kind())
    }
}
