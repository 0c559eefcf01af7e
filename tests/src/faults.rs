//! A bad network: the card loses, doubles, reorders and damages frames, and files arrive whole all the same.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::context::{Context, LARGE_FILE};

/// The large file arrives with the right SHA-256 while 1 % of the frames meets each fault.
pub fn bad_network(context: &Context) -> Result<()> {
    let lab = context.large_site()?;
    for (seed, kind) in ["drop", "duplicate", "reorder", "corrupt"].iter().enumerate() {
        lab.nic(&["fault", kind, "--rate", "0.01", "--seed", &seed.to_string()])?;
    }
    let (seconds, digest) = lab.download(LARGE_FILE, Duration::from_secs(600))?;
    ensure!(
        digest == context.large_file_sha256(),
        "the file arrived with the SHA-256 {digest}"
    );
    eprintln!("  200 MB in {seconds:.1} s");
    lab.nic(&["clear"])?;
    lab.no_violations()
}
