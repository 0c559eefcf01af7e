//! Bringing the controller up (base specification 2.0, 3.5.1 "Memory-based controller initialization"), for the first time and after a reset.

use crate::admin::Admin;
use crate::device::Identity;
use crate::error::{AdminError, DeviceError};
use crate::identify::{self, ControllerData, NamespaceData, RangeLimits};
use crate::units::Unit;
use alloc::boxed::Box;
use alloc::vec::Vec;
use dma::nvme::{AdminCommand, Feature, IoQueue};

/// Bytes of a structure.
const STRUCTURE_BYTES: usize = 4096;
/// Namespaces that are used at most.
const NAMESPACE_LIMIT: usize = 64;
/// Critical warnings of SMART that are reported: all that there are (5.27.1.8).
const WARNING_EVENTS: u32 = 0x3F;
/// Notices that are asked for where the controller has them: namespaces changed, firmware activation.
const NOTICE_EVENTS: u32 = 1 << 8 | 1 << 9;

/// What start-up found.
pub struct Found {
    /// The controller.
    pub controller: ControllerData,
    /// Its limits.
    pub limits: RangeLimits,
    /// It has a volatile write cache, and that is on.
    pub volatile_cache: bool,
    /// I/O queues that may be made.
    pub queues: u16,
}

/// Makes the controller take admin commands, finds out what it is, and asks for `queues` I/O queues.
pub fn begin(admin: &mut Admin, queues: u16, limit_ms: u64) -> Result<Found, DeviceError> {
    admin.controller.turn_on()?;
    let page_bytes = admin.controller.capabilities().page_bytes();
    let controller = admin
        .execute(
            AdminCommand::identify(identify::CONTROLLER, 0),
            limit_ms,
            |answer| {
                let mut structure = structure();
                answer.copy_to(&mut structure);
                ControllerData::parse(&structure, page_bytes)
            },
        )
        .map_err(|error| error.doing("identify the controller"))?;
    let limits = if controller.write_zeroes || controller.deallocate {
        range_limits(admin, page_bytes, limit_ms)?
    } else {
        RangeLimits::default()
    };
    let volatile_cache = controller.volatile_cache
        && match admin.result(AdminCommand::get_feature(Feature::VolatileWriteCache), limit_ms) {
            Ok(value) => value & 1 != 0,
            // To flush a cache that is off costs less than not to flush one that is on.
            Err(AdminError::Refused(_)) => true,
            Err(error) => return Err(error.doing("ask for the write cache")),
        };
    let asked = u32::from(queues.saturating_sub(1));
    let allowed = admin
        .result(
            AdminCommand::set_feature(Feature::NumberOfQueues, asked << 16 | asked),
            limit_ms,
        )
        .map_err(|error| error.doing("ask for I/O queues"))?;
    // The lesser of submission and completion queues, counted from 0.
    let allowed = (allowed & 0xFFFF).min(allowed >> 16) as u16;
    let events = AdminCommand::set_feature(
        Feature::AsynchronousEvents,
        WARNING_EVENTS | controller.events & NOTICE_EVENTS,
    );
    match admin.result(events, limit_ms) {
        // Without events the log pages can be asked for still.
        Ok(_) | Err(AdminError::Refused(_)) => {}
        Err(error) => return Err(error.doing("choose events")),
    }
    Ok(Found {
        controller,
        limits,
        volatile_cache,
        queues: queues.min(allowed.saturating_add(1)),
    })
}

/// The same once more without a reset, of a controller that is known.
pub fn found_again(admin: &mut Admin, identity: &Identity, limit_ms: u64) -> Result<Found, DeviceError> {
    let page_bytes = admin.controller.capabilities().page_bytes();
    let controller = identity.data;
    let limits = if controller.write_zeroes || controller.deallocate {
        range_limits(admin, page_bytes, limit_ms)?
    } else {
        RangeLimits::default()
    };
    Ok(Found {
        controller,
        limits,
        volatile_cache: identity.volatile_cache,
        queues: 0,
    })
}

/// Limits that controllers before NVMe 2.0 need not have.
fn range_limits(admin: &mut Admin, page_bytes: u64, limit_ms: u64) -> Result<RangeLimits, DeviceError> {
    let command =
        AdminCommand::identify_for(identify::CONTROLLER_FOR_COMMAND_SET, 0, identify::NVM_COMMAND_SET);
    let limits = admin.execute(command, limit_ms, |answer| {
        let mut structure = structure();
        answer.copy_to(&mut structure);
        RangeLimits::parse(&structure, page_bytes)
    });
    match limits {
        Ok(limits) => Ok(limits),
        Err(AdminError::Refused(_)) => Ok(RangeLimits::default()),
        Err(error) => Err(error.doing("identify the command set")),
    }
}

fn structure() -> Box<[u8]> {
    alloc::vec![0; STRUCTURE_BYTES].into_boxed_slice()
}

/// Tells the controller of a pair of queues, which raises MSI-X entry `vector`.
pub fn create_queue(
    admin: &mut Admin,
    queue: &mut IoQueue,
    vector: Option<u16>,
    limit_ms: u64,
) -> Result<(), DeviceError> {
    queue.start()?;
    admin
        .result(AdminCommand::create_completion_queue(queue, vector), limit_ms)
        .map_err(|error| error.doing("create a completion queue"))?;
    admin
        .result(AdminCommand::create_submission_queue(queue), limit_ms)
        .map_err(|error| error.doing("create a submission queue"))?;
    Ok(())
}

/// The namespaces that there are and that can be used.
pub fn units(admin: &mut Admin, found: &Found, limit_ms: u64) -> Result<Vec<Unit>, DeviceError> {
    let numbers = admin
        .execute(
            AdminCommand::identify(identify::ACTIVE_NAMESPACES, 0),
            limit_ms,
            |answer| {
                let mut list = structure();
                answer.copy_to(&mut list);
                identify::namespace_numbers(&list)
                    .take(NAMESPACE_LIMIT)
                    .collect::<Vec<_>>()
            },
        )
        .map_err(|error| error.doing("list namespaces"))?;
    let mut units = Vec::new();
    for number in numbers {
        let answer = admin.execute(
            AdminCommand::identify(identify::NAMESPACE, number),
            limit_ms,
            |answer| {
                let mut structure = structure();
                answer.copy_to(&mut structure);
                (answer.namespace(), NamespaceData::parse(&structure))
            },
        );
        match answer {
            Ok((Ok(namespace), data)) => units.push(Unit::new(
                namespace,
                &data,
                &found.controller,
                &found.limits,
                found.volatile_cache,
            )),
            Ok((Err(error), _)) => log::warn!("namespace {number} can't be used: {error}"),
            Err(AdminError::Refused(status)) => {
                log::warn!("namespace {number} can't be identified (status {status:#06x})");
            }
            Err(error) => return Err(error.doing("identify a namespace")),
        }
    }
    Ok(units)
}
