//! Who listens to which channels.

use crate::client::{ClientFlags, ClientIndex};
use crate::glob;
use crate::keyspace::{Events, KeyEvent};
use crate::protocol::Reply;
use crate::server::Server;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

/// Channels and patterns, with those who listen.
#[derive(Default)]
pub struct PubSub {
    /// By channel.
    pub channels: BTreeMap<Box<[u8]>, Vec<ClientIndex>>,
    /// By pattern.
    pub patterns: BTreeMap<Box<[u8]>, Vec<ClientIndex>>,
    /// By shard channel.
    pub shard_channels: BTreeMap<Box<[u8]>, Vec<ClientIndex>>,
}

/// A kind of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A channel.
    Channel,
    /// A pattern of channels.
    Pattern,
    /// A shard channel.
    ShardChannel,
}

impl PubSub {
    fn listeners(&mut self, topic: Topic) -> &mut BTreeMap<Box<[u8]>, Vec<ClientIndex>> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
            Topic::ShardChannel => &mut self.shard_channels,
        }
    }
}

impl Server {
    fn own_topics(&mut self, index: ClientIndex, topic: Topic) -> Option<&mut Vec<Box<[u8]>>> {
        let client = self.clients.get_mut(index)?;
        Some(match topic {
            Topic::Channel => &mut client.channels,
            Topic::Pattern => &mut client.patterns,
            Topic::ShardChannel => &mut client.shard_channels,
        })
    }

    /// Has a client listen.
    pub fn subscribe(&mut self, index: ClientIndex, topic: Topic, name: &[u8]) {
        if let Some(own) = self.own_topics(index, topic)
            && !own.iter().any(|other| **other == *name)
        {
            own.push(name.into());
            self.pubsub
                .listeners(topic)
                .entry(name.into())
                .or_default()
                .push(index);
        }
    }

    /// Has it stop; whether it listened.
    pub fn unsubscribe(&mut self, index: ClientIndex, topic: Topic, name: &[u8]) -> bool {
        let Some(own) = self.own_topics(index, topic) else {
            return false;
        };
        let before = own.len();
        own.retain(|other| **other != *name);
        let listened = own.len() < before;
        if listened {
            let listeners = self.pubsub.listeners(topic);
            if let Some(list) = listeners.get_mut(name) {
                list.retain(|other| *other != index);
                if list.is_empty() {
                    listeners.remove(name);
                }
            }
        }
        listened
    }

    /// Has it stop listening to anything.
    pub fn unsubscribe_all(&mut self, index: ClientIndex) {
        for topic in [Topic::Channel, Topic::Pattern, Topic::ShardChannel] {
            let names = self
                .own_topics(index, topic)
                .map(|own| own.clone())
                .unwrap_or_default();
            for name in names {
                self.unsubscribe(index, topic, &name);
            }
        }
    }

    /// Sends a message to those who listen: how many.
    pub fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let mut count = 0;
        if let Some(list) = self.pubsub.channels.get(channel) {
            for index in list.clone() {
                self.push(index, |reply| {
                    reply.push(3);
                    reply.bulk(b"message");
                    reply.bulk(channel);
                    reply.bulk(message);
                });
                count += 1;
            }
        }
        if !self.pubsub.patterns.is_empty() {
            let matching: Vec<(Box<[u8]>, Vec<ClientIndex>)> = self
                .pubsub
                .patterns
                .iter()
                .filter(|(pattern, _)| glob::matches(pattern, channel))
                .map(|(pattern, list)| (pattern.clone(), list.clone()))
                .collect();
            for (pattern, list) in matching {
                for index in list {
                    self.push(index, |reply| {
                        reply.push(4);
                        reply.bulk(b"pmessage");
                        reply.bulk(&pattern);
                        reply.bulk(channel);
                        reply.bulk(message);
                    });
                    count += 1;
                }
            }
        }
        count
    }

    /// Sends a message to those who listen to a shard channel: how many.
    pub fn publish_to_shard(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let list = self
            .pubsub
            .shard_channels
            .get(channel)
            .cloned()
            .unwrap_or_default();
        for index in &list {
            self.push(*index, |reply| {
                reply.push(3);
                reply.bulk(b"smessage");
                reply.bulk(channel);
                reply.bulk(message);
            });
        }
        list.len()
    }

    /// Writes to a client that asked for nothing just now.
    pub fn push(&mut self, index: ClientIndex, write: impl FnOnce(&mut Reply)) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if client.flags.contains(ClientFlags::KILLED) {
            return;
        }
        let mut reply = Reply {
            bytes: core::mem::take(&mut client.output),
            resp3: client.resp3,
        };
        write(&mut reply);
        client.output = reply.bytes;
        self.check_output_limit(index);
        self.call_attention(index);
    }

    /// Publishes what happened to a key.
    pub fn publish_event(&mut self, event: &KeyEvent) {
        let wanted = self.keyspace.wanted_events;
        if wanted.contains(Events::KEYSPACE) {
            let mut channel = format!("__keyspace@{}__:", event.database).into_bytes();
            channel.extend_from_slice(&event.key);
            self.publish(&channel, event.name.as_bytes());
        }
        if wanted.contains(Events::KEYEVENT) {
            let channel = format!("__keyevent@{}__:{}", event.database, event.name);
            self.publish(channel.as_bytes(), &event.key);
        }
    }
}
