//! What isn't signed as it should be isn't loaded, and the appliance says why and runs without it.

use std::fs;

use abi::image::{ImageManifest, SIGNATURE_BYTES, TRAILER_BYTES};
use anyhow::{Context as _, Result, ensure};
use image_builder::Built;
use image_builder::archive::BootArchive;
use sign::Key;

use crate::context::Context;

/// The domain whose image is spoilt; the web server, by which the lab sees that the appliance is up, does without it.
const DOMAIN: &str = "maglev";

/// One way to spoil an image, and what the appliance must say.
struct Case {
    what: &'static str,
    spoil: fn(&[u8]) -> Result<Vec<u8>>,
    message: &'static str,
}

const CASES: [Case; 4] = [
    Case {
        what: "one flipped byte",
        spoil: flip_byte,
        message: "it was changed after it was signed",
    },
    Case {
        what: "another key",
        spoil: sign_with_another_key,
        message: "it is signed with another key",
    },
    Case {
        what: "another interface hash",
        spoil: change_hash,
        message: "its interface hash is not this kernel's",
    },
    Case {
        what: "no signature",
        spoil: cut_signature,
        message: "it has no signature",
    },
];

/// A flipped byte, another key, another interface hash and no signature are each refused with their own message.
pub fn refused(context: &Context) -> Result<()> {
    let good = image_builder::build(&image_builder::Options::new(&context.root))?;
    let directory = tempfile::tempdir()?;
    for case in &CASES {
        eprintln!("  {}", case.what);
        let mut archive = BootArchive::read(&good.archive)?;
        let name = format!("domains/{DOMAIN}");
        let image = archive
            .get(&name)
            .with_context(|| format!("there is no {name} in the archive"))?;
        let spoilt = (case.spoil)(image)?;
        archive.add(&name, spoilt)?;
        let path = directory.path().join("boot.tar");
        archive.write(&path)?;

        let lab = context.appliance(
            &Built {
                archive: path,
                ..good.clone()
            },
            2,
            1024,
        )?;
        let page = lab.run(
            "client",
            "curl",
            &["-sS", "-m", "10", &lab.report().appliance.http],
        )?;
        ensure!(
            page.contains("<html"),
            "the appliance serves no page without {DOMAIN}"
        );
        let said = fs::read_to_string(lab.report().serial_log)?;
        let line = said
            .lines()
            .find(|line| line.contains(DOMAIN) && line.contains(case.message));
        ensure!(
            line.is_some(),
            "with {}, the console doesn't say `{}`:\n{said}",
            case.what,
            case.message
        );
        let domains = lab.console("domains")?;
        let state = domains
            .lines()
            .find(|line| line.starts_with(DOMAIN))
            .unwrap_or_default();
        ensure!(
            !state.contains("running"),
            "{DOMAIN} runs with {}: {state}",
            case.what
        );
    }
    Ok(())
}

fn flip_byte(image: &[u8]) -> Result<Vec<u8>> {
    let mut image = image.to_vec();
    let middle = image.len() / 2;
    *image.get_mut(middle).context("the image is empty")? ^= 1;
    Ok(image)
}

/// Signs what the image holds anew.
fn signed(image: &[u8], change: impl FnOnce(&mut ImageManifest), key: &Key) -> Result<Vec<u8>> {
    let read = sign::read_image(image, &Key::development())?;
    let mut manifest = read.manifest;
    change(&mut manifest);
    Ok(sign::sign_image(read.elf, manifest, key))
}

fn sign_with_another_key(image: &[u8]) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "11".repeat(32))?;
    signed(image, |_| {}, &Key::from_file(file.path())?)
}

fn change_hash(image: &[u8]) -> Result<Vec<u8>> {
    signed(
        image,
        |manifest| manifest.interface_hash = [0x5a; 32],
        &Key::development(),
    )
}

fn cut_signature(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        image.len() > TRAILER_BYTES + SIGNATURE_BYTES,
        "the image is too short"
    );
    Ok(image.split_at(image.len() - TRAILER_BYTES).0.to_vec())
}
