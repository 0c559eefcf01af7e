//! SUBSCRIBE, PUBLISH and their kin.

use crate::client::ClientFlags;
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, ONE_KEY, command};
use crate::error::CommandError;
use crate::glob;
use crate::protocol::Reply;
use crate::pubsub::Topic;
use alloc::boxed::Box;
use alloc::vec::Vec;

const SUBSCRIBE: Flags = Flags::PUBSUB
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE);
const PUBLISH: Flags = Flags::PUBSUB
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST);
const ASK: Flags = Flags::PUBSUB.union(Flags::LOADING).union(Flags::STALE);
const CHANNELS: Keys = Keys {
    first: 1,
    last: -1,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("subscribe", -2, SUBSCRIBE, NO_KEYS, |context| {
        subscribe(context, Topic::Channel)
    }),
    command("unsubscribe", -1, SUBSCRIBE, NO_KEYS, |context| {
        unsubscribe(context, Topic::Channel)
    }),
    command("psubscribe", -2, SUBSCRIBE, NO_KEYS, |context| {
        subscribe(context, Topic::Pattern)
    }),
    command("punsubscribe", -1, SUBSCRIBE, NO_KEYS, |context| {
        unsubscribe(context, Topic::Pattern)
    }),
    command("ssubscribe", -2, SUBSCRIBE, CHANNELS, |context| {
        subscribe(context, Topic::ShardChannel)
    }),
    command("sunsubscribe", -1, SUBSCRIBE, CHANNELS, |context| {
        unsubscribe(context, Topic::ShardChannel)
    }),
    command("publish", 3, PUBLISH, NO_KEYS, publish),
    command("spublish", 3, PUBLISH, ONE_KEY, publish_to_shard),
    command("pubsub", -2, ASK.union(Flags::CONTAINER), NO_KEYS, help),
    command("pubsub|help", 2, ASK, NO_KEYS, help),
    command("pubsub|channels", -2, ASK, NO_KEYS, |context| {
        list(context, false)
    }),
    command("pubsub|shardchannels", -2, ASK, NO_KEYS, |context| {
        list(context, true)
    }),
    command("pubsub|numsub", -2, ASK, NO_KEYS, |context| count(context, false)),
    command("pubsub|shardnumsub", -2, ASK, NO_KEYS, |context| {
        count(context, true)
    }),
    command("pubsub|numpat", 2, ASK, NO_KEYS, patterns),
];

/// Whether a client that listens to channels may use a command in RESP2.
pub fn allowed_for_subscribers(name: &str) -> bool {
    matches!(
        name,
        "subscribe"
            | "unsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "ssubscribe"
            | "sunsubscribe"
            | "ping"
            | "quit"
            | "reset"
    )
}

fn subscribe(context: &mut Context<'_>, topic: Topic) -> Result<(), CommandError> {
    if context.deny_blocking
        && context.own().is_some_and(|client| !client.resp3)
        && !context.has_flag(ClientFlags::EXECUTING)
    {
        return Err(CommandError::Plain(
            "ERR SUBSCRIBE isn't allowed for a DENY BLOCKING client",
        ));
    }
    let word: &[u8] = match topic {
        Topic::Channel => b"subscribe",
        Topic::Pattern => b"psubscribe",
        Topic::ShardChannel => b"ssubscribe",
    };
    for name in context.arguments.from(1) {
        context.server.subscribe(context.client, topic, name);
        tell(context, topic, word, Some(name));
    }
    Ok(())
}

fn unsubscribe(context: &mut Context<'_>, topic: Topic) -> Result<(), CommandError> {
    let word: &[u8] = match topic {
        Topic::Channel => b"unsubscribe",
        Topic::Pattern => b"punsubscribe",
        Topic::ShardChannel => b"sunsubscribe",
    };
    let names: Vec<Box<[u8]>> = if context.arguments.len() > 1 {
        context.arguments.from(1).map(Box::from).collect()
    } else {
        let own = context.own();
        own.map(|client| match topic {
            Topic::Channel => client.channels.clone(),
            Topic::Pattern => client.patterns.clone(),
            Topic::ShardChannel => client.shard_channels.clone(),
        })
        .unwrap_or_default()
    };
    if names.is_empty() {
        tell(context, topic, word, None);
    }
    for name in names {
        context.server.unsubscribe(context.client, topic, &name);
        tell(context, topic, word, Some(&name));
    }
    Ok(())
}

fn tell(context: &mut Context<'_>, topic: Topic, word: &[u8], name: Option<&[u8]>) {
    let count = context.own().map_or(0, |client| match topic {
        Topic::ShardChannel => client.shard_channels.len(),
        _ => client.channels.len() + client.patterns.len(),
    });
    let write = |reply: &mut Reply| {
        reply.push(3);
        reply.bulk(word);
        reply.bulk_or_null(name);
        reply.count(count);
    };
    // These are no replies: CLIENT REPLY doesn't keep them away.
    let silent = ClientFlags::REPLY_OFF | ClientFlags::REPLY_SKIP;
    if context
        .own()
        .is_some_and(|client| client.flags.intersects(silent))
    {
        context.server.push(context.client, write);
    } else {
        write(&mut context.reply);
    }
}

fn publish(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.server.publish(context.argument(1), context.argument(2));
    context.reply.count(count);
    Ok(())
}

fn publish_to_shard(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context
        .server
        .publish_to_shard(context.argument(1), context.argument(2));
    context.reply.count(count);
    Ok(())
}

fn list(context: &mut Context<'_>, shard: bool) -> Result<(), CommandError> {
    if context.arguments.len() > 3 {
        return Err(CommandError::Arity("pubsub|channels".into()));
    }
    let pattern = (context.arguments.len() > 2).then(|| context.argument(2));
    let pubsub = &context.server.pubsub;
    let channels = if shard {
        &pubsub.shard_channels
    } else {
        &pubsub.channels
    };
    let found: Vec<&[u8]> = channels
        .keys()
        .map(|channel| &**channel)
        .filter(|channel| pattern.is_none_or(|pattern| glob::matches(pattern, channel)))
        .collect();
    context.reply.array(found.len());
    for channel in found {
        context.reply.bulk(channel);
    }
    Ok(())
}

fn count(context: &mut Context<'_>, shard: bool) -> Result<(), CommandError> {
    let arguments = context.arguments;
    context.reply.array((arguments.len() - 2) * 2);
    for channel in arguments.from(2) {
        let pubsub = &context.server.pubsub;
        let channels = if shard {
            &pubsub.shard_channels
        } else {
            &pubsub.channels
        };
        let count = channels.get(channel).map_or(0, Vec::len);
        context.reply.bulk(channel);
        context.reply.count(count);
    }
    Ok(())
}

fn patterns(context: &mut Context<'_>) -> Result<(), CommandError> {
    context.reply.count(context.server.pubsub.patterns.len());
    Ok(())
}

fn help(context: &mut Context<'_>) -> Result<(), CommandError> {
    super::help(
        context,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "NUMPAT",
            "NUMSUB [<channel> ...]",
            "SHARDCHANNELS [<pattern>]",
            "SHARDNUMSUB [<shardchannel> ...]",
        ],
    )
}
