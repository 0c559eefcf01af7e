//! The C program: compiling it, and talking to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::Round;

/// What every such program includes.
const HEADER: &str = include_str!("../peer/peer.h");

/// A compiled program, in a folder of its own that also has room for setups.
pub struct Program {
    folder: TempDir,
    program: PathBuf,
    compiler: String,
}

impl Program {
    /// Compiles a source that may include `peer.h`.
    ///
    /// # Errors
    /// When there is no C compiler, or it refuses the source.
    pub fn compile(source: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let file = folder.path().join("peer.c");
        let program = folder.path().join("peer");
        fs::write(&file, source).context("cannot write the C program's source")?;
        fs::write(folder.path().join("peer.h"), HEADER).context("cannot write the C program's source")?;
        cc(|command| {
            command
                .args(["-O3", "-std=c11", "-Wall", "-o"])
                .args([&program, &file])
        })?;
        let version = cc(|command| command.arg("--version"))?;
        Ok(Self {
            folder,
            program,
            compiler: version.lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// The first line of what the compiler says about itself.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// A place for a setup.
    pub fn setup(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("setup-{name}"))
    }

    /// Starts the program on a setup.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, setup: &Path) -> Result<Peer> {
        let mut child = Command::new(&self.program)
            .arg(setup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the C program")?;
        let commands = child.stdin.take().context("the C program has no input")?;
        let answers = child.stdout.take().context("the C program has no output")?;
        Ok(Peer {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }
}

/// Runs the C compiler; what it says.
fn cc(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let output = arguments(&mut Command::new("cc"))
        .output()
        .context("cannot run cc; install a C compiler (Debian: apt install gcc libc6-dev)")?;
    ensure!(
        output.status.success(),
        "cc refused the C program:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The running program; it ends with this value.
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Has it do a round, in words that it understands; it answers with nanoseconds and results.
    ///
    /// # Errors
    /// When it has ended, or answers something else.
    pub fn round<const RESULTS: usize>(&mut self, command: &str) -> Result<Round<RESULTS>> {
        writeln!(self.commands, "{command}").context("the C program has ended")?;
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .context("the C program has ended")?;
        let mut numbers = answer.split_whitespace().map_while(|number| number.parse().ok());
        let nanoseconds = numbers.next();
        let results: Vec<u64> = numbers.collect();
        match (nanoseconds, results.try_into()) {
            (Some(nanoseconds), Ok(results)) => Ok(Round { nanoseconds, results }),
            _ => bail!("the C program answered {answer:?}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = r#"#include "peer.h"
int main(int argc, char **argv) {
    fclose(open_setup(argc, argv));
    unsigned number;
    while (scanf("%u", &number) == 1) { printf("%u 7 %u\n", number, number + 1); fflush(stdout); }
    return now_nanoseconds() == 0;
}
"#;

    #[test]
    fn a_program_is_built_asked_and_ended() {
        let program = Program::compile(ECHO).unwrap();
        assert!(!program.compiler().is_empty());
        let setup = program.setup("empty");
        fs::write(&setup, "").unwrap();
        let mut peer = program.start(&setup).unwrap();
        let round = peer.round("5").unwrap();
        assert_eq!((round.nanoseconds, round.results), (5, [7, 6]));
        assert!(peer.round::<1>("5").is_err(), "another number of results");
        assert!(peer.round::<2>("nothing").is_err(), "it has ended");
    }

    #[test]
    fn what_is_no_program_is_refused_in_the_compilers_words() {
        let error = Program::compile("int main(").err().unwrap().to_string();
        assert!(error.starts_with("cc refused the C program:\n"), "{error}");
    }
}
