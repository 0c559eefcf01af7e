//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.

use crate::client::{ClientFlags, ClientIndex};
use crate::command::{ALL_KEYS, Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::server::Server;
use alloc::boxed::Box;

/// The table.
pub const COMMANDS: &[Command] = &[
    command("multi", 1, FLAGS, NO_KEYS, multi),
    command("exec", 1, FLAGS.union(Flags::SKIP_MONITOR), NO_KEYS, exec),
    command("discard", 1, FLAGS, NO_KEYS, discard),
    command("watch", -2, FLAGS, ALL_KEYS, watch),
    command("unwatch", 1, FLAGS, NO_KEYS, unwatch),
];

const FLAGS: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST);

/// Whether a command isn't queued in a transaction.
pub fn runs_at_once(name: &str) -> bool {
    matches!(name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

fn multi(context: &mut Context<'_>) -> Result<(), CommandError> {
    let Some(client) = context.own_mut() else {
        return Ok(());
    };
    if client.flags.contains(ClientFlags::MULTI) {
        return Err(CommandError::Plain("ERR MULTI calls can not be nested"));
    }
    client.flags.insert(ClientFlags::MULTI);
    context.reply.ok();
    Ok(())
}

fn discard(context: &mut Context<'_>) -> Result<(), CommandError> {
    if !context.has_flag(ClientFlags::MULTI) {
        return Err(CommandError::Plain("ERR DISCARD without MULTI"));
    }
    context.server.end_transaction(context.client);
    context.reply.ok();
    Ok(())
}

fn exec(context: &mut Context<'_>) -> Result<(), CommandError> {
    let result = execute(context);
    // Those who listen to all hear of EXEC behind what it executed.
    if !context.server.monitors.is_empty() {
        context.tell_monitors();
    }
    result
}

fn execute(context: &mut Context<'_>) -> Result<(), CommandError> {
    let now_ms = context.server.keyspace.now_ms;
    if !context.has_flag(ClientFlags::MULTI) {
        return Err(CommandError::Plain("ERR EXEC without MULTI"));
    }
    let expired = context.server.watches_expired(context.client);
    let Some(client) = context.own_mut() else {
        return Ok(());
    };
    client.active_ms = now_ms;
    let flags = client.flags;
    let queued = core::mem::take(&mut client.queued);
    context.server.end_transaction(context.client);
    if flags.contains(ClientFlags::DIRTY_EXEC) {
        return Err(CommandError::Plain(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    if flags.contains(ClientFlags::DIRTY_CAS) || expired {
        context.reply.null_array();
        return Ok(());
    }
    context.reply.array(queued.len());
    if let Some(client) = context.own_mut() {
        client.flags.insert(ClientFlags::EXECUTING);
    }
    for one in &queued {
        let Some(client) = context.own() else { break };
        let (database, resp3) = (client.database, client.resp3);
        let arguments = one.arguments();
        let Some(position) = context.server.table.find(arguments.get(0), arguments.get(1)) else {
            continue;
        };
        let Some(command) = context.server.table.get(position) else {
            continue;
        };
        let mut reply = core::mem::take(&mut context.reply);
        reply.resp3 = resp3;
        let mut inner = Context {
            server: &mut *context.server,
            client: context.client,
            arguments,
            reply,
            database,
            touches: context.touches,
            retried: false,
            deny_blocking: true,
        };
        inner.run(position, command);
        context.reply = inner.reply;
    }
    if let Some(client) = context.own_mut() {
        client.flags.remove(ClientFlags::EXECUTING);
    }
    Ok(())
}

fn watch(context: &mut Context<'_>) -> Result<(), CommandError> {
    if context.has_flag(ClientFlags::MULTI) {
        return Err(CommandError::Plain("ERR WATCH inside MULTI is not allowed"));
    }
    for key in context.arguments.from(1) {
        context.server.watch(context.client, context.database, key);
    }
    context.reply.ok();
    Ok(())
}

fn unwatch(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.server.unwatch(context.client);
    context.reply.ok();
    Ok(())
}

impl Server {
    /// Ends a client's transaction, executed or not.
    pub fn end_transaction(&mut self, index: ClientIndex) {
        self.unwatch(index);
        if let Some(client) = self.clients.get_mut(index) {
            client.queued.clear();
            client
                .flags
                .remove(ClientFlags::MULTI | ClientFlags::DIRTY_EXEC | ClientFlags::DIRTY_CAS);
        }
    }

    fn watch(&mut self, index: ClientIndex, database: usize, key: &[u8]) {
        // A key that has expired is gone, and its going is no change.
        self.keyspace.find(database, key);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if client
            .watched
            .iter()
            .any(|(other, watched)| *other == database && **watched == *key)
        {
            return;
        }
        client.watched.push((database, key.into()));
        self.keyspace.add_interest(key);
        self.watchers
            .entry((database, key.into()))
            .or_default()
            .push(index);
    }

    /// Has a client watch nothing.
    pub fn unwatch(&mut self, index: ClientIndex) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.flags.remove(ClientFlags::DIRTY_CAS);
        if client.watched.is_empty() {
            return;
        }
        for place in core::mem::take(&mut client.watched) {
            self.keyspace.remove_interest(&place.1);
            if let Some(list) = self.watchers.get_mut(&place) {
                list.retain(|other| *other != index);
                if list.is_empty() {
                    self.watchers.remove(&place);
                }
            }
        }
    }

    /// Whether a key that a client watches has expired since.
    fn watches_expired(&mut self, index: ClientIndex) -> bool {
        let Some(client) = self.clients.get(index) else {
            return false;
        };
        let now_ms = self.keyspace.now_ms;
        client.watched.iter().any(|(database, key)| {
            let Some(space) = self.keyspace.database(*database) else {
                return false;
            };
            space
                .keys
                .find(key)
                .and_then(|slot| space.keys.get(slot))
                .is_some_and(|entry| {
                    entry.expires_ms != crate::keyspace::NEVER_MS && entry.expires_ms <= now_ms
                })
        })
    }

    /// Has the transactions fail that watch what has changed.
    pub fn invalidate_watchers(&mut self, touched: &[(usize, Box<[u8]>)], databases: &[usize]) {
        if self.watchers.is_empty() {
            return;
        }
        let mut dirty = alloc::vec::Vec::new();
        for place in touched {
            if let Some(list) = self.watchers.get(place) {
                dirty.extend_from_slice(list);
            }
        }
        for (place, list) in &self.watchers {
            if databases.contains(&place.0) {
                dirty.extend_from_slice(list);
            }
        }
        for index in dirty {
            if let Some(client) = self.clients.get_mut(index) {
                client.flags.insert(ClientFlags::DIRTY_CAS);
            }
        }
    }
}
