//! The C program: compiling it, and talking to it.

use crate::Round;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SOURCE: &str = include_str!("../peer/index.c");

/// Compiles the program into `folder` and gives its path.
pub fn compile(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("index.c");
    let program = folder.join("index-c");
    fs::write(&source, SOURCE).context("cannot write the C program's source")?;
    let output = Command::new("cc")
        .args(["-O3", "-std=c11", "-Wall", "-o"])
        .args([&program, &source])
        .output()
        .context("cannot run cc; install a C compiler (Debian: apt install gcc libc6-dev)")?;
    ensure!(
        output.status.success(),
        "cc refused the C program:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}

/// The first line of what the compiler says about itself.
pub fn compiler_version() -> Result<String> {
    let output = Command::new("cc")
        .arg("--version")
        .output()
        .context("cannot run cc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_string())
}

/// The running program; it ends with this value.
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the program on a setup.
    pub fn start(program: &Path, setup: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(setup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the C program")?;
        let commands = child.stdin.take().context("the C program has no input")?;
        let answers = child.stdout.take().context("the C program has no output")?;
        Ok(Self {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }

    /// Has it look all keys up as often as `passes` says.
    pub fn round(&mut self, passes: usize) -> Result<Round> {
        writeln!(self.commands, "{passes}").context("the C program has ended")?;
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .context("the C program has ended")?;
        let numbers: Vec<u64> = answer
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        match numbers[..] {
            [nanoseconds, checksum] => Ok(Round {
                nanoseconds,
                checksum,
            }),
            _ => anyhow::bail!("the C program answered {answer:?}"),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is to be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
