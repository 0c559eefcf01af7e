//! `nic-model ctl`: asks a running model, prints what it answers.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use nic_model::FrameFault;
use nic_model::control::{Directions, Request};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long a model may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Talks to a running model.
#[derive(Args)]
pub struct Ctl {
    /// The model's control socket.
    path: PathBuf,
    /// Prints the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum LinkState {
    Up,
    Down,
}

#[derive(Subcommand)]
enum Command {
    /// Lets something happen to a share of the frames.
    Fault {
        /// What.
        kind: Kind,
        /// Share of the frames, 0 to 1; 0 ends it.
        #[arg(long)]
        rate: f64,
        /// To which frames, seen from the guest.
        #[arg(long, default_value = "both")]
        direction: Directions,
        /// Makes the decisions repeatable.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Plugs the cable in or pulls it.
    Link {
        /// New state.
        state: LinkState,
    },
    /// Stops the DMA engine.
    StopDma,
    /// Starts the DMA engine again.
    StartDma,
    /// Loses a share of the interrupts.
    LoseInterrupts {
        /// 0 to 1; 0 ends it.
        rate: f64,
    },
    /// Makes resets hang, or lets the next one work.
    HangOnReset {
        /// Whether they hang.
        state: Switch,
    },
    /// Switches every fault off.
    Clear,
    /// Shows which faults are on.
    Faults,
    /// Shows what the model has counted.
    Counters,
    /// Shows what the driver did that the datasheet forbids.
    Violations {
        /// Forgets them afterwards.
        #[arg(long)]
        clear: bool,
    },
    /// Shows registers by the start of their name; all that aren't zero without one.
    Registers {
        /// Start of the name, as in the datasheet.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Starts or ends a capture.
    Pcap {
        /// Which.
        state: Switch,
        /// The file to write, on the model's machine.
        #[arg(required_if_eq("state", "on"))]
        file: Option<PathBuf>,
    },
}

impl Command {
    fn request(&self) -> Request {
        match self {
            Self::Fault {
                kind,
                rate,
                direction,
                seed,
            } => {
                let kind = match kind {
                    Kind::Drop => FrameFault::Drop,
                    Kind::Duplicate => FrameFault::Duplicate,
                    Kind::Reorder => FrameFault::Reorder,
                    Kind::Corrupt => FrameFault::Corrupt,
                };
                Request::Fault {
                    kind,
                    direction: *direction,
                    rate: *rate,
                    seed: *seed,
                }
            }
            Self::Link { state } => Request::Link {
                up: *state == LinkState::Up,
            },
            Self::StopDma => Request::StopDma,
            Self::StartDma => Request::StartDma,
            Self::LoseInterrupts { rate } => Request::LoseInterrupts { rate: *rate },
            Self::HangOnReset { state } => Request::HangOnReset {
                on: *state == Switch::On,
            },
            Self::Clear => Request::Clear,
            Self::Faults => Request::Faults,
            Self::Counters => Request::Counters,
            Self::Violations { clear } => Request::Violations { clear: *clear },
            Self::Registers { prefix } => Request::Registers {
                prefix: prefix.to_uppercase(),
            },
            Self::Pcap {
                state: Switch::On,
                file,
            } => {
                let absolute = file
                    .as_ref()
                    .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
                Request::Pcap { file: absolute }
            }
            Self::Pcap {
                state: Switch::Off, ..
            } => Request::Pcap { file: None },
        }
    }

    /// What to say when the answer is only that it was done.
    fn print(&self, answer: &Value) {
        match self {
            Self::Violations { .. } => print_violations(&answer["violations"]),
            Self::Registers { .. } => print_registers(&answer["registers"]),
            Self::Counters => print_tree(answer, 0),
            Self::Faults => print_tree(&answer["faults"], 0),
            _ => println!("done"),
        }
    }
}

impl Ctl {
    /// Sends the request and prints the answer.
    pub fn run(&self) -> Result<()> {
        let stream = UnixStream::connect(&self.path)
            .with_context(|| format!("no model answers at {}; is it running?", self.path.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut line = serde_json::to_string(&self.command.request())?;
        line.push('\n');
        (&stream)
            .write_all(line.as_bytes())
            .context("the model took no request")?;
        let mut answer = String::new();
        BufReader::new(&stream)
            .read_line(&mut answer)
            .context("the model gave no answer")?;
        let value: Value = serde_json::from_str(&answer).context("the model's answer is no JSON")?;
        if value["ok"] != Value::Bool(true) {
            bail!(
                "{}",
                value["error"]
                    .as_str()
                    .unwrap_or("the model refused without a reason")
            );
        }
        if self.json {
            println!("{value}");
        } else {
            self.command.print(&value);
        }
        Ok(())
    }
}

fn print_violations(list: &Value) {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        println!("none");
    }
    for entry in list {
        let queue = entry["queue"]
            .as_u64()
            .map_or(String::new(), |queue| format!(" queue {queue}"));
        let value = entry["value"].as_u64().unwrap_or(0);
        println!(
            "{:>6} x {}{queue}, last value {value:#x}",
            entry["count"],
            entry["kind"].as_str().unwrap_or("?")
        );
    }
}

fn print_registers(list: &Value) {
    for entry in list.as_array().map(Vec::as_slice).unwrap_or_default() {
        let number = |key: &str| entry[key].as_u64().unwrap_or(0);
        println!(
            "{:#07x}  {:08x}  {}",
            number("offset"),
            number("value"),
            entry["name"].as_str().unwrap_or("?")
        );
    }
}

/// Prints an object as indented lines, leaving out what is zero or empty.
fn print_tree(value: &Value, depth: usize) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object.iter().filter(|(key, _)| *key != "ok") {
        let name = format!("{:depth$}{}", "", key.replace('_', " "), depth = depth * 2);
        match value {
            Value::Object(_) => {
                println!("{name}");
                print_tree(value, depth + 1);
            }
            Value::Array(list) => {
                for entry in list {
                    println!("{name}: {}", one_line(entry));
                }
            }
            Value::Null => {}
            Value::Number(number) if number.as_f64() == Some(0.0) => {}
            Value::String(text) => println!("{name}: {text}"),
            other => println!("{name}: {other}"),
        }
    }
}

fn one_line(value: &Value) -> String {
    match value.as_object() {
        Some(object) => object
            .iter()
            .map(|(key, value)| {
                format!(
                    "{key} {}",
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                )
            })
            .collect::<Vec<_>>()
            .join(", "),
        None => value.to_string(),
    }
}
