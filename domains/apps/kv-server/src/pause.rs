//! CLIENT PAUSE: whom it holds up, and what doesn't happen meanwhile.

use crate::client::{Client, ClientFlags, ClientIndex};
use crate::command::{Command, Flags};
use crate::protocol::Arguments;
use crate::server::Server;
use alloc::vec::Vec;

impl Server {
    /// Whether all clients are held up, not only those that write.
    pub(crate) fn is_paused_for_all(&self) -> bool {
        self.pause.is_some_and(|(_, writes_only)| !writes_only)
    }

    /// When there is something to do by time in a pause that lasts until `until_ms`: nothing expires and nothing is removed.
    #[cold]
    pub(crate) fn next_deadline_in_pause_ms(&self, until_ms: u64) -> u64 {
        if self.is_paused_for_all() {
            return until_ms;
        }
        if self.keyspace.has_remains() {
            return self.keyspace.now_ms;
        }
        until_ms.min(self.next_timeout_ms)
    }

    /// Clients that are held up.
    pub fn paused_count(&self) -> usize {
        let held_up =
            |client: &Client| client.flags.contains(ClientFlags::POSTPONED) && client.blocked.is_none();
        match self.pause {
            Some(_) => self.clients.iter().filter(|(_, client)| held_up(client)).count(),
            None => 0,
        }
    }

    /// Ends the pause.
    pub fn end_pause(&mut self) {
        self.pause = None;
        self.keyspace.keeps_expired = false;
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

    /// Whether the pause holds up a request of a client.
    #[cold]
    pub(crate) fn is_paused_for(&mut self, index: ClientIndex, arguments: &Arguments<'_>) -> bool {
        // From here on, so that what a transaction does behind CLIENT PAUSE finds things as they are.
        self.keyspace.keeps_expired = true;
        let command = self
            .table
            .find(arguments.get(0), arguments.get(1))
            .and_then(|position| self.table.get(position));
        // Who asks for nothing that there is hears that at once.
        let Some(command) = command.filter(|command| command.takes(arguments.len())) else {
            return false;
        };
        // What ends a pause isn't paused.
        if command.name.starts_with("client") {
            return false;
        }
        self.is_paused_for_all()
            || match command.name {
                "exec" => self.transaction_writes(index),
                _ => may_write(command),
            }
    }

    /// Whether a command that writes waits for EXEC.
    fn transaction_writes(&self, index: ClientIndex) -> bool {
        let queued = self.clients.get(index).map(|client| client.queued.as_slice());
        queued.unwrap_or_default().iter().any(|queued| {
            let arguments = queued.arguments();
            let place = self.table.find(arguments.get(0), arguments.get(1));
            place
                .and_then(|place| self.table.get(place))
                .is_some_and(may_write)
        })
    }
}

/// Whether a pause of writes holds a command up.
fn may_write(command: &Command) -> bool {
    command.flags.contains(Flags::WRITE) || matches!(command.name, "publish" | "spublish" | "pfcount")
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn nothing_expires_in_a_pause() {
        let mut bench = Bench::default();
        bench.run("set a 1 px 10");
        bench.run("client pause 1000 write");
        bench.run("ping");
        bench.server.keyspace.now_ms += 100;
        assert_eq!(bench.run("get a"), "$-1\r\n");
        assert_eq!(bench.server.keyspace.expired, 0);
        assert_eq!(bench.run("set b 1"), "");
        assert_eq!(
            bench.run("set b"),
            "-ERR wrong number of arguments for 'set' command\r\n"
        );
        bench.run("client unpause");
        assert_eq!(bench.run("get a"), "$-1\r\n");
        assert_eq!(bench.server.keyspace.expired, 1);
    }
}
