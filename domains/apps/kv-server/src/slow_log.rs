//! How long commands take: the slow log, and the latency monitor's events.
//!
//! A command is timed where that can tell something: one that isn't of constant time (nor SET) always, the others when a threshold is below
//! [`SHORT_US`]. Which commands SLOWLOG and LATENCY answer is in `commands/slow_log.rs`.

use crate::command::{Command, Context, Flags};
use crate::config::Config;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Commands of constant or logarithmic time, and SET, take less than this, in microseconds.
const SHORT_US: i64 = 1000;
/// Arguments of a command that are kept.
const ARGUMENT_LIMIT: usize = 32;
/// Bytes of an argument that are kept.
const ARGUMENT_BYTES: usize = 128;
/// Samples of an event that are kept.
const SAMPLE_LIMIT: usize = 160;

/// A command that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowCommand {
    /// Its number, never used again.
    pub id: u64,
    /// When it ran, seconds since 1970.
    pub at_s: u64,
    /// How long, in microseconds.
    pub took_us: u64,
    /// The beginnings of its arguments, without passwords.
    pub arguments: Vec<Vec<u8>>,
    /// Whose it was.
    pub remote: SocketAddr,
    /// That client's name.
    pub name: Box<[u8]>,
}

/// What took how long, of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Seconds since 1970 and milliseconds, the oldest first, one at most for a second.
    pub samples: VecDeque<(u64, u64)>,
    /// The longest of all times, in milliseconds.
    pub longest_ms: u64,
}

impl Event {
    fn add(&mut self, at_s: u64, took_ms: u64) {
        self.longest_ms = self.longest_ms.max(took_ms);
        if let Some((last_s, last_ms)) = self.samples.back_mut()
            && *last_s == at_s
        {
            *last_ms = took_ms.max(*last_ms);
            return;
        }
        if self.samples.len() >= SAMPLE_LIMIT {
            self.samples.pop_front();
        }
        self.samples.push_back((at_s, took_ms));
    }
}

/// What is slow, and what was.
pub struct Timing {
    /// Nanoseconds from any beginning.
    pub clock_ns: fn() -> u64,
    /// Commands that take so many microseconds are logged; none if negative.
    slow_us: i64,
    /// Commands that take so many milliseconds are events; none if 0.
    event_ms: u64,
    /// Commands of which at least one flag is here aren't timed.
    untimed: Flags,
    limit: usize,
    /// Slow commands, the newest first.
    pub slow: VecDeque<SlowCommand>,
    next_id: u64,
    /// Events by name.
    pub events: BTreeMap<&'static str, Event>,
}

impl Timing {
    /// Nothing was slow yet.
    pub fn new(config: &Config, clock_ns: fn() -> u64) -> Timing {
        let mut timing = Timing {
            clock_ns,
            slow_us: 0,
            event_ms: 0,
            untimed: Flags::empty(),
            limit: 0,
            slow: VecDeque::new(),
            next_id: 0,
            events: BTreeMap::new(),
        };
        timing.configure(config);
        timing
    }

    /// Takes the settings over.
    pub fn configure(&mut self, config: &Config) {
        let number = |name: &str, default: i64| {
            let text = config.free.get(name);
            text.and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        self.slow_us = number("slowlog-log-slower-than", 10_000);
        self.limit = usize::try_from(number("slowlog-max-len", 128)).unwrap_or_default();
        self.slow.truncate(self.limit);
        self.event_ms = u64::try_from(number("latency-monitor-threshold", 0)).unwrap_or_default();
        self.untimed = if self.slow_us < 0 && self.event_ms == 0 {
            Flags::all()
        } else if (0..SHORT_US).contains(&self.slow_us) || self.event_ms == 1 {
            Flags::empty()
        } else {
            Flags::FAST.union(Flags::BRIEF)
        };
    }

    /// Whether a command is to be timed.
    #[inline]
    pub fn wants(&self, command: &Command) -> bool {
        !command.flags.intersects(self.untimed)
    }

    fn is_slow(&self, took_us: u64) -> bool {
        u64::try_from(self.slow_us).is_ok_and(|slow_us| took_us >= slow_us)
    }

    fn log(&mut self, mut slow: SlowCommand) {
        slow.id = self.next_id;
        self.next_id += 1;
        self.slow.push_front(slow);
        self.slow.truncate(self.limit);
    }
}

impl Context<'_> {
    /// Keeps in mind that a command took until now since `start_ns`, if that is long.
    #[cold]
    pub fn note_time(&mut self, command: &Command, start_ns: u64) {
        let took_us = (self.server.timing.clock_ns)().saturating_sub(start_ns) / 1000;
        // One that waits has not ended.
        if self.own().is_some_and(|client| client.blocked.is_some()) {
            return;
        }
        let at_s = self.server.keyspace.now_ms / 1000;
        let timing = &mut self.server.timing;
        let took_ms = took_us / 1000;
        if timing.event_ms > 0 && took_ms >= timing.event_ms {
            let is_fast = command.flags.contains(Flags::FAST);
            let name = if is_fast { "fast-command" } else { "command" };
            timing.events.entry(name).or_default().add(at_s, took_ms);
        }
        // Of a transaction its commands are told, not EXEC.
        if !timing.is_slow(took_us) || command.name == "exec" {
            return;
        }
        let arguments = self.shown_arguments(command);
        let Some(client) = self.own() else { return };
        let slow = SlowCommand {
            id: 0,
            at_s,
            took_us,
            arguments,
            remote: client.remote,
            name: client.name.clone(),
        };
        self.server.timing.log(slow);
    }

    /// The beginnings of the arguments, without passwords.
    fn shown_arguments(&self, command: &Command) -> Vec<Vec<u8>> {
        let count = self.arguments.len();
        let shown = if count > ARGUMENT_LIMIT {
            ARGUMENT_LIMIT - 1
        } else {
            count
        };
        let mut arguments: Vec<Vec<u8>> = Vec::new();
        for (index, argument) in self.arguments.from(0).take(shown).enumerate() {
            let is_secret = match command.name {
                "auth" => index > 0,
                "hello" => index > 1,
                "config|set" => index > 1 && self.arguments.is(index - 1, "requirepass"),
                _ => false,
            };
            arguments.push(if is_secret {
                b"(redacted)".to_vec()
            } else if let Some((start, rest)) = argument.split_at_checked(ARGUMENT_BYTES)
                && !rest.is_empty()
            {
                let mut text = start.to_vec();
                text.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
                text
            } else {
                argument.to_vec()
            });
        }
        if shown < count {
            arguments.push(format!("... ({} more arguments)", count - shown).into_bytes());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use core::sync::atomic::{AtomicU64, Ordering};

    /// A clock by which everything takes 2 ms.
    fn slow_clock() -> u64 {
        static NOW_NS: AtomicU64 = AtomicU64::new(0);
        NOW_NS.fetch_add(2_000_000, Ordering::Relaxed)
    }

    fn bench() -> Bench {
        let mut bench = Bench::default();
        bench.server.timing.clock_ns = slow_clock;
        bench
    }

    #[test]
    fn slow_commands_are_logged_up_to_a_number() {
        let mut bench = bench();
        bench.run("mset a 1");
        assert_eq!(bench.run("slowlog len"), ":0\r\n");
        bench.run("config set slowlog-log-slower-than 2000 slowlog-max-len 2");
        bench.run("slowlog reset");
        bench.run("mset a 1");
        bench.run("mset a 2");
        bench.run("mset a 3");
        bench.run("config set slowlog-log-slower-than -1");
        let log = &bench.server.timing.slow;
        assert_eq!(log.len(), 2);
        assert_eq!(log[0].arguments, [b"mset", &b"a"[..], b"3"]);
        assert!(log[0].took_us >= 2000);
        bench.run("mset a 4");
        assert_eq!(bench.run("slowlog len"), ":2\r\n");
        assert!(bench.run("slowlog get 1").starts_with("*1\r\n*6\r\n:"));
    }

    #[test]
    fn long_arguments_are_cut_and_passwords_are_kept_out() {
        let mut bench = bench();
        bench.run("config set slowlog-log-slower-than 0");
        bench.send(&[b"set", b"a", &[b'x'; 130]]);
        let mut many = alloc::vec![&b"del"[..]];
        many.resize(40, b"k");
        bench.send(&many);
        bench.run("config set requirepass secret");
        bench.run("auth secret");
        let log: Vec<Vec<u8>> = bench
            .server
            .timing
            .slow
            .iter()
            .filter_map(|slow| slow.arguments.last().cloned())
            .collect();
        assert_eq!(log[0], b"(redacted)");
        assert_eq!(log[1], b"(redacted)");
        assert_eq!(log[2], b"... (9 more arguments)");
        assert!(log[3].ends_with(b"xxx... (2 more bytes)"));
    }

    #[test]
    fn events_are_kept_a_second_each() {
        let mut bench = bench();
        bench.run("config set latency-monitor-threshold 2");
        bench.run("mset a 1");
        bench.run("mset a 1");
        bench.pass_ms(1000);
        bench.run("mset a 1");
        assert!(bench.run("latency history command").starts_with("*2\r\n"));
        assert!(
            bench
                .run("latency latest")
                .starts_with("*1\r\n*4\r\n$7\r\ncommand\r\n")
        );
        assert_eq!(bench.run("latency reset nothing"), ":0\r\n");
        assert_eq!(bench.run("latency reset command"), ":1\r\n");
    }
}
