//! What a client says of its connection: PING, AUTH, HELLO, SELECT, CLIENT and their kin. What CLIENT says and does of others is in `clients.rs`.

use crate::client::ClientFlags;
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::keyspace::DATABASES;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
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
