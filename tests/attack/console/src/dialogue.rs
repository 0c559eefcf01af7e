//! Commands from the serial port, answers in JSON.
//!
//! `reset` counts crossings anew, `kinds` lists them; `campaign KIND|any INJECTION FIRST STRIDE LAST` begins a campaign and `end` ends it with its
//! results; `domains` and `memory` are as the shell's.

use crate::campaign::{Campaigns, Order, Results};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use attack_interface::injector::Injection;
use domain_rt::clock;
use domain_rt::{Handle, thread};
use interface::kernel::SerialConsole;
use rref::Text;
use serde_json::{Value, json};

const PROMPT: &str = "attack> ";
/// Bytes that one write to the console takes.
const WRITE_BYTES: usize = 512;
/// Quiet time after which the log is shown again, nanoseconds.
const QUIET_NS: u64 = 3_000_000_000;
/// Longest line.
const LINE_BYTES: usize = 256;
/// Pause after a failed read, milliseconds.
const ERROR_PAUSE_MS: u64 = 100;

/// The dialogue.
pub struct Dialogue {
    console: Handle<dyn SerialConsole>,
    campaigns: Arc<Campaigns>,
}

impl Dialogue {
    /// A dialogue at this console.
    pub fn new(console: Handle<dyn SerialConsole>, campaigns: Arc<Campaigns>) -> Dialogue {
        Dialogue { console, campaigns }
    }

    /// Answers for the domain's life.
    pub fn run(&self) {
        let mut line = String::new();
        loop {
            let (count, bytes) = match self.console.read(clock::now_ns() + QUIET_NS) {
                Ok(read) => read,
                Err(_) => {
                    thread::sleep_ms(ERROR_PAUSE_MS);
                    continue;
                }
            };
            // The log would come in between the lines of an answer.
            self.console.show_log(count == 0).ok();
            for byte in bytes.iter().take(usize::from(count)) {
                match byte {
                    b'\r' | b'\n' => {
                        let answer = self.answer(line.trim());
                        self.write(&format!("\r\n{answer}{PROMPT}"));
                        line.clear();
                    }
                    0x20..=0x7e if line.len() < LINE_BYTES => {
                        line.push(char::from(*byte));
                        self.write(char::from(*byte).encode_utf8(&mut [0; 4]));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The answer to a line, with its line end; nothing for an empty line.
    fn answer(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = match words.as_slice() {
            [] => return String::new(),
            ["reset"] => match self.campaigns.reset() {
                Ok(()) => json!({ "reset": true }),
                Err(error) => failed(&format!("{error}")),
            },
            ["kinds"] => self.kinds(),
            ["domains", ..] => self.domains(),
            ["memory", ..] => self.memory(),
            ["campaign", kind, injection, first, stride, last] => {
                match order(kind, injection, [first, stride, last]) {
                    Some(order) if self.campaigns.begin(order) => json!({ "begun": true }),
                    Some(_) => failed("a campaign is under way"),
                    None => failed("campaign KIND|any panic|hang|page-fault FIRST STRIDE LAST"),
                }
            }
            ["end"] => results(&self.campaigns.end()),
            _ => failed("there are `reset`, `kinds`, `campaign`, `end`, `domains` and `memory`"),
        };
        format!("{value}\r\n")
    }

    fn kinds(&self) -> Value {
        let kinds = self.campaigns.kinds();
        (0..)
            .zip(kinds)
            .map(|(index, kind): (u16, _)| {
                json!({
                    "index": index,
                    "interface": kind.interface.as_str(),
                    "domain": self.campaigns.name(kind.domain).as_str(),
                    "count": kind.count,
                })
            })
            .collect()
    }

    fn domains(&self) -> Value {
        self.campaigns
            .domains()
            .iter()
            .map(|domain| {
                json!({
                    "name": domain.name.as_str(),
                    "state": format!("{:?}", domain.state).to_lowercase(),
                    "generation": domain.generation,
                    "threads": domain.threads,
                    "memory_bytes": domain.memory_bytes,
                    "shared_bytes": domain.shared_bytes,
                })
            })
            .collect()
    }

    fn memory(&self) -> Value {
        match self.campaigns.memory() {
            Some(memory) => json!({
                "free_pages": memory.free_pages,
                "shared_used_bytes": memory.shared_used_bytes,
                "shared_pages": memory.shared_pages,
            }),
            None => failed("the kernel doesn't say"),
        }
    }

    fn write(&self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let mut end = rest.len().min(WRITE_BYTES);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (part, more) = rest.split_at(end);
            if self.console.write(Text::new(part)).is_err() {
                return;
            }
            rest = more;
        }
    }
}

fn failed(why: &str) -> Value {
    json!({ "error": why.to_string() })
}

fn order(kind: &str, injection: &str, [first, stride, last]: [&str; 3]) -> Option<Order> {
    let kind = match kind {
        "any" => None,
        number => Some(number.parse().ok()?),
    };
    Some(Order {
        kind,
        injection: Injection::by_name(injection)?,
        first: first.parse().ok()?,
        stride: stride.parse().ok()?,
        last: last.parse().ok()?,
    })
}

fn results(results: &Results) -> Value {
    json!({
        "tried": results.tried,
        "detected": results.detected,
        "recovered": results.recovered,
        "slowest_detection_ms": results.slowest_detection_ns / 1_000_000,
        "slowest_recovery_ms": results.slowest_recovery_ns / 1_000_000,
        "problems": results.problems,
        "words": results.words,
    })
}
