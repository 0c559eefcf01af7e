//! End-to-end tests: programs against a booted machine, one after the other, with a summary at the end.
//!
//! They aren't `#[test]`s because they need an image, network namespaces and minutes, and because somebody waits for them:
//! each says what it is doing. `cargo xtask test --only end-to-end` runs all, `cargo run -p tests -- NAME…` some. A test is a
//! function that returns an error when what it promises isn't so; it cleans up after itself by dropping what it holds.

#![forbid(unsafe_code)]

mod ahead;
mod appliance;
mod attack_injector;
mod attack_matrix;
mod balancing;
mod bare_machine;
mod black_box;
mod context;
mod disk;
mod faults;
mod heritage;
mod holdings;
mod http_semantics;
mod images;
mod kernel;
mod kv_clients;
mod kv_load;
mod lab_network;
mod linux_guest;
mod live_update;
mod power_cut;
mod random_kills;
mod recovery;
mod runner;
mod running_lab;
mod serving;
mod storage_faults;
mod storage_kills;
mod supervision;
mod typist;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use context::{Attacks, Context, Storage};
use runner::{Selection, Test};

/// All tests, in the order in which they run: what others rest on comes first, and those that share an appliance are
/// together.
const TESTS: &[Test] = &[
    Test {
        name: "kernel-self-test",
        about: "the kernel passes its self-test on one CPU and on four",
        run: kernel::passes_self_test,
    },
    Test {
        name: "kernel-fault",
        about: "a fault in the kernel ends the machine with registers, a symbolised backtrace and a failing exit code",
        run: kernel::reports_faults,
    },
    Test {
        name: "lab-network",
        about: "the client reaches every backend over IPv4, IPv6, TCP and UDP, and only inside the lab",
        run: lab_network::reaches_backends,
    },
    Test {
        name: "lab-connections",
        about: "2,000 connections to a backend are open at once and all answered",
        run: lab_network::holds_connections,
    },
    Test {
        name: "linux-ixgbe",
        about: "Linux's own ixgbe drives the 82599 model without loss and unloads cleanly",
        run: linux_guest::passes,
    },
    Test {
        name: "appliance-boots",
        about: "the shipped image boots, serves its page, and runs every domain of the manifest",
        run: appliance::boots,
    },
    Test {
        name: "no-card",
        about: "a machine without a network card has its console, one line about the card, and no deaths",
        run: appliance::runs_without_card,
    },
    Test {
        name: "attack-matrix",
        about: "every kind of fault in every position is the death of one domain and costs nothing else",
        run: attack_matrix::is_green,
    },
    Test {
        name: "attack-injector",
        about: "crossings of 1,000 HTTP requests and 1,000 VIP connections fault in turn; each is one domain's death, and traffic goes on",
        run: attack_injector::holds,
    },
    Test {
        name: "images-refused",
        about: "a changed, foreign, mismatched or unsigned image is refused by name, and the rest boots without it",
        run: images::are_refused,
    },
    Test {
        name: "serving-files",
        about: "every file of the site arrives whole with its type, the 200 MB one too",
        run: serving::serves_files,
    },
    Test {
        name: "serving-connections",
        about: "2,000 connections are open at once and all served",
        run: serving::serves_many_connections,
    },
    Test {
        name: "serving-semantics",
        about: "right and wrong requests get the answers that HTTP/1.1 asks for",
        run: http_semantics::holds,
    },
    Test {
        name: "serving-load",
        about: "wrk loads the server for 30 s without an error",
        run: serving::bears_load,
    },
    Test {
        name: "balancing-shares",
        about: "10,000 connections reach all backends by their shares; a drained and a removed one move nobody else's",
        run: balancing::keeps_shares,
    },
    Test {
        name: "balancing-protocols",
        about: "the balancer forwards IPv6 and UDP, and to a backend that is added at run time",
        run: balancing::forwards_all_protocols,
    },
    Test {
        name: "balancing-maglev-killed",
        about: "maglev is killed again and again, also with its neighbours: no established flow moves, and drains stay in force",
        run: heritage::maglev_keeps_flows,
    },
    Test {
        name: "recovery-unsent",
        about: "frames that a killed driver had not sent go out through its successor",
        run: heritage::driver_leaves_frames,
    },
    Test {
        name: "recovery-driver",
        about: "ixgbe is killed once a second for 60 s under load; nothing is lost",
        run: recovery::driver_once_a_second,
    },
    Test {
        name: "recovery-others",
        about: "httpd, netstack and maglev come back when they are killed",
        run: recovery::others_come_back,
    },
    Test {
        name: "black-box",
        about: "after a death its stacks, crossings, events, counters and outage are shown by function and domain",
        run: black_box::tells,
    },
    Test {
        name: "live-update",
        about: "httpd, netstack, maglev and ixgbe are updated under load; images that are bad or die are refused or rolled back",
        run: live_update::works_under_load,
    },
    Test {
        name: "supervision-orders",
        about: "domains are stopped, started, restarted and released by order, at any moment, and nothing leaks",
        run: supervision::obeys_orders,
    },
    Test {
        name: "faults",
        about: "the 200 MB file arrives whole over a link that drops, duplicates, reorders and corrupts 1 % each",
        run: faults::download_survives,
    },
    Test {
        name: "all-domains-run",
        about: "after all of that every domain runs and no frame was handled against the datasheet",
        run: appliance::is_well,
    },
    Test {
        name: "crash-loop",
        about: "a domain that dies at every start is held after its budget, and costs the others little until then",
        run: supervision::holds_crash_loop,
    },
    Test {
        name: "supervisor-death",
        about: "the supervisor's death restarts the machine, which then serves again",
        run: supervision::supervisor_death_restarts,
    },
    Test {
        name: "kv-clients",
        about: "redis-cli, redis-benchmark with all its default tests and redis-py work unchanged; Redis' own tests pass",
        run: kv_clients::work,
    },
    Test {
        name: "storage-faults",
        about: "errors, hangs, slowness, a warning and the removal of the disk cost no panic and no acknowledged key",
        run: storage_faults::are_borne,
    },
    Test {
        name: "disk-driver-killed",
        about: "nvme is killed once a second while its disk is written to; no request fails, and all that was acknowledged is there",
        run: disk::driver_killed,
    },
    Test {
        name: "storage-kills",
        about: "nvme, the engine, the server and any of them are killed once a second under a load of writes; no acknowledged key is lost",
        run: storage_kills::lose_nothing,
    },
    Test {
        name: "kv-power-cut",
        about: "at every point at which power can fail the store opens with every acknowledged key and nothing that was never written",
        run: power_cut::loses_nothing,
    },
    Test {
        name: "random-kills",
        about: "domains are killed at random under load; all come back, and nothing is lost",
        run: random_kills::cost_nothing,
    },
];

/// Flushes after which kv-power-cut tries, of those of its load.
const POWER_CUTS: usize = 150;
/// Files of Redis' tests that run at every change.
const SUITE_FILES: [&str; 4] = [
    "unit/type/incr",
    "unit/type/string",
    "unit/keyspace",
    "unit/type/hash",
];

/// Runs the end-to-end tests.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Run only tests whose name contains one of these.
    names: Vec<String>,
    /// The same; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// List the tests.
    #[arg(long)]
    list: bool,
    /// How many kills random-kills (300 without it) and recovery-driver (60) make.
    #[arg(long, value_name = "NUMBER")]
    kills: Option<u64>,
    /// Seed of what tests draw at random: random-kills its victims, attack-injector its sample.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Write every test's figures into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For attack-matrix: what to try, as a plan of tests/attack (lines `positions NAME…`, `attacks NAME…`, `seed NUMBER`, `rounds NUMBER`).
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// For attack-injector: crossings of each kind that are tried with each fault.
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    crossings: u64,
    /// For attack-injector: only crossings whose interface and domain, as `Sockets of netstack`, contain this.
    #[arg(long, value_name = "TEXT")]
    kind: Option<String>,
    /// For attack-injector: try every crossing, with the faults by turns.
    #[arg(long, conflicts_with = "crossings")]
    every: bool,
    /// For the storage tests: seconds of each load; 60 with --thorough.
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<u64>,
    /// For kv-power-cut: power is cut at every flush; for kv-clients: all of Redis' tests that apply, not some files.
    #[arg(long)]
    thorough: bool,
    /// Where the programs are that tests use and that were built with this one, as `cargo xtask test` does.
    #[arg(long, hide = true, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Only build what the tests boot.
    #[arg(long, hide = true)]
    build: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let selection = Selection {
        names: [arguments.names, arguments.only].concat(),
        list: arguments.list,
        json: arguments.json,
    };
    let attacks = Attacks {
        plan: arguments.plan,
        crossings: (!arguments.every).then_some(arguments.crossings),
        kind: arguments.kind,
        kills: arguments.kills,
        seed: arguments.seed,
    };
    let storage = Storage {
        seconds: arguments
            .seconds
            .unwrap_or(if arguments.thorough { 60 } else { 5 }),
        points: if arguments.thorough { 0 } else { POWER_CUTS },
        suite: match arguments.thorough {
            true => Vec::new(),
            false => SUITE_FILES.map(str::to_owned).to_vec(),
        },
    };
    let context = root().and_then(|root| Context::new(root, arguments.programs, attacks, storage));
    let outcome = context.and_then(|context| match arguments.build {
        true => ahead::build(&context).map(|()| ExitCode::SUCCESS),
        false => runner::run(TESTS, &context, &selection),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The project's root: the directory above `tests`, where this was built.
fn root() -> Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    home.parent()
        .map(Path::to_path_buf)
        .context("the project's root can't be found")
}
