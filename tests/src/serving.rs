//! The web server under load: a large file, many connections, a long run of requests.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use provision::Program;

use crate::context::{Context, LARGE_FILE};

/// A file of 200 MB arrives whole, with the right SHA-256.
pub fn large_file(context: &Context) -> Result<()> {
    let lab = context.large_site()?;
    let (seconds, digest) = lab.download(LARGE_FILE, Duration::from_secs(300))?;
    ensure!(
        digest == context.large_file_sha256(),
        "the file arrived with the SHA-256 {digest}"
    );
    eprintln!("  200 MB in {seconds:.1} s");
    lab.no_violations()
}

/// Connections that are all open at once are all served.
pub fn many_connections(context: &Context) -> Result<()> {
    const COUNT: u16 = 2_000;
    let lab = context.large_site()?;
    let mut held = lab.hold(lab.http()?, COUNT, 0)?;
    for round in 0..3 {
        let outcome = held.ask()?;
        ensure!(
            outcome.answered == u64::from(COUNT),
            "round {round}: not all were answered: {outcome:?}"
        );
    }
    lab.no_violations()
}

/// wrk runs for 30 s without an error.
pub fn steady_load(context: &Context) -> Result<()> {
    provision::ensure_programs(&[Program::WRK])?;
    let lab = context.large_site()?;
    let url = lab.report().appliance.http;
    let said = lab.run(
        "client",
        "wrk",
        &["-t", "2", "-c", "100", "-d", "30s", "--timeout", "10s", &url],
    )?;
    let errors = said
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    ensure!(errors.is_none(), "wrk met errors:\n{said}");
    let rate = said
        .lines()
        .find(|line| line.contains("Requests/sec"))
        .context("wrk printed no rate")?;
    eprintln!("  {}", rate.trim());
    lab.no_violations()
}
