//! `deaths NUMBER`: all that is known of one death.
//!
//! The supervisor has the record and the outage, the kernel the black box; older deaths have a record only.

use crate::answer::Answer;
use crate::domains::{cause, death_json, restart_ns};
use crate::import::Import;
use crate::table::{Table, bytes, milliseconds, seconds, span};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::black_box::{
    BlackBox, BlackBoxes, Crossing, FaultDetail, Frame, Position, SeenThread, TraceEvent,
};
use interface::kernel::{DeathCause, ServiceError};
use interface::supervise::{SupervisedDeath, Supervisor};
use serde_json::{Map, Value, json};

/// Registers in a line.
const REGISTERS_IN_LINE: usize = 4;
/// Bits of a page fault's error code (Intel SDM volume 3, 4.7): the page was present; it was a write; it was an instruction fetch.
const FAULT_PRESENT: u64 = 1;
const FAULT_WRITE: u64 = 1 << 1;
const FAULT_FETCH: u64 = 1 << 4;
const PAGE_FAULT: u8 = 14;

type Boxes = Import<dyn BlackBoxes>;

/// A thread with its lists.
struct Thread {
    seen: SeenThread,
    frames: Vec<Frame>,
    crossings: Vec<Crossing>,
}

/// A box with its lists.
struct Opened {
    black_box: BlackBox,
    threads: Vec<Thread>,
    events: Vec<TraceEvent>,
}

/// `deaths NUMBER`.
pub fn show(
    supervisor: &mut Import<dyn Supervisor>,
    boxes: &mut Boxes,
    number: u64,
) -> Result<Answer, String> {
    let Some(death) = supervisor.call(|supervisor| supervisor.numbered_death(number))? else {
        let total = supervisor.call(|supervisor| supervisor.deaths())?;
        return Err(match total {
            0 => "No domain has died.".to_string(),
            _ if number == 0 || number > total => {
                format!("There is no death {number} yet: the newest is {total}.")
            }
            _ => format!("Death {number} is too long ago; `deaths` shows those that are remembered."),
        });
    };
    let opened = open(boxes, number)?;
    Ok(Answer {
        text: text(&death, opened.as_ref()),
        json: json(&death, opened.as_ref()),
    })
}

fn open(boxes: &mut Boxes, number: u64) -> Result<Option<Opened>, String> {
    let Some(black_box) = boxes.call(|boxes| boxes.black_box(number))? else {
        return Ok(None);
    };
    let mut threads = Vec::new();
    for index in 0..black_box.seen_threads {
        let Some(seen) = boxes.call(|boxes| boxes.thread(number, index))? else {
            break;
        };
        threads.push(Thread {
            seen,
            frames: all(boxes, seen.frames, |boxes, at| boxes.frame(number, index, at))?,
            crossings: all(boxes, seen.crossings, |boxes, at| {
                boxes.crossing(number, index, at)
            })?,
        });
    }
    let events = all(boxes, black_box.events, |boxes, at| boxes.event(number, at))?;
    Ok(Some(Opened {
        black_box,
        threads,
        events,
    }))
}

/// A list, piece by piece; it ends early if the box goes meanwhile.
fn all<T>(
    boxes: &mut Boxes,
    count: u16,
    get: impl Fn(&dyn BlackBoxes, u16) -> Result<Option<T>, ServiceError>,
) -> Result<Vec<T>, String> {
    let mut items = Vec::new();
    for index in 0..count {
        match boxes.call(|boxes| get(boxes, index))? {
            Some(item) => items.push(item),
            None => break,
        }
    }
    Ok(items)
}

fn text(death: &SupervisedDeath, opened: Option<&Opened>) -> String {
    let record = &death.record;
    let mut facts = Table::new(&[]);
    let mut fact = |name: &str, value: String| facts.row([format!("  {name}"), value]);
    fact("cause", cause(death));
    fact("outage", outage(death));
    match opened {
        Some(opened) => {
            let counters = &opened.black_box;
            fact(
                "lived",
                format!(
                    "{}, {} crossings into it ({} since boot)",
                    span(counters.uptime_ns),
                    counters.crossings,
                    counters.crossings_since_boot
                ),
            );
            fact("had", had(counters));
        }
        None => fact(
            "black box",
            "not kept any more: there is room for those of the newest deaths".to_string(),
        ),
    }
    let mut text = format!(
        "Death {}: {}, generation {}, {} s after boot\n{facts}",
        record.number,
        death.name,
        record.generation,
        seconds(record.at_ns)
    );
    let Some(opened) = opened else { return text };
    for thread in &opened.threads {
        text += "\n\n";
        text += &thread_text(thread);
    }
    if opened.black_box.more_threads > 0 {
        text += &format!("\n\nand {} more threads", opened.black_box.more_threads);
    }
    if opened.threads.is_empty() {
        text += "\n\nNo thread was in it.";
    }
    text += "\n\nWhat it did before, oldest first\n";
    let mut events = Table::new(&[">  AT (S)", ">GENERATION", "EVENT", ""]);
    for event in &opened.events {
        let repeated = match event.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        events.row([
            seconds(event.at_ns),
            event.generation.to_string(),
            event.kind.words().to_string(),
            format!("{}{repeated}", event.text),
        ]);
    }
    text + &events.to_string()
}

fn outage(death: &SupervisedDeath) -> String {
    let restart = match restart_ns(death) {
        Some(ns) => format!(
            "generation {} ran {} ms later",
            death.record.generation + 1,
            milliseconds(ns)
        ),
        None => "it has not run since".to_string(),
    };
    match death.outage_ns {
        0 => restart,
        ns => format!("{restart}, and did its first work after {} ms", milliseconds(ns)),
    }
}

fn had(counters: &BlackBox) -> String {
    let shared = match (counters.shared_objects, counters.shared_bytes) {
        (Some(objects), Some(bytes_owned)) => {
            format!("{objects} shared objects of {}", bytes(bytes_owned))
        }
        _ => "shared objects that aren't given back yet".to_string(),
    };
    format!(
        "{} threads, {} of private memory, {shared}",
        counters.threads,
        bytes(counters.memory_bytes)
    )
}

fn position(position: Position) -> &'static str {
    match position {
        Position::AtFault => "at fault",
        Position::InDomain => "running",
        Position::InKernel => "waiting in the kernel",
    }
}

fn thread_text(thread: &Thread) -> String {
    let seen = &thread.seen;
    // The outermost domain is the one that started it.
    let home = match thread.crossings.as_slice() {
        [_, .., home] => format!(" of {}", home.callee),
        _ => String::new(),
    };
    let mut text = format!(
        "Thread {} \"{}\"{home} on CPU {}, {}",
        seen.id,
        seen.name,
        seen.cpu,
        position(seen.position)
    );
    if let Some(fault) = &seen.fault {
        text += &format!("\n  {}", fault_text(fault));
        for line in fault.registers.named().chunks(REGISTERS_IN_LINE) {
            let registers: Vec<String> = line
                .iter()
                .map(|(name, value)| format!("{name:<5} {value:016x}"))
                .collect();
            text += &format!("\n    {}", registers.join("  "));
        }
    }
    let chain: Vec<String> = thread.crossings.iter().map(crossing_text).collect();
    text += &format!("\n  in {}", chain.join(", called by "));
    if !seen.is_exact {
        text += "\n  (found by searching the stack: some of these calls may have been over)";
    }
    let mut frames = Table::new(&[]);
    for (index, frame) in thread.frames.iter().enumerate() {
        frames.row([format!("  {index:>4}"), frame.domain.to_string(), function(frame)]);
    }
    format!("{text}\n{frames}")
}

fn fault_text(fault: &FaultDetail) -> String {
    let name = DeathCause::Exception(fault.vector);
    match fault.address {
        Some(address) if fault.vector == PAGE_FAULT => {
            let access = match fault.error {
                error if error & FAULT_FETCH != 0 => "fetching an instruction from",
                error if error & FAULT_WRITE != 0 => "writing to",
                _ => "reading from",
            };
            let why = match fault.error & FAULT_PRESENT {
                0 => "nothing is mapped there",
                _ => "not allowed there",
            };
            format!("{name} {access} {address:#x}: {why} (error {:#x})", fault.error)
        }
        _ => format!("{name} (error {:#x})", fault.error),
    }
}

fn crossing_text(crossing: &Crossing) -> String {
    match crossing.method.as_str() {
        "" => crossing.callee.to_string(),
        method => format!("{} ({method})", crossing.callee),
    }
}

fn function(frame: &Frame) -> String {
    match frame.function.as_str() {
        "" => format!("{:#x}", frame.address),
        name => format!("{name} + {:#x}", frame.offset),
    }
}

fn json(death: &SupervisedDeath, opened: Option<&Opened>) -> Value {
    let mut value = death_json(death);
    let Some(object) = value.as_object_mut() else {
        return value;
    };
    object.insert("black_box".to_string(), opened.map_or(Value::Null, box_json));
    value
}

fn box_json(opened: &Opened) -> Value {
    let counters = &opened.black_box;
    json!({
        "uptime_ns": counters.uptime_ns,
        "crossings": counters.crossings,
        "crossings_since_boot": counters.crossings_since_boot,
        "memory_bytes": counters.memory_bytes,
        "shared_objects": counters.shared_objects,
        "shared_bytes": counters.shared_bytes,
        "threads_started": counters.threads,
        "threads": opened.threads.iter().map(thread_json).collect::<Vec<Value>>(),
        "more_threads": counters.more_threads,
        "events": opened.events.iter().map(event_json).collect::<Vec<Value>>(),
    })
}

fn thread_json(thread: &Thread) -> Value {
    let seen = &thread.seen;
    json!({
        "id": seen.id,
        "name": seen.name.as_str(),
        "cpu": seen.cpu,
        "position": match seen.position {
            Position::AtFault => "at_fault",
            Position::InDomain => "in_domain",
            Position::InKernel => "in_kernel",
        },
        "fault": seen.fault.as_ref().map(fault_json),
        "exact": seen.is_exact,
        "crossings": thread.crossings.iter().map(|crossing| json!({
            "domain": crossing.callee.as_str(),
            "generation": crossing.generation,
            "method": (!crossing.method.as_str().is_empty()).then_some(crossing.method.as_str()),
        })).collect::<Vec<Value>>(),
        "stack": thread.frames.iter().map(|frame| json!({
            "address": frame.address,
            "domain": frame.domain.as_str(),
            "function": (!frame.function.as_str().is_empty()).then_some(frame.function.as_str()),
            "offset": frame.offset,
        })).collect::<Vec<Value>>(),
    })
}

fn fault_json(fault: &FaultDetail) -> Value {
    let registers = fault.registers.named();
    let registers: Map<String, Value> = registers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(*value)))
        .collect();
    json!({
        "vector": fault.vector,
        "error": fault.error,
        "address": fault.address,
        "registers": registers,
    })
}

fn event_json(event: &TraceEvent) -> Value {
    json!({
        "at_ns": event.at_ns,
        "generation": event.generation,
        "kind": event.kind.words(),
        "text": event.text.as_str(),
        "count": event.count,
    })
}
