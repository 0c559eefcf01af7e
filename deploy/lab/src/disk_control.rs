//! Faults of the disk while the machine runs: filters of QEMU's block layer put under the controller, and the controller's own failures.
//!
//! One filter is there at a time; [`DiskControl::heal`] takes it out. What QEMU can do here: blkdebug (errors, held requests), throttle (a slow
//! disk), `smart_critical_warning`, and taking the controller away without a word to the guest.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::disk::{DEVICE, DEVICE_NODE, FILE_NODE, LOG_NODE, PORT};
use crate::monitor::Monitor;
use crate::up::Lab;

/// The filter's node.
const FILTER: &str = "disk-filter";
/// The throttle's group.
const GROUP: &str = "disk-throttle";
/// The name that a held request is released by.
const HELD: &str = "held";

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making durable.
    Flush,
}

/// The error that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO.
    Input,
    /// ENOSPC.
    NoSpace,
}

/// SMART's critical warnings (NVM Express base specification, SMART / Health log), for [`DiskControl::warn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CriticalWarning {
    /// Spare blocks are running out.
    Spare = 1 << 0,
    /// Too hot or too cold.
    Temperature = 1 << 1,
    /// Errors make it unreliable.
    Reliability = 1 << 2,
}

impl Operation {
    /// The event of QEMU's raw driver before the request reaches the filter, and the kind of request.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Read => ("read_aio", "read"),
            Self::Write => ("write_aio", "write"),
            Self::Flush => ("flush_to_disk", "flush"),
        }
    }
}

impl DiskError {
    /// Linux' number, which is what QEMU takes.
    fn number(self) -> i32 {
        match self {
            Self::Input => 5,
            Self::NoSpace => 28,
        }
    }
}

/// The disk of a running lab.
pub struct DiskControl {
    monitor: Monitor,
    filtered: bool,
    held: bool,
}

impl DiskControl {
    /// Takes hold of the disk; one at a time can.
    ///
    /// # Errors
    /// When QEMU's monitor can't be reached.
    pub fn open(lab: &Lab) -> Result<Self> {
        Self::at(&lab.report().qmp)
    }

    fn at(socket: &Path) -> Result<Self> {
        let mut monitor = Monitor::open(socket)?;
        let nodes = monitor.ask("query-named-block-nodes", &json!({ "flat": true }))?;
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        let there = |name: &str| nodes.iter().any(|node| node["node-name"] == name);
        ensure!(there(DEVICE_NODE), "this lab's appliance has no disk");
        ensure!(
            !there(LOG_NODE),
            "a disk whose writes are logged can't be given faults"
        );
        let filtered = there(FILTER);
        Ok(Self {
            monitor,
            filtered,
            held: false,
        })
    }

    /// Makes the `number`-th request of this kind from now fail (1: the next), and no other.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn fail_once(&mut self, operation: Operation, number: u32, error: DiskError) -> Result<()> {
        ensure!(number >= 1, "requests are counted from 1");
        let (event, _) = operation.names();
        // blkdebug counts by a state for each request; it begins in state 1.
        let steps: Vec<Value> = (1..number)
            .map(|state| json!({ "event": event, "state": state, "new_state": state + 1 }))
            .collect();
        self.debug(
            json!([rule(operation, error, json!({ "once": true, "state": number }))]),
            json!(steps),
        )
    }

    /// Makes every request of this kind fail until [`DiskControl::heal`].
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn fail_all(&mut self, operation: Operation, error: DiskError) -> Result<()> {
        self.debug(json!([rule(operation, error, json!({}))]), json!([]))
    }

    /// Holds the next request of this kind back until [`DiskControl::release`]; for a flush there is nothing that holds it.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn hold_next(&mut self, operation: Operation) -> Result<()> {
        let (event, _) = operation.names();
        self.debug(json!([]), json!([]))?;
        self.io(&format!("break {event} {HELD}"))?;
        self.held = true;
        Ok(())
    }

    /// Lets the held request go.
    ///
    /// # Errors
    /// When none was held.
    pub fn release(&mut self) -> Result<()> {
        self.held = false;
        self.io(&format!("resume {HELD}"))
    }

    /// Makes the disk carry out no more than this many requests a second.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn slow(&mut self, operations_per_second: u64) -> Result<()> {
        self.heal()?;
        self.monitor.ask(
            "object-add",
            &json!({ "qom-type": "throttle-group", "id": GROUP, "limits": { "iops-total": operations_per_second } }),
        )?;
        self.filter(json!({ "driver": "throttle", "throttle-group": GROUP, "file": FILE_NODE }))
    }

    /// Makes the controller raise SMART's critical warnings.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn warn(&mut self, warnings: &[CriticalWarning]) -> Result<()> {
        let bits = warnings.iter().fold(0, |bits, warning| bits | *warning as u8);
        let path = format!("/machine/peripheral/{DEVICE}");
        self.monitor.ask(
            "qom-set",
            &json!({ "path": path, "property": "smart_critical_warning", "value": bits }),
        )?;
        Ok(())
    }

    /// Pulls the controller out: its registers are gone from one access to the next.
    ///
    /// An orderly removal would wait for the guest's consent. A slot whose power is off needs none, and its power is switched in the configuration space
    /// of the port (PCI Express base specification, Slot Control register), which the human monitor can write.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn pull(&mut self) -> Result<()> {
        self.heal()?;
        let port = self.port_address()?;
        let express = self.express_capability(port)?;
        const SLOT_CONTROL: u32 = 0x18;
        let control = self.read_configuration(port, express + SLOT_CONTROL)? & 0xffff;
        // Power controller off (bit 10), power indicator off (bits 8 and 9).
        self.write_configuration(port, express + SLOT_CONTROL, control | 0x0700)?;
        let answer = self.monitor.ask("device_del", &json!({ "id": DEVICE }));
        // It may be gone by the power alone.
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("not found") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the filter out: the disk is well again.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn heal(&mut self) -> Result<()> {
        if self.held {
            // A held request would keep the graph from changing for ever.
            let _ = self.release();
        }
        if !self.filtered {
            return Ok(());
        }
        self.put_under_device(FILE_NODE)?;
        self.monitor
            .ask("blockdev-del", &json!({ "node-name": FILTER }))?;
        self.filtered = false;
        // There when the filter was a throttle.
        let _ = self.monitor.ask("object-del", &json!({ "id": GROUP }));
        Ok(())
    }

    fn debug(&mut self, errors: Value, states: Value) -> Result<()> {
        self.heal()?;
        let mut filter = json!({ "driver": "blkdebug", "image": FILE_NODE });
        for (name, list) in [("inject-error", errors), ("set-state", states)] {
            // An empty list is an option that it doesn't know.
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                filter[name] = list;
            }
        }
        self.filter(filter)
    }

    fn filter(&mut self, mut filter: Value) -> Result<()> {
        filter["node-name"] = FILTER.into();
        self.monitor.ask("blockdev-add", &filter)?;
        self.filtered = true;
        self.put_under_device(FILTER)
    }

    fn put_under_device(&mut self, node: &str) -> Result<()> {
        self.monitor.ask(
            "blockdev-reopen",
            &json!({ "options": [{ "driver": "raw", "node-name": DEVICE_NODE, "file": node, "discard": "unmap" }] }),
        )?;
        Ok(())
    }

    /// By the device, not by its node: for a node QEMU would wait until nothing is under way on it.
    fn io(&mut self, command: &str) -> Result<()> {
        let said = self
            .monitor
            .human(&format!("qemu-io -d {DEVICE} \"{command}\""))?;
        ensure!(
            said.trim().is_empty() || said.contains("Suspended") || said.contains("Resuming"),
            "QEMU refuses `{command}`: {}",
            said.trim()
        );
        Ok(())
    }

    /// Where the port is, as configuration mechanism 1 addresses it.
    fn port_address(&mut self) -> Result<u32> {
        let buses = self.monitor.ask("query-pci", &json!({}))?;
        let devices = buses
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|bus| bus["devices"].as_array().into_iter().flatten());
        let port = devices
            .into_iter()
            .find(|device| device["qdev_id"] == PORT)
            .context("QEMU doesn't name the disk's root port")?;
        let number = |name: &str| u32::try_from(port[name].as_u64().unwrap_or_default());
        Ok(1 << 31 | number("bus")? << 16 | number("slot")? << 11 | number("function")? << 8)
    }

    /// Offset of the Express capability (identifier 0x10).
    fn express_capability(&mut self, port: u32) -> Result<u32> {
        const FIRST: u32 = 0x34;
        const EXPRESS: u32 = 0x10;
        let mut at = self.read_configuration(port, FIRST)? & 0xfc;
        for _ in 0..48 {
            let head = self.read_configuration(port, at)?;
            if head & 0xff == EXPRESS {
                return Ok(at);
            }
            at = head >> 8 & 0xfc;
        }
        anyhow::bail!("the disk's root port has no Express capability")
    }

    fn read_configuration(&mut self, device: u32, offset: u32) -> Result<u32> {
        self.monitor
            .human(&format!("o/w 0xcf8 {:#x}", device | offset & 0xfc))?;
        let said = self.monitor.human("i/w 0xcfc")?;
        let value = said
            .trim()
            .rsplit_once("= 0x")
            .and_then(|(_, digits)| u32::from_str_radix(digits.trim(), 16).ok());
        value.with_context(|| format!("QEMU reads a port as `{}`", said.trim()))
    }

    fn write_configuration(&mut self, device: u32, offset: u32, value: u32) -> Result<()> {
        self.monitor
            .human(&format!("o/w 0xcf8 {:#x}", device | offset & 0xfc))?;
        self.monitor.human(&format!("o/h 0xcfc {value:#x}"))?;
        Ok(())
    }
}

fn rule(operation: Operation, error: DiskError, more: Value) -> Value {
    let (event, kind) = operation.names();
    let mut rule = json!({ "event": event, "iotype": kind, "errno": error.number() });
    if let (Some(rule), Some(more)) = (rule.as_object_mut(), more.as_object()) {
        rule.extend(more.clone());
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_event_kind_and_error() {
        let made = rule(Operation::Write, DiskError::NoSpace, json!({ "state": 3 }));
        assert_eq!(
            made,
            json!({ "event": "write_aio", "iotype": "write", "errno": 28, "state": 3 })
        );
    }
}
