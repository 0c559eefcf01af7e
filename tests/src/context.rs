//! What tests share: the programs, built once, and labs that end when they are dropped.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use configuration::appliance::Appliance;
use image_builder::Built;
use lab::{Guest, Lab, Options, Plan, Programs};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The lab's name; another one than a person's own.
const NAME: &str = "tests";
/// How long the appliance may take until it answers; generous, because CI's machines are slow and busy.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// A file of the large site, in its root.
pub const LARGE_FILE: &str = "large.bin";
/// Its size: 200 MB.
const LARGE_FILE_BYTES: usize = 200_000_000;

/// What is shared.
pub struct Context {
    /// The project's root.
    pub root: PathBuf,
    programs: OnceCell<Programs>,
    large: OnceCell<LargeSite>,
}

/// An image that serves a large file.
struct LargeSite {
    built: Built,
    sha256: String,
    /// Holds the site; removed at the end.
    _directory: TempDir,
}

impl Context {
    /// Sets up what must be there even when a test is interrupted.
    pub fn new(root: PathBuf) -> Result<Self> {
        let interrupted = root.clone();
        ctrlc::set_handler(move || {
            if let Ok(lab) = Lab::open(&interrupted, NAME) {
                lab.down();
            }
            std::process::exit(130);
        })
        .context("signals can't be handled")?;
        // One that an earlier, killed run has left.
        if let Ok(lab) = Lab::open(&root, NAME) {
            lab.down();
        }
        Ok(Self {
            root,
            programs: OnceCell::new(),
            large: OnceCell::new(),
        })
    }

    /// The lab's programs and QEMU, installed and built when first asked for.
    pub fn programs(&self) -> Result<&Programs> {
        if let Some(programs) = self.programs.get() {
            return Ok(programs);
        }
        let programs = Programs::prepare(&self.root)?;
        Ok(self.programs.get_or_init(|| programs))
    }

    /// A lab with the shipped configuration and no appliance.
    pub fn network(&self) -> Result<RunningLab> {
        self.start(None)
    }

    /// A lab with an appliance that runs `built`.
    pub fn appliance(&self, built: &Built, cpus: u32, memory_mib: u32) -> Result<RunningLab> {
        self.start(Some(Guest {
            kernel: built.kernel.clone(),
            archive: Some(built.archive.clone()),
            arguments: String::new(),
            cpus,
            memory_mib,
            instruction_counter: None,
            profile: false,
        }))
    }

    /// A lab with an appliance that serves a page and [`LARGE_FILE`].
    pub fn large_site(&self) -> Result<RunningLab> {
        self.appliance(&self.large()?.built, 2, 1024 + 256)
    }

    /// SHA-256 of [`LARGE_FILE`], in hexadecimal; empty before the first lab that has it.
    pub fn large_file_sha256(&self) -> &str {
        self.large.get().map_or("", |large| &large.sha256)
    }

    fn large(&self) -> Result<&LargeSite> {
        if let Some(large) = self.large.get() {
            return Ok(large);
        }
        let directory = tempfile::tempdir()?;
        let content = pseudo_random(LARGE_FILE_BYTES);
        std::fs::write(directory.path().join(LARGE_FILE), &content)?;
        std::fs::write(
            directory.path().join("index.html"),
            "<!doctype html><title>tests</title>\n",
        )?;
        let built = image_builder::build(&image_builder::Options {
            site: Some(directory.path().to_path_buf()),
            archive: Some(directory.path().with_extension("tar")),
            ..image_builder::Options::new(&self.root)
        })?;
        let sha256 = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(self.large.get_or_init(|| LargeSite {
            built,
            sha256,
            _directory: directory,
        }))
    }

    fn start(&self, guest: Option<Guest>) -> Result<RunningLab> {
        let programs = self.programs()?.clone();
        let (node, nic_model) = (programs.node.clone(), programs.nic_model.clone());
        let plan = Plan::new(&Appliance::read(&self.root.join("config/appliance.toml"))?)?;
        let lab = Lab::up(&Options {
            root: self.root.clone(),
            name: NAME.to_owned(),
            plan,
            programs,
            guest,
            boot_limit: BOOT_LIMIT,
            quiet: false,
        })?;
        Ok(RunningLab {
            lab: Some(lab),
            node,
            nic_model,
        })
    }
}

/// A lab that ends when this is dropped.
pub struct RunningLab {
    /// There until dropped.
    lab: Option<Lab>,
    node: PathBuf,
    nic_model: PathBuf,
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
}

impl RunningLab {
    /// Runs a command in a node's namespace; returns what it wrote, or its error.
    pub fn run(&self, node: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command_in(node, program)?
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "in {node}, `{program} {}` failed ({}): {}",
                arguments.join(" "),
                output.status,
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Address and port of the appliance's web server.
    pub fn http(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.report().appliance.ipv4.parse()?, 80))
    }

    /// Makes `count` connections from the client with one request each, a few hundred at a time. Their source ports begin
    /// at `source_port`; 0 lets the system choose.
    pub fn connections(&self, to: SocketAddr, count: u16, source_port: u16) -> Result<Outcome> {
        let program = self.node.to_string_lossy().into_owned();
        let (to, count, source_port) = (to.to_string(), count.to_string(), source_port.to_string());
        let text = self.run(
            "client",
            &program,
            &[
                "connections",
                "--to",
                &to,
                "--count",
                &count,
                "--source-port",
                &source_port,
            ],
        )?;
        serde_json::from_str(&text).context("what lab-node printed can't be read")
    }

    /// Opens connections from the client that stay open, to be asked again with [`Held::ask`].
    pub fn hold(&self, to: SocketAddr, count: u16, source_port: u16) -> Result<Held> {
        let mut command = self.command_in("client", &self.node)?;
        command.args([
            "connections",
            "--hold",
            "--to",
            &to.to_string(),
            "--count",
            &count.to_string(),
        ]);
        command.args(["--source-port", &source_port.to_string()]);
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

    /// Types a command at the serial shell; returns what it printed.
    pub fn console(&self, command: &str) -> Result<String> {
        lab::run_command(&self.report().serial, command, Duration::from_secs(60))
    }

    /// Runs a command of the NIC model; returns what it printed.
    pub fn nic(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.nic_model)
            .arg("ctl")
            .arg(self.report().nic)
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`lab nic {}` failed: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The driver has done nothing that the datasheet forbids.
    pub fn no_violations(&self) -> Result<()> {
        let said = self.nic(&["violations"])?;
        ensure!(
            said.trim() == "none",
            "the driver has violated the datasheet:\n{said}"
        );
        Ok(())
    }

    /// Fetches a file of the site in the client; gives the seconds it took and the SHA-256 of what came.
    pub fn download(&self, file: &str, limit: Duration) -> Result<(f64, String)> {
        let started = Instant::now();
        let digest = self.start_download(file)?.wait(limit)?;
        Ok((started.elapsed().as_secs_f64(), digest))
    }

    /// Begins to fetch a file of the site in the client.
    pub fn start_download(&self, file: &str) -> Result<Download> {
        let script = format!(
            "set -o pipefail; curl -sS --fail {}{file} | sha256sum",
            self.report().appliance.http
        );
        let mut command = self.command_in("client", "bash")?;
        command.args(["-c", &script]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Download { child: Some(child) })
    }
}

/// A download under way; given up when dropped.
pub struct Download {
    /// There until it has ended.
    child: Option<Child>,
}

impl Download {
    /// The SHA-256 of what came, in hexadecimal, if it has ended.
    pub fn finished(&mut self) -> Result<Option<String>> {
        let Some(mut child) = self.child.take() else {
            bail!("the download has ended before")
        };
        if child.try_wait()?.is_none() {
            self.child = Some(child);
            return Ok(None);
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the download failed: {}", said.trim());
        let text = String::from_utf8_lossy(&output.stdout);
        let digest = text
            .split_whitespace()
            .next()
            .context("sha256sum printed nothing")?;
        Ok(Some(digest.to_owned()))
    }

    /// As [`Download::finished`], when it has ended.
    pub fn wait(mut self, limit: Duration) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(digest) = self.finished()? {
                return Ok(digest);
            }
            ensure!(
                Instant::now() < until,
                "the download isn't done after {} s",
                limit.as_secs()
            );
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes that don't repeat, the same each time (xorshift64, Marsaglia 2003).
fn pseudo_random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
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
