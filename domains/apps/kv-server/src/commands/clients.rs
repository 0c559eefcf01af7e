//! CLIENT LIST, KILL, PAUSE and UNBLOCK: connections as an operator sees them.

use crate::client::{Client, ClientFlags, ClientIndex};
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

const CLIENT: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);
const ADMIN: Flags = CLIENT.union(Flags::ADMIN);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("client|info", 2, CLIENT, NO_KEYS, information),
    command("client|list", -2, ADMIN, NO_KEYS, list),
    command("client|kill", -3, ADMIN, NO_KEYS, kill),
    command("client|pause", -3, ADMIN, NO_KEYS, pause),
    command("client|unpause", 2, ADMIN, NO_KEYS, unpause),
    command("client|unblock", -3, ADMIN, NO_KEYS, unblock),
];

/// A client's line in CLIENT LIST.
fn describe(client: &Client, now_ms: u64, line: &mut String) {
    let mut flags = String::new();
    for (flag, letter) in [
        (ClientFlags::MONITOR, 'O'),
        (ClientFlags::MULTI, 'x'),
        (ClientFlags::DIRTY_CAS, 'd'),
        (ClientFlags::NO_EVICT, 'e'),
        (ClientFlags::NO_TOUCH, 'T'),
        (ClientFlags::CLOSE, 'c'),
        (ClientFlags::KILLED, 'A'),
    ] {
        if client.flags.contains(flag) {
            flags.push(letter);
        }
    }
    if client.blocked.is_some() {
        flags.push('b');
    }
    if client.is_subscriber() {
        flags.push('P');
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let queued = if client.flags.contains(ClientFlags::MULTI) {
        client.queued.len() as i64
    } else {
        -1
    };
    let output = client.output.len() + client.unsent_bytes;
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={queued} qbuf={} qbuf-free=0 argv-mem=0 multi-mem={} rbs=0 rbp=0 obl={output} oll=0 omem={output} tot-mem={} events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.remote,
        client.local,
        client.place,
        String::from_utf8_lossy(&client.name),
        now_ms.saturating_sub(client.created_ms) / 1000,
        now_ms.saturating_sub(client.active_ms) / 1000,
        client.database,
        client.channels.len(),
        client.patterns.len(),
        client.shard_channels.len(),
        client.input_bytes,
        client
            .queued
            .iter()
            .map(|command| command.memory_bytes())
            .sum::<usize>(),
        size_of::<Client>() + client.output.capacity() + client.input_bytes,
        client.last_command,
        if client.resp3 { 3 } else { 2 },
        String::from_utf8_lossy(&client.library_name),
        String::from_utf8_lossy(&client.library_version),
    );
}

fn information(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut text = String::new();
    if let Some(client) = context.own() {
        describe(client, context.server.keyspace.now_ms, &mut text);
    }
    context.reply.verbatim(text.as_bytes());
    Ok(())
}

/// Whether a client is of a kind, as CLIENT LIST TYPE and KILL TYPE name them.
fn is_kind(client: &Client, kind: &[u8]) -> bool {
    match kind {
        b"normal" => !client.is_subscriber(),
        b"pubsub" => client.is_subscriber(),
        _ => false,
    }
}

fn checked_kind(kind: &[u8]) -> Result<Vec<u8>, CommandError> {
    let lower = kind.to_ascii_lowercase();
    if matches!(
        lower.as_slice(),
        b"normal" | b"pubsub" | b"master" | b"replica" | b"slave"
    ) {
        return Ok(lower);
    }
    let kind = String::from_utf8_lossy(kind).into_owned();
    Err(CommandError::Text(format!("ERR Unknown client type '{kind}'")))
}

fn list(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.arguments.len();
    let mut kind = None;
    let mut ids = None;
    if count == 4 && context.arguments.is(2, "type") {
        kind = Some(checked_kind(context.argument(3))?);
    } else if count > 3 && context.arguments.is(2, "id") {
        let mut wanted = Vec::new();
        for index in 3..count {
            let id = context
                .integer(index)
                .map_err(|_| CommandError::Plain("ERR Invalid client ID"))?;
            wanted.push(id as u64);
        }
        ids = Some(wanted);
    } else if count != 2 {
        return Err(CommandError::Syntax);
    }
    let now_ms = context.server.keyspace.now_ms;
    let mut found: Vec<&Client> = context
        .server
        .clients
        .iter()
        .map(|(_, client)| client)
        .filter(|client| kind.as_ref().is_none_or(|kind| is_kind(client, kind)))
        .filter(|client| ids.as_ref().is_none_or(|ids: &Vec<u64>| ids.contains(&client.id)))
        .collect();
    found.sort_by_key(|client| client.id);
    let mut text = String::new();
    for client in found {
        describe(client, now_ms, &mut text);
    }
    context.reply.verbatim(text.as_bytes());
    Ok(())
}

/// What CLIENT KILL chooses by.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    kind: Option<Vec<u8>>,
    remote: Option<String>,
    local: Option<String>,
    user: Option<Vec<u8>>,
    with_own: bool,
}

fn kill(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.arguments.len();
    let text = |index| String::from_utf8_lossy(context.arguments.get(index)).into_owned();
    let mut filter = Filter::default();
    if count == 3 {
        filter.remote = Some(text(2));
        filter.with_own = true;
    } else {
        if count % 2 == 1 {
            return Err(CommandError::Syntax);
        }
        for index in (2..count).step_by(2) {
            match context.argument(index).to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = context.integer(index + 1).ok().filter(|id| *id > 0);
                    let id = id.ok_or(CommandError::Plain("ERR client-id should be greater than 0"))?;
                    filter.id = Some(id as u64);
                }
                b"type" => filter.kind = Some(checked_kind(context.argument(index + 1))?),
                b"addr" => filter.remote = Some(text(index + 1)),
                b"laddr" => filter.local = Some(text(index + 1)),
                b"user" => {
                    let user = context.argument(index + 1);
                    if user != b"default" {
                        let user = String::from_utf8_lossy(user).into_owned();
                        return Err(CommandError::Text(format!("ERR No such user '{user}'")));
                    }
                    filter.user = Some(user.to_vec());
                }
                b"skipme" if context.arguments.is(index + 1, "no") => filter.with_own = true,
                b"skipme" if context.arguments.is(index + 1, "yes") => filter.with_own = false,
                _ => return Err(CommandError::Syntax),
            }
        }
    }
    let own = context.client;
    let chosen: Vec<ClientIndex> = context
        .server
        .clients
        .iter()
        .filter(|(index, client)| {
            (filter.with_own || *index != own)
                && filter.id.is_none_or(|id| client.id == id)
                && filter.kind.as_ref().is_none_or(|kind| is_kind(client, kind))
                && filter
                    .remote
                    .as_ref()
                    .is_none_or(|remote| *remote == format!("{}", client.remote))
                && filter
                    .local
                    .as_ref()
                    .is_none_or(|local| *local == format!("{}", client.local))
        })
        .map(|(index, _)| index)
        .collect();
    if count == 3 && chosen.is_empty() {
        return Err(CommandError::Plain("ERR No such client"));
    }
    for index in &chosen {
        if let Some(client) = context.server.clients.get_mut(*index) {
            // Its own answer is still sent.
            let flag = if *index == own {
                ClientFlags::CLOSE
            } else {
                ClientFlags::KILLED
            };
            client.flags.insert(flag);
        }
        context.server.call_attention(*index);
    }
    if count == 3 {
        context.reply.ok();
    } else {
        context.reply.count(chosen.len());
    }
    Ok(())
}

fn pause(context: &mut Context<'_>) -> Result<(), CommandError> {
    let span_ms = context
        .integer(2)
        .map_err(|_| CommandError::Plain("ERR timeout is not an integer or out of range"))?;
    let span_ms = u64::try_from(span_ms).map_err(|_| CommandError::Plain("ERR timeout is negative"))?;
    let writes_only = match context.arguments.len() {
        3 => false,
        4 if context.arguments.is(3, "all") => false,
        4 if context.arguments.is(3, "write") => true,
        _ => return Err(CommandError::Syntax),
    };
    let until_ms = context.server.keyspace.now_ms.saturating_add(span_ms);
    // One that is under way isn't shortened, nor made weaker.
    let (until_ms, writes_only) = match context.server.pause {
        Some((present_ms, present)) => (until_ms.max(present_ms), writes_only && present),
        None => (until_ms, writes_only),
    };
    context.server.pause = Some((until_ms, writes_only));
    context.reply.ok();
    Ok(())
}

fn unpause(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.server.end_pause();
    context.reply.ok();
    Ok(())
}

fn unblock(context: &mut Context<'_>) -> Result<(), CommandError> {
    let id = context.integer(2)?;
    let with_error = match context.arguments.len() {
        3 => false,
        4 if context.arguments.is(3, "timeout") => false,
        4 if context.arguments.is(3, "error") => true,
        _ => {
            return Err(CommandError::Plain(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
    };
    let index = context
        .server
        .clients
        .iter()
        .find(|(_, client)| client.id == id as u64)
        .map(|(index, _)| index);
    let done = index.is_some_and(|index| {
        context.server.unblock(index, |server, reply, timeout| {
            if with_error {
                reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
            } else {
                server.reply_timeout(reply, timeout);
            }
        })
    });
    context.reply.flag(done);
    Ok(())
}
