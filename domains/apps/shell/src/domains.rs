//! Answers about domains, deaths and memory, from the supervisor.

use crate::answer::Answer;
use crate::holdings;
use crate::import::Import;
use crate::table::{Table, bytes, milliseconds, seconds};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use domain_rt::clock;
use interface::kernel::{DomainName, DomainState};
use interface::supervise::{SupervisedDeath, SupervisedStatus, Supervisor};
use interface::update::Updates;
use serde_json::{Value, json};

/// Bytes in a page.
const PAGE_BYTES: u64 = 4096;

type Supervision = Import<dyn Supervisor>;

/// Every domain.
pub fn list(supervisor: &mut Supervision) -> Result<Vec<SupervisedStatus>, String> {
    let mut domains = Vec::new();
    for index in 0..u16::MAX {
        let Some(domain) = supervisor.call(|supervisor| supervisor.domain(index))? else {
            break;
        };
        domains.push(domain);
    }
    Ok(domains)
}

/// `domains`.
pub fn show(supervisor: &mut Supervision, updates: &mut Import<dyn Updates>) -> Result<Answer, String> {
    let domains = list(supervisor)?;
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        ">GENERATION",
        ">RESTARTS",
        ">MEMORY",
        ">SHARED",
        ">THREADS",
        ">CROSSINGS",
        "BUILD",
    ]);
    let mut listing = Vec::new();
    let now_ns = clock::now_ns();
    for status in &domains {
        let domain = &status.domain;
        // Nobody starts or stops for this: a domain without an answer has none.
        let build = updates
            .call(|updates| updates.images(domain.name))
            .ok()
            .and_then(|images| images.current);
        table.row([
            domain.name.to_string(),
            state(status, now_ns),
            domain.generation.to_string(),
            status.restarts.to_string(),
            bytes(domain.memory_bytes),
            bytes(domain.shared_bytes),
            domain.threads.to_string(),
            domain.crossings.to_string(),
            build.map_or("-".into(), |build| build.to_string()),
        ]);
        let mut entry = domain_json(status);
        entry["build"] = json!(build.as_ref().map(|build| build.as_str()));
        listing.push(entry);
    }
    Ok(Answer {
        text: table.to_string(),
        json: listing.into(),
    })
}

/// `domains NAME`: all that is known of one.
pub fn one(supervisor: &mut Supervision, name: DomainName) -> Result<Answer, String> {
    let (index, status) = find(supervisor, name)?;
    let held = supervisor
        .call(|supervisor| supervisor.holdings(index))?
        .unwrap_or_default();
    let domain = &status.domain;
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.to_string(), value]);
    row("state", state(&status, clock::now_ns()));
    row("generation", domain.generation.to_string());
    row("restarts", status.restarts.to_string());
    row(
        "CPU for restarts",
        format!("{} ms", milliseconds(status.restart_cpu_ns)),
    );
    row("crossings", domain.crossings.to_string());
    for (name, value) in holdings::rows(&held) {
        row(name, value);
    }
    row(
        "restart policy",
        format!(
            "{} at once in {} s, then after {} to {} ms; {}; at most {}.{} % of a CPU",
            domain.restart_immediate,
            domain.window_ms / 1_000,
            domain.backoff_floor_ms,
            domain.backoff_ceiling_ms,
            match domain.restart_budget {
                0 => "never held".to_string(),
                budget => format!("held after {budget}"),
            },
            domain.restart_cpu_permille / 10,
            domain.restart_cpu_permille % 10,
        ),
    );
    let mut json = domain_json(&status);
    if let Some(fields) = json.as_object_mut() {
        fields.insert("holdings".to_string(), ledger::holdings(&held));
    }
    Ok(Answer {
        text: table.to_string(),
        json,
    })
}

/// What is said of a request that was done to a domain, with the domain as it then is.
pub fn done(supervisor: &mut Supervision, name: DomainName, text: String) -> Result<Answer, String> {
    let (_, status) = find(supervisor, name)?;
    Ok(Answer {
        text,
        json: domain_json(&status),
    })
}

fn find(supervisor: &mut Supervision, name: DomainName) -> Result<(u16, SupervisedStatus), String> {
    list(supervisor)?
        .into_iter()
        .zip(0..)
        .find(|(status, _)| status.domain.name == name)
        .map(|(status, index)| (index, status))
        .ok_or_else(|| "There is no domain of this name.".to_string())
}

/// The state in words, with what the supervisor is about to do.
fn state(status: &SupervisedStatus, now_ns: u64) -> String {
    let kernel = match status.domain.state {
        DomainState::Running => return "running".into(),
        DomainState::Starting => return "starting".into(),
        DomainState::Stopped => "stopped",
        DomainState::Dying => "dying",
        DomainState::Dead => "dead",
    };
    if status.stopped {
        match status.domain.state {
            DomainState::Dying => "stopping".into(),
            _ => "stopped".into(),
        }
    } else if status.refused {
        "refused".into()
    } else if status.held {
        "held".into()
    } else if status.restart_at_ns > now_ns {
        format!(
            "waiting {} ms",
            (status.restart_at_ns - now_ns).div_ceil(1_000_000)
        )
    } else {
        kernel.into()
    }
}

fn state_word(state: DomainState) -> &'static str {
    match state {
        DomainState::Running => "running",
        DomainState::Starting => "starting",
        DomainState::Stopped => "stopped",
        DomainState::Dying => "dying",
        DomainState::Dead => "dead",
    }
}

fn domain_json(status: &SupervisedStatus) -> Value {
    let domain = &status.domain;
    json!({
        "name": domain.name.as_str(),
        "state": state_word(domain.state),
        "restart_cpu_ns": status.restart_cpu_ns,
        "held": status.held,
        "stopped": status.stopped,
        "refused": status.refused,
        "generation": domain.generation,
        "restarts": status.restarts,
        "restart_at_ns": status.restart_at_ns,
        "memory_bytes": domain.memory_bytes,
        "shared_bytes": domain.shared_bytes,
        "threads": domain.threads,
        "crossings": domain.crossings,
    })
}

/// `deaths`: the newest first.
pub fn deaths(supervisor: &mut Supervision, count: u32) -> Result<Answer, String> {
    let total = supervisor.call(|supervisor| supervisor.deaths())?;
    let mut deaths = Vec::new();
    for back in 0..count {
        let Some(death) = supervisor.call(|supervisor| supervisor.death(back))? else {
            break;
        };
        deaths.push(death);
    }
    let mut table = Table::new(&[
        ">NUMBER",
        ">AT (S)",
        "NAME",
        ">GENERATION",
        ">RESTART (MS)",
        ">OUTAGE (MS)",
        "CAUSE",
    ]);
    for death in &deaths {
        let record = &death.record;
        table.row([
            record.number.to_string(),
            seconds(record.at_ns),
            death.name.to_string(),
            record.generation.to_string(),
            restart_ns(death).map_or("-".into(), milliseconds),
            match death.outage_ns {
                0 => "-".into(),
                outage_ns => milliseconds(outage_ns),
            },
            cause(death),
        ]);
    }
    Ok(Answer {
        text: match total {
            0 => "No domain has died.".into(),
            _ => format!(
                "{table}\n{} of {total} deaths since boot; `deaths NUMBER` shows one of them",
                deaths.len()
            ),
        },
        json: json!({
            "total": total,
            "deaths": deaths.iter().map(death_json).collect::<Vec<Value>>(),
        }),
    })
}

/// From the death to the successor's being up, nanoseconds.
pub fn restart_ns(death: &SupervisedDeath) -> Option<u64> {
    let record = &death.record;
    (record.recovered_ns != 0).then(|| record.recovered_ns.saturating_sub(record.at_ns))
}

/// Why, with message and place.
pub fn cause(death: &SupervisedDeath) -> String {
    let cause = death.record.cause.to_string();
    match death.record.detail.as_str() {
        "" => cause,
        detail => format!("{cause}: {detail}"),
    }
}

/// A death's record for scripts.
pub fn death_json(death: &SupervisedDeath) -> Value {
    let record = &death.record;
    json!({
        "number": record.number,
        "name": death.name.as_str(),
        "generation": record.generation,
        "cause": cause(death),
        "at_ns": record.at_ns,
        "restart_ns": restart_ns(death),
        "outage_ns": (death.outage_ns != 0).then_some(death.outage_ns),
    })
}

/// `memory`.
pub fn memory(supervisor: &mut Supervision) -> Result<Answer, String> {
    let memory = supervisor.call(|supervisor| supervisor.memory())?;
    let mut table = Table::new(&["", ">PAGES", ">BYTES"]);
    for (name, pages) in [("total", memory.total_pages), ("free", memory.free_pages)]
        .into_iter()
        .chain(holdings::uses(&memory.uses))
    {
        table.row([
            name.to_string(),
            pages.to_string(),
            bytes(pages.saturating_mul(PAGE_BYTES)),
        ]);
    }
    table.row([
        "shared objects".to_string(),
        String::new(),
        bytes(memory.shared_used_bytes),
    ]);
    Ok(Answer {
        text: table.to_string(),
        json: ledger::memory(&memory),
    })
}
