//! VIPs and backends at run time: the one place where the balancer's configuration is kept and changed.
//!
//! Each change rebuilds the lookup table of the VIP concerned and publishes a new snapshot. Connections that are
//! remembered stay where they are: draining takes a backend out of the table only, and removing one lets its own flows
//! be given others. Runs beside forwarding, may allocate, and is never on a packet's way.

mod heritage;
mod words;

pub use heritage::RestoreError;
pub use words::{BackendReport, BackendSpec, BackendState, ControlError, VipReport, VipSpec, VipSummary};

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use rref::OutOfMemory;

use crate::balancer::Balancer;
use crate::config::Config;
use crate::connection_table::{Capacity, ConnectionTable};
use crate::counters::{CpuCounters, Totals, Traffic};
use crate::hash::{FlowHasher, HashSeed, NameHasher};
use crate::kept::Kept;
use crate::lifetime::Timeouts;
use crate::packet::MacAddress;
use crate::snapshot::{Identity, Published, Reachability, Snapshot, Target, Vip, VipIndex};
use crate::table::{BackendSlot, Candidate, LookupTable, NO_BACKEND, TableSize};

/// VIPs that a balancer can have.
pub const MAXIMUM_VIPS: usize = 256;

/// Backends that a balancer can have, of all its VIPs together.
pub const MAXIMUM_BACKENDS: usize = 4_096;

#[derive(Debug)]
struct Backend {
    spec: BackendSpec,
    vip: VipIndex,
    state: BackendState,
    /// What the slot's earlier tenants have been counted for.
    counted_before: Traffic,
}

/// A place in the list of backends, with or without one.
#[derive(Debug, Default)]
struct Slot {
    /// Changes with each tenant. A flow remembered over 65,536 of them would be taken for the new one's, but no entry
    /// lives that long.
    incarnation: u16,
    tenant: Option<Backend>,
}

#[derive(Debug)]
struct VipEntry {
    spec: VipSpec,
    table: LookupTable,
    /// What the backends that were removed had been sent.
    retired: Traffic,
}

/// The balancer's configuration, and the sum of what its CPUs do.
#[derive(Debug)]
pub struct Control {
    seed: HashSeed,
    table_size: TableSize,
    capacity: Capacity,
    timeouts: Timeouts,
    name_hasher: NameHasher,
    flow_hasher: FlowHasher,
    source_mac: MacAddress,
    vips: Vec<VipEntry>,
    slots: Vec<Slot>,
    /// MAC addresses by IP address: several backends may be on one host.
    neighbours: Vec<(IpAddr, MacAddress)>,
    published: Arc<Published>,
    cpus: Vec<Arc<CpuCounters>>,
    /// Where the roster is kept for the next incarnation.
    kept: Option<Kept>,
    /// The time, if tables that were left may be used.
    inherits_at_seconds: Option<u64>,
}

impl Control {
    /// A balancer as the operator's file describes it, that sends from `source_mac`.
    ///
    /// `random_seed` is used if the file has no `hash_seed`; it must be unpredictable.
    ///
    /// # Errors
    /// When the file's VIPs and backends can't all exist.
    pub fn new(config: &Config, random_seed: HashSeed, source_mac: MacAddress) -> Result<Self, ControlError> {
        let seed = config.hash_seed.unwrap_or(random_seed);
        let mut control = Self::empty(config, seed, source_mac);
        for (vip, backends) in &config.vips {
            let index = control.insert_vip(vip.clone())?;
            for backend in backends {
                control.insert_backend(index, backend.clone())?;
            }
        }
        control.rebuild_all();
        control.publish();
        Ok(control)
    }

    /// Without VIPs and backends.
    fn empty(config: &Config, seed: HashSeed, source_mac: MacAddress) -> Self {
        let flow_hasher = FlowHasher::new(&seed);
        let empty = Snapshot::new(flow_hasher, Vec::new(), Vec::new());
        Self {
            seed,
            table_size: config.table_size,
            capacity: config.connection_table_size,
            timeouts: config.timeouts,
            name_hasher: NameHasher::new(&seed),
            flow_hasher,
            source_mac,
            vips: Vec::new(),
            slots: Vec::new(),
            neighbours: Vec::new(),
            published: Arc::new(Published::new(empty)),
            cpus: Vec::new(),
            kept: None,
            inherits_at_seconds: None,
        }
    }

    /// The forwarding half for one more CPU. Its table is the one that was left for this CPU, if there is one that may be used, and is left
    /// in turn when the domain dies.
    ///
    /// # Errors
    /// When there is no memory for its table.
    pub fn balancer(&mut self) -> Result<Balancer, OutOfMemory> {
        let cpu = self.cpus.len() as u16;
        let inherited = self
            .inherits_at_seconds
            .and_then(|now_seconds| ConnectionTable::inherit(cpu, self.capacity, now_seconds));
        let mut table = match inherited {
            Some(table) => table,
            None => ConnectionTable::new(self.capacity)?,
        };
        table.bequeath(cpu);
        let counters = Arc::new(CpuCounters::new(MAXIMUM_BACKENDS));
        counters.publish(table.statistics());
        self.cpus.push(Arc::clone(&counters));
        Ok(Balancer::new(
            Arc::clone(&self.published),
            counters,
            table,
            self.timeouts,
        ))
    }

    /// Adds a backend to a VIP. Its MAC address is asked for by [`unresolved`](Self::unresolved).
    ///
    /// # Errors
    /// When there is no such VIP, it has a backend of that name, or there are too many.
    pub fn add(&mut self, vip: &str, spec: BackendSpec) -> Result<(), ControlError> {
        let index = self.vip_index(vip)?;
        self.insert_backend(index, spec)?;
        self.rebuild(index);
        self.publish();
        Ok(())
    }

    /// Gives a backend no new connections, or gives it some again; those it has stay in both cases.
    ///
    /// # Errors
    /// When there is no such VIP or backend.
    pub fn set_state(&mut self, vip: &str, name: &str, state: BackendState) -> Result<(), ControlError> {
        let index = self.vip_index(vip)?;
        self.backend_mut(index, vip, name)?.state = state;
        self.rebuild(index);
        self.publish();
        Ok(())
    }

    /// Gives a backend no new connections; those it has stay.
    ///
    /// # Errors
    /// When there is no such VIP or backend.
    pub fn drain(&mut self, vip: &str, name: &str) -> Result<(), ControlError> {
        self.set_state(vip, name, BackendState::Draining)
    }

    /// Changes a backend's share of new connections.
    ///
    /// # Errors
    /// When there is no such VIP or backend.
    pub fn set_weight(&mut self, vip: &str, name: &str, weight: u16) -> Result<(), ControlError> {
        let index = self.vip_index(vip)?;
        self.backend_mut(index, vip, name)?.spec.weight = weight;
        self.rebuild(index);
        self.publish();
        Ok(())
    }

    /// Removes a backend; each of its flows gets another with its next packet.
    ///
    /// # Errors
    /// When there is no such VIP or backend.
    pub fn remove(&mut self, vip: &str, name: &str) -> Result<(), ControlError> {
        let index = self.vip_index(vip)?;
        let (slot, backend) = self
            .tenants()
            .find(|(_, backend)| backend.vip == index && backend.spec.name == name)
            .ok_or_else(|| unknown_backend(vip, name))?;
        let traffic = self.slot_traffic(slot).since(backend.counted_before);
        if let Some(vip) = self.vips.get_mut(usize::from(index)) {
            vip.retired = vip.retired.plus(traffic);
        }
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.tenant = None;
            slot.incarnation = slot.incarnation.wrapping_add(1);
        }
        self.rebuild(index);
        self.publish();
        Ok(())
    }

    /// Says at which MAC address an IP address is to be found, or that it isn't any more.
    pub fn set_neighbour(&mut self, address: IpAddr, mac: Option<MacAddress>) {
        let known = self
            .neighbours
            .iter()
            .position(|(neighbour, _)| *neighbour == address);
        match (known, mac) {
            (Some(index), _) if mac == self.neighbours.get(index).map(|(_, mac)| *mac) => return,
            (None, None) => return,
            (Some(index), _) => {
                self.neighbours.swap_remove(index);
            }
            (None, Some(_)) => {}
        }
        self.neighbours.extend(mac.map(|mac| (address, mac)));
        self.publish();
    }

    /// Sets the MAC address that forwarded frames come from.
    pub fn set_source_mac(&mut self, mac: MacAddress) {
        self.source_mac = mac;
        self.publish();
    }

    /// The addresses of all backends, each once: their MAC addresses are to be found and kept fresh.
    #[must_use]
    pub fn backend_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = self.tenants().map(|(_, backend)| backend.spec.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Of [`backend_addresses`](Self::backend_addresses) those without a MAC address.
    #[must_use]
    pub fn unresolved(&self) -> Vec<IpAddr> {
        let mut addresses = self.backend_addresses();
        addresses.retain(|address| self.mac(*address).is_none());
        addresses
    }

    /// All VIPs and backends with what was sent to them.
    #[must_use]
    pub fn report(&self) -> Vec<VipReport> {
        (0..)
            .zip(&self.vips)
            .map(|(index, vip)| self.report_vip(index, vip))
            .collect()
    }

    /// One VIP; `None` past the last. Packets may wait for it, so it doesn't look at the lookup table as [`report`](Self::report) does.
    #[must_use]
    pub fn summary(&self, index: VipIndex) -> Option<VipSummary<'_>> {
        let vip = self.vips.get(usize::from(index))?;
        let of_vip = VipSummary {
            spec: &vip.spec,
            traffic: vip.retired,
            backends: 0,
        };
        Some(self.tenants().filter(|(_, backend)| backend.vip == index).fold(
            of_vip,
            |sum, (slot, backend)| {
                VipSummary {
                    traffic: sum
                        .traffic
                        .plus(self.slot_traffic(slot).since(backend.counted_before)),
                    backends: sum.backends + 1,
                    ..sum
                }
            },
        ))
    }

    /// Drops and connection-table figures, summed over CPUs.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.cpus
            .iter()
            .fold(Totals::default(), |sum, cpu| sum.plus(cpu.totals()))
    }

    fn report_vip(&self, index: VipIndex, vip: &VipEntry) -> VipReport {
        let entries = vip.table.entries();
        let tenants = self.tenants().filter(|(_, backend)| backend.vip == index);
        let backends: Vec<_> = tenants
            .map(|(slot, backend)| BackendReport {
                spec: backend.spec.clone(),
                state: backend.state,
                mac: self.mac(backend.spec.address),
                table_entries: entries.iter().filter(|&&entry| entry == slot).count(),
                traffic: self.slot_traffic(slot).since(backend.counted_before),
            })
            .collect();
        VipReport {
            spec: vip.spec.clone(),
            table_size: entries.len(),
            traffic: backends
                .iter()
                .fold(vip.retired, |sum, backend| sum.plus(backend.traffic)),
            backends,
        }
    }

    /// What all tenants of a slot were sent.
    fn slot_traffic(&self, slot: BackendSlot) -> Traffic {
        self.cpus
            .iter()
            .fold(Traffic::default(), |sum, cpu| sum.plus(cpu.backend_traffic(slot)))
    }

    fn tenants(&self) -> impl Iterator<Item = (BackendSlot, &Backend)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| Some((index, slot.tenant.as_ref()?)))
    }

    fn mac(&self, address: IpAddr) -> Option<MacAddress> {
        self.neighbours
            .iter()
            .find(|(neighbour, _)| *neighbour == address)
            .map(|(_, mac)| *mac)
    }

    fn vip_index(&self, name: &str) -> Result<VipIndex, ControlError> {
        let named = (0..).zip(&self.vips).find(|(_, vip)| vip.spec.name == name);
        named
            .map(|(index, _)| index)
            .ok_or_else(|| ControlError::UnknownVip(name.to_string()))
    }

    fn backend_mut(&mut self, index: VipIndex, vip: &str, name: &str) -> Result<&mut Backend, ControlError> {
        let slot = self.slots.iter_mut().find(|slot| slot.is(index, name));
        slot.and_then(|slot| slot.tenant.as_mut())
            .ok_or_else(|| unknown_backend(vip, name))
    }

    fn insert_vip(&mut self, spec: VipSpec) -> Result<VipIndex, ControlError> {
        let same = |vip: &VipEntry| {
            let other = &vip.spec;
            other.name == spec.name
                || (other.address, other.port, other.protocol) == (spec.address, spec.port, spec.protocol)
        };
        if self.vips.iter().any(same) {
            return Err(ControlError::DuplicateVip(spec.name));
        }
        let index = VipIndex::try_from(self.vips.len()).map_err(|_| ControlError::TooManyVips)?;
        if self.vips.len() >= MAXIMUM_VIPS {
            return Err(ControlError::TooManyVips);
        }
        let table = LookupTable::build(self.table_size, &self.name_hasher, &[]);
        self.vips.push(VipEntry {
            spec,
            table,
            retired: Traffic::default(),
        });
        Ok(index)
    }

    fn insert_backend(&mut self, vip: VipIndex, spec: BackendSpec) -> Result<(), ControlError> {
        if self.slots.iter().any(|slot| slot.is(vip, &spec.name)) {
            let vip = self
                .vips
                .get(usize::from(vip))
                .map(|vip| vip.spec.name.clone())
                .unwrap_or_default();
            return Err(ControlError::DuplicateBackend {
                vip,
                backend: spec.name,
            });
        }
        let vacant = self.slots.iter().position(|slot| slot.tenant.is_none());
        let index = vacant.unwrap_or(self.slots.len());
        if index >= MAXIMUM_BACKENDS {
            return Err(ControlError::TooManyBackends);
        }
        let counted_before = BackendSlot::try_from(index)
            .map(|slot| self.slot_traffic(slot))
            .unwrap_or_default();
        if index == self.slots.len() {
            self.slots.push(Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.tenant = Some(Backend {
                spec,
                vip,
                state: BackendState::Active,
                counted_before,
            });
        }
        Ok(())
    }

    /// Builds the lookup tables of all VIPs. Those whose backends have the same names and weights, as the services of one set of hosts have,
    /// differ in the slots only, which saves most of the time that a start takes.
    fn rebuild_all(&mut self) {
        for vip in (0..).take(self.vips.len()) {
            let table = (0..vip).find_map(|earlier| self.table_as_of(earlier, vip));
            match (table, self.vips.get_mut(usize::from(vip))) {
                (Some(table), Some(vip)) => vip.table = table,
                _ => self.rebuild(vip),
            }
        }
    }

    /// The table of `vip`, if the candidates are those of `earlier`, which has its table.
    fn table_as_of(&self, earlier: VipIndex, vip: VipIndex) -> Option<LookupTable> {
        let (theirs, mine) = (self.candidates(earlier), self.candidates(vip));
        let same = |(a, b): (&Candidate<'_>, &Candidate<'_>)| a.name == b.name && a.weight == b.weight;
        if theirs.len() != mine.len() || !theirs.iter().zip(&mine).all(same) {
            return None;
        }
        let mut slots = alloc::vec![NO_BACKEND; self.slots.len()];
        for (theirs, mine) in theirs.iter().zip(&mine) {
            *slots.get_mut(usize::from(theirs.slot))? = mine.slot;
        }
        Some(self.vips.get(usize::from(earlier))?.table.with_slots(&slots))
    }

    /// A VIP's active backends, by name, so that balancers which got them in another order build the same table.
    fn candidates(&self, vip: VipIndex) -> Vec<Candidate<'_>> {
        let mut candidates: Vec<_> = self
            .tenants()
            .filter(|(_, backend)| backend.vip == vip && backend.state == BackendState::Active)
            .map(|(slot, backend)| Candidate {
                slot,
                name: &backend.spec.name,
                weight: backend.spec.weight,
            })
            .collect();
        candidates.sort_unstable_by_key(|candidate| candidate.name);
        candidates
    }

    /// Builds a VIP's lookup table from its active backends.
    fn rebuild(&mut self, vip: VipIndex) {
        let table = LookupTable::build(self.table_size, &self.name_hasher, &self.candidates(vip));
        if let Some(vip) = self.vips.get_mut(usize::from(vip)) {
            vip.table = table;
        }
    }

    /// Lets all CPUs have what has changed, and the next incarnation too.
    fn publish(&mut self) {
        let vips = self.vips.iter().map(|vip| Vip {
            address: vip.spec.address,
            port: vip.spec.port,
            protocol: vip.spec.protocol,
            table: vip.table.clone(),
        });
        let targets = self.slots.iter().map(|slot| match &slot.tenant {
            None => Target::vacant(slot.incarnation),
            Some(backend) => {
                let mac = self.mac(backend.spec.address);
                let reachability = if mac.is_some() {
                    Reachability::Known
                } else {
                    Reachability::Unknown
                };
                let draining = backend.state == BackendState::Draining;
                Target {
                    identity: Identity::new(slot.incarnation, backend.vip, reachability, draining),
                    header: Target::header(mac.unwrap_or_default(), self.source_mac),
                }
            }
        });
        let snapshot = Snapshot::new(self.flow_hasher, vips.collect(), targets.collect());
        self.published.publish(snapshot);
        self.save();
    }
}

impl Slot {
    /// Whether this slot's tenant is the VIP's backend with this name.
    fn is(&self, vip: VipIndex, name: &str) -> bool {
        self.tenant
            .as_ref()
            .is_some_and(|backend| backend.vip == vip && backend.spec.name == name)
    }
}

fn unknown_backend(vip: &str, backend: &str) -> ControlError {
    ControlError::UnknownBackend {
        vip: vip.to_string(),
        backend: backend.to_string(),
    }
}
