//! What a client says of its connection: PING, AUTH, HELLO, SELECT, CLIENT and their kin.

use crate::client::{Client, ClientFlags, ClientIndex};
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::keyspace::DATABASES;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use subtle::ConstantTimeEq;

const ANY_TIME: Flags = Flags::LOADING.union(Flags::STALE).union(Flags::FAST);
const OPEN: Flags = ANY_TIME.union(Flags::NO_AUTH).union(Flags::SKIP_MONITOR);
const CLIENT: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);
const ADMIN: Flags = CLIENT.union(Flags::ADMIN);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("ping", -1, Flags::FAST, NO_KEYS, ping),
    command("echo", 2, ANY_TIME, NO_KEYS, |context| {
        let text = context.argument(1);
        context.reply.bulk(text);
        Ok(())
    }),
    command("auth", -2, OPEN, NO_KEYS, authenticate),
    command("hello", -1, OPEN, NO_KEYS, hello),
    command("quit", -1, OPEN, NO_KEYS, quit),
    command("reset", 1, OPEN, NO_KEYS, reset),
    command("select", 2, ANY_TIME, NO_KEYS, select),
    command("client", -2, CLIENT.union(Flags::CONTAINER), NO_KEYS, help),
    command("client|help", 2, CLIENT, NO_KEYS, help),
    command("client|id", 2, CLIENT, NO_KEYS, |context| {
        let id = context.own().map_or(0, |client| client.id);
        context.reply.integer(id as i64);
        Ok(())
    }),
    command("client|info", 2, CLIENT, NO_KEYS, information),
    command("client|list", -2, ADMIN, NO_KEYS, list),
    command("client|kill", -3, ADMIN, NO_KEYS, kill),
    command("client|getname", 2, CLIENT, NO_KEYS, name),
    command("client|setname", 3, CLIENT, NO_KEYS, set_name),
    command("client|setinfo", 4, CLIENT, NO_KEYS, set_information),
    command("client|reply", 3, CLIENT, NO_KEYS, reply),
    command("client|no-evict", 3, ADMIN, NO_KEYS, |context| {
        toggle(context, ClientFlags::NO_EVICT)
    }),
    command("client|no-touch", 3, CLIENT, NO_KEYS, |context| {
        toggle(context, ClientFlags::NO_TOUCH)
    }),
    command("client|pause", -3, ADMIN, NO_KEYS, pause),
    command("client|unpause", 2, ADMIN, NO_KEYS, unpause),
    command("client|unblock", -3, ADMIN, NO_KEYS, unblock),
    command("client|getredir", 2, CLIENT, NO_KEYS, |context| {
        context.reply.integer(-1);
        Ok(())
    }),
];

fn ping(context: &mut Context<'_>) -> Result<(), CommandError> {
    if context.arguments.len() > 2 {
        return Err(CommandError::Arity("ping".into()));
    }
    let text = context.argument(1);
    if context
        .own()
        .is_some_and(|client| client.is_subscriber() && !client.resp3)
    {
        context.reply.array(2);
        context.reply.bulk(b"pong");
        context.reply.bulk(text);
    } else if context.arguments.len() == 2 {
        context.reply.bulk(text);
    } else {
        context.reply.simple("PONG");
    }
    Ok(())
}

/// The time that it takes depends on the lengths alone.
fn is_password(shown: &[u8], password: &[u8]) -> bool {
    bool::from(password.ct_eq(shown))
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

fn check_password(context: &mut Context<'_>, user: &[u8], shown: &[u8]) -> Result<(), CommandError> {
    let right = user == b"default"
        && context
            .server
            .config
            .password
            .as_ref()
            .is_none_or(|password| is_password(shown, password));
    if !right {
        return Err(CommandError::Plain(WRONG_PASSWORD));
    }
    if let Some(client) = context.own_mut() {
        client.flags.insert(ClientFlags::AUTHENTICATED);
    }
    Ok(())
}

fn authenticate(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (user, shown) = match context.arguments.len() {
        2 => (&b"default"[..], context.argument(1)),
        3 => (context.argument(1), context.argument(2)),
        _ => return Err(CommandError::Syntax),
    };
    if context.arguments.len() == 2 && context.server.config.password.is_none() {
        return Err(CommandError::Plain(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ));
    }
    check_password(context, user, shown)?;
    context.reply.ok();
    Ok(())
}

fn hello(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut version = None;
    if context.arguments.len() > 1 {
        let number = context
            .integer(1)
            .map_err(|_| CommandError::Plain("ERR Protocol version is not an integer or out of range"))?;
        if !(2..=3).contains(&number) {
            return Err(CommandError::Plain("NOPROTO unsupported protocol version"));
        }
        version = Some(number == 3);
    }
    let mut index = 2;
    let mut name = None;
    while index < context.arguments.len() {
        let more = context.arguments.len() - index - 1;
        if context.arguments.is(index, "auth") && more >= 2 {
            check_password(context, context.argument(index + 1), context.argument(index + 2))?;
            index += 3;
        } else if context.arguments.is(index, "setname") && more >= 1 {
            name = Some(checked_name(context.argument(index + 1))?);
            index += 2;
        } else {
            let option = String::from_utf8_lossy(context.argument(index)).into_owned();
            return Err(CommandError::Text(format!(
                "ERR Syntax error in HELLO option '{option}'"
            )));
        }
    }
    if !context.has_flag(ClientFlags::AUTHENTICATED) {
        return Err(CommandError::Plain(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    let Some(client) = context.own_mut() else {
        return Ok(());
    };
    if let Some(resp3) = version {
        client.resp3 = resp3;
    }
    if let Some(name) = name {
        client.name = name;
    }
    let (resp3, id) = (client.resp3, client.id);
    let reply = &mut context.reply;
    reply.resp3 = resp3;
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", super::admin::VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn quit(context: &mut Context<'_>) -> Result<(), CommandError> {
    if let Some(client) = context.own_mut() {
        client.flags.insert(ClientFlags::CLOSE);
    }
    context.reply.ok();
    Ok(())
}

fn reset(context: &mut Context<'_>) -> Result<(), CommandError> {
    let index = context.client;
    let needs_password = context.server.config.password.is_some();
    context.server.end_transaction(index);
    context.server.unsubscribe_all(index);
    context.server.monitors.retain(|monitor| *monitor != index);
    if let Some(client) = context.own_mut() {
        let transient = ClientFlags::MONITOR
            | ClientFlags::REPLY_OFF
            | ClientFlags::REPLY_SKIP
            | ClientFlags::REPLY_SKIP_NEXT
            | ClientFlags::NO_EVICT
            | ClientFlags::NO_TOUCH;
        client.flags.remove(transient);
        if needs_password {
            client.flags.remove(ClientFlags::AUTHENTICATED);
        }
        client.database = 0;
        client.resp3 = false;
        client.name = Box::default();
    }
    context.reply.resp3 = false;
    context.reply.simple("RESET");
    Ok(())
}

fn select(context: &mut Context<'_>) -> Result<(), CommandError> {
    let number = context
        .integer(1)
        .map_err(|_| CommandError::Plain("ERR value is not an integer or out of range"))?;
    let number = usize::try_from(number)
        .ok()
        .filter(|number| *number < DATABASES)
        .ok_or(CommandError::Plain("ERR DB index is out of range"))?;
    if let Some(client) = context.own_mut() {
        client.database = number;
    }
    context.reply.ok();
    Ok(())
}

fn checked_name(name: &[u8]) -> Result<Box<[u8]>, CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(name.into())
    } else {
        Err(CommandError::Plain(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

fn name(context: &mut Context<'_>) -> Result<(), CommandError> {
    let name = context
        .own()
        .map(|client| client.name.clone())
        .unwrap_or_default();
    if name.is_empty() {
        context.reply.null();
    } else {
        context.reply.bulk(&name);
    }
    Ok(())
}

fn set_name(context: &mut Context<'_>) -> Result<(), CommandError> {
    let name = checked_name(context.argument(2))?;
    if let Some(client) = context.own_mut() {
        client.name = name;
    }
    context.reply.ok();
    Ok(())
}

fn set_information(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (attribute, value) = (context.argument(2), context.argument(3));
    let is_name = context.arguments.is(2, "lib-name");
    if !is_name && !context.arguments.is(2, "lib-ver") {
        let attribute = String::from_utf8_lossy(attribute).into_owned();
        return Err(CommandError::Text(format!(
            "ERR Unrecognized option '{attribute}'"
        )));
    }
    if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        let attribute = if is_name { "lib-name" } else { "lib-ver" };
        return Err(CommandError::Text(format!(
            "ERR {attribute} cannot contain spaces, newlines or special characters."
        )));
    }
    if let Some(client) = context.own_mut() {
        if is_name {
            client.library_name = value.into();
        } else {
            client.library_version = value.into();
        }
    }
    context.reply.ok();
    Ok(())
}

fn reply(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (on, off, skip) = (
        context.arguments.is(2, "on"),
        context.arguments.is(2, "off"),
        context.arguments.is(2, "skip"),
    );
    let Some(client) = context.own_mut() else {
        return Ok(());
    };
    if on {
        client
            .flags
            .remove(ClientFlags::REPLY_OFF | ClientFlags::REPLY_SKIP);
        context.reply.ok();
    } else if off {
        client.flags.insert(ClientFlags::REPLY_OFF);
    } else if skip {
        if !client.flags.contains(ClientFlags::REPLY_OFF) {
            client.flags.insert(ClientFlags::REPLY_SKIP_NEXT);
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(())
}

fn toggle(context: &mut Context<'_>, flag: ClientFlags) -> Result<(), CommandError> {
    let on = match (context.arguments.is(2, "on"), context.arguments.is(2, "off")) {
        (true, _) => true,
        (_, true) => false,
        _ => return Err(CommandError::Syntax),
    };
    if let Some(client) = context.own_mut() {
        client.flags.set(flag, on);
    }
    context.reply.ok();
    Ok(())
}

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

fn help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = [
        "GETNAME",
        "GETREDIR",
        "ID",
        "INFO",
        "KILL <option>",
        "LIST [options ...]",
        "NO-EVICT (ON|OFF)",
        "NO-TOUCH (ON|OFF)",
        "PAUSE <timeout> [WRITE|ALL]",
        "REPLY (ON|OFF|SKIP)",
        "SETINFO <option> <value>",
        "SETNAME <name>",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "UNPAUSE",
    ];
    super::help(context, "CLIENT", &lines)
}
