//! `cargo xtask domain`: the signed image of one domain, to update a running appliance with (docs/update.md).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use image_builder::DomainOptions;

#[derive(Args)]
pub struct Arguments {
    /// The domain, as config/domains.toml names it.
    name: String,
    /// Where to write the image [default: target/update/NAME.image].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the build that `domains` shows, in place of version and digest of the code.
    #[arg(long)]
    label: Option<String>,
    /// Build it from this package in place of the one in config/domains.toml.
    #[arg(long)]
    package: Option<String>,
    /// Sign with this Ed25519 key (PEM, or 64 hexadecimal digits) in place of the public development key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let image = image_builder::build_domain(&DomainOptions {
        root: root.to_owned(),
        name: arguments.name.clone(),
        package: arguments.package.clone(),
        label: arguments.label.clone(),
        key: arguments.key.clone(),
        output: arguments.output.clone(),
    })?;
    if arguments.json {
        let object = serde_json::json!({
            "image": image.path,
            "bytes": image.bytes,
            "build": image.build,
        });
        println!("{object}");
    } else {
        println!("image  {}", image.path.display());
        println!("build  {}, {:.1} KiB", image.build, image.bytes as f64 / 1024.0);
    }
    Ok(ExitCode::SUCCESS)
}
