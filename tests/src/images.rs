//! Images that must not run: changed, signed by somebody else, built against other interfaces, unsigned.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use image_builder::archive::BootArchive;
use image_builder::{Built, Options};
use sign::{Key, SignedImage, read_image, sign_image};

use crate::appliance::{started_domains, state};
use crate::context::Context;

/// The domain whose image is spoiled: the site and the console must work without it.
const DOMAIN: &str = "maglev";
/// Seed of somebody else's key (RFC 8032, section 7.1, test 1).
pub const OTHER_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

/// A way to spoil an image, and what the refusal must say.
struct Spoiled {
    what: &'static str,
    image: Vec<u8>,
    said: &'static str,
}

/// Each of them in a boot of its own.
pub fn are_refused(context: &Context) -> Result<()> {
    let built = image_builder::build(&Options::new(&context.root))?;
    let good = BootArchive::read(&built.archive)?;
    let name = format!("domains/{DOMAIN}");
    let image = good
        .get(&name)
        .with_context(|| format!("the archive has no {name}"))?;
    for spoiled in spoil(image)? {
        let mut archive = BootArchive::read(&built.archive)?;
        archive.add(&name, spoiled.image)?;
        let path = context.directory().join("refused.tar");
        archive.write(&path)?;
        let altered = Built {
            archive: path,
            ..built.clone()
        };
        is_refused(context, &altered, spoiled.said)
            .with_context(|| format!("{DOMAIN}'s image {}", spoiled.what))?;
    }
    Ok(())
}

fn spoil(image: &[u8]) -> Result<[Spoiled; 4]> {
    let key = Key::development();
    let SignedImage { elf, manifest } = read_image(image, &key)?;

    let mut flipped = image.to_vec();
    let middle = flipped.get_mut(elf.len() / 2).context("the image is empty")?;
    *middle ^= 1;

    let seed = tempfile::NamedTempFile::new()?;
    fs::write(seed.path(), OTHER_SEED)?;
    let foreign = sign_image(elf, manifest.clone(), &Key::from_file(seed.path())?);

    let mut other = manifest.clone();
    for byte in &mut other.interface_hash {
        *byte ^= 0xff;
    }
    let mismatched = sign_image(elf, other, &key);

    Ok([
        Spoiled {
            what: "with one flipped byte",
            image: flipped,
            said: "it was changed after it was signed",
        },
        Spoiled {
            what: "signed with another key",
            image: foreign,
            said: "it is signed with another key",
        },
        Spoiled {
            what: "with another interface hash",
            image: mismatched,
            said: "its interface hash is not this kernel's",
        },
        Spoiled {
            what: "without a signature",
            image: elf.to_vec(),
            said: "it has no signature",
        },
    ])
}

fn is_refused(context: &Context, built: &Built, said: &str) -> Result<()> {
    let lab = context.boot(built)?;
    let check = || -> Result<()> {
        // That it answers at all is what booting waits for.
        let listing = started_domains(&lab)?;
        let domains = listing.as_array().context("`domains` printed no list")?;
        for domain in domains {
            let name = domain["name"].as_str().unwrap_or_default();
            let is_running = state(&listing, name) == Some("running");
            let is_refused = domain["refused"] == true;
            ensure!(
                is_running != is_refused && is_refused == (name == DOMAIN),
                "{name} should be {}: {listing}",
                if name == DOMAIN { "refused" } else { "running" }
            );
        }
        let table = lab.console("domains")?;
        ensure!(
            table
                .lines()
                .any(|line| line.contains(DOMAIN) && line.contains("refused")),
            "`domains` doesn't show that {DOMAIN} is refused:\n{table}"
        );
        let serial = lab.serial();
        let line = serial
            .lines()
            .find(|line| line.contains(&format!("{DOMAIN}: refused: ")))
            .with_context(|| format!("the serial log says nothing of a refusal:\n{serial}"))?;
        ensure!(
            line.contains(said),
            "the refusal should say \"{said}\", and says: {line}"
        );
        let vip = lab.report().vip.context("the configuration has no VIP")?;
        ensure!(
            lab.run("client", "curl", &["-s", "-m", "1", &vip.http]).is_err(),
            "the VIP answers without {DOMAIN}"
        );
        eprintln!("  {}", line.trim());
        Ok(())
    };
    lab.judge(check())
}
