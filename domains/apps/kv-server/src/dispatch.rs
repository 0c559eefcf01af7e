//! From a request to its command: look-up, admission, running, counting.

use crate::client::{ClientFlags, KnownName};
use crate::command::{Command, Context, Flags};
use crate::error::CommandError;
use crate::server::Phase;
use alloc::format;
use alloc::string::String;

impl Context<'_> {
    /// Where the command is in the table. Clients repeat themselves, so the answer is kept for the next time.
    fn look_up(&mut self) -> Option<usize> {
        let name = self.argument(0);
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

    /// Looks the command up, checks that it may run, and runs it; whether it is one that reads or writes keys. `known` is the command and its place in the
    /// table if the client used it last, and is plain.
    #[inline]
    pub(crate) fn process(&mut self, known: Option<(usize, &'static Command)>) -> bool {
        // What is ordinary is found out by few looks.
        if let Some((position, command)) = known
            && command.takes(self.arguments.len())
            && self.server.phase == Phase::Ready
            && (!command.flags.contains(Flags::DENYOOM) || self.server.memory_is_left())
        {
            self.run(position, command);
            return command.flags.intersects(Flags::READONLY | Flags::WRITE);
        }
        self.process_with_care()
    }

    #[cold]
    fn process_with_care(&mut self) -> bool {
        let Some(position) = self.look_up() else {
            self.reject_unknown();
            return false;
        };
        let Some(command) = self.server.table.get(position) else {
            return false;
        };
        if let Err(error) = self.admit(command) {
            if let Some(counters) = self.server.statistics.by_command.get_mut(position) {
                counters.rejected += 1;
            }
            self.refuse(&error);
            return false;
        }
        if let Some(client) = self.own_mut() {
            client.last_command = command.name;
            if client.flags.contains(ClientFlags::MULTI)
                && !crate::commands::transactions::runs_at_once(command.name)
            {
                self.queue();
                return false;
            }
        }
        self.run(position, command);
        command.flags.intersects(Flags::READONLY | Flags::WRITE)
    }

    pub(crate) fn run_again(&mut self) {
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
        let is_timed = self.server.timing.wants(command);
        let start_ns = if is_timed {
            (self.server.timing.clock_ns)()
        } else {
            0
        };
        let result = (command.run)(self);
        if let Some(counters) = self.server.statistics.by_command.get_mut(position) {
            counters.calls += u64::from(!self.retried);
            if result.is_err() {
                counters.failed += 1;
            }
        }
        if is_timed {
            self.note_time(command, start_ns);
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
