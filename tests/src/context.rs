//! What tests share: the programs, built once, and labs that end when they are dropped.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use configuration::appliance::Appliance;
use image_builder::Built;
use lab::{Guest, Lab, Options, Plan, Programs};
use serde::Deserialize;

/// The lab's name; another one than a person's own.
const NAME: &str = "tests";
/// How long the appliance may take until it answers; generous, because CI's machines are slow and busy.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// What is shared.
pub struct Context {
    /// The project's root.
    pub root: PathBuf,
    programs: OnceCell<Programs>,
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
        }))
    }

    fn start(&self, guest: Option<Guest>) -> Result<RunningLab> {
        let programs = self.programs()?.clone();
        let node = programs.node.clone();
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
        Ok(RunningLab { lab: Some(lab), node })
    }
}

/// A lab that ends when this is dropped.
pub struct RunningLab {
    /// There until dropped.
    lab: Option<Lab>,
    node: PathBuf,
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

    /// Makes `count` connections from the client with one request each, at most `at_once` open together.
    pub fn connections(&self, to: SocketAddr, count: u64, at_once: u32) -> Result<Outcome> {
        let program = self.node.to_string_lossy().into_owned();
        let (to, count, at_once) = (to.to_string(), count.to_string(), at_once.to_string());
        let text = self.run(
            "client",
            &program,
            &[
                "connections",
                "--to",
                &to,
                "--count",
                &count,
                "--at-once",
                &at_once,
            ],
        )?;
        serde_json::from_str(&text).context("what lab-node printed can't be read")
    }

    /// Opens connections from the client that stay open, to be asked again with [`Held::ask`].
    pub fn hold(&self, to: SocketAddr, count: u64) -> Result<Held> {
        let mut command = self.command_in("client", &self.node)?;
        command.args([
            "connections",
            "--hold",
            "--to",
            &to.to_string(),
            "--count",
            &count.to_string(),
        ]);
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
