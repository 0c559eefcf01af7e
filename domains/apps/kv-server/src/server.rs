//! The server: everything that commands work on, behind one lock.
//!
//! A shard locks it, has it execute what its clients sent, and takes their output. Nothing here waits, and nothing here knows of sockets.

use crate::client::{Blocked, Client, ClientFlags, ClientIndex, KnownName, TimeoutReply};
use crate::clients::Clients;
use crate::command::{Command, Context, Flags};
use crate::commands::Table;
use crate::config::Config;
use crate::error::CommandError;
use crate::keyspace::Keyspace;
use crate::ledger::Ledger;
use crate::loading::Loaded;
use crate::protocol::{Arguments, OwnedCommand, Reply};
use crate::pubsub::PubSub;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of output that a client keeps room for between rounds.
const IDLE_OUTPUT_BYTES: usize = 64 * 1024;

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
    /// How far it is.
    pub phase: Phase,
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
    next_timeout_ms: u64,
    /// Clients that wait, those that waited longest first.
    waiting: BTreeMap<u64, ClientIndex>,
    next_wait: u64,
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
        Server {
            keyspace,
            clients: Clients::default(),
            pubsub: PubSub::default(),
            config,
            table,
            statistics,
            phase: Phase::Loading(0),
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
        let paused = self.pause.is_some() && self.is_paused_for(&arguments);
        let Some(client) = self.clients.get_mut(index) else {
            return After::Closing;
        };
        client.input_bytes = input_bytes;
        if client.blocked.is_some() || paused {
            client.flags.insert(ClientFlags::POSTPONED);
            return After::Postponed;
        }
        client.active_ms = self.keyspace.now_ms;
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
        let about_data = context.process();
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
    fn finish_reply(&mut self, index: ClientIndex, mut reply: Reply, start: usize) -> ClientFlags {
        let Some(client) = self.clients.get_mut(index) else {
            return ClientFlags::KILLED;
        };
        let silent = ClientFlags::REPLY_OFF | ClientFlags::REPLY_SKIP;
        if client.flags.intersects(silent) {
            reply.bytes.truncate(start);
            client.flags.remove(ClientFlags::REPLY_SKIP);
        }
        if client.flags.contains(ClientFlags::REPLY_SKIP_NEXT) {
            client.flags.remove(ClientFlags::REPLY_SKIP_NEXT);
            client.flags.insert(ClientFlags::REPLY_SKIP);
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
    fn after_command(&mut self) {
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

    fn serve_waiting(&mut self, touched: &[(usize, Box<[u8]>)], databases: &[usize]) {
        if self.waiting.is_empty() {
            return;
        }
        let candidates: Vec<(u64, ClientIndex)> = self
            .waiting
            .iter()
            .filter(|(_, index)| {
                self.clients.get(**index).is_some_and(|client| {
                    databases.contains(&client.database)
                        || client.blocked.as_ref().is_some_and(|blocked| {
                            touched.iter().any(|(database, key)| {
                                *database == client.database && blocked.keys.contains(key)
                            })
                        })
                })
            })
            .map(|(since, index)| (*since, *index))
            .collect();
        for (since, index) in candidates {
            self.retry(since, index);
        }
    }

    /// Runs the command of a waiting client again.
    fn retry(&mut self, since: u64, index: ClientIndex) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let Some(blocked) = client.blocked.take() else {
            return;
        };
        let mut context = Context {
            reply: Reply {
                bytes: core::mem::take(&mut client.output),
                resp3: client.resp3,
            },
            database: client.database,
            touches: true,
            server: self,
            client: index,
            arguments: blocked.command.arguments(),
            retried: true,
            deny_blocking: false,
        };
        let start = context.reply.bytes.len();
        context.run_again();
        let reply = context.reply;
        self.finish_reply(index, reply, start);
        self.keyspace.journal.end_unit();
        match self
            .clients
            .get_mut(index)
            .and_then(|client| client.blocked.as_deref_mut())
        {
            // It waits on, at its old place and until its old time.
            Some(again) => {
                let newest = again.since;
                again.since = since;
                again.deadline_ms = blocked.deadline_ms;
                self.waiting.remove(&newest);
                self.waiting.insert(since, index);
            }
            None => {
                self.stop_waiting(since, &blocked.keys);
                self.call_attention(index);
            }
        }
        if let Some(client) = self.clients.get(index)
            && client.blocked.is_some()
        {
            // Interest was counted again when it blocked again.
            for key in &blocked.keys {
                self.keyspace.remove_interest(key);
            }
        }
    }

    fn stop_waiting(&mut self, since: u64, keys: &[Box<[u8]>]) {
        self.waiting.remove(&since);
        for key in keys {
            self.keyspace.remove_interest(key);
        }
    }

    /// Has a client wait. It is executed again when one of the keys changes.
    pub fn block(
        &mut self,
        index: ClientIndex,
        keys: Vec<Box<[u8]>>,
        command: OwnedCommand,
        timeout_ms: Option<u64>,
        timeout: TimeoutReply,
        _retried: bool,
    ) {
        for key in &keys {
            self.keyspace.add_interest(key);
        }
        let since = self.next_wait;
        self.next_wait += 1;
        self.waiting.insert(since, index);
        let now_ms = self.keyspace.now_ms;
        if let Some(timeout_ms) = timeout_ms {
            self.next_timeout_ms = self.next_timeout_ms.min(now_ms.saturating_add(timeout_ms));
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.blocked = Some(Box::new(Blocked {
                keys,
                command,
                deadline_ms: timeout_ms.map(|timeout_ms| now_ms.saturating_add(timeout_ms)),
                timeout,
                since,
            }));
        }
    }

    /// Ends a client's waiting, with what `reply` says; whether it waited.
    pub fn unblock(
        &mut self,
        index: ClientIndex,
        reply: impl FnOnce(&mut Server, &mut Reply, TimeoutReply),
    ) -> bool {
        let Some(client) = self.clients.get_mut(index) else {
            return false;
        };
        let Some(blocked) = client.blocked.take() else {
            return false;
        };
        let mut answer = Reply {
            bytes: core::mem::take(&mut client.output),
            resp3: client.resp3,
        };
        let start = answer.bytes.len();
        reply(self, &mut answer, blocked.timeout);
        self.finish_reply(index, answer, start);
        self.stop_waiting(blocked.since, &blocked.keys);
        self.call_attention(index);
        true
    }

    /// Writes what a client hears whose time to wait is over.
    pub fn reply_timeout(&self, reply: &mut Reply, timeout: TimeoutReply) {
        match timeout {
            TimeoutReply::NullArray => reply.null_array(),
            TimeoutReply::Null => reply.null(),
            TimeoutReply::Integer(value) => reply.integer(value),
        }
    }

    /// When there is something to do by time, milliseconds since 1970.
    #[inline]
    pub fn next_deadline_ms(&self) -> u64 {
        if self.keyspace.has_remains() {
            return self.keyspace.now_ms;
        }
        let pause_ms = self.pause.map_or(u64::MAX, |(until_ms, _)| until_ms);
        let expiry_ms = if self.active_expiry {
            self.keyspace.next_expiry_ms()
        } else {
            u64::MAX
        };
        expiry_ms.min(self.next_timeout_ms).min(pause_ms)
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
        if self.active_expiry && self.keyspace.next_expiry_ms() <= now_ms {
            self.keyspace.expire_due(200);
            self.tell_changes();
        }
        if self.next_timeout_ms <= now_ms {
            self.expire_waiting();
        }
        self.keyspace.remove_remains(200);
    }

    fn is_paused_for_all(&self) -> bool {
        self.pause.is_some_and(|(_, writes_only)| !writes_only)
    }

    /// Ends the waiting of those whose time is over.
    pub fn expire_waiting(&mut self) {
        let now_ms = self.keyspace.now_ms;
        let mut earliest = u64::MAX;
        let mut due = Vec::new();
        for index in self.waiting.values() {
            let deadline = self
                .clients
                .get(*index)
                .and_then(|client| client.blocked.as_ref()?.deadline_ms);
            match deadline {
                Some(deadline_ms) if deadline_ms <= now_ms => due.push(*index),
                Some(deadline_ms) => earliest = earliest.min(deadline_ms),
                None => {}
            }
        }
        self.next_timeout_ms = earliest;
        for index in due {
            self.unblock(index, |server, reply, timeout| {
                server.reply_timeout(reply, timeout)
            });
        }
    }

    /// Ends CLIENT PAUSE.
    pub fn end_pause(&mut self) {
        self.pause = None;
        let postponed: Vec<ClientIndex> = self
            .clients
            .iter()
            .filter(|(_, client)| client.flags.contains(ClientFlags::POSTPONED))
            .map(|(index, _)| index)
            .collect();
        for index in postponed {
            self.call_attention(index);
        }
    }

    #[cold]
    fn is_paused_for(&self, arguments: &Arguments<'_>) -> bool {
        let command = self
            .table
            .find(arguments.get(0), arguments.get(1))
            .and_then(|position| self.table.get(position));
        let Some(command) = command else { return false };
        // What ends a pause isn't paused.
        if command.name.starts_with("client") {
            return false;
        }
        let writes =
            command.flags.contains(Flags::WRITE) || matches!(command.name, "exec" | "publish" | "spublish");
        self.is_paused_for_all() || writes
    }

    /// Whether keys and values take no more memory than `maxmemory` allows.
    #[inline]
    fn memory_is_left(&self) -> bool {
        let most = self.config.maximum_memory_bytes;
        most == 0 || self.keyspace.used_bytes as u64 <= most
    }

    /// Clients that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
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

    /// Moves a client's output to `to`, which is empty; the client gets its room back.
    #[inline]
    pub fn take_output(&mut self, index: ClientIndex, to: &mut Vec<u8>) {
        if let Some(client) = self.clients.get_mut(index) {
            if to.is_empty() {
                core::mem::swap(to, &mut client.output);
            } else {
                to.append(&mut client.output);
            }
            if client.output.capacity() > IDLE_OUTPUT_BYTES {
                client.output = Vec::new();
            }
        }
    }
}

impl Context<'_> {
    /// Where the command is in the table. Clients repeat themselves, so the last answer is looked at first.
    #[inline]
    fn look_up(&mut self) -> Option<usize> {
        let name = self.argument(0);
        if let Some(client) = self.own()
            && let Some((known, position)) = &client.known_command
            && known.as_slice() == name
        {
            return Some(usize::from(*position));
        }
        let position = self.server.table.find(name, self.arguments.get(1))?;
        let is_container = self
            .server
            .table
            .get(position)
            .is_none_or(|command| command.name.contains('|') || command.flags.contains(Flags::CONTAINER));
        if !is_container
            && let Some(known) = KnownName::new(name)
            && let Some(client) = self.own_mut()
        {
            client.known_command = Some((known, position as u16));
        }
        Some(position)
    }

    /// Looks the command up, checks that it may run, and runs it; whether it is one that reads or writes keys.
    #[inline]
    fn process(&mut self) -> bool {
        let Some(position) = self.look_up() else {
            self.reject_unknown();
            return false;
        };
        let Some(command) = self.server.table.get(position) else {
            return false;
        };
        let has_room = !command.flags.contains(Flags::DENYOOM) || self.server.memory_is_left();
        let is_ready = has_room && self.server.phase == Phase::Ready;
        let Some(client) = self.server.clients.get_mut(self.client) else {
            return false;
        };
        let flags = client.flags;
        // What is ordinary is found out by few looks.
        let is_ordinary = command.takes(self.arguments.len())
            && flags.contains(ClientFlags::AUTHENTICATED)
            && !flags.contains(ClientFlags::MULTI)
            && is_ready
            && client.subscriptions() == 0;
        if is_ordinary {
            client.last_command = command.name;
            self.run(position, command);
            return command.flags.intersects(Flags::READONLY | Flags::WRITE);
        }
        self.process_with_care(position, command);
        false
    }

    #[cold]
    fn process_with_care(&mut self, position: usize, command: &'static Command) {
        if let Err(error) = self.admit(command) {
            if let Some(counters) = self.server.statistics.by_command.get_mut(position) {
                counters.rejected += 1;
            }
            return self.refuse(&error);
        }
        if let Some(client) = self.own_mut() {
            client.last_command = command.name;
            if client.flags.contains(ClientFlags::MULTI)
                && !crate::commands::transactions::runs_at_once(command.name)
            {
                return self.queue();
            }
        }
        self.run(position, command);
    }

    fn run_again(&mut self) {
        let name = self.argument(0);
        if let Some(position) = self.server.table.find(name, self.arguments.get(1))
            && let Some(command) = self.server.table.get(position)
        {
            self.run(position, command);
        }
    }

    /// Runs a command that may run.
    #[inline]
    pub fn run(&mut self, position: usize, command: &'static Command) {
        if !self.retried {
            self.server.statistics.commands += 1;
            if !self.server.monitors.is_empty() {
                self.show_monitors(command);
            }
        }
        let start = self.reply.bytes.len();
        let result = (command.run)(self);
        if let Some(counters) = self.server.statistics.by_command.get_mut(position) {
            counters.calls += u64::from(!self.retried);
            if result.is_err() {
                counters.failed += 1;
            }
        }
        if let Err(error) = result {
            // Whatever it had begun to say.
            self.reply.bytes.truncate(start);
            self.count_error(&error);
            self.reply.error(&error);
        }
    }

    /// Whether the command may run now.
    #[inline]
    fn admit(&mut self, command: &Command) -> Result<(), CommandError> {
        if !command.takes(self.arguments.len()) {
            return Err(CommandError::Arity(String::from(command.name)));
        }
        let flags = self.own().map_or(ClientFlags::empty(), |client| client.flags);
        if !flags.contains(ClientFlags::AUTHENTICATED) && !command.flags.contains(Flags::NO_AUTH) {
            return Err(CommandError::Plain("NOAUTH Authentication required."));
        }
        if command.flags.contains(Flags::NO_MULTI) && flags.contains(ClientFlags::MULTI) {
            return Err(CommandError::Plain(
                "ERR Command not allowed inside a transaction",
            ));
        }
        if command.flags.contains(Flags::DENYOOM) && !self.server.memory_is_left() {
            return Err(CommandError::Plain(
                "OOM command not allowed when used memory > 'maxmemory'.",
            ));
        }
        match self.server.phase {
            Phase::Ready | Phase::Volatile => {}
            Phase::Loading(_) if !command.flags.contains(Flags::LOADING) => {
                return Err(CommandError::Plain(
                    "LOADING Redis is loading the dataset in memory",
                ));
            }
            Phase::WriteFailed(error) if command.flags.contains(Flags::WRITE) => {
                return Err(CommandError::Text(format!(
                    "MISCONF Errors writing to the AOF file: {error}"
                )));
            }
            Phase::Unavailable(error) if !command.flags.contains(Flags::LOADING) => {
                return Err(CommandError::Text(format!(
                    "MISCONF The store can't be read: {error}"
                )));
            }
            Phase::Loading(_) | Phase::WriteFailed(_) | Phase::Unavailable(_) => {}
        }
        if let Some(client) = self.own()
            && client.is_subscriber()
            && !client.resp3
            && !crate::commands::pubsub::allowed_for_subscribers(command.name)
        {
            return Err(CommandError::Text(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.name
            )));
        }
        Ok(())
    }

    #[cold]
    fn reject_unknown(&mut self) {
        let text = crate::commands::unknown(&self.server.table, &self.arguments);
        self.refuse(&CommandError::Text(text));
    }

    /// Answers with an error before anything was done; a transaction that is being queued won't be executed.
    #[cold]
    fn refuse(&mut self, error: &CommandError) {
        if let Some(client) = self.own_mut()
            && client.flags.contains(ClientFlags::MULTI)
        {
            client.flags.insert(ClientFlags::DIRTY_EXEC);
        }
        self.count_error(error);
        self.reply.error(error);
    }

    #[cold]
    fn count_error(&mut self, error: &CommandError) {
        self.server.statistics.errors += 1;
        let text = format!("{error}");
        let code = text.split(' ').next().unwrap_or("ERR");
        // Codes are of our own making, so they are few.
        *self
            .server
            .statistics
            .by_error
            .entry(String::from(code))
            .or_default() += 1;
    }

    fn queue(&mut self) {
        let command = self.arguments.to_owned();
        if let Some(client) = self.own_mut() {
            client.queued.push(command);
        }
        self.reply.simple("QUEUED");
    }
}
