//! Starting a lab, finding one that is up, ending it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use progress::Step;

use crate::access::Access;
use crate::guest::Guest;
use crate::network;
use crate::plan::Plan;
use crate::process::{Process, tail};
use crate::programs::Programs;
use crate::report::Report;
use crate::state::{ApplianceState, NodeState, Places, Sockets, State};

/// The card's MAC address: locally administered, recognisable in captures.
const MAC: &str = "02:82:59:00:00:10";
/// What stands for hardware, the card and the machine, goes before the nodes that use it: a real CPU or card doesn't wait while a client
/// computes. Where that isn't allowed, `nice` says so and runs the program all the same.
const PREFERRED: &str = "nice";
const PREFERENCE: [&str; 2] = ["-n", "-10"];
/// How long a server may take to make its socket.
const SOCKET_PATIENCE: Duration = Duration::from_secs(5);
/// What a backend says once it listens, and how long it may take until then.
const BACKEND_READY: &str = "ready";
const BACKEND_PATIENCE: Duration = Duration::from_secs(20);
/// The processes that an appliance is made of.
const APPLIANCE_PARTS: [&str; 2] = ["appliance", "nic-model"];
/// Lines of a log that an error repeats.
const LOG_LINES: usize = 30;

/// A command that runs a program which stands for hardware, without any lab, with the same preference.
pub fn hardware(program: &Path) -> Command {
    let mut command = Command::new(PREFERRED);
    command.args(PREFERENCE).arg(program);
    command
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The project's root; state is kept in `target/lab/NAME` below it.
    pub root: PathBuf,
    /// The lab's name.
    pub name: String,
    /// Addresses.
    pub plan: Plan,
    /// The programs.
    pub programs: Programs,
    /// The appliance; without one there is only the network with its client and backends.
    pub guest: Option<Guest>,
    /// How long the appliance may take until it answers.
    pub boot_limit: Duration,
    /// Whether to say what is being done.
    pub quiet: bool,
}

/// A lab that is up.
pub struct Lab {
    places: Places,
    state: State,
    /// What it was started with; `None` when it was found, not started.
    options: Option<Options>,
    /// From the start of QEMU to the appliance's first HTTP answer; `None` when this lab was found, not started.
    pub boot_time: Option<Duration>,
}

impl Lab {
    /// Starts a lab and returns when the appliance answers.
    ///
    /// # Errors
    /// When a lab of this name is up, a part can't be started or ends, or the appliance doesn't answer in time. Then
    /// everything that was started is ended again; logs stay.
    pub fn up(options: &Options) -> Result<Self> {
        let places = Places::of(&options.root, &options.name)?;
        if let Some(old) = State::read(&places)? {
            if old.processes.iter().any(Process::is_running) {
                bail!(
                    "the lab `{0}` is up already; `cargo xtask lab down --name {0}` ends it",
                    options.name
                );
            }
            // Left behind by a crash of the machine or a start that was cut short.
            Self {
                places: Places::of(&options.root, &options.name)?,
                state: old,
                options: None,
                boot_time: None,
            }
            .down();
        }
        for directory in [&places.directory, &places.sockets] {
            fs::create_dir_all(directory)
                .with_context(|| format!("{} can't be made", directory.display()))?;
        }
        let access = Access::create(&places.directory)?;
        let state = initial_state(options, &places, access);
        state.write(&places)?;
        let mut lab = Self {
            places,
            state,
            options: Some(options.clone()),
            boot_time: None,
        };
        match lab.start(options) {
            Ok(()) => Ok(lab),
            Err(error) => {
                lab.down();
                Err(error)
            }
        }
    }

    /// Finds a lab that is up.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn open(root: &Path, name: &str) -> Result<Self> {
        let places = Places::of(root, name)?;
        let state = State::read(&places)?.with_context(|| {
            format!("no lab `{name}` is up; `cargo xtask lab up --name {name}` starts it")
        })?;
        Ok(Self {
            places,
            state,
            options: None,
            boot_time: None,
        })
    }

    /// Where everything is.
    pub fn report(&self) -> Report {
        Report::new(&self.state)
    }

    /// All processes of the lab, ended ones too.
    pub fn processes(&self) -> &[Process] {
        &self.state.processes
    }

    /// The parts that should run and don't, by name.
    pub fn ended_parts(&mut self) -> Vec<&Process> {
        self.state
            .processes
            .iter_mut()
            .filter_map(|process| process.has_ended().then_some(&*process))
            .collect()
    }

    /// A command that runs in a node's namespace.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn command_in(&self, node: &str, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let names: Vec<&str> = self.state.nodes.keys().map(String::as_str).collect();
        let found = self
            .state
            .nodes
            .get(node)
            .map(|found| found.namespace.clone())
            .or_else(|| (node == network::SWITCH).then(|| network::namespace(&self.state.prefix, node)))
            .with_context(|| {
                format!(
                    "there is no node `{node}`; there are {} and {}",
                    names.join(", "),
                    network::SWITCH
                )
            })?;
        Ok(self.state.access.command_in(&found, program))
    }

    /// Ends every process and removes the namespaces. Logs stay.
    pub fn down(mut self) {
        for process in self.state.processes.iter_mut().rev() {
            process.end();
        }
        network::remove(
            &self.state.access,
            &self.state.prefix,
            self.state.nodes.keys().cloned(),
        );
        if let Access::User(holder) = &mut self.state.access {
            holder.end();
        }
        let sockets = &self.state.sockets;
        for socket in [&sockets.serial, &sockets.qmp, &sockets.nic, &sockets.device] {
            let _ = fs::remove_file(socket);
        }
        if self.places.sockets != self.places.directory {
            let _ = fs::remove_dir(&self.places.sockets);
        }
        let _ = fs::remove_file(self.places.state_file());
    }

    /// Cuts the appliance's power: QEMU ends from one instruction to the next, and with it the model of the card. The network stays.
    ///
    /// # Errors
    /// When the state can't be written.
    pub fn cut_power(&mut self) -> Result<()> {
        for process in &mut self.state.processes {
            if APPLIANCE_PARTS.contains(&process.name.as_str()) {
                process.kill();
            }
        }
        self.state
            .processes
            .retain(|process| !APPLIANCE_PARTS.contains(&process.name.as_str()));
        self.state.write(&self.places)
    }

    /// Starts the appliance again after [`Lab::cut_power`], with the same disk, and returns when it answers. `guest` may be another machine than before.
    ///
    /// # Errors
    /// When this lab wasn't started by this process with an appliance, or as [`Lab::up`].
    pub fn power_on(&mut self, guest: Option<Guest>) -> Result<()> {
        let mut options = self.options.clone().context("this lab was started elsewhere")?;
        options.guest = guest.or(options.guest);
        let guest = options.guest.as_mut().context("this lab has no appliance")?;
        if let Some(disk) = &mut guest.disk {
            disk.blank = false;
        }
        let guest = guest.clone();
        self.start_appliance(&options, &guest)
    }

    /// Adds a process to those that [`Lab::down`] ends.
    pub(crate) fn adopt(&mut self, process: Process) -> Result<()> {
        self.state.processes.push(process);
        self.state.write(&self.places)
    }

    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        self.places.directory.join(format!("{name}.log"))
    }

    fn start(&mut self, options: &Options) -> Result<()> {
        let step = self.step(options, "Making the lab's network");
        network::create(&self.state.access, &self.state.prefix, &options.plan)?;
        for (name, node) in &options.plan.nodes {
            if !node.listen.is_empty() {
                self.start_backend(name, &node.listen, &options.programs.node)?;
            }
        }
        self.wait_for_backends()?;
        step.done(format!("{} nodes", options.plan.nodes.len()));
        match &options.guest {
            Some(guest) => {
                network::create_tap(&self.state.access, &self.state.prefix, options.plan.mtu)?;
                self.start_appliance(options, guest)
            }
            None => Ok(()),
        }
    }

    fn start_backend<'a>(
        &mut self,
        name: &str,
        listen: impl IntoIterator<Item = &'a SocketAddr>,
        program: &Path,
    ) -> Result<()> {
        let mut command = self.command_in(name, program)?;
        command.args(["backend", "--name", name]);
        for address in listen {
            command.args(["--listen", &address.to_string()]);
        }
        let process = Process::start(name, command, &self.log_file(name), Stdio::null())?;
        self.adopt(process)
    }

    /// Waits until all that has been started, which is backends, listens.
    fn wait_for_backends(&mut self) -> Result<()> {
        let until = Instant::now() + BACKEND_PATIENCE;
        while let Some(late) = self
            .state
            .processes
            .iter()
            .find(|process| !process.has_said(BACKEND_READY))
        {
            let name = late.name.clone();
            self.check_parts()?;
            if Instant::now() > until {
                bail!("{name} doesn't listen within {} s", BACKEND_PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn start_appliance(&mut self, options: &Options, guest: &Guest) -> Result<()> {
        let qemu = options
            .programs
            .qemu
            .as_ref()
            .context("no QEMU was given for the appliance")?;
        let step = self.step(options, "Booting the appliance");
        let sockets = self.state.sockets.clone();
        for socket in [&sockets.serial, &sockets.qmp, &sockets.nic, &sockets.device] {
            let _ = fs::remove_file(socket);
        }
        let _ = fs::remove_file(&self.state.serial_log);

        if let Some(disk) = &guest.disk {
            disk.prepare()?;
        }
        let mut command = self.command_in(network::SWITCH, PREFERRED)?;
        command
            .args(PREFERENCE)
            .arg(&options.programs.nic_model)
            .arg("--socket")
            .arg(&sockets.device)
            .arg("--control")
            .arg(&sockets.nic)
            .args(["--tap", network::TAP, "--mac", MAC]);
        let model = Process::start("nic-model", command, &self.log_file("nic-model"), Stdio::null())?;
        self.adopt(model)?;
        // QEMU doesn't try again: the model has to listen first.
        self.wait_for_socket(&sockets.device)?;

        let started = Instant::now();
        let mut command = hardware(&qemu.system);
        command.args(guest.command_line(&sockets, &self.state.serial_log));
        let machine = Process::start("appliance", command, &self.log_file("appliance"), Stdio::null())?;
        self.adopt(machine)?;
        self.wait_for_answer(options, &step, started)?;
        let time = started.elapsed();
        self.boot_time = Some(time);
        step.done(format!("first HTTP answer after {:.2} s", time.as_secs_f64()));
        Ok(())
    }

    fn wait_for_socket(&mut self, path: &Path) -> Result<()> {
        let until = Instant::now() + SOCKET_PATIENCE;
        while !path.exists() {
            self.check_parts()?;
            if Instant::now() > until {
                bail!(
                    "{} didn't come up within {} s",
                    path.display(),
                    SOCKET_PATIENCE.as_secs()
                );
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits for an HTTP answer in the client's namespace, while watching that nothing ends and what the serial port says.
    fn wait_for_answer(&mut self, options: &Options, step: &Step, started: Instant) -> Result<()> {
        let mut command = self.command_in("client", &options.programs.node)?;
        command
            .arg("wait-http")
            .arg(options.plan.http().to_string())
            .args(["--timeout-ms", &options.boot_limit.as_millis().to_string()]);
        let mut probe = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the probe can't be started")?;
        loop {
            if let Some(status) = probe.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!(
                    "the appliance did not answer at http://{}/ within {:.0} s\n{}",
                    options.plan.http(),
                    started.elapsed().as_secs_f64(),
                    self.serial_tail()
                );
            }
            if let Err(error) = self.check_parts() {
                let _ = probe.kill();
                let _ = probe.wait();
                return Err(error);
            }
            step.note(tail(&self.state.serial_log, 1));
            sleep(Duration::from_millis(10));
        }
    }

    /// Fails if a part of the lab has ended, with what it said last.
    pub fn check_parts(&mut self) -> Result<()> {
        let Some(process) = self
            .state
            .processes
            .iter_mut()
            .find_map(|part| part.has_ended().then(|| part.clone()))
        else {
            return Ok(());
        };
        let mut message = format!(
            "the lab's part `{}` has ended\n{}",
            process.name,
            process.last_words(LOG_LINES)
        );
        if process.name == "appliance" {
            message.push('\n');
            message.push_str(&self.serial_tail());
        }
        bail!(message)
    }

    fn serial_tail(&self) -> String {
        let log = &self.state.serial_log;
        let text = tail(log, LOG_LINES);
        if text.is_empty() {
            return "the serial port has said nothing".to_owned();
        }
        format!("the serial port's last lines (all: {}):\n{text}", log.display())
    }

    fn step(&self, options: &Options, title: &str) -> Step {
        if options.quiet {
            Step::hidden(title)
        } else {
            Step::start(title)
        }
    }
}

fn initial_state(options: &Options, places: &Places, access: Access) -> State {
    let plan = &options.plan;
    let socket = |name: &str| places.sockets.join(name);
    let counting = options
        .guest
        .as_ref()
        .is_some_and(|guest| guest.instruction_counter.is_some());
    State {
        name: options.name.clone(),
        prefix: places.prefix.clone(),
        access,
        nodes: plan
            .nodes
            .iter()
            .map(|(name, node)| {
                let state = NodeState {
                    namespace: network::namespace(&places.prefix, name),
                    ipv4: node.ipv4.address.to_string(),
                    ipv6: node.ipv6.map(|ipv6| ipv6.address.to_string()),
                };
                (name.clone(), state)
            })
            .collect(),
        appliance: ApplianceState {
            ipv4: plan.appliance.address.to_string(),
            ipv6: plan.appliance6.map(|ipv6| ipv6.address.to_string()),
            http_port: plan.http_port,
        },
        kv: plan.kv.map(|port| format!("{}:{port}", plan.appliance.address)),
        disk: options
            .guest
            .as_ref()
            .and_then(|guest| Some(guest.disk.as_ref()?.file.clone())),
        vip: plan.vip.map(|(ipv4, port)| (ipv4.to_string(), port)),
        sockets: Sockets {
            serial: socket("serial.sock"),
            qmp: socket("qmp.sock"),
            nic: socket("nic.sock"),
            device: socket("device.sock"),
            instructions: counting.then(|| socket("instructions.sock")),
        },
        serial_log: places.directory.join("serial.log"),
        processes: Vec::new(),
    }
}
