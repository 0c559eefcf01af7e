//! The load: connections that write, delete and read keys of their own, one request at a time, and note what was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::oracle::Oracle;
use crate::record::Event;
use crate::resp::{Connection, Reply};
use crate::value;

/// What a connection does after an error, before it tries again.
const PAUSE: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// The store.
    pub to: SocketAddr,
    /// Connections.
    pub connections: u32,
    /// Keys of each.
    pub keys: u32,
    /// Bytes of a value at most; most are far shorter.
    pub value_bytes: usize,
    /// For how long.
    pub time: Duration,
    /// Ends it before that once it is true.
    pub stop: Arc<AtomicBool>,
    /// How long a connection or a reply may take.
    pub patience: Duration,
    /// Whether a broken connection is made again; otherwise the load of that connection ends with it.
    pub reconnect: bool,
    /// The log whose length an acknowledgement is marked with.
    pub mark: Option<PathBuf>,
    /// What keys and values are drawn by.
    pub seed: u64,
    /// Distinguishes keys of several loads on one store.
    pub prefix: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Writes that were sent.
    pub sent: u64,
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that gave what they must not.
    pub wrong_reads: Vec<String>,
    /// Error replies, by text.
    pub errors: BTreeMap<String, u64>,
    /// Connections that broke.
    pub broken: u64,
    /// The longest time that a request took until it was answered, in milliseconds, reconnecting included.
    pub longest_ms: u64,
}

enum Message {
    Event(Event),
    Done(Summary),
}

impl Load {
    /// Does it; gives what came of it and all events in the order of their happening.
    ///
    /// # Errors
    /// When a thread fails.
    pub fn run(&self) -> Result<(Summary, Vec<Event>)> {
        let (sender, receiver) = channel();
        for number in 0..self.connections {
            let (load, sender) = (self.clone(), sender.clone());
            thread::spawn(move || {
                let mut worker = Worker::new(load, number, sender);
                worker.run();
                worker.finish();
            });
        }
        drop(sender);
        let mut all = Summary::default();
        let mut events = Vec::new();
        for message in receiver {
            match message {
                Message::Event(event) => events.push(event),
                Message::Done(summary) => {
                    all.sent += summary.sent;
                    all.acknowledged += summary.acknowledged;
                    all.reads += summary.reads;
                    all.broken += summary.broken;
                    all.longest_ms = all.longest_ms.max(summary.longest_ms);
                    all.wrong_reads.extend(summary.wrong_reads);
                    for (text, count) in summary.errors {
                        *all.errors.entry(text).or_default() += count;
                    }
                }
            }
        }
        Ok((all, events))
    }

    fn mark(&self) -> u64 {
        let length = self.mark.as_ref().and_then(|path| fs::metadata(path).ok());
        length.map_or(0, |data| data.len())
    }
}

struct Worker {
    load: Load,
    number: u32,
    random: fastrand::Rng,
    versions: Vec<u64>,
    /// This connection's own events by key, for checking reads.
    own: BTreeMap<String, Vec<Event>>,
    connection: Option<Connection>,
    summary: Summary,
    sender: Sender<Message>,
}

impl Worker {
    fn new(load: Load, number: u32, sender: Sender<Message>) -> Self {
        Self {
            random: fastrand::Rng::with_seed(load.seed ^ u64::from(number) << 32),
            versions: vec![0; load.keys as usize],
            own: BTreeMap::new(),
            connection: None,
            summary: Summary::default(),
            sender,
            load,
            number,
        }
    }

    fn run(&mut self) {
        let until = Instant::now() + self.load.time;
        while Instant::now() < until && !self.load.stop.load(Ordering::Relaxed) {
            let index = self.random.usize(..self.versions.len().max(1));
            let key = format!("{}{}-{index}", self.load.prefix, self.number);
            let goes_on = match self.random.u32(..100) {
                0..75 => {
                    let length = self.length();
                    self.write(index, key, Some(length))
                }
                75..85 => self.write(index, key, None),
                _ => self.read(&key),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Short ones mostly; one in twenty as long as they get.
    fn length(&mut self) -> usize {
        let limit = if self.random.u32(..20) == 0 {
            self.load.value_bytes
        } else {
            200.min(self.load.value_bytes)
        };
        self.random.usize(..=limit)
    }

    fn write(&mut self, index: usize, key: String, length: Option<usize>) -> bool {
        let Some(version) = self.versions.get_mut(index) else {
            return false;
        };
        *version += 1;
        let version = *version;
        let value = length.map(|length| value::make(&key, version, length));
        self.event(Event::Sent {
            key: key.clone(),
            version,
            length,
        });
        self.summary.sent += 1;
        let words: Vec<&[u8]> = match &value {
            Some(value) => vec![b"SET", key.as_bytes(), value],
            None => vec![b"DEL", key.as_bytes()],
        };
        match self.ask(&words) {
            Some(Reply::Line(_)) => {
                self.summary.acknowledged += 1;
                let mark = self.load.mark();
                self.event(Event::Acknowledged { key, version, mark });
                true
            }
            Some(Reply::Error(text)) => self.error(text),
            Some(Reply::Bulk(_)) => self.error("a value instead of a status".to_owned()),
            None => self.load.reconnect,
        }
    }

    fn read(&mut self, key: &str) -> bool {
        match self.ask(&[b"GET", key.as_bytes()]) {
            Some(Reply::Bulk(found)) => {
                self.summary.reads += 1;
                let own = self.own.get(key).map(Vec::as_slice).unwrap_or_default();
                if let Err(wrong) = Oracle::new(own).check(key, found.as_deref(), u64::MAX) {
                    self.summary.wrong_reads.push(wrong.to_string());
                }
                true
            }
            Some(Reply::Error(text)) => self.error(text),
            Some(Reply::Line(text)) => self.error(format!("`{text}` instead of a value")),
            None => self.load.reconnect,
        }
    }

    /// One request; `None` when the connection broke, or couldn't be made.
    fn ask(&mut self, words: &[&[u8]]) -> Option<Reply> {
        let started = Instant::now();
        while self.connection.is_none() {
            match Connection::open(self.load.to, self.load.patience) {
                Ok(connection) => self.connection = Some(connection),
                Err(_) if self.load.reconnect && started.elapsed() < self.load.patience => {
                    thread::sleep(PAUSE);
                }
                Err(_) => {
                    self.summary.broken += 1;
                    return None;
                }
            }
        }
        let reply = self.connection.as_mut()?.ask(words);
        let time = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.summary.longest_ms = self.summary.longest_ms.max(time);
        match reply {
            Ok(reply) => Some(reply),
            Err(_) => {
                self.connection = None;
                self.summary.broken += 1;
                None
            }
        }
    }

    fn error(&mut self, text: String) -> bool {
        *self.summary.errors.entry(text).or_default() += 1;
        thread::sleep(PAUSE);
        true
    }

    fn event(&mut self, event: Event) {
        let (Event::Sent { key, .. } | Event::Acknowledged { key, .. }) = &event;
        self.own.entry(key.clone()).or_default().push(event.clone());
        // Received until the last worker is done.
        let _ = self.sender.send(Message::Event(event));
    }

    fn finish(self) {
        let _ = self.sender.send(Message::Done(self.summary));
    }
}
