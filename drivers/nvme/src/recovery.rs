//! What keeps the controller going: bringing it up, resetting it, giving it up, shutting it down; and the thread that sees when.
//!
//! A command that isn't answered in time is aborted; if that doesn't help the controller is reset, and everything that was under way is handed
//! to it again (`queue.rs`). A controller that a reset doesn't bring back is given up: requests fail then. One that is gone too.

use crate::admin::Admin;
use crate::device::{Device, Identity, QUEUE_ENTRIES};
use crate::error::DeviceError;
use crate::events;
use crate::queue::{Intake, Late};
use crate::startup::{self, Found};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::DerefMut;
use core::sync::atomic::Ordering;
use dma::Wake;
use dma::nvme::{ControllerError, QueueError};
use domain_rt::clock::now_ns;
use domain_rt::sync::Mutex;
use domain_rt::thread;
use interface::storage_health::{ControllerState, EventKind, HealthError};
use rref::Text;

/// The controller is looked at this often without an interrupt.
const INTERVAL_NS: u64 = 100_000_000;
/// How often a reset is tried.
const RESET_ATTEMPTS: u32 = 3;
/// How long a shutdown may take when the controller doesn't say (base specification 2.0, 3.6.1), at most what it says, microseconds.
const SHUTDOWN_LIMIT_US: u64 = 8_000_000;

impl Device {
    /// Brings the controller up for the first time. When it has returned, the device takes requests or has failed.
    pub fn bring_up(&self) {
        let Some(admin) = &self.admin else {
            self.set_state(ControllerState::Removed);
            return;
        };
        let began_ns = now_ns();
        let mut admin = patiently(admin);
        let mut result = self.start(&mut admin, true);
        if let Err(error) = result
            && !matches!(error, DeviceError::Controller(ControllerError::Gone))
        {
            log::warn!("the NVMe controller doesn't start: {error}; trying again");
            result = self.start(&mut admin, true);
        }
        match result {
            Ok(()) => {
                let identity = self.identity.lock();
                if let Some(Identity { data, .. }) = identity.as_ref() {
                    log::info!(
                        "NVMe {} ({}): {} namespaces, {} queue pairs, ready in {} us",
                        data.model,
                        data.serial,
                        self.units.lock().usable(),
                        self.active().len(),
                        now_ns().saturating_sub(began_ns) / 1000
                    );
                }
                drop(identity);
                self.record(EventKind::Started);
            }
            Err(error) => self.give_up(&mut admin, error),
        }
    }

    /// Turns the controller off and on, tells it of its queues, and hands requests in. `blamed` when what was under way may be the cause.
    fn start(&self, admin: &mut Admin, blamed: bool) -> Result<(), DeviceError> {
        self.set_intake(Intake::Held);
        admin.controller.turn_off()?;
        admin.forget();
        for queue in &self.queues {
            queue.requests.lock().take_back(blamed);
        }
        let limit_ms = self.limits.admin_ms;
        let cpus = self.queues.len() as u16;
        let found = startup::begin(admin, cpus, limit_ms)?;
        if self.identity.lock().is_some() && found.queues < self.active.load(Ordering::Acquire) {
            // Users of the others rely on them.
            return Err(QueueError::NoQueue {
                queue: found.queues + 1,
            }
            .into());
        }
        let queues = self.create_queues(admin, found.queues)?;
        self.refresh_units(admin, &found)?;
        events::request_all(admin, found.controller.event_limit);
        *self.identity.lock() = Some(Identity {
            data: found.controller,
            version: admin.controller.version(),
            volatile_cache: found.volatile_cache,
        });
        self.active.store(queues, Ordering::Release);
        self.set_state(ControllerState::Ready);
        self.set_intake(Intake::Open);
        Ok(())
    }

    /// Makes queue pairs for as many CPUs as may have one; says how many.
    fn create_queues(&self, admin: &mut Admin, allowed: u16) -> Result<u16, DeviceError> {
        let mut count = 0;
        for (index, queue) in self.queues.iter().enumerate().take(usize::from(allowed)) {
            let mut requests = queue.requests.lock();
            if requests.ring().is_none() {
                requests.set_ring(admin.controller.io_queue(index as u16 + 1, QUEUE_ENTRIES)?);
            }
            if let Some(ring) = requests.ring() {
                startup::create_queue(admin, ring, self.vector(index), self.limits.admin_ms)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Looks which namespaces there are, and tells every queue.
    fn refresh_units(&self, admin: &mut Admin, found: &Found) -> Result<(), DeviceError> {
        let current = startup::units(admin, found, self.limits.admin_ms)?;
        let units = {
            let mut units = self.units.lock();
            if Arc::make_mut(&mut units).replace(&current) {
                self.changes.fetch_add(1, Ordering::AcqRel);
            }
            units.clone()
        };
        for queue in &self.queues {
            queue.requests.lock().set_units(units.clone());
        }
        Ok(())
    }

    /// Resets the controller.
    pub fn reset(&self, why: &str, blamed: bool) {
        let Some(admin) = &self.admin else { return };
        let mut admin = patiently(admin);
        log::warn!("resetting the NVMe controller: {why}");
        self.set_state(ControllerState::Resetting);
        self.history.lock().last_reset = Text::new(why);
        self.record(EventKind::Reset);
        let began_ns = now_ns();
        for attempt in 1..=RESET_ATTEMPTS {
            match self.start(&mut admin, blamed) {
                Ok(()) => {
                    log::info!(
                        "the NVMe controller is back after {} us",
                        now_ns().saturating_sub(began_ns) / 1000
                    );
                    return;
                }
                Err(error @ DeviceError::Controller(ControllerError::Gone | ControllerError::Timeout(_))) => {
                    return self.give_up(&mut admin, error);
                }
                Err(error) if attempt == RESET_ATTEMPTS => return self.give_up(&mut admin, error),
                Err(error) => {
                    self.record(EventKind::ResetFailed);
                    log::warn!("the NVMe controller didn't come back: {error}; trying again");
                }
            }
        }
    }

    /// Takes the controller off the bus and fails every request, from now on.
    fn give_up(&self, admin: &mut Admin, error: DeviceError) {
        admin.controller.stop();
        admin.forget();
        let gone = matches!(error, DeviceError::Controller(ControllerError::Gone));
        let (state, event) = if gone {
            (ControllerState::Removed, EventKind::Removed)
        } else {
            (ControllerState::Failed, EventKind::ResetFailed)
        };
        log::error!("the NVMe controller is given up: {error}");
        self.set_state(state);
        self.record(event);
        self.set_intake(Intake::Closed);
    }

    /// See [`StorageHealth::shut_down`](interface::storage_health::StorageHealth::shut_down).
    pub fn shut_down(&self) -> Result<(), HealthError> {
        let status = self.status.as_ref().ok_or(HealthError::NoController)?;
        if self.state() == ControllerState::ShutDown {
            return Ok(());
        }
        let mut admin = self.ready(0)?;
        self.set_intake(Intake::Held);
        let deadline_ns = now_ns().saturating_add(self.limits.drain_ms.saturating_mul(1_000_000));
        while self
            .queues
            .iter()
            .any(|queue| queue.requests.lock().is_draining(now_ns))
            && now_ns() < deadline_ns
        {
            thread::sleep_ms(1);
        }
        let limit_us = self
            .identity
            .lock()
            .as_ref()
            .map_or(0, |identity| u64::from(identity.data.shutdown_limit_us))
            .clamp(1_000_000, SHUTDOWN_LIMIT_US);
        admin.controller.begin_shutdown();
        let deadline_ns = now_ns().saturating_add(limit_us.saturating_mul(1000));
        while !status.is_shut_down() {
            if now_ns() >= deadline_ns {
                self.ask_for_reset("it didn't shut down in time");
                return Err(HealthError::TimedOut);
            }
            thread::sleep_ms(1);
        }
        log::info!("the NVMe controller is shut down");
        self.set_state(ControllerState::ShutDown);
        self.record(EventKind::ShutDown);
        self.set_intake(Intake::Closed);
        Ok(())
    }

    /// Looks after the controller until the domain ends: the body of a thread of its own.
    pub fn look_after(&self) {
        loop {
            let until_ns = now_ns().saturating_add(INTERVAL_NS);
            let wake = match &self.interrupt {
                Some(interrupt) => interrupt.wait(until_ns),
                None => match thread::park_until(until_ns) {
                    thread::Wake::Cancelled => Wake::Cancelled,
                    _ => Wake::TimedOut,
                },
            };
            match wake {
                Wake::Cancelled => return,
                Wake::Interrupt => {
                    self.interrupts.fetch_add(1, Ordering::Relaxed);
                }
                Wake::TimedOut => {}
            }
            self.service();
        }
    }

    /// Does what there is to do now. Part of [`look_after`](Self::look_after).
    pub fn service(&self) {
        let (Some(admin), Some(status)) = (&self.admin, &self.status) else {
            return;
        };
        if self.reset_wanted.swap(false, Ordering::AcqRel)
            && !matches!(
                self.state(),
                ControllerState::Starting | ControllerState::Removed | ControllerState::Failed
            )
        {
            let why = self.history.lock().last_reset;
            return self.reset(why.as_str(), false);
        }
        if self.state() != ControllerState::Ready {
            return;
        }
        if status.is_gone() {
            return self.give_up(
                &mut patiently(admin),
                DeviceError::Controller(ControllerError::Gone),
            );
        }
        if status.is_fatal() {
            return self.reset("it reports a fatal error", true);
        }
        self.handle_events(&mut patiently(admin));
        self.look_for_late();
        self.log_errors();
    }

    fn handle_events(&self, admin: &mut Admin) {
        admin.look();
        let mut changed = false;
        // As many as there may be at once; others come with the next round.
        for _ in 0..8 {
            let Some(event) = admin.next_event() else { break };
            changed |= events::handle(self, admin, event);
        }
        if changed && let Err(error) = self.look_again(admin) {
            log::warn!("namespaces of the NVMe controller can't be looked at: {error}");
        }
    }

    /// Looks at the namespaces once more.
    fn look_again(&self, admin: &mut Admin) -> Result<(), DeviceError> {
        let found = {
            let identity = self.identity.lock();
            let Some(identity) = identity.as_ref() else {
                return Ok(());
            };
            startup::found_again(admin, identity, self.limits.admin_ms)?
        };
        self.refresh_units(admin, &found)
    }

    /// Aborts commands that take too long, and resets the controller when that doesn't help.
    fn look_for_late(&self) {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let mut stuck = false;
        let mut aborts = Vec::new();
        for (number, queue) in (1u16..).zip(&self.queues) {
            queue.requests.lock().look_for_late(
                now_ns,
                ns(self.limits.command_ms),
                ns(self.limits.abort_ms),
                |late| match late {
                    Late::Abort(command) => aborts.push((number, command)),
                    Late::Stuck => stuck = true,
                },
            );
        }
        if stuck {
            return self.reset("a command isn't answered, nor its abort", true);
        }
        if aborts.is_empty() {
            return;
        }
        let Some(admin) = &self.admin else { return };
        let limit = self
            .identity
            .lock()
            .as_ref()
            .map_or(1, |identity| identity.data.abort_limit);
        for (queue, command) in aborts {
            let which = u32::from(queue) << 16 | u32::from(command);
            log::warn!("command {command:#06x} of NVMe queue {queue} isn't answered; aborting it");
            self.record(EventKind::TimedOut(which));
            // What is over the controller's limit gets no abort, and so is reset with the rest.
            if patiently(admin).request_abort(queue, command, limit) {
                self.record(EventKind::Aborted(which));
            }
        }
    }

    /// Says in the log what failed: the last of each queue since it was last looked at.
    fn log_errors(&self) {
        for queue in &self.queues {
            let failure = queue.requests.lock().last_error.take();
            if let Some(failure) = failure {
                log::warn!(
                    "a {} at {} of unit {} failed{}: {} (status {:#06x})",
                    failure
                        .operation
                        .map_or(Text::<16>::new("request"), |operation| Text::format(
                            format_args!("{operation}")
                        )),
                    failure.address,
                    failure.unit,
                    if failure.again { " and is tried again" } else { "" },
                    failure.fault,
                    failure.status
                );
            }
        }
    }
}

/// Locks the admin side. Whoever has it may wait for the controller for seconds, so this sleeps, which a spinning thread's heartbeat wouldn't
/// outlast.
fn patiently(admin: &Mutex<Admin>) -> impl DerefMut<Target = Admin> + '_ {
    loop {
        match admin.try_lock() {
            Some(admin) => return admin,
            None => thread::sleep_ms(1),
        }
    }
}
