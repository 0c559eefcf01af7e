//! The `Victim` interface.

use crate::{idle, labour};
use alloc::sync::Arc;
use attack::Fault;
use attack_interface::victim::{Dwell, Goods, Seen, Victim, VictimError, Work};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, StartError, clock, thread};
use rref::{PacketBatch, RRef};

/// Nanoseconds in a microsecond.
const US: u64 = 1_000;

/// The other victims, connected when they are needed.
#[derive(Default)]
pub struct Neighbours {
    next: Mutex<Option<Handle<dyn Victim>>>,
    bystander: Mutex<Option<Handle<dyn Victim>>>,
}

impl Neighbours {
    /// The next victim's live incarnation.
    fn next(&self) -> Result<Handle<dyn Victim>, VictimError> {
        connected(&self.next, "next")
    }

    /// Makes one crossing into the bystander.
    pub fn cross(&self) {
        if let Ok(bystander) = self.bystander() {
            bystander.ping().ok();
        }
    }

    /// Sleeps in the bystander; false when that isn't possible.
    pub fn sleep_there(&self, time_us: u32) -> bool {
        self.bystander()
            .is_ok_and(|bystander| bystander.dwell(Dwell::Sleep, 0, time_us).is_ok())
    }

    /// Waits for the bystander's successor, which doesn't come: the bystander lives.
    pub fn wait_for_absent(&self, wait_ms: u64) {
        if let Ok(bystander) = self.bystander() {
            domain_rt::reconnect::<dyn Victim>("bystander", bystander.target(), wait_ms).ok();
        }
    }

    /// The bystander.
    pub fn bystander(&self) -> Result<Handle<dyn Victim>, VictimError> {
        connected(&self.bystander, "bystander")
    }
}

/// A live handle, from before or connected now.
fn connected(
    kept: &Mutex<Option<Handle<dyn Victim>>>,
    import: &str,
) -> Result<Handle<dyn Victim>, VictimError> {
    let mut kept = kept.lock();
    match &*kept {
        Some(handle) if domain_rt::is_live(handle.target()) => Ok(handle.clone()),
        _ => {
            let handle: Handle<dyn Victim> =
                domain_rt::connect(import, 0).map_err(|_| VictimError::NoNext)?;
            *kept = Some(handle.clone());
            Ok(handle)
        }
    }
}

/// The exported object.
pub struct Service {
    neighbours: Arc<Neighbours>,
    /// Held for good.
    lock: Arc<Mutex<()>>,
}

impl Service {
    /// A victim with these neighbours.
    pub fn new(neighbours: Arc<Neighbours>) -> Result<Service, StartError> {
        let lock = Arc::new(Mutex::new(()));
        core::mem::forget(lock.lock());
        Ok(Service { neighbours, lock })
    }

    fn spawn(&self, cpu: u16, body: impl FnOnce() + Send + 'static) -> Result<(), VictimError> {
        thread::spawn("victim", Some(cpu), body)
            .map(drop)
            .map_err(|_| VictimError::OutOfMemory)
    }
}

/// What a victim makes of its neighbour's answer: that one's death is nothing that it dies of.
fn noted(answer: Result<Seen, VictimError>) -> Result<Seen, VictimError> {
    match answer {
        Err(VictimError::Dead(error)) => Ok(Seen {
            died: Some(error.target()),
            cancelled: false,
        }),
        other => other,
    }
}

impl Victim for Service {
    fn ping(&self) -> Result<(), VictimError> {
        Ok(())
    }

    fn fault(&self, fault: Fault, hops: u8) -> Result<Seen, VictimError> {
        match hops.checked_sub(1) {
            Some(hops) => noted(self.neighbours.next()?.fault(fault, hops)),
            None => attack::raise(fault, &|| self.neighbours.cross()),
        }
    }

    fn fault_later(&self, fault: Fault, cpu: u16, delay_us: u32) -> Result<(), VictimError> {
        let neighbours = self.neighbours.clone();
        self.spawn(cpu, move || {
            let until_ns = clock::now_ns() + u64::from(delay_us) * US;
            while clock::now_ns() < until_ns {
                thread::park_until(until_ns);
            }
            attack::raise(fault, &|| neighbours.cross())
        })
    }

    fn dwell(&self, way: Dwell, hops: u8, time_us: u32) -> Result<Seen, VictimError> {
        if let Some(hops) = hops.checked_sub(1) {
            return noted(self.neighbours.next()?.dwell(way, hops, time_us));
        }
        let until_ns = clock::now_ns() + u64::from(time_us) * US;
        let cancelled = idle::dwell(way, until_ns, &self.lock, &self.neighbours);
        Ok(Seen {
            died: None,
            cancelled,
        })
    }

    fn crowd(&self, way: Dwell, threads: u16, cpu: u16) -> Result<(), VictimError> {
        for _ in 0..threads {
            let (lock, neighbours) = (self.lock.clone(), self.neighbours.clone());
            self.spawn(cpu, move || idle::stay(way, &lock, &neighbours))?;
        }
        Ok(())
    }

    fn labour(&self, work: Work, cpu: u16) -> Result<(), VictimError> {
        let neighbours = self.neighbours.clone();
        self.spawn(cpu, move || labour::work(work, &neighbours))
    }

    fn hold(
        &self,
        goods: Goods,
        lent: &RRef<[u64; 64]>,
        fault: Option<Fault>,
        hops: u8,
        time_us: u32,
    ) -> Result<Goods, VictimError> {
        let own = labour::objects()?;
        let passed = match (hops.checked_sub(1), fault) {
            (Some(hops), _) => self
                .neighbours
                .next()?
                .hold(goods, &own.object, fault, hops, time_us),
            (None, Some(fault)) => {
                // In its hands, not only on its stack: taken apart, half of it in another batch.
                let mut goods = goods;
                let mut other = PacketBatch::new().map_err(|_| VictimError::OutOfMemory)?;
                for _ in 0..goods.batch.len() / 2 {
                    if let Some(packet) = goods.batch.pop_front() {
                        drop(other.push(packet));
                    }
                }
                attack::raise(fault, &|| self.neighbours.cross())
            }
            (None, None) => {
                let until_ns = clock::now_ns() + u64::from(time_us) * US;
                while clock::now_ns() < until_ns {
                    core::hint::spin_loop();
                }
                Ok(goods)
            }
        };
        let mut goods = passed?;
        goods.object[0] = goods.object[0].wrapping_add(lent[0]);
        drop(own);
        Ok(goods)
    }
}
