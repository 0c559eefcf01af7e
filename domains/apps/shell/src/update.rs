//! Answers about images and updates, from the supervisor.

use crate::answer::Answer;
use crate::domains;
use crate::import::Import;
use crate::table::{Table, milliseconds, seconds};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use domain_rt::{clock, thread};
use interface::kernel::DomainName;
use interface::supervise::Supervisor;
use interface::update::{Build, ImageSource, UpdateOutcome, UpdateRecord, Updates};
use serde_json::{Value, json};

/// Updates that `updates` shows.
const SHOWN: u64 = 10;
/// How long `update` waits for the new image to run, milliseconds, and how often it looks.
const START_WAIT_MS: u64 = 5_000;
/// See [`START_WAIT_MS`].
const LOOK_MS: u64 = 5;

type Images = Import<dyn Updates>;

/// `update`: what became of it as far as that is known in a few seconds.
pub fn update(updates: &mut Images, name: DomainName, source: Option<ImageSource>) -> Result<Answer, String> {
    let mut record = updates.call(|updates| updates.update(name, source))?;
    for _ in 0..START_WAIT_MS / LOOK_MS {
        if record.outcome != UpdateOutcome::Starting {
            break;
        }
        thread::sleep_ms(LOOK_MS);
        let number = record.number;
        match updates.call(|updates| updates.record(number))? {
            Some(now) => record = now,
            None => break,
        }
    }
    let to = record.to;
    match record.outcome {
        UpdateOutcome::Starting => Ok(Answer::text(format!(
            "{name} is being started with build {to}; `updates` shows how it goes on."
        ))),
        UpdateOutcome::AtNextStart => Ok(Answer::text(format!(
            "{name} is stopped; `start {name}` runs build {to}."
        ))),
        UpdateOutcome::OnTrial { until_ns } => {
            let was = record
                .from
                .map_or(String::new(), |from| format!(" in place of {from}"));
            let without = match record.restart_ns {
                0 => String::new(),
                restart_ns => format!(", after {} ms without it", milliseconds(restart_ns)),
            };
            let left_ns = until_ns.saturating_sub(clock::now_ns());
            Ok(Answer::text(format!(
                "{name} runs build {to}{was}{without}. If it dies within {} s, the one before comes back.",
                seconds(left_ns)
            )))
        }
        UpdateOutcome::Kept => Ok(Answer::text(format!("{name} runs build {to}."))),
        UpdateOutcome::Superseded => Err(format!("Build {to} of {name} was superseded by another update.")),
        UpdateOutcome::RolledBack(reason) => Err(format!(
            "Build {to} of {name} failed ({reason}); the one before is back."
        )),
    }
}

/// `updates`.
pub fn show(supervisor: &mut Import<dyn Supervisor>, updates: &mut Images) -> Result<Answer, String> {
    let mut images = Table::new(&["NAME", "BUILD", "BEFORE, KEPT", "UPLOADED", "SPARE", ">TRIAL (S)"]);
    let mut images_json = Vec::new();
    for status in domains::list(supervisor)? {
        let name = status.domain.name;
        let its = updates.call(|updates| updates.images(name))?;
        images.row([
            name.to_string(),
            build(its.current),
            build(its.previous),
            build(its.uploaded),
            if its.has_spare { "yes" } else { "-" }.into(),
            seconds(u64::from(its.trial_ms) * 1_000_000),
        ]);
        images_json.push(json!({
            "name": name.as_str(),
            "build": build_json(its.current),
            "previous": build_json(its.previous),
            "uploaded": build_json(its.uploaded),
            "has_spare": its.has_spare,
            "trial_ms": its.trial_ms,
        }));
    }
    let total = updates.call(|updates| updates.count())?;
    let mut records = Vec::new();
    for back in 0..SHOWN.min(total) {
        let number = total - back;
        let Some(record) = updates.call(|updates| updates.record(number))? else {
            break;
        };
        records.push(record);
    }
    let text = match total {
        0 => format!("{images}\n\nNo update since boot."),
        _ => format!(
            "{images}\n\n{}\n{} of {total} updates since boot",
            list(&records),
            records.len()
        ),
    };
    Ok(Answer {
        text,
        json: json!({
            "images": images_json,
            "total": total,
            "updates": records.iter().map(record_json).collect::<Vec<Value>>(),
        }),
    })
}

fn list(records: &[UpdateRecord]) -> Table {
    let mut table = Table::new(&[
        ">NUMBER",
        ">AT (S)",
        "NAME",
        "FROM",
        "TO",
        "SOURCE",
        ">RESTART (MS)",
        "OUTCOME",
    ]);
    for record in records {
        table.row([
            record.number.to_string(),
            seconds(record.at_ns),
            record.name.to_string(),
            build(record.from),
            record.to.to_string(),
            record.source.to_string(),
            match record.restart_ns {
                0 => "-".into(),
                restart_ns => milliseconds(restart_ns),
            },
            record.outcome.to_string(),
        ]);
    }
    table
}

fn build(build: Option<Build>) -> String {
    build.map_or("-".into(), |build| build.to_string())
}

fn build_json(build: Option<Build>) -> Option<String> {
    build.map(|build| build.to_string())
}

fn record_json(record: &UpdateRecord) -> Value {
    json!({
        "number": record.number,
        "at_ns": record.at_ns,
        "name": record.name.as_str(),
        "from": build_json(record.from),
        "to": record.to.as_str(),
        "source": record.source.to_string(),
        "restart_ns": (record.restart_ns != 0).then_some(record.restart_ns),
        "outcome": match record.outcome {
            UpdateOutcome::Starting => "starting",
            UpdateOutcome::AtNextStart => "next-start",
            UpdateOutcome::OnTrial { .. } => "trial",
            UpdateOutcome::Kept => "kept",
            UpdateOutcome::RolledBack(_) => "rolled-back",
            UpdateOutcome::Superseded => "superseded",
        },
        "reason": match record.outcome {
            UpdateOutcome::RolledBack(reason) => Some(reason.to_string()),
            _ => None,
        },
    })
}
