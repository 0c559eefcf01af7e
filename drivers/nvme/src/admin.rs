//! Admin commands, one after another, with requests for events and aborts under way beside them.
//!
//! Whoever has the lock around this waits for an answer by looking for it; answers to commands that nobody waits for (events, aborts) are kept
//! for the thread that looks after the device.

use crate::error::AdminError;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use dma::nvme::{AdminCommand, AdminCompletion, Controller};
use domain_rt::clock::now_ns;
use domain_rt::thread;

/// For so long an answer is awaited without sleeping.
const EAGER_NS: u64 = 2_000_000;
/// Events that are kept until somebody looks; more are dropped, which loses nothing but their number.
const ARRIVED_LIMIT: usize = 64;

/// The controller, and what is under way in its admin queue.
pub struct Admin {
    /// The controller.
    pub controller: Controller,
    /// Requests for events.
    requests: Vec<u16>,
    /// Events that came, as the controller reported them.
    arrived: VecDeque<u32>,
    /// Aborts.
    aborts: Vec<u16>,
}

impl Admin {
    /// Nothing is under way yet.
    pub fn new(controller: Controller) -> Admin {
        Admin {
            controller,
            requests: Vec::new(),
            arrived: VecDeque::new(),
            aborts: Vec::new(),
        }
    }

    /// What was under way is no more: the controller was turned off.
    pub fn forget(&mut self) {
        self.requests.clear();
        self.aborts.clear();
        self.arrived.clear();
    }

    /// Carries a command out and has `read` look at its answer; waits for that at most `limit_ms`.
    pub fn execute<R>(
        &mut self,
        command: AdminCommand,
        limit_ms: u64,
        read: impl FnOnce(&AdminCompletion<'_>) -> R,
    ) -> Result<R, AdminError> {
        let queue = self.controller.admin().ok_or(AdminError::NotReady)?;
        let wanted = queue.submit(command).ok_or(AdminError::NotReady)?;
        let began_ns = now_ns();
        let deadline_ns = began_ns.saturating_add(limit_ms.saturating_mul(1_000_000));
        loop {
            // Before the look, so that there is one after the deadline.
            let now = now_ns();
            while let Some(answer) = self.controller.admin().ok_or(AdminError::NotReady)?.completion() {
                if answer.command == wanted {
                    return match answer.status & 0x7FF {
                        0 => Ok(read(&answer)),
                        _ => Err(AdminError::Refused(answer.status)),
                    };
                }
                let other = (answer.command, answer.status, answer.result);
                self.keep(other);
            }
            if now >= deadline_ns {
                return Err(AdminError::TimedOut);
            }
            if now.saturating_sub(began_ns) < EAGER_NS {
                thread::yield_now();
            } else {
                thread::sleep_ms(1);
            }
        }
    }

    /// The same for a command whose answer is its result.
    pub fn result(&mut self, command: AdminCommand, limit_ms: u64) -> Result<u32, AdminError> {
        self.execute(command, limit_ms, |answer| answer.result)
    }

    /// Keeps an answer that nobody waits for.
    fn keep(&mut self, (command, status, result): (u16, u16, u32)) {
        if let Some(index) = self.requests.iter().position(|&known| known == command) {
            self.requests.swap_remove(index);
            // A request that the controller refused isn't made again: it takes fewer than it said.
            if status & 0x7FF == 0 && self.arrived.len() < ARRIVED_LIMIT {
                self.arrived.push_back(result);
            }
        } else if let Some(index) = self.aborts.iter().position(|&known| known == command) {
            self.aborts.swap_remove(index);
            // Whether it was aborted or not shows in the command itself.
        }
    }

    /// Takes answers that came without anybody waiting.
    pub fn look(&mut self) {
        while let Some(queue) = self.controller.admin()
            && let Some(answer) = queue.completion()
        {
            let answer = (answer.command, answer.status, answer.result);
            self.keep(answer);
        }
    }

    /// The oldest event that nobody has looked at.
    pub fn next_event(&mut self) -> Option<u32> {
        self.arrived.pop_front()
    }

    /// Asks for an event; false when the queue takes no more.
    pub fn request_event(&mut self) -> bool {
        let command = self
            .controller
            .admin()
            .and_then(|queue| queue.submit(AdminCommand::asynchronous_event()));
        self.requests.extend(command);
        command.is_some()
    }

    /// Asks for an abort, unless `limit` are under way.
    pub fn request_abort(&mut self, queue: u16, command: u16, limit: u16) -> bool {
        if self.aborts.len() >= usize::from(limit) {
            return false;
        }
        let abort = self
            .controller
            .admin()
            .and_then(|admin| admin.submit(AdminCommand::abort(queue, command)));
        self.aborts.extend(abort);
        abort.is_some()
    }
}
