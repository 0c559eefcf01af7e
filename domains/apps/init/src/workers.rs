//! The threads that wait for deaths.
//!
//! One leads: it waits in the kernel. When a death comes it first lets another one lead and then handles the death itself, so
//! that a restart begins on the thread that is already running, and one that takes long (a delay, a start that waits for a
//! provider) keeps no other death waiting. There are never more threads than deaths in hand, and one; they are kept.

use crate::supervision::Supervision;
use alloc::sync::Arc;
use alloc::vec::Vec;
use domain_rt::clock::NEVER;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, SpawnError, ThreadId};
use domain_rt::{Handle, clock};
use interface::kernel::{DeathRecord, Power};
use log::error;

/// Failed waits in a row after which the machine is restarted: without deaths there is no supervision.
const FAILURE_LIMIT: u32 = 10;
/// Pause between them, milliseconds.
const FAILURE_PAUSE_MS: u64 = 100;

/// The threads' common state.
pub struct Workers {
    supervision: Arc<Supervision>,
    power: Handle<dyn Power>,
    /// Number of the newest death that was taken; only the leader changes it.
    taken: Mutex<u64>,
    lead: Mutex<Lead>,
}

#[derive(Default)]
struct Lead {
    /// Threads with nothing to do.
    idle: Vec<ThreadId>,
    /// The idle thread that is to lead.
    next: Option<ThreadId>,
}

impl Workers {
    /// Starts the first leader, and the first idle thread so that no restart waits for one to be made.
    pub fn start(supervision: Arc<Supervision>, power: Handle<dyn Power>) -> Result<(), SpawnError> {
        let workers = Arc::new(Workers {
            supervision,
            power,
            taken: Mutex::new(0),
            lead: Mutex::default(),
        });
        workers.spawn(false)?;
        workers.spawn(true)
    }

    fn spawn(self: &Arc<Self>, leads: bool) -> Result<(), SpawnError> {
        let workers = self.clone();
        thread::spawn("restart", None, move || workers.run(leads)).map(drop)
    }

    /// A worker's life.
    fn run(self: Arc<Self>, leads: bool) {
        if !leads {
            self.wait_to_lead();
        }
        loop {
            let record = self.next_death();
            let handed_over = self.hand_over();
            self.supervision.recover(record);
            if handed_over {
                self.wait_to_lead();
            }
        }
    }

    /// Blocks for the next death in order of their numbers.
    fn next_death(&self) -> DeathRecord {
        let mut failures = 0;
        loop {
            let taken = *self.taken.lock();
            match self.supervision.control.wait_death(taken, NEVER) {
                Ok(Some(newer)) => {
                    // Several may have come; the next one is taken unless the kernel keeps it no more.
                    let next = if newer.number > taken + 1 {
                        self.supervision.control.death(taken + 1).ok().flatten()
                    } else {
                        None
                    };
                    let record = next.unwrap_or(newer);
                    *self.taken.lock() = record.number;
                    return record;
                }
                Ok(None) => failures = 0,
                Err(error) => {
                    failures += 1;
                    error!("waiting for deaths failed: {error}");
                    if failures >= FAILURE_LIMIT {
                        error!("restarting the machine: it can't be supervised any more");
                        if let Err(error) = self.power.reboot() {
                            error!("the restart failed: {error}");
                        }
                    }
                    thread::sleep_ms(FAILURE_PAUSE_MS);
                }
            }
        }
    }

    /// Lets another thread lead; false when there is none and no memory for one: this one leads on, after its work.
    fn hand_over(self: &Arc<Self>) -> bool {
        let next = {
            let mut lead = self.lead.lock();
            lead.next = lead.idle.pop();
            lead.next
        };
        match next {
            Some(next) => {
                thread::unpark(next);
                true
            }
            None => match self.spawn(true) {
                Ok(()) => true,
                Err(SpawnError) => {
                    error!("no memory for another restart thread: restarts wait for each other");
                    false
                }
            },
        }
    }

    fn wait_to_lead(&self) {
        let me = thread::id();
        self.lead.lock().idle.push(me);
        loop {
            thread::park_until(clock::NEVER);
            let mut lead = self.lead.lock();
            if lead.next == Some(me) {
                lead.next = None;
                return;
            }
        }
    }
}
