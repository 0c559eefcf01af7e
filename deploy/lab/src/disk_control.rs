//! Faults of the disk while the machine runs: filters of QEMU's block layer put under the controller, and the controller's own failures.
//!
//! One filter is there at a time; [`DiskControl::heal`] takes it out. What QEMU can do here: blkdebug (errors, held requests), throttle (a slow
//! disk), a limit of the controller's own block backend (commands that hang), `smart_critical_warning`, taking the memory from the controller, and taking the
//! controller away without a word to the guest.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
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

/// QEMU's names of the limits, for reading and for writing, that make commands hang.
const HANG_LIMITS: [&str; 2] = ["bps_rd", "bps_wr"];

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
    hanging: bool,
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
        let backends = monitor.ask("query-block", &json!({}))?;
        let hanging = backends
            .as_array()
            .into_iter()
            .flatten()
            .any(|backend| HANG_LIMITS.iter().any(|limit| backend["inserted"][limit] == 1));
        Ok(Self {
            monitor,
            filtered,
            held: false,
            hanging,
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

    /// Makes commands of this kind hang, but for the first, until [`DiskControl::heal`] or until the guest resets the controller, which QEMU can do only once they have
    /// ended; those that follow the reset hang again. An abort doesn't end them. Flushes can't be made to hang.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn hang(&mut self, operation: Operation) -> Result<()> {
        self.heal()?;
        // A byte a second: an hour for a block. The backend's limit, not a filter's: to reset the controller QEMU waits until its backend is idle, and lifts the limit for that.
        match operation {
            Operation::Read => self.limit([1, 0])?,
            Operation::Write => self.limit([0, 1])?,
            Operation::Flush => bail!("QEMU can't make flushes hang"),
        }
        self.hanging = true;
        Ok(())
    }

    /// Bytes a second that the controller may read and write; 0 for as many as it can.
    fn limit(&mut self, bytes: [u32; 2]) -> Result<()> {
        let [read, write] = HANG_LIMITS;
        let none = ["bps", "iops", "iops_rd", "iops_wr"].map(|name| (name.to_owned(), Value::from(0)));
        let mut limits: serde_json::Map<String, Value> = none.into_iter().collect();
        limits.insert("id".to_owned(), DEVICE.into());
        limits.insert(read.to_owned(), bytes[0].into());
        limits.insert(write.to_owned(), bytes[1].into());
        self.monitor.ask("block_set_io_throttle", &limits.into())?;
        Ok(())
    }

    /// Takes memory from the controller: it can't read its queues or write completions, which it reports as a fatal error at the next command, as it would with
    /// addresses of queues that are nowhere. It stays so until the guest lets it master the bus again.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn deny_memory(&mut self) -> Result<()> {
        const COMMAND: u32 = 0x04;
        const BUS_MASTER: u32 = 1 << 2;
        let controller = self.address_of(DEVICE)?;
        let command = self.read_configuration(controller, COMMAND)? & 0xffff;
        self.write_configuration(controller, COMMAND, command & !BUS_MASTER)
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
        let port = self.address_of(PORT)?;
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

    /// Takes the filter out and lifts the limit: the disk is well again.
    ///
    /// # Errors
    /// When QEMU doesn't do it.
    pub fn heal(&mut self) -> Result<()> {
        if self.held {
            // A held request would keep the graph from changing for ever.
            let _ = self.release();
        }
        if self.hanging {
            self.limit([0, 0])?;
            self.hanging = false;
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

    /// Where a device is, as configuration mechanism 1 addresses it.
    fn address_of(&mut self, name: &str) -> Result<u32> {
        let buses = self.monitor.ask("query-pci", &json!({}))?;
        let device = buses
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|bus| device_on(&bus["devices"], name))
            .with_context(|| format!("QEMU has no PCI device `{name}`"))?;
        let number = |name: &str| u32::try_from(device[name].as_u64().unwrap_or_default());
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

/// The device of this name among `devices`, or behind a bridge among them.
fn device_on<'a>(devices: &'a Value, name: &str) -> Option<&'a Value> {
    devices.as_array()?.iter().find_map(|device| {
        if device["qdev_id"] == name {
            Some(device)
        } else {
            device_on(&device["pci_bridge"]["devices"], name)
        }
    })
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
    fn a_device_is_found_behind_a_bridge() {
        let devices = json!([
            { "qdev_id": "", "bus": 0 },
            { "qdev_id": "port1", "bus": 0, "pci_bridge": { "devices": [{ "qdev_id": "nvme0", "bus": 1 }] } },
        ]);
        assert_eq!(device_on(&devices, "nvme0").unwrap()["bus"], 1);
        assert_eq!(device_on(&devices, "port1").unwrap()["bus"], 0);
        assert_eq!(device_on(&devices, "nic0"), None);
    }

    #[test]
    fn a_rule_names_event_kind_and_error() {
        let made = rule(Operation::Write, DiskError::NoSpace, json!({ "state": 3 }));
        assert_eq!(
            made,
            json!({ "event": "write_aio", "iotype": "write", "errno": 28, "state": 3 })
        );
    }
}
