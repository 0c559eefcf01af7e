//! HTTP requests over persistent connections, by wrk in the client's namespace.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::{InstructionReading, Lab};
use measure::Images;
use progress::Step;

use crate::per_unit;
use crate::report::{Http, Idle};
use crate::setup::FILE;

/// Connections at once, as the peer was measured with.
const CONNECTIONS: u32 = 20;

/// What wrk says of a run.
#[derive(Debug, PartialEq)]
struct WrkResult {
    requests: u64,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures for `seconds`, after a second that warms up.
pub fn measure(
    lab: &Lab,
    counter: &Path,
    idle: &Idle,
    seconds: u64,
    images: Option<&Images>,
) -> Result<Http> {
    let step = Step::start(format!("HTTP load for {seconds} s"));
    let url = format!("{}{FILE}", lab.report().appliance.http);
    wrk(lab, &url, 1)?;
    let before = InstructionReading::take(counter)?;
    let result = wrk(lab, &url, seconds)?;
    let after = InstructionReading::take(counter)?;
    let instructions = per_unit(&before, &after, idle, result.requests);
    step.done(format!("{} requests", result.requests));
    if let Some(images) = images {
        print!("{}", images.profile(&before, &after, result.requests, "request"));
    }
    Ok(Http {
        connections: CONNECTIONS,
        requests: result.requests,
        instructions_per_request: instructions,
        requests_per_second: result.requests_per_second,
        p50_ms: result.p50_ms,
        p99_ms: result.p99_ms,
    })
}

fn wrk(lab: &Lab, url: &str, seconds: u64) -> Result<WrkResult> {
    let mut command = lab.command_in("client", "wrk")?;
    command.args([
        "--threads",
        "1",
        "--latency",
        "--connections",
        &CONNECTIONS.to_string(),
    ]);
    let output = command
        .args(["--duration", &format!("{seconds}s")])
        .arg(url)
        .output()
        .context("wrk can't be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "wrk failed: {}{}",
        text,
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&text)
}

fn parse(text: &str) -> Result<WrkResult> {
    // A run with errors measures something else.
    if let Some(errors) = text
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"))
    {
        bail!("wrk met errors: {}", errors.trim());
    }
    let field = |label: &str| {
        text.lines().find_map(|line| {
            let (before, after) = line.split_once(label)?;
            Some((before.trim().to_owned(), after.trim().to_owned()))
        })
    };
    let (requests, _) = field(" requests in ").context("wrk printed no number of requests")?;
    let (_, rate) = field("Requests/sec:").context("wrk printed no rate")?;
    // At the start of a line: `92.50%` of the statistics above is no percentile.
    let percentile = |label| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(label));
        value
            .and_then(|value| milliseconds(value.trim()))
            .unwrap_or(f64::NAN)
    };
    Ok(WrkResult {
        requests: requests
            .parse()
            .context("wrk's number of requests can't be read")?,
        requests_per_second: rate.parse().context("wrk's rate can't be read")?,
        p50_ms: percentile("50%"),
        p99_ms: percentile("99%"),
    })
}

/// A time as wrk prints it: `850.00us`, `2.70ms`, `1.05s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://10.82.99.10/612.html
  1 threads and 20 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.10ms  400.00us   9.00ms   92.50%
    Req/Sec     9.50k   300.00    10.10k    70.00%
  Latency Distribution
     50%  850.00us
     75%    2.30ms
     90%    2.60ms
     99%    1.05s
  19012 requests in 2.00s, 14.50MB read
Requests/sec:   9500.12
Transfer/sec:      7.25MB
";

    #[test]
    fn figures_are_found() {
        let result = parse(OUTPUT).unwrap();
        let expected = WrkResult {
            requests: 19_012,
            requests_per_second: 9500.12,
            p50_ms: 0.85,
            p99_ms: 1050.0,
        };
        assert_eq!(result, expected);
    }

    #[test]
    fn a_run_with_errors_is_no_measurement() {
        let text = format!("{OUTPUT}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(parse(&text).unwrap_err().to_string().contains("read 3"));
        assert!(parse("").is_err());
    }
}
