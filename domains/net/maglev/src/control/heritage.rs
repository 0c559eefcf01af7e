//! From one incarnation's control to the next one's: what is written down of it, and how it is restored from that.

use alloc::vec::Vec;

use super::{Backend, BackendSpec, BackendState, Control, ControlError, MAXIMUM_BACKENDS, Slot, VipEntry};
use crate::config::Config;
use crate::counters::Traffic;
use crate::hash::HashSeed;
use crate::kept::{Kept, Roster, Tenant, VipIdentity};
use crate::packet::Protocol;

/// Why a roster that was left isn't used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is of other VIPs, another table size or another hash seed.
    #[error("it was left under another configuration")]
    OtherConfiguration,
    /// The file's VIPs can't exist.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

impl Control {
    /// A balancer that goes on where the one that left `roster` ended: backends in the same slots, as the operator has changed them since
    /// the file was read first.
    ///
    /// # Errors
    /// When the file's VIPs aren't those of the roster, or can't exist.
    pub fn restore(config: &Config, roster: &Roster) -> Result<Self, RestoreError> {
        let seed = HashSeed(roster.seed);
        let mut control = Self::empty(config, seed, roster.source_mac);
        for (vip, _) in &config.vips {
            control.insert_vip(vip.clone())?;
        }
        let is_same = control.vip_identities() == roster.vips
            && config.table_size.get() == roster.table_size
            && config.hash_seed.is_none_or(|configured| configured == seed)
            && roster.slots.len() <= MAXIMUM_BACKENDS;
        if !is_same {
            return Err(RestoreError::OtherConfiguration);
        }
        control.slots = roster
            .slots
            .iter()
            .map(|(incarnation, tenant)| Slot {
                incarnation: *incarnation,
                tenant: tenant
                    .as_ref()
                    .filter(|tenant| usize::from(tenant.vip) < control.vips.len())
                    .map(Backend::from),
            })
            .collect();
        control.neighbours = roster.neighbours.clone();
        control.rebuild_all();
        control.publish();
        Ok(control)
    }

    /// Keeps the roster in `kept` from here on, as it is now and after each change.
    pub fn keep_in(&mut self, kept: Kept) {
        self.kept = Some(kept);
        self.save();
    }

    /// Lets the halves made from here on take the tables that were left, which fit the roster that this was restored from.
    pub fn inherit_tables(&mut self, now_seconds: u64) {
        self.inherits_at_seconds = Some(now_seconds);
    }

    /// Notes that all is well: see [`Kept::beat`].
    pub fn beat(&mut self, now_seconds: u64) {
        if let Some(kept) = &mut self.kept {
            kept.beat(now_seconds);
        }
    }

    fn vip_identities(&self) -> Vec<VipIdentity> {
        let identity = |vip: &VipEntry| {
            let spec = &vip.spec;
            (
                spec.name.clone(),
                spec.address,
                spec.port,
                spec.protocol == Protocol::Tcp,
            )
        };
        self.vips.iter().map(identity).collect()
    }

    /// What remembered flows refer to.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let slots = self
            .slots
            .iter()
            .map(|slot| (slot.incarnation, slot.tenant.as_ref().map(Tenant::from)));
        Roster {
            seed: self.seed.0,
            table_size: self.table_size.get(),
            vips: self.vip_identities(),
            slots: slots.collect(),
            neighbours: self.neighbours.clone(),
            source_mac: self.source_mac,
        }
    }

    pub(super) fn save(&mut self) {
        let roster = self.kept.is_some().then(|| self.roster());
        if let (Some(kept), Some(roster)) = (&mut self.kept, roster)
            && !kept.save(&roster)
        {
            log::error!("the list of backends is too long to outlive this incarnation");
        }
    }
}

impl From<&Tenant> for Backend {
    fn from(tenant: &Tenant) -> Self {
        Self {
            spec: BackendSpec {
                name: tenant.name.clone(),
                address: tenant.address,
                weight: tenant.weight,
            },
            vip: tenant.vip,
            state: if tenant.draining {
                BackendState::Draining
            } else {
                BackendState::Active
            },
            counted_before: Traffic::default(),
        }
    }
}

impl From<&Backend> for Tenant {
    fn from(backend: &Backend) -> Self {
        Self {
            vip: backend.vip,
            name: backend.spec.name.clone(),
            address: backend.spec.address,
            weight: backend.spec.weight,
            draining: backend.state == BackendState::Draining,
        }
    }
}

#[cfg(test)]
#[path = "heritage_tests.rs"]
mod tests;
