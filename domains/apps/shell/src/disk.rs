//! `disk`: disks, their partitions, and what is done to these. `disk_bench.rs` measures them, `disk_verify.rs` tries them.

use crate::answer::Answer;
use crate::import::Import;
use crate::table::{Table, bytes};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::partition::{
    DiskInfo, Disks, NewPartition, PartitionInfo, SCRATCH_PARTITION, STORE_PARTITION, TableState,
};
use rref::Text;
use serde_json::{Value, json};

/// Second words of `disk`.
pub const WORDS: &[&str] = &["bench", "create", "delete", "table", "verify"];
/// Names of the types of partitions that can be created.
pub const KINDS: &[(&str, [u8; 16])] = &[("scratch", SCRATCH_PARTITION), ("store", STORE_PARTITION)];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An empty table on a blank disk.
    Table(u16),
    /// A partition.
    Create {
        /// The disk.
        disk: u16,
        /// Index of its type in [`KINDS`].
        kind: usize,
        /// Mebibytes; 0 for all that is free.
        mib: u32,
    },
    /// No such partition any more.
    Delete {
        /// The disk.
        disk: u16,
        /// The partition's number.
        number: u16,
    },
}

/// Takes `table DISK`, `create DISK KIND [MIB]` and `delete DISK NUMBER` apart; `None` for anything else.
pub fn change(words: &[&str]) -> Option<Result<Change, String>> {
    let number = |text: &str, what: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("{text} is not a {what}'s number; `disk` shows them."))
    };
    Some(match words {
        ["table", disk] => number(disk, "disk").map(Change::Table),
        ["create", disk, kind] => create(number(disk, "disk"), kind, "0"),
        ["create", disk, kind, mib] => create(number(disk, "disk"), kind, mib),
        ["delete", disk, partition] => number(disk, "disk").and_then(|disk| {
            let number = number(partition, "partition")?;
            Ok(Change::Delete { disk, number })
        }),
        _ => return None,
    })
}

fn create(disk: Result<u16, String>, kind: &str, mib: &str) -> Result<Change, String> {
    let known = KINDS.iter().position(|(name, _)| *name == kind);
    Ok(Change::Create {
        disk: disk?,
        kind: known
            .ok_or_else(|| format!("{kind} is not a type of partition; there are scratch and store."))?,
        mib: mib
            .parse()
            .map_err(|_| format!("{mib} is not a size: it takes a number of mebibytes."))?,
    })
}

type Storage = Import<dyn Disks>;

/// All disks with their partitions.
fn all(disks: &mut Storage) -> Result<Vec<(DiskInfo, Vec<PartitionInfo>)>, String> {
    let mut found = Vec::new();
    while let Some(info) = disks.call(|disks| disks.disk(found.len() as u16))? {
        let disk = found.len() as u16;
        let mut partitions = Vec::new();
        while let Some(partition) = disks.call(|disks| disks.partition(disk, partitions.len() as u16))? {
            partitions.push(partition);
        }
        found.push((info, partitions));
    }
    Ok(found)
}

/// A type GUID by its name, or as it is usually written.
fn kind_name(kind: [u8; 16]) -> String {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or_else(|| guid(kind), |(name, _)| name.to_string())
}

/// A GUID in the byte order of GPT, as it is usually written: the first three fields are little-endian.
fn guid(bytes: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let mut text = format!(
        "{:08x}-{:04x}-{:04x}-",
        u32::from_le_bytes([a, b, c, d]),
        u16::from_le_bytes([e, f]),
        u16::from_le_bytes([g, h])
    );
    for (index, byte) in rest.iter().enumerate() {
        let dash = if index == 2 { "-" } else { "" };
        text += &format!("{dash}{byte:02x}");
    }
    text
}

/// Answers `disk`.
pub fn show(disks: &mut Storage) -> Result<Answer, String> {
    let found = all(disks)?;
    if found.is_empty() {
        return Ok(Answer {
            text: "There is no disk.".into(),
            json: json!([]),
        });
    }
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for (index, (info, partitions)) in found.iter().enumerate() {
        texts.push(disk_text(index, info, partitions));
        values.push(disk_json(info, partitions));
    }
    Ok(Answer {
        text: texts.join("\n\n"),
        json: Value::Array(values),
    })
}

fn disk_text(index: usize, info: &DiskInfo, partitions: &[PartitionInfo]) -> String {
    let size = |blocks: u64| bytes(blocks.saturating_mul(u64::from(info.block_bytes)));
    let read_only = if info.read_only { ", read-only" } else { "" };
    let mut text = format!(
        "disk {index}: {} {}, {} in blocks of {} bytes{read_only}, {}",
        info.model,
        info.name,
        size(info.blocks),
        info.block_bytes,
        info.table
    );
    if !partitions.is_empty() {
        let mut table = Table::new(&[">NUMBER", "NAME", "TYPE", ">START", ">SIZE", "IN USE", ">UNIT"]);
        for partition in partitions {
            table.row([
                partition.number.to_string(),
                partition.name.to_string(),
                kind_name(partition.kind),
                size(partition.first),
                size(partition.blocks),
                if partition.in_use { "yes" } else { "no" }.into(),
                partition.unit.to_string(),
            ]);
        }
        text += &format!("\n{table}");
    }
    let hint = match info.table {
        TableState::Blank => format!("`disk table {index}` writes an empty partition table to it."),
        TableState::Whole | TableState::Repaired | TableState::Degraded if info.free_blocks != 0 => {
            format!("Room for another partition: {}.", size(info.free_blocks))
        }
        _ => return text,
    };
    text + "\n" + &hint
}

fn disk_json(info: &DiskInfo, partitions: &[PartitionInfo]) -> Value {
    let block_bytes = u64::from(info.block_bytes);
    let partitions: Vec<Value> = partitions
        .iter()
        .map(|partition| {
            json!({
                "number": partition.number,
                "unit": partition.unit,
                "name": partition.name.as_str(),
                "type": kind_name(partition.kind),
                "type_guid": guid(partition.kind),
                "guid": guid(partition.guid),
                "first_block": partition.first,
                "blocks": partition.blocks,
                "bytes": partition.blocks.saturating_mul(block_bytes),
                "in_use": partition.in_use,
            })
        })
        .collect();
    json!({
        "model": info.model.as_str(),
        "name": info.name.as_str(),
        "block_bytes": info.block_bytes,
        "blocks": info.blocks,
        "bytes": info.blocks.saturating_mul(block_bytes),
        "read_only": info.read_only,
        "table": info.table.to_string(),
        "guid": guid(info.guid),
        "free_bytes": info.free_blocks.saturating_mul(block_bytes),
        "partitions": partitions,
    })
}

/// Carries a change out.
pub fn carry_out(disks: &mut Storage, change: Change) -> Result<Answer, String> {
    match change {
        Change::Table(disk) => {
            disks.call(|disks| disks.create_table(disk))?;
            Ok(Answer::text(format!(
                "Disk {disk} has an empty partition table; `disk create {disk} store` makes a partition for the store."
            )))
        }
        Change::Create { disk, kind, mib } => {
            let Some((name, kind)) = KINDS.get(kind) else {
                return Err("There is no such type of partition.".into());
            };
            let new = NewPartition {
                kind: *kind,
                name: Text::new(name),
                bytes: u64::from(mib) << 20,
            };
            let made = disks.call(|disks| disks.create_partition(disk, new))?;
            let info = disks.call(|disks| disks.disk(disk))?;
            let block_bytes = info.map_or(512, |info| u64::from(info.block_bytes));
            Ok(Answer::text(format!(
                "Partition {} of disk {disk}, `{}`, has {}.",
                made.number,
                made.name,
                bytes(made.blocks.saturating_mul(block_bytes))
            )))
        }
        Change::Delete { disk, number } => {
            disks.call(|disks| disks.delete_partition(disk, number))?;
            Ok(Answer::text(format!(
                "Partition {number} of disk {disk} is deleted; its content is still on the disk."
            )))
        }
    }
}
