//! Answers about what domains hold, and whether it adds up.

use crate::answer::{Answer, sentence};
use crate::domains;
use crate::import::Import;
use crate::table::{Table, bytes};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::holdings::{FrameUses, Holdings, LeakReport};
use interface::supervise::{Operator, Supervisor};
use ledger::PAGE_BYTES;
use serde_json::{Map, Value};

fn pages(count: u64) -> String {
    bytes(count.saturating_mul(PAGE_BYTES))
}

/// What one domain holds, as names and values for people.
pub fn rows(held: &Holdings) -> [(&'static str, String); 10] {
    [
        ("image", pages(held.image_pages)),
        ("private heap", pages(held.heap_pages)),
        ("stacks", pages(held.stack_pages)),
        ("threads", held.threads.to_string()),
        ("handles", held.handles.to_string()),
        ("exports", held.exports.to_string()),
        (
            "shared objects",
            format!("{}, {}", held.shared_objects, bytes(held.shared_bytes)),
        ),
        ("ring memory", pages(held.dma_pages)),
        ("interrupts", held.interrupts.to_string()),
        ("devices", held.devices.to_string()),
    ]
}

/// `holdings`: every domain's.
pub fn show(supervisor: &mut Import<dyn Supervisor>) -> Result<Answer, String> {
    let mut table = Table::new(&[
        "NAME",
        ">IMAGE",
        ">HEAP",
        ">STACKS",
        ">THREADS",
        ">HANDLES",
        ">EXPORTS",
        ">OBJECTS",
        ">SHARED",
        ">RINGS",
        ">INTERRUPTS",
        ">DEVICES",
    ]);
    let mut all = Map::new();
    for (status, index) in domains::list(supervisor)?.into_iter().zip(0..) {
        let Some(held) = supervisor.call(|supervisor| supervisor.holdings(index))? else {
            break;
        };
        let name = status.domain.name.to_string();
        table.row([
            name.clone(),
            pages(held.image_pages),
            pages(held.heap_pages),
            pages(held.stack_pages),
            held.threads.to_string(),
            held.handles.to_string(),
            held.exports.to_string(),
            held.shared_objects.to_string(),
            bytes(held.shared_bytes),
            pages(held.dma_pages),
            held.interrupts.to_string(),
            held.devices.to_string(),
        ]);
        all.insert(name, ledger::holdings(&held));
    }
    Ok(Answer {
        text: table.to_string(),
        json: Value::Object(all),
    })
}

/// Pages in use, by what for.
pub fn uses(uses: &FrameUses) -> [(&'static str, u64); 8] {
    [
        ("kernel heap", uses.kernel_heap),
        ("page tables", uses.page_tables),
        ("stacks", uses.stacks),
        ("images", uses.images),
        ("private heaps", uses.private_heaps),
        ("shared heap", uses.shared_heap),
        ("ring memory", uses.dma),
        ("other", uses.other),
    ]
}

/// `leaks`.
pub fn leaks(operator: &mut Import<dyn Operator>) -> Result<Answer, String> {
    let report = operator.call(|operator| operator.leaks())?;
    let findings: Vec<String> = report
        .findings
        .iter()
        .take(report.found as usize)
        .map(|finding| sentence(finding.as_str()))
        .collect();
    Ok(Answer {
        text: text(&report, &findings),
        json: ledger::leaks(&report, &findings),
    })
}

fn text(report: &LeakReport, findings: &[String]) -> String {
    let mut lines = findings.to_vec();
    let more = (report.found as usize).saturating_sub(findings.len());
    if more > 0 {
        lines.push(format!("And {more} more."));
    }
    if lines.is_empty() {
        lines.push("Nothing leaks.".to_string());
    }
    lines.push(format!(
        "{} of {} pages are free; {} threads of domains, {} of the kernel; {} shared objects.",
        report.free_pages,
        report.total_pages,
        report.domain_threads,
        report.kernel_threads,
        report.shared_objects
    ));
    lines.join("\n")
}
