//! What touches clients from outside their own requests: MONITOR's lines, and the limits of their output.

use crate::client::{ClientFlags, ClientIndex};
use crate::command::{Command, Context, Flags};
use crate::server::Server;
use alloc::format;
use alloc::vec::Vec;

impl Context<'_> {
    /// Shows the command to those who listen to all.
    #[cold]
    pub fn show_monitors(&mut self, command: &Command) {
        if command.flags.intersects(Flags::SKIP_MONITOR | Flags::ADMIN) {
            return;
        }
        self.tell_monitors();
    }

    /// The same, whatever command it is.
    pub fn tell_monitors(&mut self) {
        let now_ms = self.server.keyspace.now_ms;
        let from = self
            .own()
            .map(|client| format!("{}", client.remote))
            .unwrap_or_default();
        let mut line = format!(
            "+{}.{:06} [{} {from}]",
            now_ms / 1000,
            now_ms % 1000 * 1000,
            self.database
        )
        .into_bytes();
        for argument in self.arguments.from(0) {
            line.extend_from_slice(b" \"");
            escape(argument, &mut line);
            line.push(b'"');
        }
        line.extend_from_slice(b"\r\n");
        for index in self.server.monitors.clone() {
            self.server
                .push(index, |reply| reply.bytes.extend_from_slice(&line));
        }
    }
}

/// Writes bytes so that they can be read on one line of ASCII.
pub fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            0x20..0x7f => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

impl Server {
    /// Ends a client whose output takes too much memory.
    pub fn check_output_limit(&mut self, index: ClientIndex) {
        let now_ms = self.keyspace.now_ms;
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let limit = if client.is_subscriber() {
            self.config.pubsub_output
        } else {
            self.config.normal_output
        };
        let bytes = (client.output.len() + client.unsent_bytes) as u64;
        let over = |limit: u64| limit > 0 && bytes > limit;
        let since_ms = match (over(limit.soft_bytes), client.soft_limit_since_ms) {
            (false, _) => None,
            (true, None) => Some(now_ms),
            (true, since) => since,
        };
        client.soft_limit_since_ms = since_ms;
        let too_long = since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) > limit.soft_s * 1000);
        if over(limit.hard_bytes) || too_long {
            client.flags.insert(ClientFlags::KILLED);
            client.output = Vec::new();
            self.statistics.output_limit += 1;
        }
    }
}
