//! `cargo xtask build`: the kernel image and the boot archive.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use image_builder::{Attack, Built, Options};

/// What goes into an image; also accepted by the commands that boot one.
#[derive(Args, Clone, Debug)]
pub struct ImageArguments {
    /// Sign with this Ed25519 key (PEM, or 64 hexadecimal digits) in place of the public development key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Serve this folder in place of config/site.
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// Use this configuration in place of config/appliance.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Build an image that attacks itself, from this manifest, in place of a release.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "tests/attack/domains.toml")]
    attack: Option<PathBuf>,
    /// Put a signed image into a domain's spare slot, for the console's `update NAME`; may be given several times.
    #[arg(long, value_name = "NAME=FILE", value_parser = spare)]
    spare: Vec<(String, PathBuf)>,
}

/// `NAME=FILE`.
fn spare(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("it takes a domain and a file, as in httpd=target/update/httpd.image".to_owned()),
    }
}

impl ImageArguments {
    /// Builds with these; labs of different names have archives of their own, so that they don't change under them.
    pub fn build(&self, root: &Path, lab: Option<&str>) -> Result<Built> {
        let archive = lab.map(|name| root.join("target/lab").join(name).join("boot.tar"));
        image_builder::build(&Options {
            appliance: self.config.clone(),
            site: self.site.clone(),
            key: self.key.clone(),
            archive,
            attack: self.attack.as_ref().map(|manifest| Attack {
                manifest: root.join(manifest),
                injector: false,
            }),
            spare: self.spare.clone(),
            ..Options::new(root)
        })
    }

    /// The configuration that goes into the image.
    pub fn configuration(&self, root: &Path) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| root.join("config/appliance.toml"))
    }
}

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    image: ImageArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let built = arguments.image.build(root, None)?;
    if arguments.json {
        let object = serde_json::json!({
            "kernel": built.kernel,
            "archive": built.archive,
            "domains": built.domains,
        });
        println!("{object}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("kernel        {}", built.kernel.display());
    println!("boot archive  {}", built.archive.display());
    for (name, bytes) in &built.domains {
        println!("  {name:<20} {:>8.1} KiB", *bytes as f64 / 1024.0);
    }
    Ok(ExitCode::SUCCESS)
}
