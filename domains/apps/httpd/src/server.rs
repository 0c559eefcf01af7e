//! One shard of the server: a thread that waits for the events of its sockets and drives their connections.
//!
//! A shard shares nothing with the others on the way of a request. It never waits for anything but its own events, and holds a
//! bounded number of connections with a bounded amount of memory; deadlines end those that are of no use.

use crate::answer::Context;
use crate::clock::Clock;
use crate::collector::{Collector, PATIENCE_NS};
use crate::config::Config;
use crate::counters::Counters;
use crate::pump::{Outcome, Stream, Timeouts};
use crate::repeat::Repeats;
use crate::site::Site;
use crate::status::Status;
use crate::transport::{Buffers, SocketTransport};
use crate::upload::{Entrance, Supervisor};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use domain_rt::clock::{NEVER, now_ns, unix_time_s};
use interface::socket::{EVENT_LIMIT, Event, SocketError, SocketId, Sockets};
use interface::update::Uploads;
use rref::Handle;
use serving::{Interruption, event_list, only_death};

/// Sockets of one shard at most: their indices are an index into a table here, of a pointer each.
const INDEX_LIMIT: u32 = 1 << 17;
/// Deadlines are looked at no more often than this, so they are kept to within it.
const SWEEP_NS: u64 = 1_000_000_000;
/// How often it is looked whether the metrics have come.
const METRICS_POLL_NS: u64 = 1_000_000;
/// Metrics this old are as good as new ones: however many ask, the sources are asked no more often.
const METRICS_AGE_NS: u64 = 100_000_000;

/// What all shards have.
pub struct Shared {
    /// Limits.
    pub config: Config,
    /// The site.
    pub site: Site,
    /// Where the metrics come from.
    pub collector: Collector,
    /// Shards.
    pub shards: u16,
}

/// A connection in the table.
struct Entry {
    socket: SocketId,
    stream: Stream,
    held_bytes: usize,
    /// The question of which it awaits the answer, and when it stops.
    metrics: Option<(u64, u64)>,
}

/// One shard.
pub struct Shard {
    number: u16,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    sockets: Handle<dyn Sockets>,
    buffers: Buffers,
    clock: Clock,
    repeats: Repeats,
    uploads: Option<Entrance>,
    entries: Vec<Option<Box<Entry>>>,
    open: usize,
    held_bytes: usize,
    /// Connections that await metrics, by index.
    awaiting: Vec<u32>,
    /// The last question to the collector, and when it was asked.
    question: Option<(u64, u64)>,
    /// The text for the last question that was answered.
    text: Option<(u64, Arc<[u8]>)>,
    /// No deadline is due before this.
    sweep_ns: u64,
    now_ns: u64,
}

impl Shard {
    /// A shard that serves on the stack's shard of this number.
    pub fn new(
        number: u16,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        sockets: Handle<dyn Sockets>,
        uploads: Option<Handle<dyn Uploads>>,
    ) -> Shard {
        let uploads = shared.config.upload_token.zip(uploads);
        Shard {
            number,
            shared,
            counters,
            sockets,
            buffers: Buffers::default(),
            clock: Clock::new(unix_time_s()),
            repeats: Repeats::new(),
            uploads: uploads.map(|(token, uploads)| Entrance {
                token,
                receiver: Box::new(Supervisor::new(uploads)),
            }),
            entries: Vec::new(),
            open: 0,
            held_bytes: 0,
            awaiting: Vec::new(),
            question: None,
            text: None,
            sweep_ns: NEVER,
            now_ns: now_ns(),
        }
    }

    #[inline]
    fn handle(&mut self, event: &Event) -> Result<(), Interruption> {
        if let Some(socket) = event.accepted {
            return self.accept(socket);
        }
        if event.closed {
            self.forget(event.socket);
            return Ok(());
        }
        match self.entries.get_mut(event.socket.index as usize) {
            Some(Some(entry)) if entry.socket == event.socket => {
                if entry.stream.note(event.readable, event.writable) {
                    self.drive(event.socket.index)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self, socket: SocketId) -> Result<(), Interruption> {
        self.counters.accepted.add(1);
        let index = socket.index as usize;
        let limit =
            (self.shared.config.connections as usize).div_ceil(usize::from(self.shared.shards.max(1)));
        if self.open >= limit || socket.index >= INDEX_LIMIT {
            self.counters.refused.add(1);
            return self.turn_away(socket);
        }
        if index >= self.entries.len() {
            self.entries.resize_with((index + 1).next_power_of_two(), || None);
        }
        if let Some(slot) = self.entries.get_mut(index) {
            let old = slot.replace(Box::new(Entry {
                socket,
                stream: Stream::new(),
                held_bytes: 0,
                metrics: None,
            }));
            match old {
                Some(old) => self.held_bytes -= old.held_bytes,
                None => self.open += 1,
            }
            self.counters.open.set(self.open as u64);
        }
        // The request may have come before its connection was handed over.
        self.drive(socket.index)
    }

    /// Says that there is no room.
    fn turn_away(&mut self, socket: SocketId) -> Result<(), Interruption> {
        const TEXT: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\
            Connection: close\r\n\r\n";
        use crate::pump::Transport;
        self.counters.answered(Status::ServiceUnavailable);
        let mut transport = self.transport(socket);
        let length = match transport.buffers() {
            Ok((_, buffer)) => crate::answer::Output::new(buffer).put(TEXT.as_bytes()),
            Err(_) => 0,
        };
        // Whether it hears that or not, it is closed.
        if let Err(SocketError::Dead(_)) = transport.send(length) {
            return Err(Interruption::Dead);
        }
        only_death(self.sockets.close(socket))
    }

    fn transport(&mut self, socket: SocketId) -> SocketTransport<'_> {
        SocketTransport {
            sockets: &*self.sockets,
            socket,
            buffers: &mut self.buffers,
        }
    }

    /// Drives the connection at `index` as far as it goes.
    #[inline]
    fn drive(&mut self, index: u32) -> Result<(), Interruption> {
        self.with_stream(index, |stream, transport, context| {
            stream.drive(transport, context)
        })
    }

    #[inline]
    fn with_stream(
        &mut self,
        index: u32,
        work: impl FnOnce(&mut Stream, &mut SocketTransport<'_>, &Context<'_>) -> Result<Outcome, SocketError>,
    ) -> Result<(), Interruption> {
        let Some(Some(entry)) = self.entries.get_mut(index as usize) else {
            return Ok(());
        };
        let mut transport = SocketTransport {
            sockets: &*self.sockets,
            socket: entry.socket,
            buffers: &mut self.buffers,
        };
        let context = context(
            &self.shared,
            &self.clock,
            &self.counters,
            &self.repeats,
            self.uploads.as_ref(),
        );
        let outcome = work(&mut entry.stream, &mut transport, &context);
        match outcome {
            Ok(Outcome::Waiting) => {}
            Ok(Outcome::Metrics) => {
                if entry.metrics.is_none() {
                    let question = match self.question {
                        Some((question, at_ns)) if self.now_ns < at_ns.saturating_add(METRICS_AGE_NS) => {
                            question
                        }
                        _ => self.shared.collector.ask(),
                    };
                    if self.question.is_none_or(|(last, _)| last != question) {
                        self.question = Some((question, self.now_ns));
                    }
                    entry.metrics = Some((question, self.now_ns.saturating_add(PATIENCE_NS)));
                    self.awaiting.push(index);
                }
            }
            Ok(Outcome::Closed) => {
                let socket = entry.socket;
                self.forget(socket);
                return only_death(self.sockets.close(socket));
            }
            Err(SocketError::Dead(_)) => return Err(Interruption::Dead),
            Err(_) => {
                let socket = entry.socket;
                self.forget(socket);
                return only_death(self.sockets.abort(socket));
            }
        }
        let timeouts = Timeouts {
            request_ns: u64::from(self.shared.config.request_timeout_ms) * 1_000_000,
            idle_ns: u64::from(self.shared.config.idle_timeout_ms) * 1_000_000,
        };
        entry.stream.renew_deadline(self.now_ns, &timeouts);
        // Sleeping until a deadline that was put off since costs one look; looking for the earliest each time would cost more.
        self.sweep_ns = self.sweep_ns.min(entry.stream.deadline_ns());
        let held_bytes = entry.stream.held_bytes();
        if held_bytes != entry.held_bytes {
            self.held_bytes = self.held_bytes - entry.held_bytes + held_bytes;
            entry.held_bytes = held_bytes;
            let limit = self.shared.config.buffer_bytes / u64::from(self.shared.shards.max(1));
            if self.held_bytes as u64 > limit {
                let socket = entry.socket;
                self.counters.starved.add(1);
                self.forget(socket);
                return only_death(self.sockets.abort(socket));
            }
        }
        Ok(())
    }

    /// Gives the metrics to those that await them, where they have come or have been awaited long enough.
    #[cold]
    fn supply_metrics(&mut self) -> Result<(), Interruption> {
        let mut position = 0;
        while let Some(&index) = self.awaiting.get(position) {
            let metrics = match self.entries.get(index as usize) {
                Some(Some(entry)) => entry.metrics,
                _ => None,
            };
            let Some((question, until_ns)) = metrics else {
                self.awaiting.swap_remove(position);
                continue;
            };
            if self.now_ns < until_ns && !self.shared.collector.is_answered(question) {
                position += 1;
                continue;
            }
            self.awaiting.swap_remove(position);
            if let Some(Some(entry)) = self.entries.get_mut(index as usize) {
                entry.metrics = None;
            }
            let text = match &self.text {
                Some((last, text)) if *last == question => text.clone(),
                _ => self.shared.collector.text(question),
            };
            self.text = Some((question, text.clone()));
            self.with_stream(index, |stream, transport, context| {
                stream.supply(text, transport, context)
            })?;
        }
        Ok(())
    }

    /// Ends what has waited too long, and finds the next deadline.
    #[cold]
    fn sweep(&mut self) -> Result<(), Interruption> {
        let mut earliest = NEVER;
        for index in 0..self.entries.len() {
            let Some(Some(entry)) = self.entries.get_mut(index) else {
                continue;
            };
            if entry.stream.deadline_ns() > self.now_ns {
                earliest = earliest.min(entry.stream.deadline_ns());
                continue;
            }
            let socket = entry.socket;
            self.counters.timed_out.add(1);
            let mut transport = SocketTransport {
                sockets: &*self.sockets,
                socket,
                buffers: &mut self.buffers,
            };
            let context = context(
                &self.shared,
                &self.clock,
                &self.counters,
                &self.repeats,
                self.uploads.as_ref(),
            );
            let ended = match entry.stream.expire(&mut transport, &context) {
                Ok(true) => self.sockets.close(socket),
                _ => self.sockets.abort(socket),
            };
            only_death(ended)?;
            self.forget(socket);
        }
        self.sweep_ns = if earliest == NEVER {
            NEVER
        } else {
            earliest.max(self.now_ns.saturating_add(SWEEP_NS))
        };
        Ok(())
    }

    fn forget(&mut self, socket: SocketId) {
        if let Some(slot) = self.entries.get_mut(socket.index as usize)
            && let Some(entry) = slot.take_if(|entry| entry.socket == socket)
        {
            self.held_bytes -= entry.held_bytes;
            self.open -= 1;
            self.counters.open.set(self.open as u64);
        }
    }
}

impl serving::Shard for Shard {
    fn number(&self) -> u16 {
        self.number
    }

    fn port(&self) -> u16 {
        self.shared.config.port
    }

    fn sockets(&mut self) -> &mut Handle<dyn Sockets> {
        &mut self.sockets
    }

    fn serve(&mut self) -> Result<Infallible, Interruption> {
        let mut events = event_list()?;
        loop {
            let deadline_ns = if self.awaiting.is_empty() {
                self.sweep_ns
            } else {
                self.sweep_ns.min(self.now_ns.saturating_add(METRICS_POLL_NS))
            };
            events = self.sockets.wait(self.number, events, deadline_ns)?;
            self.now_ns = now_ns();
            self.clock.set(unix_time_s());
            let count = (events.length as usize).min(EVENT_LIMIT);
            for index in 0..count {
                if let Some(Some(event)) = events.events.get(index) {
                    self.handle(event)?;
                }
            }
            if !self.awaiting.is_empty() {
                self.supply_metrics()?;
            }
            if self.now_ns >= self.sweep_ns {
                self.sweep()?;
            }
        }
    }

    fn open(&self) -> impl Iterator<Item = SocketId> {
        self.entries.iter().flatten().map(|entry| entry.socket)
    }

    fn forget_all(&mut self) {
        self.entries.clear();
        self.awaiting.clear();
        self.open = 0;
        self.held_bytes = 0;
        self.sweep_ns = NEVER;
        self.counters.open.set(0);
    }
}

/// What answers draw on. Not a method: a shard's connections and buffers are changed beside it.
#[inline]
fn context<'a>(
    shared: &'a Shared,
    clock: &'a Clock,
    counters: &'a Counters,
    repeats: &'a Repeats,
    uploads: Option<&'a Entrance>,
) -> Context<'a> {
    Context {
        site: &shared.site,
        clock,
        counters,
        repeats,
        header_bytes: shared.config.header_bytes as usize,
        body_bytes: shared.config.body_bytes,
        uploads,
    }
}
