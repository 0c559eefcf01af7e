//! The server itself: TIME, SAVE, WAIT, MONITOR, DEBUG and the other commands of operators and tests. CONFIG, INFO and COMMAND have files of their own.

use crate::client::ClientFlags;
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, command};
use crate::error::CommandError;
use crate::value::{StringValue, Value};
use alloc::format;
use alloc::string::String;

/// The version of Redis whose behaviour this is.
pub const VERSION: &str = "7.2.0";

const ASK: Flags = Flags::LOADING.union(Flags::STALE).union(Flags::FAST);
const ADMIN: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE);
const OBJECT: Keys = Keys {
    first: 2,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("time", 1, ASK, NO_KEYS, time),
    command("save", 1, ADMIN.union(Flags::NO_MULTI), NO_KEYS, save),
    command("bgsave", -1, ADMIN, NO_KEYS, |context| {
        context.reply.simple("Background saving started");
        Ok(())
    }),
    command("bgrewriteaof", 1, ADMIN, NO_KEYS, |context| {
        context
            .reply
            .simple("Background append only file rewriting started");
        Ok(())
    }),
    command("lastsave", 1, ASK, NO_KEYS, |context| {
        let now_s = context.server.keyspace.now_ms / 1000;
        context.reply.integer(now_s as i64);
        Ok(())
    }),
    command("wait", 3, Flags::BLOCKING, NO_KEYS, |context| {
        context.integer(1)?;
        context.integer(2)?;
        context.reply.integer(0);
        Ok(())
    }),
    command("waitaof", 4, Flags::BLOCKING, NO_KEYS, wait_durable),
    command("role", 1, ASK, NO_KEYS, role),
    command("monitor", 1, ADMIN, NO_KEYS, monitor),
    command("shutdown", -1, ADMIN.union(Flags::NO_MULTI), NO_KEYS, |_| {
        Err(CommandError::Plain(
            "ERR the appliance's console restarts and stops this server",
        ))
    }),
    command("readonly", 1, ASK, NO_KEYS, no_cluster),
    command("readwrite", 1, ASK, NO_KEYS, no_cluster),
    command("cluster", -2, ADMIN, NO_KEYS, no_cluster),
    command("acl", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, acl_help),
    command("acl|help", 2, ADMIN, NO_KEYS, acl_help),
    command("acl|whoami", 2, ASK, NO_KEYS, |context| {
        context.reply.bulk(b"default");
        Ok(())
    }),
    command("acl|users", 2, ADMIN, NO_KEYS, |context| {
        context.reply.array(1);
        context.reply.bulk(b"default");
        Ok(())
    }),
    command("acl|cat", -2, ADMIN, NO_KEYS, empty_array),
    command("acl|list", 2, ADMIN, NO_KEYS, users),
    command("acl|log", -2, ADMIN, NO_KEYS, empty_array),
    // There are no modules.
    command("module", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, module_help),
    command("module|help", 2, ADMIN, NO_KEYS, module_help),
    command("module|list", 2, ADMIN, NO_KEYS, empty_array),
    command("lolwut", -1, ASK, NO_KEYS, |context| {
        let text = format!("Redis ver. {VERSION}, as a RedLeaf appliance serves it\n");
        context.reply.verbatim(text.as_bytes());
        Ok(())
    }),
    // There are no scripts and functions: none to list, and all of them gone when they are flushed.
    command(
        "function",
        -2,
        ADMIN.union(Flags::CONTAINER),
        NO_KEYS,
        function_help,
    ),
    command("function|help", 2, ADMIN, NO_KEYS, function_help),
    command("function|flush", -2, ADMIN, NO_KEYS, ok),
    command("function|list", -2, ADMIN, NO_KEYS, empty_array),
    command("script", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, script_help),
    command("script|help", 2, ADMIN, NO_KEYS, script_help),
    command("script|flush", -2, ADMIN, NO_KEYS, ok),
    command("script|kill", 2, ADMIN, NO_KEYS, |_| {
        Err(CommandError::Plain("NOTBUSY No scripts in execution right now."))
    }),
    command("script|exists", -3, ADMIN, NO_KEYS, no_scripts),
    command("debug", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, debug_help),
    command("debug|help", 2, ADMIN, NO_KEYS, debug_help),
    command("debug|sleep", 3, ADMIN, NO_KEYS, sleep),
    command("debug|object", -3, ADMIN, OBJECT, object),
    command("debug|protocol", 3, ADMIN, NO_KEYS, protocol),
    command("debug|set-active-expire", 3, ADMIN, NO_KEYS, active_expiry),
    command("debug|jmap", -2, ADMIN, NO_KEYS, ok),
    command("debug|quicklist-packed-threshold", 3, ADMIN, NO_KEYS, ok),
    command("debug|change-repl-id", 2, ADMIN, NO_KEYS, ok),
    command("debug|stringmatch-len", 4, ADMIN, NO_KEYS, string_match),
];

fn ok(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.reply.ok();
    Ok(())
}

fn empty_array(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.reply.array(0);
    Ok(())
}

/// The one user, as a line of Redis' file of users.
fn users(context: &mut Context<'_>) -> Result<(), CommandError> {
    let password = match context.server.config.password {
        Some(_) => "(redacted)",
        None => "nopass",
    };
    let line = format!("user default on {password} sanitize-payload ~* &* +@all");
    context.reply.array(1);
    context.reply.bulk(line.as_bytes());
    Ok(())
}

fn module_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(context, "MODULE", &["LIST"])
}

fn no_cluster(_context: &mut Context<'_>) -> Result<(), CommandError> {
    Err(CommandError::Plain(
        "ERR This instance has cluster support disabled",
    ))
}

fn time(context: &mut Context<'_>) -> Result<(), CommandError> {
    let now_ms = context.server.keyspace.now_ms;
    context.reply.array(2);
    context.reply.bulk_integer((now_ms / 1000) as i64);
    context.reply.bulk_integer((now_ms % 1000 * 1000) as i64);
    Ok(())
}

/// The store is always written; what SAVE adds is that it is made durable before the answer, as all is with `appendfsync always`.
fn save(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.server.settle_requested = true;
    context.reply.ok();
    Ok(())
}

fn wait_durable(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (local, replicas) = (context.integer(1)?, context.integer(2)?);
    context.integer(3)?;
    if !(0..=1).contains(&local) || replicas < 0 {
        return Err(CommandError::Plain(
            "ERR value is out of range, must be between 0 and 1",
        ));
    }
    context.server.settle_requested = true;
    context.reply.array(2);
    context.reply.flag(context.server.ledger.has_store());
    context.reply.integer(0);
    Ok(())
}

fn role(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.reply.array(3);
    context.reply.bulk(b"master");
    context.reply.integer(0);
    context.reply.array(0);
    Ok(())
}

fn monitor(context: &mut Context<'_>) -> Result<(), CommandError> {
    if context.deny_blocking {
        return Err(CommandError::Plain(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    let index = context.client;
    if let Some(client) = context.own_mut()
        && !client.flags.contains(ClientFlags::MONITOR)
    {
        client.flags.insert(ClientFlags::MONITOR);
        context.server.monitors.push(index);
    }
    context.reply.ok();
    Ok(())
}

/// Longest DEBUG SLEEP, in milliseconds: the whole server waits.
const SLEEP_LIMIT_MS: f64 = 10_000.0;

fn sleep(context: &mut Context<'_>) -> Result<(), CommandError> {
    let milliseconds = (context.float(2)? * 1000.0).clamp(0.0, SLEEP_LIMIT_MS);
    domain_rt::thread::sleep_ms(milliseconds as u64);
    context.reply.ok();
    Ok(())
}

fn active_expiry(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.server.active_expiry = context.integer(2)? != 0;
    context.reply.ok();
    Ok(())
}

fn object(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(2);
    let slot = context
        .server
        .keyspace
        .find(context.database, key)
        .ok_or(CommandError::NoSuchKey)?;
    let Some(entry) = context.entry(slot) else {
        return Err(CommandError::NoSuchKey);
    };
    let encoding = match &entry.value {
        Value::String(StringValue::Memory(bytes)) if bytes.len() <= 44 => "embstr",
        Value::String(_) => "raw",
        Value::Collection(collection) => collection.encoding(),
    };
    let idle_s = (context.server.keyspace.now_ms / 1000).saturating_sub(u64::from(entry.used_s));
    let line = format!(
        "Value at:{:#x} refcount:1 encoding:{encoding} serializedlength:{} lru:{} lru_seconds_idle:{idle_s}",
        slot.number(),
        entry.value.memory_bytes(),
        entry.used_s,
    );
    context.reply.simple(&line);
    Ok(())
}

/// Answers with one reply of each type, for tests of clients.
fn protocol(context: &mut Context<'_>) -> Result<(), CommandError> {
    let kind = context.argument(2).to_ascii_lowercase();
    let reply = &mut context.reply;
    match kind.as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double_text(b"3.141"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"verbatim" => reply.verbatim(b"This is a verbatim\nstring"),
        b"bignum" if reply.resp3 => reply
            .bytes
            .extend_from_slice(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        b"attrib" => {
            if reply.resp3 {
                reply
                    .bytes
                    .extend_from_slice(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if reply.resp3 => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        b"push" => return Err(CommandError::Plain("ERR RESP2 is not supported by this command")),
        _ => {
            return Err(CommandError::Plain(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn string_match(context: &mut Context<'_>) -> Result<(), CommandError> {
    let length = context.integer(2)?.clamp(0, 1 << 24) as usize;
    let text = alloc::vec![b'a'; length];
    let found = crate::glob::matches(context.argument(3), &text);
    context.reply.flag(found);
    Ok(())
}

fn no_scripts(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.arguments.len() - 2;
    context.reply.array(count);
    (0..count).for_each(|_| context.reply.integer(0));
    Ok(())
}

fn function_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(context, "FUNCTION", &["FLUSH [ASYNC|SYNC]", "LIST"])
}

fn script_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(
        context,
        "SCRIPT",
        &["EXISTS <sha1> [<sha1> ...]", "FLUSH [ASYNC|SYNC]"],
    )
}

fn acl_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(
        context,
        "ACL",
        &["CAT [<category>]", "LIST", "LOG [<count>]", "USERS", "WHOAMI"],
    )
}

fn debug_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = [
        "OBJECT <key>",
        "PROTOCOL <type>",
        "SET-ACTIVE-EXPIRE <0|1>",
        "SLEEP <seconds>",
        "STRINGMATCH-LEN <len> <pattern>",
    ];
    super::help(context, "DEBUG", &lines)
}

/// A count of bytes as people read it.
pub fn readable(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes}B"),
        0x400..0x10_0000 => (1024.0, "K"),
        0x10_0000..0x4000_0000 => (1_048_576.0, "M"),
        _ => (1_073_741_824.0, "G"),
    };
    format!("{:.2}{name}", bytes as f64 / unit)
}
