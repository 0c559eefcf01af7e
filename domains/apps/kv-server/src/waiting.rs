//! Clients that wait for a key: BLPOP and its kin.
//!
//! A client that waits has its command run again when one of its keys changes, those who waited longest first. It stops waiting when the command
//! has something to say, when its time is over, or when it is told to.

use crate::client::{Blocked, ClientIndex, TimeoutReply};
use crate::command::Context;
use crate::protocol::{OwnedCommand, Reply};
use crate::server::Server;
use alloc::boxed::Box;
use alloc::vec::Vec;

impl Server {
    pub(crate) fn serve_waiting(&mut self, touched: &[(usize, Box<[u8]>)], databases: &[usize]) {
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

    pub(crate) fn stop_waiting(&mut self, since: u64, keys: &[Box<[u8]>]) {
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

    /// Clients that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }
}
