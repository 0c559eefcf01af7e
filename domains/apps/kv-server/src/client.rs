//! What the server knows of a connection, wherever its socket lives.

use crate::protocol::{OwnedCommand, RequestLimits};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitflags::bitflags;
use core::net::SocketAddr;

/// Bytes of output that a client keeps room for between rounds.
const IDLE_OUTPUT_BYTES: usize = 64 * 1024;

/// Index of a client in the server's table; reused, so it goes with the client's `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientIndex(pub u32);

bitflags! {
    /// States of a client that may hold together.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ClientFlags: u32 {
        /// It has shown the password, or needs none.
        const AUTHENTICATED = 1;
        /// In MULTI: commands are queued.
        const MULTI = 1 << 1;
        /// A queued command was wrong: EXEC aborts.
        const DIRTY_EXEC = 1 << 2;
        /// A watched key changed: EXEC answers null.
        const DIRTY_CAS = 1 << 3;
        /// The connection ends when its output is sent.
        const CLOSE = 1 << 4;
        /// The connection ends now.
        const KILLED = 1 << 5;
        /// Gets every command as it is executed.
        const MONITOR = 1 << 6;
        /// CLIENT REPLY OFF.
        const REPLY_OFF = 1 << 7;
        /// CLIENT REPLY SKIP: the next reply is left out.
        const REPLY_SKIP_NEXT = 1 << 8;
        /// This one is.
        const REPLY_SKIP = 1 << 9;
        /// CLIENT NO-EVICT.
        const NO_EVICT = 1 << 10;
        /// CLIENT NO-TOUCH.
        const NO_TOUCH = 1 << 11;
        /// In its shard's list of clients with something to send.
        const LISTED = 1 << 12;
        /// Executing EXEC's commands.
        const EXECUTING = 1 << 13;
        /// It was paused in the middle of its requests, or blocked: what it sent since waits.
        const POSTPONED = 1 << 14;
    }
}

/// What a client hears when its time to wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReply {
    /// A null array.
    NullArray,
    /// A null.
    Null,
    /// This integer.
    Integer(i64),
}

/// What a client waits for.
#[derive(Debug)]
pub struct Blocked {
    /// The keys, in its database. None: only the time.
    pub keys: Vec<Box<[u8]>>,
    /// The command, which is executed again when one of them changes.
    pub command: OwnedCommand,
    /// When it ends, milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// What it hears then.
    pub timeout: TimeoutReply,
    /// Orders those who wait.
    pub since: u64,
}

/// A command's name as a client wrote it, if it is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownName {
    length: u8,
    bytes: [u8; 15],
}

impl KnownName {
    /// A name of at most 15 bytes.
    pub fn new(name: &[u8]) -> Option<KnownName> {
        let mut bytes = [0; 15];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(KnownName {
            length: name.len() as u8,
            bytes,
        })
    }

    /// Whether `name` is the name. It is short: a loop is done before a call of `memcmp` would be.
    #[inline]
    pub fn is(&self, name: &[u8]) -> bool {
        usize::from(self.length) == name.len() && self.bytes.iter().zip(name).all(|(own, other)| own == other)
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its number, never reused.
    pub id: u64,
    /// The shard that its socket lives on.
    pub shard: u16,
    /// Where that shard keeps it.
    pub place: u32,
    /// Where it connects from and to.
    pub remote: SocketAddr,
    /// The appliance's side.
    pub local: SocketAddr,
    /// Its states.
    pub flags: ClientFlags,
    /// Selected database.
    pub database: usize,
    /// It speaks RESP3.
    pub resp3: bool,
    /// CLIENT SETNAME.
    pub name: Box<[u8]>,
    /// CLIENT SETINFO LIB-NAME.
    pub library_name: Box<[u8]>,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: Box<[u8]>,
    /// When it connected, milliseconds since 1970.
    pub created_ms: u64,
    /// When it last sent a command.
    pub active_ms: u64,
    /// Its last command.
    pub last_command: &'static str,
    /// The name that it last used, and where that command is in the table.
    pub known_command: Option<(KnownName, u16)>,
    /// Commands that it queued in MULTI.
    pub queued: Vec<OwnedCommand>,
    /// Keys that it watches, with their databases, and whether the key had expired already.
    pub watched: Vec<(usize, Box<[u8]>)>,
    /// What it waits for.
    pub blocked: Option<Box<Blocked>>,
    /// Channels that it listens to.
    pub channels: Vec<Box<[u8]>>,
    /// Patterns of channels.
    pub patterns: Vec<Box<[u8]>>,
    /// Channels of SSUBSCRIBE.
    pub shard_channels: Vec<Box<[u8]>>,
    /// Replies to be sent, in order.
    pub output: Vec<u8>,
    /// Bytes that its shard has yet to send, as of the last round.
    pub unsent_bytes: usize,
    /// Bytes of its unfinished request.
    pub input_bytes: usize,
    /// Bytes of both that are counted in the server's sum.
    pub buffered_bytes: usize,
    /// When its output first passed the soft limit, milliseconds since 1970.
    pub soft_limit_since_ms: Option<u64>,
}

impl Client {
    /// A client that has just connected.
    pub fn new(
        id: u64,
        shard: u16,
        place: u32,
        remote: SocketAddr,
        local: SocketAddr,
        now_ms: u64,
    ) -> Client {
        Client {
            id,
            shard,
            place,
            remote,
            local,
            flags: ClientFlags::default(),
            database: 0,
            resp3: false,
            name: Box::default(),
            library_name: Box::default(),
            library_version: Box::default(),
            created_ms: now_ms,
            active_ms: now_ms,
            last_command: "NULL",
            known_command: None,
            queued: Vec::new(),
            watched: Vec::new(),
            blocked: None,
            channels: Vec::new(),
            patterns: Vec::new(),
            shard_channels: Vec::new(),
            output: Vec::new(),
            unsent_bytes: 0,
            input_bytes: 0,
            buffered_bytes: 0,
            soft_limit_since_ms: None,
        }
    }

    /// Where the command is in the table that it last used, if `name` is its name.
    #[inline]
    pub fn known_position(&self, name: &[u8]) -> Option<usize> {
        match &self.known_command {
            Some((known, position)) if known.is(name) => Some(usize::from(*position)),
            _ => None,
        }
    }

    /// Whether nothing but its authentication says how its commands are executed.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags == ClientFlags::AUTHENTICATED && self.subscriptions() == 0
    }

    /// Moves its output to the end of `to`; it gets the room of one that is empty.
    #[inline]
    pub fn take_output(&mut self, to: &mut Vec<u8>) {
        if to.is_empty() {
            core::mem::swap(to, &mut self.output);
        } else {
            to.append(&mut self.output);
        }
        if self.output.capacity() > IDLE_OUTPUT_BYTES {
            self.output = Vec::new();
        }
    }

    /// The limits of its requests, where an argument has so many bytes at most.
    #[inline]
    pub fn request_limits(&self, bulk_bytes: u64) -> RequestLimits {
        RequestLimits {
            bulk_bytes,
            authenticated: self.flags.contains(ClientFlags::AUTHENTICATED),
        }
    }

    /// Whether it is in a state for subscriptions alone (RESP2).
    #[inline]
    pub fn is_subscriber(&self) -> bool {
        self.subscriptions() > 0
    }

    /// Channels and patterns that it listens to.
    #[inline]
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }
}
