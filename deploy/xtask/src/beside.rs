//! What is computed beside something that waits: as a process of the lowest priority, which takes what is left of the CPUs.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::test::Outcome;

/// Runs a program with the lowest priority.
const YIELDING: [&str; 3] = ["nice", "-n", "19"];

fn yielding(root: &Path, program: PathBuf) -> Command {
    let [nice, arguments @ ..] = YIELDING;
    let mut command = Command::new(nice);
    command
        .args(arguments)
        .arg(program)
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

/// The images that the end-to-end tests boot, which are built beside the host's tests: some of these use one CPU, or wait.
///
/// What goes wrong is left to the end-to-end tests to say, which build what they find not built.
pub struct Images(Child);

impl Images {
    /// Begins to build them.
    pub fn begin(root: &Path) -> Option<Self> {
        let programs = lab::build_test_programs(root).ok()?;
        yielding(root, programs.join("tests"))
            .arg("--build")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
            .map(Self)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // It has ended by now, unless the tests that wait for it could not be run.
        let _ = self.0.wait();
    }
}

/// Steps of `cargo xtask test`, one after the other.
pub struct Steps(Vec<Step>);

/// A step's name, and the thread that waits for it.
type Step = (&'static str, JoinHandle<(io::Result<Output>, Duration)>);

impl Steps {
    /// Begins with the first of `names`, as soon as there are the images, which somebody waits for.
    pub fn begin(root: &Path, images: Option<Images>, names: Vec<&'static str>) -> Self {
        let turn = Arc::new(Mutex::new(images));
        let begin = |name| {
            let (root, turn) = (root.to_owned(), turn.clone());
            let thread = thread::spawn(move || {
                let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                drop(turn.take());
                let started = Instant::now();
                let output = env::current_exe().and_then(|program| {
                    let mut command = yielding(&root, program);
                    command.args(["test", "--only", name]).output()
                });
                (output, started.elapsed())
            });
            (name, thread)
        };
        Self(names.into_iter().map(begin).collect())
    }

    /// Waits for the last one, shows what each has said, and gives what came of it.
    pub fn end(self) -> Vec<Outcome> {
        let outcome = |(name, thread): Step| {
            let (output, time) = thread
                .join()
                .unwrap_or_else(|_| (Err(io::Error::other("its thread panicked")), Duration::ZERO));
            eprintln!("── {name}, beside the others");
            let passed = match output {
                Ok(output) => {
                    // Nothing can be done about a terminal that is gone.
                    let _ = io::stderr().write_all(&output.stderr);
                    let _ = io::stderr().write_all(&output.stdout);
                    output.status.success()
                }
                Err(error) => {
                    eprintln!("error: it can't be run: {error}");
                    false
                }
            };
            Outcome { name, passed, time }
        };
        self.0.into_iter().map(outcome).collect()
    }
}
