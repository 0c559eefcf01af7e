//! End-to-end tests: programs against a booted machine, one after the other, with a summary at the end.
//!
//! They aren't `#[test]`s because they need an image, network namespaces and minutes, and because somebody waits for them:
//! each says what it is doing. `cargo xtask test --only end-to-end` runs all, `cargo run -p tests -- NAME…` some. A test is a
//! function that returns an error when what it promises isn't so; it cleans up after itself by dropping what it holds.

#![forbid(unsafe_code)]

mod appliance;
mod balancing;
mod context;
mod faults;
mod images;
mod kernel_self_test;
mod lab_network;
mod linux_guest;
mod recovery;
mod runner;
mod serving;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use context::Context;
use runner::Test;

/// All tests, in the order in which they run: what others rest on comes first.
const TESTS: [Test; 14] = [
    Test {
        name: "kernel-self-test",
        about: "the kernel passes its self-test on one CPU and on four",
        run: kernel_self_test::passes,
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
        name: "serving-large-file",
        about: "a file of 200 MB arrives with the right SHA-256",
        run: serving::large_file,
    },
    Test {
        name: "serving-connections",
        about: "2,000 connections open at once are all served",
        run: serving::many_connections,
    },
    Test {
        name: "serving-load",
        about: "wrk runs 30 s without an error",
        run: serving::steady_load,
    },
    Test {
        name: "balancing-shares",
        about: "10,000 connections to the VIP reach all backends, each within 5 % of its share",
        run: balancing::shares,
    },
    Test {
        name: "balancing-drain",
        about: "draining a backend moves none of 500 established connections",
        run: balancing::draining,
    },
    Test {
        name: "balancing-removal",
        about: "removing a backend touches its own connections and at most 1 % of the rest",
        run: balancing::removal,
    },
    Test {
        name: "recovery",
        about: "ixgbe is killed once a second for 60 s under load, and nobody outside sees it",
        run: recovery::driver_killed_under_load,
    },
    Test {
        name: "images-refused",
        about: "images that are changed, unsigned, or signed by or for somebody else are refused",
        run: images::refused,
    },
    Test {
        name: "faults",
        about: "the file arrives whole while frames are dropped, duplicated, reordered and corrupted",
        run: faults::bad_network,
    },
];

/// Runs the end-to-end tests.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Run only tests whose name contains one of these.
    names: Vec<String>,
    /// List the tests.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match root().and_then(|root| runner::run(&TESTS, &Context::new(root)?, &arguments.names, arguments.list))
    {
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
