//! COMMAND and its subcommands: what the table says, as clients ask for it.

use super::group_of;
use super::key_places::{key_places, key_uses};
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::glob;
use crate::protocol::Reply;
use alloc::string::String;
use alloc::vec::Vec;

const ASK: Flags = Flags::LOADING.union(Flags::STALE);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("command", -1, ASK.union(Flags::CONTAINER), NO_KEYS, all),
    command("command|help", 2, ASK, NO_KEYS, help),
    command("command|count", 2, ASK, NO_KEYS, count),
    command("command|info", -2, ASK, NO_KEYS, information),
    command("command|docs", -2, ASK, NO_KEYS, documentation),
    command("command|list", -2, ASK, NO_KEYS, list),
    command("command|getkeys", -3, ASK, NO_KEYS, |context| {
        keys(context, false)
    }),
    command("command|getkeysandflags", -3, ASK, NO_KEYS, |context| {
        keys(context, true)
    }),
];

/// Commands that are no subcommands.
fn tops<'a>(context: &'a Context<'_>) -> Vec<&'static Command> {
    let table: &'a super::Table = &context.server.table;
    table
        .iter()
        .filter(|command| !command.name.contains('|'))
        .collect()
}

fn flag_names(command: &Command) -> Vec<&'static str> {
    [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::BLOCKING, "blocking"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::MOVABLE_KEYS, "movablekeys"),
    ]
    .into_iter()
    .filter(|(flag, _)| command.flags.contains(*flag))
    .map(|(_, name)| name)
    .collect()
}

fn describe(context: &mut Context<'_>, command: &'static Command) {
    let prefix = alloc::format!("{}|", command.name);
    let subcommands: Vec<&'static Command> = context
        .server
        .table
        .iter()
        .filter(|other| command.flags.contains(Flags::CONTAINER) && other.name.starts_with(&prefix))
        .collect();
    let reply = &mut context.reply;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    let flags = flag_names(command);
    reply.set(flags.len());
    for flag in flags {
        reply.simple(flag);
    }
    for place in [command.keys.first, command.keys.last, command.keys.step] {
        reply.integer(i64::from(place));
    }
    let mut categories: Vec<String> = Vec::new();
    categories.push(alloc::format!("@{}", group_of(command)));
    for (flag, name) in [
        (Flags::WRITE, "@write"),
        (Flags::READONLY, "@read"),
        (Flags::ADMIN, "@admin"),
        (Flags::FAST, "@fast"),
        (Flags::BLOCKING, "@blocking"),
    ] {
        if command.flags.contains(flag) {
            categories.push(name.into());
        }
    }
    if !command.flags.contains(Flags::FAST) {
        categories.push("@slow".into());
    }
    reply.set(categories.len());
    for category in &categories {
        reply.simple(category);
    }
    reply.array(0);
    key_specification(reply, command);
    reply.array(subcommands.len());
    for subcommand in subcommands {
        describe(context, subcommand);
    }
}

fn key_specification(reply: &mut Reply, command: &Command) {
    if command.keys.first <= 0 {
        reply.array(0);
        return;
    }
    reply.array(1);
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.simple(if command.flags.contains(Flags::WRITE) {
        "RW"
    } else {
        "RO"
    });
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(i64::from(command.keys.first));
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    reply.bulk(b"lastkey");
    let last = command.keys.last;
    let first = command.keys.first;
    reply.integer(i64::from(if last < 0 { last } else { last - first }));
    reply.bulk(b"keystep");
    reply.integer(i64::from(command.keys.step));
    reply.bulk(b"limit");
    reply.integer(0);
}

fn all(context: &mut Context<'_>) -> Result<(), CommandError> {
    let commands = tops(context);
    context.reply.array(commands.len());
    for command in commands {
        describe(context, command);
    }
    Ok(())
}

fn count(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = tops(context).len();
    context.reply.count(count);
    Ok(())
}

/// A command by its full name, "config|get" for a subcommand.
fn by_name(context: &Context<'_>, name: &[u8]) -> Option<&'static Command> {
    context.server.table.by_full_name(name)
}

fn information(context: &mut Context<'_>) -> Result<(), CommandError> {
    if context.arguments.len() == 2 {
        return all(context);
    }
    let names = context.arguments.from(2);
    context.reply.array(names.len());
    for name in names {
        match by_name(context, name) {
            Some(command) => describe(context, command),
            None => context.reply.null_array(),
        }
    }
    Ok(())
}

fn document(context: &mut Context<'_>, command: &'static Command) {
    let prefix = alloc::format!("{}|", command.name);
    let subcommands: Vec<&'static Command> = context
        .server
        .table
        .iter()
        .filter(|other| command.flags.contains(Flags::CONTAINER) && other.name.starts_with(&prefix))
        .collect();
    context.reply.bulk(command.name.as_bytes());
    context.reply.map(if subcommands.is_empty() { 3 } else { 4 });
    context.reply.bulk(b"summary");
    let summary = alloc::format!(
        "{} ({}).",
        command.name.to_ascii_uppercase().replace('|', " "),
        group_of(command)
    );
    context.reply.bulk(summary.as_bytes());
    context.reply.bulk(b"since");
    context.reply.bulk(b"1.0.0");
    context.reply.bulk(b"group");
    context.reply.bulk(group_of(command).as_bytes());
    if !subcommands.is_empty() {
        context.reply.bulk(b"subcommands");
        context.reply.map(subcommands.len());
        for subcommand in subcommands {
            document(context, subcommand);
        }
    }
}

fn documentation(context: &mut Context<'_>) -> Result<(), CommandError> {
    let commands = if context.arguments.len() == 2 {
        tops(context)
    } else {
        context
            .arguments
            .from(2)
            .filter_map(|name| by_name(context, name))
            .collect()
    };
    context.reply.map(commands.len());
    for command in commands {
        document(context, command);
    }
    Ok(())
}

fn list(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.arguments.len();
    let mut names: Vec<&'static str> = context.server.table.iter().map(|command| command.name).collect();
    if count == 5 && context.arguments.is(2, "filterby") {
        let value = context.argument(4);
        if context.arguments.is(3, "pattern") {
            names.retain(|name| glob::matches(value, name.as_bytes()));
        } else if context.arguments.is(3, "aclcat") {
            let category = String::from_utf8_lossy(value).to_ascii_lowercase();
            names.retain(|name| {
                by_name(context, name.as_bytes()).is_some_and(|command| {
                    group_of(command) == category || flag_names(command).contains(&category.as_str())
                })
            });
        } else if context.arguments.is(3, "module") {
            names.clear();
        } else {
            return Err(CommandError::Syntax);
        }
    } else if count != 2 {
        return Err(CommandError::Syntax);
    }
    context.reply.array(names.len());
    for name in names {
        context.reply.bulk(name.as_bytes());
    }
    Ok(())
}

fn keys(context: &mut Context<'_>, with_flags: bool) -> Result<(), CommandError> {
    let position = context
        .server
        .table
        .find(context.argument(2), context.argument(3))
        .ok_or(CommandError::Plain("ERR Invalid command specified"))?;
    let Some(command) = context.server.table.get(position) else {
        return Ok(());
    };
    let count = context.arguments.len() - 2;
    if !command.takes(count) {
        return Err(CommandError::Plain(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let found = key_places(command, context.arguments, 2);
    if found.is_empty() {
        return Err(CommandError::Plain("ERR The command has no key arguments"));
    }
    context.reply.array(found.len());
    for place in found {
        let key = context.argument(2 + place);
        if with_flags {
            context.reply.array(2);
        }
        context.reply.bulk(key);
        if with_flags {
            let uses = key_uses(command, place);
            context.reply.set(uses.len());
            for word in uses {
                context.reply.simple(word);
            }
        }
    }
    Ok(())
}

fn help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = [
        "(no subcommand)",
        "COUNT",
        "DOCS [<command-name> ...]",
        "GETKEYS <full-command>",
        "GETKEYSANDFLAGS <full-command>",
        "INFO [<command-name> ...]",
        "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
    ];
    super::help(context, "COMMAND", &lines)
}
