//! SLOWLOG and LATENCY: what was slow.

use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

const ADMIN: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("slowlog", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, slow_help),
    command("slowlog|help", 2, ADMIN, NO_KEYS, slow_help),
    command("slowlog|get", -2, ADMIN, NO_KEYS, slow),
    command("slowlog|len", 2, ADMIN, NO_KEYS, |context| {
        let count = context.server.timing.slow.len();
        context.reply.count(count);
        Ok(())
    }),
    command("slowlog|reset", 2, ADMIN, NO_KEYS, |context| {
        context.server.timing.slow.clear();
        context.reply.ok();
        Ok(())
    }),
    command(
        "latency",
        -2,
        ADMIN.union(Flags::CONTAINER),
        NO_KEYS,
        latency_help,
    ),
    command("latency|help", 2, ADMIN, NO_KEYS, latency_help),
    command("latency|latest", 2, ADMIN, NO_KEYS, latest),
    command("latency|history", 3, ADMIN, NO_KEYS, history),
    command("latency|reset", -2, ADMIN, NO_KEYS, reset),
    command("latency|doctor", 2, ADMIN, NO_KEYS, doctor),
];

/// How many SLOWLOG GET shows by itself.
const USUAL_COUNT: usize = 10;

fn slow(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = match context.arguments.len() {
        2 => USUAL_COUNT,
        3 => match context.integer(2)? {
            -1 => usize::MAX,
            count => usize::try_from(count)
                .map_err(|_| CommandError::Plain("ERR count should be greater than or equal to -1"))?,
        },
        _ => return Err(CommandError::Arity(String::from("slowlog|get"))),
    };
    let log = &context.server.timing.slow;
    let reply = &mut context.reply;
    reply.array(count.min(log.len()));
    for slow in log.iter().take(count) {
        reply.array(6);
        reply.integer(slow.id as i64);
        reply.integer(slow.at_s as i64);
        reply.integer(slow.took_us as i64);
        reply.array(slow.arguments.len());
        for argument in &slow.arguments {
            reply.bulk(argument);
        }
        reply.bulk(format!("{}", slow.remote).as_bytes());
        reply.bulk(&slow.name);
    }
    Ok(())
}

fn latest(context: &mut Context<'_>) -> Result<(), CommandError> {
    let events = &context.server.timing.events;
    let reply = &mut context.reply;
    reply.array(events.len());
    for (name, event) in events {
        let (at_s, took_ms) = event.samples.back().copied().unwrap_or_default();
        reply.array(4);
        reply.bulk(name.as_bytes());
        reply.integer(at_s as i64);
        reply.integer(took_ms as i64);
        reply.integer(event.longest_ms as i64);
    }
    Ok(())
}

fn history(context: &mut Context<'_>) -> Result<(), CommandError> {
    let name = String::from_utf8_lossy(context.argument(2)).to_ascii_lowercase();
    let event = context.server.timing.events.get(name.as_str());
    let samples = event.map(|event| &event.samples);
    let reply = &mut context.reply;
    reply.array(samples.map_or(0, |samples| samples.len()));
    for (at_s, took_ms) in samples.into_iter().flatten() {
        reply.array(2);
        reply.integer(*at_s as i64);
        reply.integer(*took_ms as i64);
    }
    Ok(())
}

fn reset(context: &mut Context<'_>) -> Result<(), CommandError> {
    let names: Vec<String> = context
        .arguments
        .from(2)
        .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    let events = &mut context.server.timing.events;
    let before = events.len();
    events.retain(|event, _| !names.is_empty() && !names.iter().any(|name| name == event));
    let count = before - events.len();
    context.reply.count(count);
    Ok(())
}

fn doctor(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut text = String::new();
    for (name, event) in &context.server.timing.events {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{name}: {} slow ones, the longest {} ms.",
            event.samples.len(),
            event.longest_ms
        );
    }
    if text.is_empty() {
        text.push_str("Nothing was slow. CONFIG SET latency-monitor-threshold says from how many milliseconds on something is.\n");
    }
    context.reply.verbatim(text.as_bytes());
    Ok(())
}

fn slow_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(context, "SLOWLOG", &["GET [<count>]", "LEN", "RESET"])
}

fn latency_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(
        context,
        "LATENCY",
        &["DOCTOR", "HISTORY <event>", "LATEST", "RESET [<event> ...]"],
    )
}
