//! A machine in a lab of its own, with its instructions counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use configuration::appliance::Appliance;
use image_builder::Built;
use lab::{Guest, InstructionReading, Lab, Options, Plan, Programs};
use progress::Step;

const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What a boot has left to do is not idling.
const SETTLING: Duration = Duration::from_secs(3);
const IDLE_TIME: Duration = Duration::from_secs(5);
/// How long a console command may take beyond what it says itself.
const CONSOLE_LIMIT: Duration = Duration::from_secs(120);

/// The machine; its lab ends when this is dropped.
pub struct Machine {
    /// There until dropped.
    lab: Option<Lab>,
    counter: PathBuf,
    /// What it executes when nobody wants anything of it.
    pub idle_instructions_per_second: f64,
}

/// A load and what it took.
#[derive(Clone, Debug)]
pub struct Counted<R> {
    /// What the load gave.
    pub result: R,
    /// Guest instructions, without those of an idle machine in the same time.
    pub instructions: f64,
    /// How long it took.
    pub seconds: f64,
    /// The counter before it.
    pub before: InstructionReading,
    /// The counter after it.
    pub after: InstructionReading,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.down();
        }
    }
}

impl Machine {
    /// Starts it in the lab `name` and measures it idle.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn start(root: &Path, name: &str, plan: Plan, programs: &Programs, guest: Guest) -> Result<Self> {
        let guest = Guest {
            instruction_counter: Some(lab::instruction_counter(root)?),
            ..guest
        };
        let lab = Lab::up(&Options {
            root: root.to_path_buf(),
            name: name.to_owned(),
            plan,
            programs: programs.clone(),
            guest: Some(guest),
            boot_limit: BOOT_LIMIT,
            quiet: false,
        })?;
        let counter = lab.report().instructions.unwrap_or_default();
        let mut machine = Self {
            lab: Some(lab),
            counter,
            idle_instructions_per_second: 0.0,
        };
        let step = Step::start("Measuring it idle");
        sleep(SETTLING);
        let before = machine.reading()?;
        sleep(IDLE_TIME);
        let after = machine.reading()?;
        machine.idle_instructions_per_second = after.since(&before) as f64 / after.seconds_since(&before);
        step.done(format!(
            "{:.0} instructions/s",
            machine.idle_instructions_per_second
        ));
        Ok(machine)
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("only taken when dropped")
    }

    /// Runs a load and counts.
    ///
    /// # Errors
    /// The load's, or when the counter can't be read.
    pub fn count<R>(&self, load: impl FnOnce() -> Result<R>) -> Result<Counted<R>> {
        let before = self.reading()?;
        let result = load()?;
        let after = self.reading()?;
        let seconds = after.seconds_since(&before);
        let own = after.since(&before) as f64 - self.idle_instructions_per_second * seconds;
        Ok(Counted {
            result,
            instructions: own.max(0.0),
            seconds,
            before,
            after,
        })
    }

    /// Types a command at the console and gives what it printed.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub fn console(&self, command: &str) -> Result<String> {
        lab::run_command(&self.lab().report().serial, command, CONSOLE_LIMIT)
    }

    fn reading(&self) -> Result<InstructionReading> {
        InstructionReading::take(&self.counter)
    }
}

/// Builds the appliance with the shipped configuration changed by `change`, and gives the machine that runs it, and what was built.
///
/// # Errors
/// When it can't be built.
pub fn appliance(
    root: &Path,
    name: &str,
    change: impl FnOnce(String) -> Result<String>,
) -> Result<(Guest, Built)> {
    let directory = root.join("target/lab").join(name);
    fs::create_dir_all(&directory)?;
    let shipped = fs::read_to_string(root.join("config/appliance.toml"))?;
    let configuration = directory.join("appliance.toml");
    fs::write(&configuration, change(shipped)?)?;
    let built = image_builder::build(&image_builder::Options {
        appliance: Some(configuration),
        archive: Some(directory.join("boot.tar")),
        ..image_builder::Options::new(root)
    })?;
    let guest = Guest::new(built.kernel.clone(), built.archive.clone());
    Ok((guest, built))
}

/// The shipped configuration's lab.
///
/// # Errors
/// When the configuration is wrong.
pub fn plan(root: &Path) -> Result<Plan> {
    Plan::new(&Appliance::read(&root.join("config/appliance.toml"))?)
}

/// The project's root: the directory above `deploy/measure`, where this was built.
///
/// # Errors
/// When there is none.
pub fn root() -> Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    home.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("the project's root can't be found")
}

/// An interrupted measurement must not leave its lab behind.
///
/// # Errors
/// When signals can't be handled.
pub fn end_on_signals(root: &Path, name: &'static str) -> Result<()> {
    let root = root.to_path_buf();
    ctrlc::set_handler(move || {
        if let Ok(lab) = Lab::open(&root, name) {
            lab.down();
        }
        std::process::exit(130);
    })
    .context("signals can't be handled")
}
