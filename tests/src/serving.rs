//! What httpd serves: every file whole and with its type, a large one, thousands of connections, and load.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use progress::Step;
use provision::Program;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::running_lab::{Download, RunningLab, hexadecimal};

/// Size of the large file.
pub const LARGE_BYTES: usize = 200_000_000;
/// Its name.
pub const LARGE_FILE: &str = "large.bin";
/// Time for one download of it, at most; far more than it takes anywhere.
pub const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);
/// Anything: the content has to be the same in each run and have no pattern.
const SEED: u64 = 0x8259_9000;
/// Connections that are open together.
const CONNECTIONS: u64 = 2_000;
/// Connections of the load, and for how long.
const LOAD_CONNECTIONS: u32 = 50;
const LOAD_SECONDS: u32 = 30;

/// The shipped site with a large file beside it.
pub struct LargeSite {
    /// Where it is.
    pub folder: PathBuf,
    /// SHA-256 of the large file in hexadecimal.
    pub sha256: String,
}

impl LargeSite {
    /// Makes it; the large file only if it isn't there.
    pub fn make(shipped: &Path, folder: &Path) -> Result<Self> {
        let step = Step::start("Making a site with a file of 200 MB");
        let site = Self::make_sized(shipped, folder, LARGE_BYTES)?;
        step.done("");
        Ok(site)
    }

    fn make_sized(shipped: &Path, folder: &Path, bytes: usize) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        for entry in fs::read_dir(shipped)? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                fs::copy(&path, folder.join(name))?;
            }
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut digest = Sha256::new();
        let path = folder.join(LARGE_FILE);
        let is_there = fs::metadata(&path).is_ok_and(|file| file.len() == bytes as u64);
        let partial = folder.with_extension("partial");
        let mut file = if is_there {
            None
        } else {
            Some(BufWriter::new(File::create(&partial)?))
        };
        let mut chunk = vec![0; 1_000_000];
        for _ in 0..bytes / chunk.len() {
            random.fill(&mut chunk);
            digest.update(&chunk);
            if let Some(file) = &mut file {
                file.write_all(&chunk)?;
            }
        }
        if let Some(file) = file {
            file.into_inner()?;
            fs::rename(&partial, &path)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            sha256: hexadecimal(&digest.finalize()),
        })
    }

    /// Fails unless a download of the large file brought all of it.
    pub fn check(&self, download: &Download) -> Result<()> {
        ensure!(
            download.bytes == LARGE_BYTES as u64 && download.sha256 == self.sha256,
            "the file has {LARGE_BYTES} bytes with SHA-256 {}; {} bytes with {} arrived",
            self.sha256,
            download.bytes,
            download.sha256
        );
        Ok(())
    }
}

/// Each file of the shipped site with its type, and the large one with its SHA-256.
pub fn serves_files(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let mut files = 0;
        for entry in fs::read_dir(context.root.join("config/site"))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            check_file(lab, name, &fs::read(&path)?)?;
            files += 1;
        }
        let missing = ask(lab, "nothing-here")?;
        ensure!(
            missing.0.starts_with("404 text/html"),
            "a file that isn't there gives {}",
            missing.0
        );
        context.figure("files", files, "");

        let step = Step::start("Downloading 200 MB");
        let download = lab.download(&lab.url(LARGE_FILE), DOWNLOAD_LIMIT)?;
        context.site()?.check(&download)?;
        step.done("SHA-256 equal");
        context.figure("download", download.rate(), "MB/s");
        Ok(())
    })
}

fn check_file(lab: &RunningLab, name: &str, content: &[u8]) -> Result<()> {
    let expected = match Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let (head, body) = ask(lab, name)?;
    ensure!(
        head.starts_with(&format!("200 {expected}")),
        "{name} should be 200 {expected}, and is {head}"
    );
    ensure!(body == content, "{name} arrived with other bytes than it has");
    Ok(())
}

/// Status with type, and body.
fn ask(lab: &RunningLab, name: &str) -> Result<(String, Vec<u8>)> {
    let body = tempfile::NamedTempFile::new()?;
    let head = lab.run(
        "client",
        "curl",
        &[
            "-sS",
            "-m",
            "30",
            "-o",
            &body.path().to_string_lossy(),
            "-w",
            "%{http_code} %{content_type}",
            &lab.url(name),
        ],
    )?;
    Ok((head, fs::read(body.path())?))
}

/// All open at once, and asked twice.
pub fn serves_many_connections(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let step = Step::start(format!("Opening {CONNECTIONS} connections"));
        let mut held = lab.hold(lab.server()?, CONNECTIONS)?;
        held.ask()?.check_all(CONNECTIONS)?;
        context.figure("opened_and_served", step.elapsed().as_secs_f64(), "s");
        step.done("all served");
        let step = Step::start("Asking on all of them again");
        held.ask()?.check_all(CONNECTIONS)?;
        context.figure("served_again", step.elapsed().as_secs_f64(), "s");
        step.done("all served");
        Ok(())
    })
}

/// wrk for half a minute, without any error.
pub fn bears_load(context: &Context) -> Result<()> {
    provision::ensure_programs(&[Program::WRK])?;
    context.with_appliance(|lab| {
        let step = Step::start(format!("Load for {LOAD_SECONDS} s"));
        let text = lab.run(
            "client",
            "wrk",
            &[
                "--threads",
                "1",
                "--latency",
                "--connections",
                &LOAD_CONNECTIONS.to_string(),
                "--duration",
                &format!("{LOAD_SECONDS}s"),
                &lab.url("612.html"),
            ],
        )?;
        // Only said when there are some.
        ensure!(
            !text.contains("Socket errors") && !text.contains("Non-2xx"),
            "wrk met errors:\n{text}"
        );
        let requests = number_before(&text, " requests in ").context("wrk printed no number of requests")?;
        ensure!(requests > 0, "wrk got no answer:\n{text}");
        let per_second = text
            .lines()
            .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok())
            .context("wrk printed no rate")?;
        step.done(format!("{requests} requests, no error"));
        context.figure("requests", requests, "");
        context.figure("requests_per_second", per_second, "/s");
        Ok(())
    })
}

fn number_before(text: &str, label: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.split_once(label)?.0.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_has_the_same_content_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let shipped = directory.path().join("shipped");
        fs::create_dir(&shipped).unwrap();
        fs::write(shipped.join("index.html"), "hello").unwrap();
        let folder = directory.path().join("site");
        let first = LargeSite::make_sized(&shipped, &folder, 2_000_000).unwrap();
        let second = LargeSite::make_sized(&shipped, &folder, 2_000_000).unwrap();
        assert_eq!(first.sha256, second.sha256);
        let written = hexadecimal(&Sha256::digest(fs::read(folder.join(LARGE_FILE)).unwrap()));
        assert_eq!(written, first.sha256);
        assert!(folder.join("index.html").is_file());
    }

    #[test]
    fn numbers_of_wrk() {
        let text = "  19012 requests in 2.00s, 14.50MB read\n";
        assert_eq!(number_before(text, " requests in "), Some(19_012));
        assert_eq!(number_before("", " requests in "), None);
    }
}
