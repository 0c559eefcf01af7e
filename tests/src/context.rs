//! What tests share: the programs, built once, an appliance that several of them use, and the figures they measure.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use configuration::appliance::{Appliance, Prefixed};
use image_builder::Built;
use lab::{Disk, Guest, Lab, Options, Plan, Programs};
use serde_json::{Map, Value};

use crate::random_kills;
use crate::running_lab::RunningLab;
use crate::serving::LargeSite;

/// The lab's name; another one than a person's own.
const NAME: &str = "tests";
/// How long the appliance may take until it answers; generous, because CI's machines are slow and busy.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// CPUs and memory of the machines that are tested.
const CPUS: u32 = 2;
const MEMORY_MIB: u32 = 1024;

/// What is changed in the shipped configuration, so that tests of limits are short and shares of flows repeat: what is
/// there, and what replaces it.
const CONFIGURATION_CHANGES: [(&str, &str); 2] = [
    ("request_timeout_ms = 10000", "request_timeout_ms = 2000"),
    (
        "table_size = 65537",
        "table_size = 65537\nhash_seed = \"243f6a8885a308d313198a2e03707344\"",
    ),
];

/// The shipped line that says when a write is answered.
const DURABILITY: &str = "appendfsync = \"everysec\"";

/// A backend that is in the lab, but that the balancer doesn't know when it starts.
pub const SPARE_BACKEND: &str = "backend5";

/// What the attack tests are to try.
pub struct Attacks {
    /// Cells of the matrix, if not all.
    pub plan: Option<PathBuf>,
    /// Crossings of each kind that are tried with each fault; `None` for every one, with the faults by turns.
    pub crossings: Option<u64>,
    /// What the interface and domain of crossings must contain, if not all are to be tried.
    pub kind: Option<String>,
    /// Kills of random-kills and recovery-driver, where the operator says how many.
    pub kills: Option<u64>,
    /// Seed of what is drawn: victims of kills, crossings of the sample.
    pub seed: u64,
}

/// How much of the storage tests is run: what there is time for at every change, or all.
pub struct Storage {
    /// Seconds of each load.
    pub seconds: u64,
    /// Points at which power is cut, at most; 0 for every flush.
    pub points: usize,
    /// Files of Redis' own tests; all of those that apply when empty.
    pub suite: Vec<String>,
}

/// What is shared.
pub struct Context {
    /// The project's root.
    pub root: PathBuf,
    /// What the attack tests are to try.
    pub attacks: Attacks,
    /// How much of the storage tests is run.
    pub storage: Storage,
    /// Where the programs are that were built with this one, if they were.
    built: Option<PathBuf>,
    programs: OnceCell<Programs>,
    site: OnceCell<LargeSite>,
    /// The appliance that tests share, while it is up.
    appliance: RefCell<Option<RunningLab>>,
    figures: RefCell<Map<String, Value>>,
}

impl Context {
    /// Sets up what must be there even when a test is interrupted.
    pub fn new(root: PathBuf, built: Option<PathBuf>, attacks: Attacks, storage: Storage) -> Result<Self> {
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
            attacks,
            storage,
            built,
            programs: OnceCell::new(),
            site: OnceCell::new(),
            appliance: RefCell::new(None),
            figures: RefCell::default(),
        })
    }

    /// The lab's programs and QEMU, installed and built when first asked for.
    pub fn programs(&self) -> Result<&Programs> {
        if let Some(programs) = self.programs.get() {
            return Ok(programs);
        }
        let programs = match &self.built {
            Some(directory) => Programs::prepare_built(directory)?,
            None => Programs::prepare(&self.root)?,
        };
        Ok(self.programs.get_or_init(|| programs))
    }

    /// Another of the project's programs, which must be one of [`lab::TEST_PROGRAMS`]; built if it wasn't.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        ensure!(
            lab::TEST_PROGRAMS.contains(&name),
            "{name} is none of the programs that are built for the tests"
        );
        match &self.built {
            Some(directory) => Ok(directory.join(name)),
            None => lab::build_program(&self.root, name),
        }
    }

    /// The site that the shared appliance serves, made when first asked for.
    pub fn site(&self) -> Result<&LargeSite> {
        if let Some(site) = self.site.get() {
            return Ok(site);
        }
        let site = LargeSite::make(&self.root.join("config/site"), &self.directory().join("site"))?;
        Ok(self.site.get_or_init(|| site))
    }

    /// Where tests keep what they make.
    pub fn directory(&self) -> PathBuf {
        self.root.join("target/tests")
    }

    /// Says and keeps a figure of the test that runs; `unit` may be empty.
    pub fn figure(&self, name: &str, value: impl Into<Value>, unit: &str) {
        let value = value.into();
        eprintln!("  {name}: {} {unit}", plain(&value));
        self.figures.borrow_mut().insert(name.to_owned(), value);
    }

    /// The figures since the last call.
    pub fn take_figures(&self) -> Map<String, Value> {
        self.figures.take()
    }

    /// A lab with the shipped configuration and no appliance.
    pub fn network(&self) -> Result<RunningLab> {
        self.start(self.shipped_plan()?, None)
    }

    /// A lab with an appliance that runs `kernel` and `archive`, with the shipped addresses.
    pub fn boot(&self, built: &Built) -> Result<RunningLab> {
        self.start(self.shipped_plan()?, Some(guest(built)?))
    }

    /// A lab with an appliance whose manifest is the shipped one changed by `change`, and which serves the large file. Whether a
    /// restart of the machine restarts it is for `restarts` to say.
    pub fn boot_changed(
        &self,
        name: &str,
        change: impl FnOnce(String) -> Result<String>,
        restarts: bool,
    ) -> Result<RunningLab> {
        let shipped = fs::read_to_string(self.root.join("config/domains.toml"))?;
        let manifest = self.directory().join(format!("{name}.toml"));
        fs::create_dir_all(self.directory())?;
        fs::write(&manifest, change(shipped)?)?;
        let built = image_builder::build(&image_builder::Options {
            site: Some(self.site()?.folder.clone()),
            archive: Some(self.directory().join(format!("{name}.tar"))),
            manifest: Some(manifest),
            ..image_builder::Options::new(&self.root)
        })?;
        let guest = Guest {
            restarts,
            ..guest(&built)?
        };
        self.start(self.shipped_plan()?, Some(guest))
    }

    /// A lab with an appliance that has a disk and a key-value store, in which a write is answered when it is durable. Its domains are restarted at once
    /// however often they die. `log` keeps all writes of the disk.
    pub fn boot_store(&self, name: &str, log: Option<PathBuf>) -> Result<RunningLab> {
        let shipped = fs::read_to_string(self.root.join("config/domains.toml"))?;
        let directory = self.directory();
        fs::create_dir_all(&directory)?;
        let manifest = directory.join(format!("{name}-domains.toml"));
        fs::write(&manifest, random_kills::without_holding(&shipped))?;
        let configuration = directory.join(format!("{name}.toml"));
        let text = fs::read_to_string(self.root.join("config/appliance.toml"))?;
        ensure!(
            text.contains(DURABILITY),
            "config/appliance.toml has no line `{DURABILITY}` any more"
        );
        fs::write(
            &configuration,
            text.replace(DURABILITY, "appendfsync = \"always\""),
        )?;
        let built = image_builder::build(&image_builder::Options {
            appliance: Some(configuration),
            archive: Some(directory.join(format!("{name}.tar"))),
            manifest: Some(manifest),
            ..image_builder::Options::new(&self.root)
        })?;
        // A log holds all that is written, so a disk that is logged is small.
        let bytes = if log.is_some() { 256 << 20 } else { 1 << 30 };
        let disk = Disk {
            blank: true,
            write_log: log,
            // Only the appliance's power is cut.
            host_flush: false,
            ..Disk::new(directory.join(format!("{name}.raw")), bytes)
        };
        let guest = Guest {
            disk: Some(disk),
            ..guest(&built)?
        };
        self.start(self.shipped_plan()?, Some(guest))
    }

    /// Runs `test` with the appliance that tests share, which is booted when there is none. Also checks that the driver did
    /// nothing that the datasheet forbids. After a failure the next test gets a fresh one.
    pub fn with_appliance(&self, test: impl FnOnce(&RunningLab) -> Result<()>) -> Result<()> {
        let taken = self.appliance.take();
        let lab = match taken {
            Some(lab) => lab,
            None => self.boot_shared()?,
        };
        let outcome = lab.judge(test(&lab));
        if outcome.is_ok() {
            self.appliance.replace(Some(lab));
        }
        outcome
    }

    /// Ends the appliance that tests share, if it is up.
    pub fn end_appliance(&self) {
        drop(self.appliance.take());
    }

    fn boot_shared(&self) -> Result<RunningLab> {
        let configuration = self.directory().join("appliance.toml");
        write_configuration(&self.root.join("config/appliance.toml"), &configuration)?;
        let site = self.site()?;
        let built = image_builder::build(&image_builder::Options {
            appliance: Some(configuration.clone()),
            site: Some(site.folder.clone()),
            archive: Some(self.directory().join("boot.tar")),
            ..image_builder::Options::new(&self.root)
        })?;
        let mut plan = Plan::new(&Appliance::read(&configuration)?)?;
        add_spare_backend(&mut plan)?;
        self.start(plan, Some(guest(&built)?))
    }

    fn shipped_plan(&self) -> Result<Plan> {
        Plan::new(&Appliance::read(&self.root.join("config/appliance.toml"))?)
    }

    fn start(&self, plan: Plan, guest: Option<Guest>) -> Result<RunningLab> {
        // Labs have one name, so there is one at a time.
        self.end_appliance();
        let programs = self.programs()?.clone();
        let lab = Lab::up(&Options {
            root: self.root.clone(),
            name: NAME.to_owned(),
            plan,
            programs: programs.clone(),
            guest,
            boot_limit: BOOT_LIMIT,
            quiet: false,
        })?;
        Ok(RunningLab::new(lab, programs))
    }
}

fn guest(built: &Built) -> Result<Guest> {
    // The archive stays in memory: the site is served from there.
    let archive_mib = u32::try_from(fs::metadata(&built.archive)?.len() >> 20)?;
    Ok(Guest {
        kernel: built.kernel.clone(),
        archive: Some(built.archive.clone()),
        arguments: String::new(),
        cpus: CPUS,
        memory_mib: MEMORY_MIB + archive_mib,
        disk: None,
        instruction_counter: None,
        profile: false,
        restarts: false,
    })
}

fn write_configuration(shipped: &Path, changed: &Path) -> Result<()> {
    let mut text =
        fs::read_to_string(shipped).with_context(|| format!("{} can't be read", shipped.display()))?;
    for (before, after) in CONFIGURATION_CHANGES {
        ensure!(
            text.contains(before),
            "{} has no line `{before}` any more",
            shipped.display()
        );
        text = text.replace(before, after);
    }
    if let Some(directory) = changed.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(changed, text).with_context(|| format!("{} can't be written", changed.display()))
}

/// Adds a node like the last backend, with the next addresses.
fn add_spare_backend(plan: &mut Plan) -> Result<()> {
    let Some((_, model)) = plan.nodes.iter().rfind(|(name, _)| *name != "client") else {
        bail!("the configuration has no backends");
    };
    let mut spare = model.clone();
    let (old4, old6) = (model.ipv4, model.ipv6);
    spare.ipv4 = Prefixed {
        address: std::net::Ipv4Addr::from_bits(old4.address.to_bits() + 1),
        ..old4
    };
    spare.ipv6 = old6.map(|old6| Prefixed {
        address: std::net::Ipv6Addr::from_bits(old6.address.to_bits() + 1),
        ..old6
    });
    spare.listen = model
        .listen
        .iter()
        .map(|address| {
            let mut address = *address;
            if address.ip() == old4.address {
                address.set_ip(spare.ipv4.address.into());
            }
            if let (Some(old6), Some(new6)) = (old6, spare.ipv6)
                && address.ip() == old6.address
            {
                address.set_ip(new6.address.into());
            }
            address
        })
        .collect();
    plan.nodes.insert(SPARE_BACKEND.to_owned(), spare);
    Ok(())
}

/// A figure without the quotes and digits that nobody reads.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}
