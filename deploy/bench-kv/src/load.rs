//! One run of redis-benchmark from the client's namespace.

use std::fmt;

use anyhow::{Context, Result, ensure};
use measure::{Images, Machine};
use progress::Step;

/// Keys that are drawn from.
const KEYS: u32 = 100_000;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// redis-benchmark's name of the test.
    pub test: &'static str,
    /// Requests under way on a connection.
    pub pipeline: u32,
    /// Requests.
    pub requests: u64,
    /// Connections.
    pub connections: u32,
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -P {}", self.test.to_uppercase(), self.pipeline)
    }
}

/// What it gave.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Guest instructions of a request.
    pub instructions_per_request: f64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// Latency that one in a hundred exceeds, in milliseconds.
    pub p99_ms: f64,
}

/// All of `loads`, one after the other; with `images`, prints where each one's instructions were executed.
pub fn all(machine: &Machine, whose: &str, loads: &[Load], images: Option<&Images>) -> Result<Vec<Outcome>> {
    loads
        .iter()
        .map(|load| {
            let step = Step::start(format!("{load} on {whose}"));
            // Connections, and with the first load the store's tables, are warm then.
            run(machine, load, load.requests / 20)?;
            let before = images.map(|_| Commits::read(machine)).transpose()?;
            let counted = machine.count(|| run(machine, load, load.requests))?;
            let outcome = Outcome {
                instructions_per_request: counted.instructions / load.requests as f64,
                requests_per_second: counted.result.rate,
                p50_ms: counted.result.p50_ms,
                p99_ms: counted.result.p99_ms,
            };
            step.done(format!(
                "{:.0} requests/s, {:.0} instructions each",
                outcome.requests_per_second, outcome.instructions_per_request
            ));
            if let Some(images) = images {
                let profile = images.profile(&counted.before, &counted.after, load.requests, "request");
                print!("{profile}");
            }
            if let Some(before) = before {
                println!("\n{}", Commits::read(machine)?.since(before));
            }
            Ok(outcome)
        })
        .collect()
}

/// What the appliance's store has done since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commits {
    groups: u64,
    flushes: u64,
    written_bytes: u64,
}

impl Commits {
    fn read(machine: &Machine) -> Result<Self> {
        let text = machine.console("kv stats --json")?;
        Self::parse(&text).with_context(|| format!("`kv stats --json` can't be read:\n{text}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: serde_json::Value = text
            .lines()
            .find_map(|line| serde_json::from_str(line.trim()).ok())?;
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            groups: number("groups")?,
            flushes: number("flushes")?,
            written_bytes: number("written_bytes")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            groups: self.groups.saturating_sub(before.groups),
            flushes: self.flushes.saturating_sub(before.flushes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

impl fmt::Display for Commits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            groups,
            flushes,
            written_bytes,
        } = self;
        write!(
            formatter,
            "{groups} groups, {flushes} flushes or forced writes, {written_bytes} bytes written"
        )
    }
}

#[derive(Debug, PartialEq)]
struct BenchmarkResult {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn run(machine: &Machine, load: &Load, requests: u64) -> Result<BenchmarkResult> {
    let lab = machine.lab();
    let host = lab.report().appliance.ipv4;
    let output = lab
        .command_in("client", "redis-benchmark")?
        .args(["-h", &host, "-p", "6379", "--csv", "-t", load.test])
        .args(["-n", &requests.to_string(), "-c", &load.connections.to_string()])
        .args(["-P", &load.pipeline.to_string(), "-r", &KEYS.to_string()])
        .output()
        .context("redis-benchmark can't be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "redis-benchmark failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&text)
}

/// The line behind the heading, whose columns are `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms", …`.
fn parse(text: &str) -> Result<BenchmarkResult> {
    let context = || format!("redis-benchmark's answer can't be read:\n{text}");
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let fields = |line: &str| -> Vec<String> {
        line.split("\",\"")
            .map(|field| field.trim_matches('"').to_owned())
            .collect()
    };
    let heading = fields(lines.next().with_context(context)?);
    let values = fields(lines.next().with_context(context)?);
    let find = |name: &str| {
        let at = heading.iter().position(|column| column == name)?;
        values.get(at)?.parse().ok()
    };
    Ok(BenchmarkResult {
        rate: find("rps").with_context(context)?,
        p50_ms: find("p50_latency_ms").with_context(context)?,
        p99_ms: find("p99_latency_ms").with_context(context)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_heading() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"p50_latency_ms\",\"p99_latency_ms\"\n\"SET\",\"1000.50\",\"1.2\",\"1.1\",\"3.0\"\n";
        let result = parse(text).unwrap();
        assert_eq!((result.rate, result.p50_ms, result.p99_ms), (1000.5, 1.1, 3.0));
        assert!(parse("WARNING: nothing").is_err());
    }

    #[test]
    fn commits_are_counted_from_the_consoles_answer() {
        let answer =
            |groups| format!("kv stats\n{{\"groups\":{groups},\"flushes\":3,\"written_bytes\":4096}}\n");
        let (before, after) = (
            Commits::parse(&answer(5)).unwrap(),
            Commits::parse(&answer(9)).unwrap(),
        );
        let between = after.since(before);
        assert_eq!(
            (between.groups, between.flushes, between.written_bytes),
            (4, 0, 0)
        );
        assert_eq!(Commits::parse("no store"), None);
    }
}
