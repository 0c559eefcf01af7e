//! An apt of our own: it downloads and checks signatures, and installs nothing.
//!
//! Its lists, state and cache are below a working directory. The machine's own apt settings (proxies, credentials) stay in force, which is why
//! this is done with a configuration file read after them and not instead of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use progress::Step;
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::error::Error;
use crate::mirror::DebianMirror;

/// An apt with package lists of its own.
pub(crate) struct Apt {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Apt {
    /// One below `work` that knows the packages and sources of these suites.
    pub(crate) fn new(
        work: &Path,
        mirror: &DebianMirror,
        suites: &[&str],
        step: &Step,
    ) -> Result<Self, Error> {
        let apt = work.join("apt");
        for directory in ["state/lists/partial", "cache/archives/partial", "sources"] {
            let path = apt.join(directory);
            fs::create_dir_all(&path).map_err(Error::file(&path))?;
        }
        let write = |name: &str, text: String| {
            let path = apt.join(name);
            fs::write(&path, text).map_err(Error::file(&path)).map(|()| path)
        };
        let status = write("state/status", String::new())?;
        let sources = suites
            .iter()
            .flat_map(|suite| ["deb", "deb-src"].map(|kind| (kind, suite)))
            .map(|(kind, suite)| {
                format!(
                    "{kind} [signed-by={}] {} {suite} main\n",
                    mirror.keyring, mirror.uri
                )
            })
            .collect();
        let sources = write("sources.list", sources)?;
        let directory = apt.display();
        let mut text = format!(
            "Dir::State \"{directory}/state\";\nDir::State::lists \"{directory}/state/lists\";\nDir::State::status \"{status}\";\n\
             Dir::Cache \"{directory}/cache\";\nDir::Cache::archives \"{directory}/cache/archives\";\n\
             Dir::Etc::sourcelist \"{sources}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
             #clear APT::Architectures;\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             APT::Install-Recommends \"false\";\nAPT::Keep-Downloaded-Packages \"true\";\nAcquire::Languages \"none\";\n\
             Debug::NoLocking \"true\";\n",
            status = status.display(),
            sources = sources.display(),
        );
        if nix::unistd::geteuid().is_root() {
            // apt's own user can't write below a home directory.
            text.push_str("APT::Sandbox::User \"root\";\n");
        }
        let configuration = write("apt.conf", text)?;
        let apt = Self {
            directory: apt,
            configuration,
        };
        step.note("package lists");
        run(apt.command().arg("update"))?;
        Ok(apt)
    }

    /// Downloads packages with all that they depend on; gives the files.
    pub(crate) fn packages(
        &self,
        packages: &[&str],
        release: Option<&str>,
        step: &Step,
    ) -> Result<Vec<PathBuf>, Error> {
        step.note("packages");
        let mut command = self.command();
        command.args(["install", "--yes", "--download-only"]);
        if let Some(release) = release {
            command.args(["-t", release]);
        }
        run(command.args(packages))?;
        files(&self.directory.join("cache/archives"), ".deb")
    }

    /// Downloads a source package; gives its archives.
    pub(crate) fn source(&self, package: &str, step: &Step) -> Result<Vec<PathBuf>, Error> {
        step.note("sources");
        let directory = self.directory.join("sources");
        run(self
            .command()
            .current_dir(&directory)
            .args(["source", "--download-only", package]))?;
        files(&directory, "")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("LC_ALL", "C")
            .arg("-q")
            .arg("-c")
            .arg(&self.configuration);
        command
    }
}

fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(Error::file(directory))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    Ok(files)
}

/// File name → SHA-256 in hexadecimal.
pub(crate) fn checksums(archives: &[PathBuf]) -> Result<BTreeMap<String, String>, Error> {
    archives
        .iter()
        .map(|path| {
            let bytes = fs::read(path).map_err(Error::file(path))?;
            let digest = Sha256::digest(&bytes);
            let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Ok((name, hex))
        })
        .collect()
}
