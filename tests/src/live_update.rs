//! Live updates under load: httpd and netstack from uploads, maglev and ixgbe from the spare slots; and images that must not stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use image_builder::archive::BootArchive;
use image_builder::{Built, DomainOptions, Options};
use progress::Step;
use serde_json::Value;
use sign::{Key, SignedImage, read_image, sign_image};

use crate::context::Context;
use crate::images::OTHER_SEED;
use crate::recovery::{Memory, return_of_pages, settled_memory};
use crate::running_lab::{Held, Outcome, RunningLab};
use crate::serving::{DOWNLOAD_LIMIT, LARGE_FILE, LargeSite};

/// What uploads must show; any token will do.
const TOKEN: &str = "the-token-of-the-end-to-end-tests";
/// What the new builds are called.
const LABEL: &str = "end-to-end-test-2";
/// The domains that are updated, and whether the image is uploaded or in the spare slot.
const UPDATES: [(&str, bool); 4] = [
    ("httpd", true),
    ("netstack", true),
    ("maglev", false),
    ("ixgbe", false),
];
/// A domain whose spare slot has a changed image.
const SPOILED: &str = "nic-shadow";
/// Connections through the balancer that stay open over everything.
const VIP_CONNECTIONS: u64 = 200;
/// New connections to the site in one round of the load, and at a time.
const ROUND: u64 = 100;
const AT_ONCE: u32 = 10;
/// How long the load runs before and after an update.
const AROUND: Duration = Duration::from_secs(1);
/// How long an updated image is on trial here, milliseconds: longer than the one lives that must be rolled back, and not so long that the test
/// mostly waits.
const TRIAL_MS: u32 = 5_000;
/// The shipped length of a trial.
const SHIPPED_TRIAL: &str = "\ntrial_ms = 10000\n";
/// How long a client waits for a download whose connection may be gone without its learning of it: a stack that has died says nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for an update to be rolled back, and for trials to end.
const LIMIT: Duration = Duration::from_secs(30);
/// Pairs of updates for the count of pages, and before it.
const REPEATS: u32 = 10;
const WARM_UP: u32 = 2;

/// Every update, then what must be refused or rolled back.
pub fn works_under_load(context: &Context) -> Result<()> {
    let directory = directory(context);
    let built = build(context, &directory)?;
    let lab = context.boot(&built)?;
    lab.judge(updates(context, &lab, &directory))
}

/// The shipped image with a token in its configuration, the large site, and spare images.
fn build(context: &Context, directory: &Path) -> Result<Built> {
    fs::create_dir_all(directory)?;
    let shipped = fs::read_to_string(context.root.join("config/appliance.toml"))?;
    let configuration = directory.join("appliance.toml");
    let with_token = shipped.replace("[httpd]\n", &format!("[httpd]\nupload_token = \"{TOKEN}\"\n"));
    ensure!(
        with_token != shipped,
        "the configuration has no section [httpd] any more"
    );
    fs::write(&configuration, with_token)?;
    let shipped = fs::read_to_string(context.root.join("config/domains.toml"))?;
    ensure!(
        shipped.contains(SHIPPED_TRIAL),
        "config/domains.toml has no line `{}` any more",
        SHIPPED_TRIAL.trim()
    );
    let manifest = directory.join("domains.toml");
    fs::write(
        &manifest,
        shipped.replace(SHIPPED_TRIAL, &format!("\ntrial_ms = {TRIAL_MS}\n")),
    )?;
    let built = image_builder::build(&Options {
        appliance: Some(configuration),
        manifest: Some(manifest),
        site: Some(context.site()?.folder.clone()),
        archive: Some(directory.join("boot.tar")),
        ..Options::new(&context.root)
    })?;

    let mut archive = BootArchive::read(&built.archive)?;
    for (name, is_uploaded) in UPDATES {
        let image = relabelled(&archive, name)?;
        if is_uploaded {
            fs::write(image_file(directory, name), image)?;
        } else {
            archive.add(&format!("spare/{name}"), image)?;
        }
    }
    let spoiled = flipped(relabelled(&archive, SPOILED)?);
    archive.add(&format!("spare/{SPOILED}"), spoiled)?;
    archive.write(&built.archive)?;
    fs::write(
        image_file(directory, "httpd-third"),
        labelled(&archive, "httpd", "end-to-end-test-3")?,
    )?;
    fs::write(
        image_file(directory, "httpd-flipped"),
        flipped(relabelled(&archive, "httpd")?),
    )?;
    fs::write(
        image_file(directory, "httpd-foreign"),
        signed_by_another(&archive, "httpd")?,
    )?;
    build_short_lived(context)?;
    Ok(built)
}

/// Builds an image of httpd that dies soon after its start.
pub fn build_short_lived(context: &Context) -> Result<()> {
    let directory = directory(context);
    fs::create_dir_all(&directory)?;
    image_builder::build_domain(&DomainOptions {
        root: context.root.clone(),
        name: "httpd".to_owned(),
        package: Some("short-lived".to_owned()),
        label: Some("short-lived".to_owned()),
        key: None,
        output: Some(image_file(&directory, "httpd-short-lived")),
    })?;
    Ok(())
}

fn directory(context: &Context) -> PathBuf {
    context.directory().join("live-update")
}

fn image_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.image"))
}

fn image<'a>(archive: &'a BootArchive, name: &str) -> Result<&'a [u8]> {
    archive
        .get(&format!("domains/{name}"))
        .with_context(|| format!("the archive has no image of {name}"))
}

/// The archive's image of a domain as another build: what is signed differs, as it does after a change of the sources.
fn relabelled(archive: &BootArchive, name: &str) -> Result<Vec<u8>> {
    labelled(archive, name, LABEL)
}

fn labelled(archive: &BootArchive, name: &str, label: &str) -> Result<Vec<u8>> {
    let key = Key::development();
    let SignedImage { elf, mut manifest } = read_image(image(archive, name)?, &key)?;
    manifest.build = label.to_owned();
    Ok(sign_image(elf, manifest, &key))
}

fn signed_by_another(archive: &BootArchive, name: &str) -> Result<Vec<u8>> {
    let SignedImage { elf, manifest } = read_image(image(archive, name)?, &Key::development())?;
    let seed = tempfile::NamedTempFile::new()?;
    fs::write(seed.path(), OTHER_SEED)?;
    Ok(sign_image(elf, manifest, &Key::from_file(seed.path())?))
}

fn flipped(mut image: Vec<u8>) -> Vec<u8> {
    let middle = image.len() / 2;
    if let Some(byte) = image.get_mut(middle) {
        *byte ^= 1;
    }
    image
}

fn updates(context: &Context, lab: &RunningLab, directory: &Path) -> Result<()> {
    let mut vip = lab.hold(lab.vip()?, VIP_CONNECTIONS)?;
    vip.ask()?.check_all(VIP_CONNECTIONS)?;
    for (name, is_uploaded) in UPDATES {
        if is_uploaded {
            let answer = put(lab, name, &image_file(directory, name), Some(TOKEN))?;
            ensure!(
                answer.status == 200 && answer.text.contains(LABEL),
                "the image of {name} was not taken: {answer:?}"
            );
        }
        updated(context, lab, name, &mut vip).with_context(|| format!("the update of {name}"))?;
    }
    // While old images are kept beside the new ones.
    adds_up(lab)?;
    refuses(lab, directory)?;
    rolls_back(context, lab, directory, &mut vip)?;
    trials_end(lab, UPDATES.len())?;
    vip.ask()?.check_all(VIP_CONNECTIONS)?;
    drop(vip);
    waits_for_its_start(lab, directory)?;
    cost_nothing(context, lab, directory)?;
    adds_up(lab)
}

/// What the load's clients have seen.
#[derive(Default)]
struct Seen {
    answered: u64,
    failed: u64,
    reasons: Vec<String>,
    downloads: u64,
    /// Downloads that were cut short.
    broken: u64,
}

/// New connections to the site, and downloads from it, while `work` goes on.
fn under_load<R>(
    context: &Context,
    lab: &RunningLab,
    download_limit: Duration,
    work: impl FnOnce() -> Result<R>,
) -> Result<(R, Seen)> {
    let stop = &AtomicBool::new(false);
    let site = context.site()?;
    let (worked, connections, downloads) = thread::scope(|scope| {
        let connections = scope.spawn(move || connect_until(lab, stop));
        let downloads = scope.spawn(move || download_until(lab, site, download_limit, stop));
        thread::sleep(AROUND);
        let worked = work();
        thread::sleep(AROUND);
        stop.store(true, Ordering::Relaxed);
        (worked, connections.join(), downloads.join())
    });
    let panicked = |_| anyhow!("a load's thread panicked");
    let outcomes = connections.map_err(panicked)??;
    let (downloads, broken) = downloads.map_err(panicked)??;
    let mut seen = Seen {
        downloads,
        broken,
        ..Seen::default()
    };
    for outcome in outcomes {
        seen.answered += outcome.answered;
        seen.failed += outcome.failures();
        for reason in outcome.failed.into_keys() {
            if !seen.reasons.contains(&reason) {
                seen.reasons.push(reason);
            }
        }
    }
    Ok((worked?, seen))
}

fn connect_until(lab: &RunningLab, stop: &AtomicBool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        outcomes.push(lab.connections(lab.server()?, ROUND, AT_ONCE)?);
    }
    Ok(outcomes)
}

/// Whole downloads with the right content, and those that were cut short; a wrong byte is an error.
fn download_until(
    lab: &RunningLab,
    site: &LargeSite,
    limit: Duration,
    stop: &AtomicBool,
) -> Result<(u64, u64)> {
    let (mut whole, mut broken) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match lab.download(&lab.url(LARGE_FILE), limit) {
            Ok(download) => {
                site.check(&download)?;
                whole += 1;
            }
            Err(_) => broken += 1,
        }
    }
    Ok((whole, broken))
}

/// Updates a domain under load; what clients see, and how long it was away.
fn updated(context: &Context, lab: &RunningLab, name: &str, vip: &mut Held) -> Result<()> {
    let step = Step::start(format!("Updating {name} under load"));
    let before = entry(lab, name)?;
    let is_unseen = matches!(name, "maglev" | "ixgbe");
    let limit = if is_unseen { DOWNLOAD_LIMIT } else { PATIENCE };
    let (said, seen) = under_load(context, lab, limit, || lab.console(&format!("update {name}")))?;
    ensure!(
        said.contains(&format!("{name} runs build {LABEL}")),
        "`update {name}` says: {said}"
    );
    let after = entry(lab, name)?;
    ensure!(
        after["build"] == LABEL && after["state"] == "running" && after["generation"] != before["generation"],
        "{name} should be another incarnation of build {LABEL}: {after}"
    );
    let update = newest_update(lab)?;
    ensure!(
        update["name"] == name && update["outcome"] != "rolled-back" && update["from"] == before["build"],
        "the newest update is {update}"
    );
    step.done(format!(
        "{} connections answered, {} failed {:?}; {} downloads, {} cut short",
        seen.answered, seen.failed, seen.reasons, seen.downloads, seen.broken
    ));
    let restart_ns = update["restart_ns"].as_f64().context("it took no time")?;
    context.figure(&format!("{name}_without_ms"), restart_ns / 1e6, "ms");
    context.figure(&format!("{name}_connections_answered"), seen.answered, "");
    context.figure(&format!("{name}_connections_failed"), seen.failed, "");
    context.figure(&format!("{name}_downloads_cut_short"), seen.broken, "");
    // Whatever is updated, what goes through the balancer stays.
    vip.ask()?.check_all(VIP_CONNECTIONS)?;
    if is_unseen {
        ensure!(
            seen.failed == 0 && seen.broken == 0,
            "the site's clients should not see an update of {name}: {:?}",
            seen.reasons
        );
    }
    ensure!(seen.answered > 0, "nobody was answered");
    Ok(())
}

/// Images that are refused, each with its reason; the domain is not touched.
fn refuses(lab: &RunningLab, directory: &Path) -> Result<()> {
    let step = Step::start("Sending images that must be refused");
    let before = entry(lab, "httpd")?;
    for (file, token, status, said) in [
        (
            "httpd-flipped",
            Some(TOKEN),
            422,
            "it was changed after it was signed",
        ),
        ("httpd-foreign", Some(TOKEN), 422, "it is signed with another key"),
        ("netstack", Some(TOKEN), 422, "it is the image of domain netstack"),
        ("httpd", None, 401, "token"),
        ("httpd", Some("not-the-token-of-anything"), 401, "token"),
    ] {
        let answer = put(lab, "httpd", &image_file(directory, file), token)?;
        ensure!(
            answer.status == status && answer.text.contains(said),
            "{file}: {status} with \"{said}\" was expected: {answer:?}"
        );
    }
    one_at_a_time(lab, directory)?;
    let unknown = put(lab, "nobody", &image_file(directory, "httpd"), Some(TOKEN))?;
    ensure!(unknown.status == 404, "{unknown:?}");
    for (command, said) in [
        ("update httpd", "There is no image to update to"),
        (&format!("update {SPOILED}"), "it was changed after it was signed"),
        ("update init", "The supervisor can't be updated"),
        ("update maglev", "has that image already"),
    ] {
        let answer = lab.console(command)?;
        ensure!(
            answer.contains(said),
            "`{command}` should say \"{said}\": {answer}"
        );
    }
    let after = entry(lab, "httpd")?;
    ensure!(
        after["generation"] == before["generation"] && after["build"] == before["build"],
        "httpd was touched: {before} {after}"
    );
    step.done("");
    Ok(())
}

/// While an image is being sent another one waits, and when the first breaks off it is forgotten at once.
fn one_at_a_time(lab: &RunningLab, directory: &Path) -> Result<()> {
    let (image, other) = (
        image_file(directory, "httpd"),
        image_file(directory, "httpd-flipped"),
    );
    let (slow, meanwhile) = thread::scope(|scope| {
        // Far too slow to be complete in its time.
        let slow = scope.spawn(|| {
            send(
                lab,
                "httpd",
                &image,
                Some(TOKEN),
                &["--limit-rate", "20k", "-m", "3"],
            )
        });
        thread::sleep(Duration::from_secs(1));
        let meanwhile = put(lab, "httpd", &other, Some(TOKEN));
        (slow.join(), meanwhile)
    });
    ensure!(
        slow.is_ok_and(|sent| sent.is_err()),
        "an upload of 20 kB/s is not complete after 3 s"
    );
    let meanwhile = meanwhile?;
    ensure!(
        meanwhile.status == 409,
        "another upload is under way: {meanwhile:?}"
    );
    let after = put(lab, "httpd", &other, Some(TOKEN))?;
    ensure!(
        after.status == 422,
        "the upload that broke off is still there: {after:?}"
    );
    Ok(())
}

/// An image that dies a second after its start makes place for the one before, and the others don't notice.
fn rolls_back(context: &Context, lab: &RunningLab, directory: &Path, vip: &mut Held) -> Result<()> {
    let step = Step::start("Updating httpd to an image that dies after a second");
    let before = entry(lab, "httpd")?;
    let answer = put(
        lab,
        "httpd",
        &image_file(directory, "httpd-short-lived"),
        Some(TOKEN),
    )?;
    ensure!(answer.status == 200, "{answer:?}");
    let started = Instant::now();
    let said = lab.console("update httpd")?;
    ensure!(
        said.contains("httpd runs build short-lived"),
        "`update httpd` says: {said}"
    );
    vip.ask()?.check_all(VIP_CONNECTIONS)?;
    let update = loop {
        let update = newest_update(lab)?;
        if update["outcome"] == "rolled-back" {
            break update;
        }
        ensure!(started.elapsed() < LIMIT, "it is not rolled back: {update}");
        thread::sleep(Duration::from_millis(100));
    };
    let reason = update["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("this image is made to die"), "{update}");
    while lab.connections(lab.server()?, 1, 1)?.answered == 0 {
        ensure!(started.elapsed() < LIMIT, "the site doesn't come back");
    }
    let site_back = started.elapsed();
    let after = entry(lab, "httpd")?;
    ensure!(
        after["build"] == before["build"] && after["state"] == "running",
        "httpd should be back at {}: {after}",
        before["build"]
    );
    vip.ask()?.check_all(VIP_CONNECTIONS)?;
    step.done(format!("rolled back: {reason}"));
    context.figure(
        "site_back_after_short_lived",
        site_back.as_secs_f64(),
        "s from `update` on; it lives 1 s, and typing takes its time",
    );
    Ok(())
}

/// After their trials the new images are kept, and the old ones given up.
fn trials_end(lab: &RunningLab, kept: usize) -> Result<()> {
    let step = Step::start("Waiting for the trials to end");
    let started = Instant::now();
    loop {
        let updates = lab.console_json("updates --json")?;
        let list = updates["updates"].as_array().context("`updates` has no list")?;
        let count = |outcome: &str| list.iter().filter(|update| update["outcome"] == outcome).count();
        let images = updates["images"].as_array().context("`updates` has no images")?;
        if count("kept") == kept && images.iter().all(|images| images["previous"].is_null()) {
            break;
        }
        ensure!(started.elapsed() < LIMIT, "the trials don't end: {updates}");
        thread::sleep(Duration::from_millis(500));
    }
    step.done("");
    Ok(())
}

/// A domain that the operator has stopped gets the image and stays down until it is started.
fn waits_for_its_start(lab: &RunningLab, directory: &Path) -> Result<()> {
    let step = Step::start("Updating httpd while it is stopped");
    let answer = put(lab, "httpd", &image_file(directory, "httpd-third"), Some(TOKEN))?;
    ensure!(answer.status == 200, "{answer:?}");
    lab.console("stop httpd")?;
    let said = lab.console("update httpd")?;
    ensure!(
        said.contains("httpd is stopped; `start httpd` runs build end-to-end-test-3"),
        "`update httpd` says: {said}"
    );
    ensure!(entry(lab, "httpd")?["state"] != "running", "httpd is up again");
    lab.console("start httpd")?;
    let after = entry(lab, "httpd")?;
    ensure!(
        after["state"] == "running" && after["build"] == "end-to-end-test-3",
        "{after}"
    );
    lab.connections(lab.server()?, 1, 1)?.check_all(1)?;
    lab.console("stop httpd")?;
    let answer = lab.console("update httpd upload")?;
    ensure!(answer.contains("There is no image to update to"), "{answer}");
    lab.console("start httpd")?;
    step.done("");
    Ok(())
}

/// What domains hold and what the allocators have given out is the same.
fn adds_up(lab: &RunningLab) -> Result<()> {
    let leaks = lab.console_json("leaks --json")?;
    ensure!(leaks["found"] == 0, "something doesn't add up: {leaks}");
    Ok(())
}

/// Updates of httpd to one image and to another, again and again, leave the free pages where they were.
fn cost_nothing(context: &Context, lab: &RunningLab, directory: &Path) -> Result<()> {
    // What the first of them make once and for all is no loss.
    back_and_forth(lab, directory, WARM_UP)?;
    let before = settled_memory(lab)?;
    back_and_forth(lab, directory, REPEATS)?;
    let after = return_of_pages(lab, &before, Memory::available)?;
    context.figure("updates_in_a_row", 2 * REPEATS, "");
    context.figure(
        "free_pages_lost",
        before.available().saturating_sub(after.available()),
        "",
    );
    Ok(())
}

fn back_and_forth(lab: &RunningLab, directory: &Path, times: u32) -> Result<()> {
    let step = Step::start(format!("Updating httpd {} times", 2 * times));
    for _ in 0..times {
        for file in ["httpd", "httpd-third"] {
            let answer = put(lab, "httpd", &image_file(directory, file), Some(TOKEN))?;
            ensure!(answer.status == 200, "{answer:?}");
            let said = lab.console("update httpd")?;
            ensure!(said.contains("httpd runs build"), "`update httpd` says: {said}");
        }
    }
    let started = Instant::now();
    while newest_update(lab)?["outcome"] != "kept" {
        ensure!(started.elapsed() < LIMIT, "the last trial doesn't end");
        thread::sleep(Duration::from_millis(500));
    }
    step.done("");
    Ok(())
}

/// What a client is answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

/// Uploads an image from the client.
fn put(lab: &RunningLab, name: &str, file: &Path, token: Option<&str>) -> Result<Answer> {
    send(lab, name, file, token, &["-m", "20"])
}

/// The same with options for curl.
fn send(lab: &RunningLab, name: &str, file: &Path, token: Option<&str>, options: &[&str]) -> Result<Answer> {
    let url = lab.url(&format!("domains/{name}"));
    let file = file.to_str().context("the image's path is not UTF-8")?;
    let authorization = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut arguments = vec!["-sS", "-w", "\n%{http_code}", "-T", file];
    arguments.extend(options);
    if let Some(authorization) = &authorization {
        arguments.extend(["-H", authorization]);
    }
    arguments.push(&url);
    let output = lab.run("client", "curl", &arguments)?;
    let Some((text, status)) = output.trim_end().rsplit_once('\n') else {
        bail!("curl printed no status: {output}");
    };
    Ok(Answer {
        status: status.parse().context("curl printed no status")?,
        text: text.to_owned(),
    })
}

/// A domain's entry in `domains --json`.
fn entry(lab: &RunningLab, name: &str) -> Result<Value> {
    let listing = lab.console_json("domains --json")?;
    let found = listing
        .as_array()
        .and_then(|list| list.iter().find(|entry| entry["name"] == name));
    found
        .cloned()
        .with_context(|| format!("`domains` doesn't list {name}: {listing}"))
}

fn newest_update(lab: &RunningLab) -> Result<Value> {
    let updates = lab.console_json("updates --json")?;
    Ok(updates["updates"][0].clone())
}
