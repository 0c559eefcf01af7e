//! A lab that is up, and the ways in which tests use it: commands in its nodes, connections, the console, the card's model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::{Lab, Programs};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long a console command may take; generous, because CI's machines are slow and busy.
const CONSOLE_LIMIT: Duration = Duration::from_secs(30);
/// Lines of the serial log that a failure shows.
const SERIAL_LINES: usize = 30;

/// A lab that ends when this is dropped.
pub struct RunningLab {
    /// There until dropped.
    lab: Option<Lab>,
    programs: Programs,
}

impl Deref for RunningLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("only taken when dropped")
    }
}

impl DerefMut for RunningLab {
    fn deref_mut(&mut self) -> &mut Lab {
        self.lab.as_mut().expect("only taken when dropped")
    }
}

impl Drop for RunningLab {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.down();
        }
    }
}

/// What came of many connections (`lab-node connections`).
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// Answers.
    pub answered: u64,
    /// Requests without one, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Answers by server.
    pub by_server: BTreeMap<String, u64>,
    /// Answers by another server than before on the same connection.
    pub moved: u64,
    /// Who answered each connection, in the order of their source ports, when these were asked for.
    #[serde(default)]
    pub servers: Vec<Option<String>>,
}

impl Outcome {
    /// All requests that weren't answered.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Fails unless `count` requests were answered, none failed and none moved.
    pub fn check_all(&self, count: u64) -> Result<()> {
        ensure!(
            self.answered == count && self.failed.is_empty() && self.moved == 0,
            "{count} answers were expected, and from the same servers as before; seen: {} answers, {} from another \
             server, failures {:?}",
            self.answered,
            self.moved,
            self.failed
        );
        Ok(())
    }
}

/// What came of a download.
pub struct Download {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

impl Download {
    /// Megabytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }
}

impl RunningLab {
    /// Takes over a lab.
    pub fn new(lab: Lab, programs: Programs) -> Self {
        Self {
            lab: Some(lab),
            programs,
        }
    }

    /// Adds to a test's result what the card's model has to complain about, and to a failure what the serial port said.
    pub fn judge(&self, outcome: Result<()>) -> Result<()> {
        outcome.and_then(|()| self.check_violations()).map_err(|error| {
            anyhow!(
                "{error:#}\nthe serial port's last lines:\n{}",
                self.serial_tail(SERIAL_LINES)
            )
        })
    }

    /// Fails if our driver did what the datasheet forbids.
    pub fn check_violations(&self) -> Result<()> {
        let answer = self.nic(&["violations"])?;
        let list = answer["violations"]
            .as_array()
            .context("the model's answer has no list")?;
        ensure!(
            list.is_empty(),
            "the driver did what the datasheet forbids: {}",
            answer["violations"]
        );
        Ok(())
    }

    /// Runs a command in a node's namespace; returns what it wrote, or its error.
    pub fn run(&self, node: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command_in(node, program)?;
        command.args(arguments).stdin(Stdio::null());
        finish(
            command,
            &format!("in {node}, `{program} {}`", arguments.join(" ")),
        )
    }

    /// Sends `input` to an address from the client, and returns all that comes back until the other side closes.
    pub fn exchange(&self, to: SocketAddr, input: &[u8]) -> Result<Vec<u8>> {
        let mut child = self
            .command_in("client", &self.programs.node)?
            .args(["exchange", "--to", &to.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }

    /// Downloads from the client; fails when the transfer does.
    pub fn download(&self, url: &str, limit: Duration) -> Result<Download> {
        let started = Instant::now();
        let mut child = self
            .command_in("client", "curl")?
            .args(["-sS", "--fail", "-m", &limit.as_secs().to_string(), url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("curl can't be run")?;
        let mut body = child.stdout.take().context("curl's output is gone")?;
        let mut digest = Sha256::new();
        let mut bytes = 0_u64;
        let mut chunk = vec![0; 1 << 18];
        loop {
            let length = body.read(&mut chunk)?;
            if length == 0 {
                break;
            }
            digest.update(chunk.get(..length).unwrap_or_default());
            bytes += length as u64;
        }
        let time = started.elapsed();
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "the download of {url} failed after {bytes} bytes and {:.1} s: {}",
            time.as_secs_f64(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let sha256 = hexadecimal(&digest.finalize());
        Ok(Download { sha256, bytes, time })
    }

    /// Makes `count` connections from the client with one request each, at most `at_once` open together.
    pub fn connections(&self, to: SocketAddr, count: u64, at_once: u32) -> Result<Outcome> {
        self.ask_once(to, count, at_once, &[])
    }

    /// The same from the source ports `first_port` and up, so that the flows are the same each time.
    pub fn connections_from(
        &self,
        to: SocketAddr,
        count: u64,
        at_once: u32,
        first_port: u16,
    ) -> Result<Outcome> {
        self.ask_once(to, count, at_once, &["--source-port", &first_port.to_string()])
    }

    /// As [`RunningLab::connections`], with a time for each connection and each answer.
    pub fn impatient_connections(
        &self,
        to: SocketAddr,
        count: u64,
        at_once: u32,
        patience: Duration,
    ) -> Result<Outcome> {
        self.ask_once(
            to,
            count,
            at_once,
            &["--patience-ms", &patience.as_millis().to_string()],
        )
    }

    fn ask_once(&self, to: SocketAddr, count: u64, at_once: u32, more: &[&str]) -> Result<Outcome> {
        let mut command = self.command_in("client", &self.programs.node)?;
        command
            .args(["connections", "--to", &to.to_string()])
            .args(["--count", &count.to_string()])
            .args(["--at-once", &at_once.to_string()])
            .args(more)
            .stdin(Stdio::null());
        let text = finish(command, "lab-node connections")?;
        serde_json::from_str(&text).context("what lab-node printed can't be read")
    }

    /// Sends datagrams from the client over many source ports, to be counted and not answered; returns how many.
    pub fn datagrams(&self, to: SocketAddr, flows: u16, rate: u64, time: Duration) -> Result<u64> {
        let mut command = self.command_in("client", &self.programs.node)?;
        command
            .args(["udp-load", "--to", &to.to_string()])
            .args(["--flows", &flows.to_string(), "--rate", &rate.to_string()])
            .args(["--duration-ms", &time.as_millis().to_string()])
            .stdin(Stdio::null());
        let answer: Value = serde_json::from_str(&finish(command, "lab-node udp-load")?)?;
        answer["datagrams"]
            .as_u64()
            .context("lab-node printed no number of datagrams")
    }

    /// Opens connections from the client that stay open, to be asked again with [`Held::ask`].
    pub fn hold(&self, to: SocketAddr, count: u64) -> Result<Held> {
        let mut command = self.command_in("client", &self.programs.node)?;
        command
            .args(["connections", "--hold", "--to", &to.to_string()])
            .args(["--count", &count.to_string()]);
        Self::held(command)
    }

    /// Opens UDP flows from the client, to be asked again with [`Held::ask`].
    pub fn hold_datagrams(&self, to: SocketAddr, count: u64) -> Result<Held> {
        let mut command = self.command_in("client", &self.programs.node)?;
        command
            .args(["datagram-flows", "--to", &to.to_string()])
            .args(["--count", &count.to_string()]);
        Self::held(command)
    }

    fn held(mut command: Command) -> Result<Held> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("the connections' input is gone")?;
        let output = BufReader::new(child.stdout.take().context("the connections' output is gone")?);
        Ok(Held {
            child,
            input,
            output,
            asked: false,
        })
    }

    /// Types a command at the serial shell and returns what it printed.
    pub fn console(&self, command: &str) -> Result<String> {
        lab::run_command(&self.report().serial, command, CONSOLE_LIMIT)
    }

    /// The same for a command that answers in JSON. Log lines that come meanwhile are no part of the answer.
    pub fn console_json(&self, command: &str) -> Result<Value> {
        let text = self.console(command)?;
        text.lines()
            .filter(|line| line.starts_with(['{', '[']))
            .find_map(|line| serde_json::from_str(line).ok())
            .with_context(|| format!("`{command}` answered no JSON:\n{text}"))
    }

    /// Talks to the card's model.
    pub fn nic(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.programs.nic_model);
        command
            .arg("ctl")
            .arg(&self.report().nic)
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null());
        let text = finish(command, &format!("nic-model ctl {}", arguments.join(" ")))?;
        serde_json::from_str(&text).with_context(|| format!("the model's answer can't be read: {text}"))
    }

    /// The last lines of the serial log.
    pub fn serial_tail(&self, lines: usize) -> String {
        let text = self.serial();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// All that the serial port has written.
    pub fn serial(&self) -> String {
        let bytes = std::fs::read(self.report().serial_log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// URL of a file of the appliance's site.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.report().appliance.http)
    }

    /// Address and port of the appliance's web server.
    pub fn server(&self) -> Result<SocketAddr> {
        address(&self.report().appliance.http)
    }

    /// Address and port of the first virtual service for `protocol` over the version of IP.
    pub fn service(&self, protocol: &str, ipv6: bool) -> Result<SocketAddr> {
        let services = self.console_json("maglev --json")?;
        services
            .as_array()
            .into_iter()
            .flatten()
            .filter(|service| service["protocol"] == protocol)
            .filter_map(|service| {
                let ip = service["address"].as_str()?.parse().ok()?;
                let port = u16::try_from(service["port"].as_u64()?).ok()?;
                Some(SocketAddr::new(ip, port))
            })
            .find(|address| address.is_ipv6() == ipv6)
            .with_context(|| format!("the balancer has no such service: {services}"))
    }

    /// Address and port of the key-value store.
    pub fn store(&self) -> Result<SocketAddr> {
        let address = self
            .report()
            .kv
            .context("the configuration has no key-value store")?;
        Ok(address.parse()?)
    }

    /// Address and port of the first TCP VIP.
    pub fn vip(&self) -> Result<SocketAddr> {
        address(&self.report().vip.context("the configuration has no VIP")?.http)
    }
}

/// Connections that are open until this is dropped.
pub struct Held {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: bool,
}

impl Held {
    /// Sends a request on each connection and reads the answers.
    pub fn ask(&mut self) -> Result<Outcome> {
        // The first round comes by itself, when all are open.
        if self.asked {
            self.input
                .write_all(b"\n")
                .context("the connections' program has ended")?;
        }
        self.asked = true;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the connections' program has ended");
        serde_json::from_str(&line).context("what lab-node printed can't be read")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; gives what it wrote, or its error as that of `what`.
pub fn finish(mut command: Command, what: &str) -> Result<String> {
    let output = command.output().with_context(|| format!("{what} can't be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{what} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The address in a URL like `http://10.82.99.10/`, with port 80 when it names none.
fn address(url: &str) -> Result<SocketAddr> {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    host.parse()
        .or_else(|_| format!("{host}:80").parse())
        .with_context(|| format!("{url} has no address"))
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_urls() {
        assert_eq!(
            address("http://10.82.99.10/").unwrap(),
            "10.82.99.10:80".parse().unwrap()
        );
        assert_eq!(
            address("http://10.82.99.10:8080/").unwrap(),
            "10.82.99.10:8080".parse().unwrap()
        );
        assert!(address("http://nowhere/").is_err());
    }
}
