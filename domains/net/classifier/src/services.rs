//! The virtual services, as the balancer lists them.
//!
//! Read again when their revision has changed. While the balancer is down the last list stays: its packets are then dropped,
//! not given to the local stack, which would reset the clients' connections.

use crate::destination::{Destinations, VirtualService};
use alloc::vec::Vec;
use domain_rt::{Handle, OwnerId};
use interface::balance::{BalanceError, Balancer};
use log::warn;

/// Time between two looks at the revision, nanoseconds.
const REFRESH_NS: u64 = 100_000_000;
/// Services at most; the list of a balancer that gives more is cut.
const SERVICE_LIMIT: u16 = 4096;

/// The list, and when it was looked at.
pub struct Services {
    import: &'static str,
    balancer: Option<Handle<dyn Balancer>>,
    dead: OwnerId,
    revision: Option<u64>,
    next_ns: u64,
    destinations: Destinations,
}

impl Services {
    /// No services, to be read through `import`.
    pub fn new(import: &'static str) -> Services {
        Services {
            import,
            balancer: None,
            dead: OwnerId::NONE,
            revision: None,
            next_ns: 0,
            destinations: Destinations::new(Vec::new()),
        }
    }

    /// Who gets what.
    #[inline(always)]
    pub fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// The same, to be asked with what it remembers.
    #[inline(always)]
    pub fn destinations_mut(&mut self) -> &mut Destinations {
        &mut self.destinations
    }

    /// Looks at the revision if it is time, and reads the list if that has changed. Never waits for the balancer.
    #[inline(always)]
    pub fn refresh(&mut self, now_ns: u64) {
        if now_ns >= self.next_ns {
            self.look(now_ns);
        }
    }

    /// Looks again at the next opportunity: the balancer may be another one.
    pub fn expire(&mut self) {
        self.next_ns = 0;
        self.revision = None;
    }

    #[cold]
    fn look(&mut self, now_ns: u64) {
        self.next_ns = now_ns.saturating_add(REFRESH_NS);
        let balancer = match self.balancer.take() {
            Some(balancer) => balancer,
            None => match domain_rt::reconnect(self.import, self.dead, 0) {
                Ok(balancer) => {
                    self.revision = None;
                    balancer
                }
                Err(_) => return,
            },
        };
        match self.read(&balancer) {
            Ok(()) => self.balancer = Some(balancer),
            Err(BalanceError::Dead(_)) => self.dead = balancer.target(),
            Err(error) => {
                warn!("the virtual services can't be read: {error}");
                self.balancer = Some(balancer);
            }
        }
    }

    fn read(&mut self, balancer: &Handle<dyn Balancer>) -> Result<(), BalanceError> {
        // Read before the list: a change meanwhile shows as another revision next time.
        let revision = balancer.revision()?;
        if self.revision == Some(revision) {
            return Ok(());
        }
        let mut services = Vec::new();
        for index in 0..SERVICE_LIMIT {
            let Some(service) = balancer.service(index)? else {
                break;
            };
            services.push(VirtualService {
                address: service.address,
                protocol: service.protocol,
                port: service.port,
            });
        }
        self.destinations = Destinations::new(services);
        self.revision = Some(revision);
        Ok(())
    }
}
