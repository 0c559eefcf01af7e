//! `cargo xtask lab`: the appliance and its network in the background.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use configuration::appliance::Appliance;
use lab::{Disk, Guest, Lab, Options, Plan, Programs, Report};

use crate::build::ImageArguments;
use crate::lab_disk::{self, DiskCommand};

/// A lab's name.
#[derive(Args, Clone, Debug)]
pub struct Name {
    /// Several labs can be up side by side under different names.
    #[arg(long, default_value = "lab")]
    pub name: String,
}

/// The machine that the appliance runs on.
#[derive(Args, Clone, Debug)]
pub struct MachineArguments {
    /// CPUs of the appliance.
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// Memory of the appliance in MiB; grows by itself with a large site.
    #[arg(long, default_value_t = 1024)]
    pub memory: u32,
    /// Words for the kernel's command line.
    #[arg(long, default_value = "", value_name = "WORDS")]
    pub append: String,
    /// Seconds until the appliance must answer.
    #[arg(long, default_value_t = 60)]
    pub boot_limit: u64,
    /// File of the appliance's disk, kept when the lab ends; without it the disk is a blank one in the lab's state folder.
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Size of a disk that is made (sparse).
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = lab::parse_size)]
    pub disk_size: u64,
    /// Bytes of the disk's logical block, 512 or 4096.
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub disk_block: u32,
    /// No disk.
    #[arg(long, conflicts_with = "disk")]
    pub no_disk: bool,
    /// Count the appliance's instructions (adds the socket `instructions`).
    #[arg(long)]
    pub count_instructions: bool,
}

impl MachineArguments {
    fn disk(&self, root: &Path, name: &Name) -> Option<Disk> {
        let own = root.join("target/lab").join(&name.name).join("disk.raw");
        (!self.no_disk).then(|| Disk {
            logical_block_bytes: self.disk_block,
            blank: self.disk.is_none(),
            ..Disk::new(self.disk.clone().unwrap_or(own), self.disk_size)
        })
    }
}

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Build and start the appliance and its network; returns when it answers.
    Up {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        image: ImageArguments,
        #[command(flatten)]
        machine: MachineArguments,
        /// Only the network with its client and backends, without the appliance.
        #[arg(long)]
        network_only: bool,
        /// Print addresses, namespaces and sockets as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a node's namespace.
    Exec {
        #[command(flatten)]
        name: Name,
        /// `client`, `backend1` … or `switch`, which has the bridge.
        node: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Type a command at the appliance's serial shell and print its output.
    Console {
        #[command(flatten)]
        name: Name,
        /// Seconds until the command must end.
        #[arg(long, default_value_t = 30)]
        timeout: u64,
        /// The command; without one, the console comes to this terminal (Ctrl-A X leaves it).
        command: Option<String>,
    },
    /// Talk to the 82599 model: counters, violations, faults (`lab nic -- --help` lists all).
    Nic {
        #[command(flatten)]
        name: Name,
        /// The model's command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Faults of the appliance's disk: errors, held requests, slowness, SMART warnings, removal.
    Disk {
        #[command(flatten)]
        name: Name,
        #[command(subcommand)]
        command: DiskCommand,
    },
    /// Say what is up and whether all parts run.
    Status {
        #[command(flatten)]
        name: Name,
        /// As `lab up --json`.
        #[arg(long)]
        json: bool,
    },
    /// End all of it.
    Down {
        #[command(flatten)]
        name: Name,
    },
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        LabCommand::Up {
            name,
            image,
            machine,
            network_only,
            json,
        } => {
            let lab = if *network_only {
                let plan = Plan::new(&Appliance::read(&image.configuration(root))?)?;
                let programs = Programs::prepare_network(root)?;
                start(root, name, plan, programs, None, machine)?
            } else {
                up(root, name, image, machine)?
            };
            if *json {
                println!("{}", serde_json::to_string_pretty(&lab.report())?);
            } else {
                print_report(&lab.report());
            }
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Exec { name, node, command } => {
            let lab = Lab::open(root, &name.name)?;
            let (program, rest) = command.split_first().context("a command is needed")?;
            let mut command = lab.command_in(node, program)?;
            Ok(code(
                command
                    .args(rest)
                    .status()
                    .with_context(|| format!("{program} can't be run"))?,
            ))
        }
        LabCommand::Console {
            name,
            timeout,
            command,
        } => {
            let report = Lab::open(root, &name.name)?.report();
            match command {
                Some(command) => {
                    println!(
                        "{}",
                        lab::run_command(&report.serial, command, Duration::from_secs(*timeout))?
                    );
                }
                None => {
                    eprintln!("serial console; Ctrl-A X leaves it");
                    lab::attach(&report.serial)?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Nic { name, command } => {
            let report = Lab::open(root, &name.name)?.report();
            let mut program = Command::new(Programs::built(root).nic_model);
            let status = program.arg("ctl").arg(&report.nic).args(command).status();
            Ok(code(status.context("nic-model can't be run")?))
        }
        LabCommand::Disk { name, command } => {
            lab_disk::run(root, &name.name, command)?;
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Status { name, json } => status(root, name, *json),
        LabCommand::Down { name } => {
            Lab::open(root, &name.name)?.down();
            eprintln!("the lab `{}` is down", name.name);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Builds the image and starts a lab with it.
pub fn up(root: &Path, name: &Name, image: &ImageArguments, machine: &MachineArguments) -> Result<Lab> {
    let plan = Plan::new(&Appliance::read(&image.configuration(root))?)?;
    let programs = Programs::prepare(root)?;
    let built = image.build(root, Some(&name.name))?;
    let archive_mib = std::fs::metadata(&built.archive)?.len() >> 20;
    let guest = Guest {
        arguments: machine.append.clone(),
        cpus: machine.cpus,
        memory_mib: machine.memory + u32::try_from(archive_mib).context("the boot archive is too large")?,
        disk: machine.disk(root, name),
        instruction_counter: match machine.count_instructions {
            true => Some(lab::instruction_counter(root)?),
            false => None,
        },
        ..Guest::new(built.kernel, built.archive)
    };
    start(root, name, plan, programs, Some(guest), machine)
}

fn start(
    root: &Path,
    name: &Name,
    plan: Plan,
    programs: Programs,
    guest: Option<Guest>,
    machine: &MachineArguments,
) -> Result<Lab> {
    Lab::up(&Options {
        root: root.to_owned(),
        name: name.name.clone(),
        plan,
        programs,
        guest,
        boot_limit: Duration::from_secs(machine.boot_limit),
        quiet: false,
    })
}

fn status(root: &Path, name: &Name, json: bool) -> Result<ExitCode> {
    let mut lab = Lab::open(root, &name.name)?;
    let report = lab.report();
    let ended: Vec<String> = lab.ended_parts().iter().map(|part| part.name.clone()).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
        for part in lab.processes() {
            let state = if ended.contains(&part.name) {
                "ENDED"
            } else {
                "running"
            };
            println!(
                "{:<12} {state:<8} pid {:<8} log {}",
                part.name,
                part.pid,
                part.log.display()
            );
        }
    }
    if ended.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("ended: {}", ended.join(", "));
    Ok(ExitCode::FAILURE)
}

fn print_report(report: &Report) {
    println!("appliance    {}", report.appliance.http);
    if let Some(vip) = &report.vip {
        println!("VIP          {}", vip.http);
    }
    if let Some(kv) = &report.kv {
        println!("KV store     {kv}");
    }
    if let Some(disk) = &report.disk {
        println!("disk         {}", disk.display());
    }
    for (name, node) in &report.nodes {
        println!("{name:<12} {:<16} namespace {}", node.ipv4, node.namespace);
    }
    println!(
        "inside       cargo xtask lab exec --name {} client -- curl -s {}",
        report.name, report.appliance.http
    );
}

/// A child's exit code as ours; ended by a signal counts as the shell counts it.
fn code(status: ExitStatus) -> ExitCode {
    let number = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}
