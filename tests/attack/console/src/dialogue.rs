//! Commands from the serial port, answers in JSON.
//!
//! `reset` counts crossings anew, `kinds` lists them; `cover KIND|any FIRST STRIDE LAST` says which are to be tried; `campaign INJECTION|by-turns GAP
//! anew|on` begins to try them, in crossings counted anew or on, and `end` ends that with its results; `left` says how many are still to be tried. `domains`, `holdings`, `leaks`,
//! `memory` and `kill NAME` are as the shell's, the others with `--json`.

use crate::campaign::{Campaigns, Order, Results};
use crate::coverage::Coverage;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use attack_interface::injector::Injection;
use domain_rt::clock;
use domain_rt::{Handle, thread};
use interface::holdings::LeakReport;
use interface::kernel::SerialConsole;
use rref::Text;
use serde_json::{Map, Value, json};

const PROMPT: &str = "attack> ";
/// Bytes that one write to the console takes.
const WRITE_BYTES: usize = 512;
/// Quiet time after which the log is shown again, nanoseconds.
const QUIET_NS: u64 = 3_000_000_000;
/// Longest line.
const LINE_BYTES: usize = 256;
/// Crossings of a kind that can be told apart: a byte is kept for each.
const CROSSINGS: u64 = 1_000_000;
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
            // In the shell's words.
            ["kill", name] if self.campaigns.kill(name) => return format!("{name} is killed.\r\n"),
            ["kill", _] => return "The domain is not running.\r\n".to_string(),
            ["reset"] => match self.campaigns.reset() {
                Ok(()) => json!({ "reset": true }),
                Err(error) => failed(&format!("{error}")),
            },
            ["kinds"] => self.kinds(),
            ["domains", ..] => self.domains(),
            ["memory", ..] => self.memory(),
            ["holdings", ..] => self.holdings(),
            ["leaks", ..] => match self.campaigns.leaks() {
                Some(report) => leaks(&report),
                None => failed("the kernel doesn't say"),
            },
            ["cover", kind, first, stride, last] => match coverage(kind, [first, stride, last]) {
                None => failed("cover KIND|any FIRST STRIDE LAST"),
                Some(coverage) => {
                    if self.campaigns.cover(coverage) {
                        self.left()
                    } else {
                        failed("a campaign is under way")
                    }
                }
            },
            ["left"] => self.left(),
            ["campaign", injection, gap, count] => match order(injection, gap, count) {
                Some(order) if self.campaigns.begin(order) => json!({ "begun": true }),
                Some(_) => failed("a campaign is under way"),
                None => failed("campaign panic|hang|page-fault|by-turns GAP anew|on"),
            },
            ["end"] => results(&self.campaigns.end()),
            _ => failed(
                "there are `reset`, `kinds`, `cover`, `left`, `campaign`, `end`, `domains`, `holdings`, `leaks`, `memory` and `kill`",
            ),
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

    fn holdings(&self) -> Value {
        (0..)
            .map_while(|index| Some((index, self.campaigns.holdings(index)?)))
            .map(|(index, held)| (self.campaigns.name(index).to_string(), ledger::holdings(&held)))
            .collect::<Map<String, Value>>()
            .into()
    }

    fn memory(&self) -> Value {
        match self.campaigns.memory() {
            Some(memory) => ledger::memory(&memory),
            None => failed("the kernel doesn't say"),
        }
    }

    fn left(&self) -> Value {
        let (left, is_ahead) = self.campaigns.left();
        json!({ "left": left, "ahead": is_ahead })
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

fn coverage(kind: &str, [first, stride, last]: [&str; 3]) -> Option<Coverage> {
    let kind = match kind {
        "any" => None,
        number => Some(number.parse().ok()?),
    };
    let last = last.parse().ok().filter(|last| *last <= CROSSINGS)?;
    Some(Coverage::new(
        kind,
        first.parse().ok()?,
        stride.parse().ok()?,
        last,
    ))
}

fn order(injection: &str, gap: &str, count: &str) -> Option<Order> {
    let injection = match injection {
        "by-turns" => None,
        name => Some(Injection::by_name(name)?),
    };
    Some(Order {
        injection,
        gap: gap.parse().ok()?,
        anew: match count {
            "anew" => true,
            "on" => false,
            _ => return None,
        },
    })
}

fn leaks(report: &LeakReport) -> Value {
    let found = usize::try_from(report.found).unwrap_or(usize::MAX);
    let findings: Vec<String> = report
        .findings
        .iter()
        .take(found)
        .map(ToString::to_string)
        .collect();
    ledger::leaks(report, &findings)
}

fn results(results: &Results) -> Value {
    json!({
        "tried": results.tried,
        "covered": results.covered,
        "detected": results.detected,
        "recovered": results.recovered,
        "slowest_detection_ms": results.slowest_detection_ns / 1_000_000,
        "slowest": results.slowest,
        "slowest_recovery_ms": results.slowest_recovery_ns / 1_000_000,
        "problems": results.problems,
        "words": results.words,
    })
}
