//! The threads that wait for deaths.
//!
//! On each of the first CPUs one leads: it waits in the kernel. A death is handled by whichever of them comes first: mostly that of the CPU where it was
//! found, so that nothing waits until another CPU takes notice, but never only that one, which may have other work. It first lets another thread
//! of its CPU lead, so that a death that takes long (a delay, a start that waits for a provider) keeps no other one waiting. Each of these CPUs begins with
//! two threads, and has never more than that or than one beside those that have a death in hand; they are kept.

use crate::supervision::Supervision;
use alloc::boxed::Box;
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

/// CPUs that have a leader at most.
const LEADERS_LIMIT: u16 = 4;

/// The threads' common state.
pub struct Workers {
    supervision: Arc<Supervision>,
    power: Handle<dyn Power>,
    /// Number of the newest death that was taken.
    taken: Mutex<u64>,
    /// By CPU.
    leads: Box<[Mutex<Lead>]>,
}

#[derive(Default)]
struct Lead {
    /// Threads with nothing to do.
    idle: Vec<ThreadId>,
    /// The idle thread that is to lead.
    next: Option<ThreadId>,
}

impl Workers {
    /// Starts the leaders, and an idle thread for each so that no restart waits for one to be made.
    pub fn start(supervision: Arc<Supervision>, power: Handle<dyn Power>) -> Result<(), SpawnError> {
        let workers = Arc::new(Workers {
            supervision,
            power,
            taken: Mutex::new(0),
            leads: (0..thread::cpu_count().clamp(1, LEADERS_LIMIT))
                .map(|_| Mutex::default())
                .collect(),
        });
        for cpu in 0..workers.leads.len() as u16 {
            workers.spawn(cpu, false)?;
            workers.spawn(cpu, true)?;
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, cpu: u16, leads: bool) -> Result<(), SpawnError> {
        let workers = self.clone();
        thread::spawn("restart", Some(cpu), move || workers.run(cpu, leads)).map(drop)
    }

    /// A worker's life.
    fn run(self: Arc<Self>, cpu: u16, leads: bool) {
        let Some(lead) = self.leads.get(usize::from(cpu)) else {
            return;
        };
        if !leads {
            lead_next(lead);
        }
        loop {
            let record = self.next_death();
            let handed_over = self.hand_over(lead, cpu);
            self.supervision.recover(record);
            if handed_over {
                lead_next(lead);
            }
        }
    }

    /// Blocks for the next death, in order of their numbers, that no other leader takes.
    fn next_death(&self) -> DeathRecord {
        let mut failures = 0;
        loop {
            let known = *self.taken.lock();
            match self.supervision.control.wait_death(known, NEVER) {
                Ok(Some(newer)) => {
                    let mut taken = self.taken.lock();
                    if *taken >= newer.number {
                        failures = 0;
                        continue;
                    }
                    // Several may have come; the next one is taken unless the kernel keeps it no more.
                    let next = if newer.number > *taken + 1 {
                        self.supervision.control.death(*taken + 1).ok().flatten()
                    } else {
                        None
                    };
                    let record = next.unwrap_or(newer);
                    *taken = record.number;
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
    fn hand_over(self: &Arc<Self>, lead: &Mutex<Lead>, cpu: u16) -> bool {
        let next = {
            let mut lead = lead.lock();
            lead.next = lead.idle.pop();
            lead.next
        };
        match next {
            Some(next) => {
                thread::unpark(next);
                true
            }
            None => match self.spawn(cpu, true) {
                Ok(()) => true,
                Err(SpawnError) => {
                    error!("no memory for another restart thread: restarts wait for each other");
                    false
                }
            },
        }
    }
}

/// Waits until it is this thread's turn to lead.
fn lead_next(lead: &Mutex<Lead>) {
    let me = thread::id();
    lead.lock().idle.push(me);
    loop {
        thread::park_until(clock::NEVER);
        let mut lead = lead.lock();
        if lead.next == Some(me) {
            lead.next = None;
            return;
        }
    }
}
