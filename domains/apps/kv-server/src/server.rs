//! The server: everything that commands work on, behind one lock.
//!
//! Commands are found and admitted in `dispatch.rs`; who waits for a key is in `waiting.rs`.
//!
//! A shard locks it, has it execute what its clients sent, and takes their output. Nothing here waits, and nothing here knows of sockets.

use crate::client::{Client, ClientFlags, ClientIndex};
use crate::clients::Clients;
use crate::command::Context;
use crate::commands::Table;
use crate::config::Config;
use crate::keyspace::Keyspace;
use crate::ledger::Ledger;
use crate::loading::Loaded;
use crate::protocol::{Arguments, Reply};
use crate::pubsub::PubSub;
use crate::slow_log::Timing;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Counters since the start or CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Commands executed.
    pub commands: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections turned away.
    pub rejected: u64,
    /// Keys found.
    pub hits: u64,
    /// Keys not found.
    pub misses: u64,
    /// Replies that are errors.
    pub errors: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Most memory that keys took.
    pub peak_bytes: usize,
    /// Calls and failures of each command that was used, by its place in the table.
    pub by_command: Vec<CommandStatistics>,
    /// Error replies by code.
    pub by_error: BTreeMap<String, u64>,
    /// Clients that were ended because their output took too much memory.
    pub output_limit: u64,
}

impl Statistics {
    /// Nothing counted, of so many commands.
    pub fn new(commands: usize) -> Statistics {
        Statistics {
            by_command: alloc::vec![CommandStatistics::default(); commands],
            ..Statistics::default()
        }
    }
}

/// Counters of one command.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandStatistics {
    /// Times it ran.
    pub calls: u64,
    /// Times it failed.
    pub failed: u64,
    /// Times it was refused before it ran.
    pub rejected: u64,
}

/// What a request was, as far as the connection is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It read or wrote keys.
    Data,
    /// It may have changed the client or the server.
    Other,
    /// The connection ends.
    Closing,
    /// It wasn't executed: it is to be given again later.
    Postponed,
}

/// How far the server is with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being read: share in percent.
    Loading(u8),
    /// All commands are served.
    Ready,
    /// The store takes no more: writes are refused.
    WriteFailed(interface::key_value::StoreError),
    /// It can't be read: no keys are served before it can.
    Unavailable(interface::key_value::StoreError),
    /// The manifest has none: nothing outlives a restart.
    Volatile,
}

/// The server.
pub struct Server {
    /// Keys and values.
    pub keyspace: Keyspace,
    /// Clients.
    pub clients: Clients,
    /// Who listens to what.
    pub pubsub: PubSub,
    /// The operator's and CONFIG's settings.
    pub config: Config,
    /// The commands.
    pub table: Table,
    /// Counters.
    pub statistics: Statistics,
    /// What was slow.
    pub timing: Timing,
    /// How far it is.
    pub phase: Phase,
    /// The newest group when writes began to fail; meaningful in [`Phase::WriteFailed`].
    pub unsettled: u64,
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
    /// A name of this start, 40 hexadecimal digits.
    pub run_id: String,
    /// For each shard the clients that have output or are to be ended, since it last looked.
    pub attention: Vec<Vec<ClientIndex>>,
    /// Where groups of changes go.
    pub ledger: Ledger,
    /// What the last start found.
    pub loaded: Loaded,
    /// Bytes of all connections' buffers.
    pub buffered_bytes: usize,
    /// Everything so far is to be durable before the next answers, whatever `appendfsync` says.
    pub settle_requested: bool,
    /// Keys are removed when they expire, not only when someone asks for them.
    pub active_expiry: bool,
    /// When the earliest of those who wait stops, milliseconds since 1970.
    pub(crate) next_timeout_ms: u64,
    /// Clients that wait, those that waited longest first.
    pub(crate) waiting: BTreeMap<u64, ClientIndex>,
    pub(crate) next_wait: u64,
    /// Clients that listen to all commands.
    pub monitors: Vec<ClientIndex>,
    /// Until when clients are paused, milliseconds since 1970, and whether for writes only.
    pub pause: Option<(u64, bool)>,
    /// Keys watched: each with the clients.
    pub watchers: BTreeMap<(usize, Box<[u8]>), Vec<ClientIndex>>,
}

impl Server {
    /// A server without clients; `seed` is unpredictable.
    pub fn new(config: Config, shards: u16, seed: u64, now_ms: u64) -> Server {
        let mut keyspace = Keyspace::new(seed, seed >> 8);
        keyspace.now_ms = now_ms;
        let run_id = (0..5)
            .map(|_| format!("{:08x}", keyspace.random() as u32))
            .collect();
        let table = Table::new();
        let statistics = Statistics::new(table.len());
        let timing = Timing::new(&config, || 0);
        Server {
            keyspace,
            clients: Clients::default(),
            pubsub: PubSub::default(),
            config,
            table,
            statistics,
            timing,
            phase: Phase::Loading(0),
            unsettled: 0,
            started_ms: now_ms,
            run_id,
            ledger: Ledger::default(),
            loaded: Loaded::default(),
            buffered_bytes: 0,
            settle_requested: false,
            active_expiry: true,
            next_timeout_ms: u64::MAX,
            attention: (0..shards).map(|_| Vec::new()).collect(),
            waiting: BTreeMap::new(),
            next_wait: 0,
            monitors: Vec::new(),
            pause: None,
            watchers: BTreeMap::new(),
        }
    }

    /// Has a client's shard look at it.
    pub fn call_attention(&mut self, index: ClientIndex) {
        if let Some(client) = self.clients.get_mut(index)
            && !client.flags.contains(ClientFlags::LISTED)
            && let Some(list) = self.attention.get_mut(usize::from(client.shard))
        {
            client.flags.insert(ClientFlags::LISTED);
            list.push(index);
        }
    }

    /// Executes one request of a client, of which `input_bytes` with what follows it have come; its reply goes into the client's output.
    #[inline]
    pub fn execute(&mut self, index: ClientIndex, arguments: Arguments<'_>, input_bytes: usize) -> After {
        let paused = self.pause.is_some() && self.is_paused_for(index, &arguments);
        let Some(client) = self.clients.get_mut(index) else {
            return After::Closing;
        };
        client.input_bytes = input_bytes;
        if client.blocked.is_some() || paused {
            client.flags.insert(ClientFlags::POSTPONED);
            return After::Postponed;
        }
        client.active_ms = self.keyspace.now_ms;
        let known = client
            .known_position(arguments.get(0))
            .filter(|_| client.is_plain())
            .and_then(|position| Some((position, self.table.get(position)?)));
        if let Some((_, command)) = known {
            client.last_command = command.name;
        }
        let mut context = Context {
            reply: Reply {
                bytes: core::mem::take(&mut client.output),
                resp3: client.resp3,
            },
            database: client.database,
            touches: !client.flags.contains(ClientFlags::NO_TOUCH) || arguments.is(0, "touch"),
            server: self,
            client: index,
            arguments,
            retried: false,
            deny_blocking: false,
        };
        let start = context.reply.bytes.len();
        let about_data = context.process(known);
        let reply = context.reply;
        let flags = self.finish_reply(index, reply, start);
        self.keyspace.journal.end_unit();
        self.after_command();
        if flags.intersects(ClientFlags::CLOSE | ClientFlags::KILLED) {
            After::Closing
        } else if about_data {
            After::Data
        } else {
            After::Other
        }
    }

    /// Puts a reply, which begins at `start` of its bytes, into the client's output, unless the client wants none.
    #[inline]
    pub(crate) fn finish_reply(&mut self, index: ClientIndex, mut reply: Reply, start: usize) -> ClientFlags {
        let Some(client) = self.clients.get_mut(index) else {
            return ClientFlags::KILLED;
        };
        let silent = ClientFlags::REPLY_OFF | ClientFlags::REPLY_SKIP;
        let skips = silent | ClientFlags::REPLY_SKIP_NEXT;
        if client.flags.intersects(skips) {
            if client.flags.intersects(silent) {
                reply.bytes.truncate(start);
                client.flags.remove(ClientFlags::REPLY_SKIP);
            }
            if client.flags.contains(ClientFlags::REPLY_SKIP_NEXT) {
                client.flags.remove(ClientFlags::REPLY_SKIP_NEXT);
                client.flags.insert(ClientFlags::REPLY_SKIP);
            }
        }
        // What was pushed to the client while it ran comes behind its reply.
        if !client.output.is_empty() {
            reply.bytes.append(&mut client.output);
        }
        client.output = reply.bytes;
        client.flags
    }

    /// What a command's changes bring about for others.
    #[inline]
    pub(crate) fn after_command(&mut self) {
        if !self.keyspace.touched.is_empty()
            || !self.keyspace.events.is_empty()
            || !self.keyspace.touched_databases.is_empty()
        {
            self.tell_changes();
        }
    }

    /// Tells transactions, subscribers and waiting clients of what has changed.
    #[cold]
    pub fn tell_changes(&mut self) {
        // A client that goes on may change keys itself.
        for _ in 0..1000 {
            self.publish_events();
            let touched = core::mem::take(&mut self.keyspace.touched);
            let databases = core::mem::take(&mut self.keyspace.touched_databases);
            if touched.is_empty() && databases.is_empty() {
                return;
            }
            self.invalidate_watchers(&touched, &databases);
            self.serve_waiting(&touched, &databases);
        }
    }

    fn publish_events(&mut self) {
        for event in core::mem::take(&mut self.keyspace.events) {
            self.publish_event(&event);
        }
    }

    /// When there is something to do by time, milliseconds since 1970.
    #[inline]
    pub fn next_deadline_ms(&self) -> u64 {
        if let Some((until_ms, _)) = self.pause {
            return self.next_deadline_in_pause_ms(until_ms);
        }
        if self.keyspace.has_remains() {
            return self.keyspace.now_ms;
        }
        let expiry_ms = if self.active_expiry {
            self.keyspace.next_expiry_ms()
        } else {
            u64::MAX
        };
        expiry_ms.min(self.next_timeout_ms)
    }

    /// Does what is due by time, a bounded part of it.
    #[cold]
    pub fn do_due(&mut self) {
        let now_ms = self.keyspace.now_ms;
        if self.pause.is_some_and(|(until_ms, _)| until_ms <= now_ms) {
            self.end_pause();
        }
        if self.is_paused_for_all() {
            return;
        }
        if self.active_expiry && self.pause.is_none() && self.keyspace.next_expiry_ms() <= now_ms {
            self.keyspace.expire_due(200);
            self.tell_changes();
        }
        if self.next_timeout_ms <= now_ms {
            self.expire_waiting();
        }
        self.keyspace.remove_remains(200);
    }

    /// Whether keys and values take no more memory than `maxmemory` allows.
    #[inline]
    pub(crate) fn memory_is_left(&self) -> bool {
        let most = self.config.maximum_memory_bytes;
        most == 0 || self.keyspace.used_bytes as u64 <= most
    }

    /// A connection is there.
    pub fn connect(&mut self, client: impl FnOnce(u64) -> Client) -> ClientIndex {
        self.statistics.connections += 1;
        let index = self.clients.add(client);
        let open = self.config.password.is_none();
        if let Some(client) = self.clients.get_mut(index)
            && open
        {
            client.flags.insert(ClientFlags::AUTHENTICATED);
        }
        index
    }

    /// A connection is gone.
    pub fn disconnect(&mut self, index: ClientIndex) {
        self.unsubscribe_all(index);
        self.unwatch(index);
        self.monitors.retain(|monitor| *monitor != index);
        if let Some(client) = self.clients.remove(index) {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(client.buffered_bytes);
            if client.flags.contains(ClientFlags::LISTED)
                && let Some(list) = self.attention.get_mut(usize::from(client.shard))
            {
                list.retain(|listed| *listed != index);
            }
            if let Some(blocked) = client.blocked {
                self.stop_waiting(blocked.since, &blocked.keys);
            }
        }
    }
}
