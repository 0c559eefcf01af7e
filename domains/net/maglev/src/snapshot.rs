//! The immutable state that every CPU forwards by, and how a new one reaches them.
//!
//! `control.rs` builds a snapshot for each change and publishes it; CPUs look at a version number once a batch and take
//! the new snapshot when it has changed. So forwarding shares nothing that is written, and a change is seen whole or not.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::connection_table::BackendRef;
use crate::hash::FlowHasher;
use crate::packet::{Addresses, FlowKey, MacAddress, Protocol};
use crate::plain_packet::{PlainIpv4, PlainPattern, destination_key};
use crate::table::{BackendSlot, LookupTable};

/// Index of a VIP in a snapshot.
pub type VipIndex = u16;

/// A VIP that doesn't exist.
const NO_VIP: VipIndex = VipIndex::MAX;

/// What a backend's slot holds, as far as forwarding is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Target {
    /// Which tenant of the slot it is, of which VIP, and how it stands.
    pub identity: Identity,
    /// The first bytes of frames to it, its MAC address and ours; meaningless unless it is reachable.
    pub header: [u8; 12],
}

/// A backend's incarnation, the VIP that it serves and how it stands, in one word: forwarding compares all of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64);

/// Whether a slot has a backend that frames can be sent to. What nearly all are is 0, which takes no instruction to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reachability {
    /// The backend's MAC address is known.
    Known = 0,
    /// It is not.
    Unknown = 1,
    /// No backend has this slot.
    Vacant = 2,
}

impl Identity {
    const REACHABILITY_SHIFT: u32 = 32;
    const DRAINING: u64 = 1 << 40;
    const OF_BACKEND: u64 = 0xffff_ffff;

    /// Which tenant of its slot serves which VIP; whether it is reachable; whether it keeps its connections and gets no new ones.
    #[must_use]
    pub const fn new(incarnation: u16, vip: VipIndex, reachability: Reachability, draining: bool) -> Self {
        let standing = (reachability as u64) << Self::REACHABILITY_SHIFT;
        let draining = if draining { Self::DRAINING } else { 0 };
        Self(incarnation as u64 | (vip as u64) << 16 | standing | draining)
    }

    /// A reachable backend that gets new connections.
    #[inline(always)]
    #[must_use]
    pub const fn usual(vip: VipIndex, incarnation: u16) -> Self {
        Self::new(incarnation, vip, Reachability::Known, false)
    }

    /// The VIP.
    #[inline(always)]
    #[must_use]
    pub fn vip(self) -> VipIndex {
        (self.0 >> 16) as VipIndex
    }

    /// Which tenant.
    #[inline(always)]
    #[must_use]
    pub fn incarnation(self) -> u16 {
        self.0 as u16
    }

    /// Whether frames can be sent to it.
    #[inline(always)]
    #[must_use]
    pub fn is_reachable(self) -> bool {
        (self.0 >> Self::REACHABILITY_SHIFT) as u8 == Reachability::Known as u8
    }

    /// Whether it keeps its connections and gets no new ones.
    #[inline(always)]
    #[must_use]
    pub fn is_draining(self) -> bool {
        self.0 & Self::DRAINING != 0
    }

    /// Whether it is this incarnation, of this VIP, however it stands.
    #[inline(always)]
    fn is(self, incarnation: u16, vip: VipIndex) -> bool {
        self.0 & Self::OF_BACKEND == u64::from(incarnation) | u64::from(vip) << 16
    }
}

impl Target {
    /// The header of frames from us to a backend.
    #[must_use]
    pub fn header(backend: MacAddress, source: MacAddress) -> [u8; 12] {
        let [b0, b1, b2, b3, b4, b5] = backend;
        let [s0, s1, s2, s3, s4, s5] = source;
        [b0, b1, b2, b3, b4, b5, s0, s1, s2, s3, s4, s5]
    }

    /// What is remembered of a flow that goes to this target, whose slot it is.
    #[inline(always)]
    #[must_use]
    pub fn backend(&self, slot: BackendSlot) -> BackendRef {
        BackendRef {
            slot,
            incarnation: self.identity.incarnation(),
        }
    }

    /// A slot without a backend.
    #[must_use]
    pub fn vacant(incarnation: u16) -> Self {
        Self {
            identity: Identity::new(incarnation, NO_VIP, Reachability::Vacant, false),
            header: [0; 12],
        }
    }
}

/// A VIP as forwarding sees it.
#[derive(Clone, Debug)]
pub struct Vip {
    /// Address of the VIP.
    pub address: IpAddr,
    /// Port of the VIP.
    pub port: u16,
    /// Protocol of the VIP.
    pub protocol: Protocol,
    /// Which backend a flow without history gets.
    pub table: LookupTable,
}

/// The VIP that was found last, by what packets for it have in common; at first none.
#[derive(Clone, Copy, Debug)]
pub struct RecentVip {
    /// What its packets are known by.
    pub pattern: PlainPattern,
    /// Its index.
    pub vip: VipIndex,
}

impl RecentVip {
    /// No VIP.
    pub const NONE: Self = Self {
        pattern: PlainPattern::NOTHING,
        vip: NO_VIP,
    };
}

/// Everything that forwarding needs to know, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The hash function on packets.
    pub hasher: FlowHasher,
    vips: Vec<Vip>,
    targets: Vec<Target>,
    ipv4: VipMap<u64>,
    ipv6: VipMap<(u128, u32)>,
}

impl Snapshot {
    /// Makes a snapshot of VIPs and backends; indices are positions in the lists.
    #[must_use]
    pub fn new(hasher: FlowHasher, vips: Vec<Vip>, targets: Vec<Target>) -> Self {
        let mut ipv4 = VipMap::new(vips.len());
        let mut ipv6 = VipMap::new(vips.len());
        for (index, vip) in (0..NO_VIP).zip(&vips) {
            match vip.address {
                IpAddr::V4(address) => {
                    ipv4.insert(destination_key(address.to_bits(), vip.port, vip.protocol), index)
                }
                IpAddr::V6(address) => {
                    ipv6.insert(ipv6_key(address.to_bits(), vip.port, vip.protocol), index)
                }
            }
        }
        Self {
            hasher,
            vips,
            targets,
            ipv4,
            ipv6,
        }
    }

    /// The VIP that a flow is for.
    #[inline(always)]
    #[must_use]
    pub fn find_vip(&self, flow: &FlowKey) -> Option<VipIndex> {
        match flow.addresses {
            Addresses::V4 { destination, .. } => {
                self.ipv4
                    .get(destination_key(destination, flow.destination_port, flow.protocol))
            }
            Addresses::V6 { destination, .. } => {
                self.ipv6
                    .get(ipv6_key(destination, flow.destination_port, flow.protocol))
            }
        }
    }

    /// The same for plain packets over IPv4.
    #[inline(always)]
    #[must_use]
    pub fn find_vip_ipv4(&self, packet: &PlainIpv4) -> Option<VipIndex> {
        self.ipv4.get(packet.destination_key())
    }

    /// A VIP with this address and protocol, of several the first: all that can be found for a fragment without ports.
    #[must_use]
    pub fn find_vip_without_port(&self, addresses: &Addresses, protocol: Protocol) -> Option<VipIndex> {
        let address = addresses.destination();
        let fits = |vip: &Vip| vip.address == address && vip.protocol == protocol;
        self.vips
            .iter()
            .position(fits)
            .and_then(|index| VipIndex::try_from(index).ok())
    }

    /// A VIP by its index.
    #[inline(always)]
    #[must_use]
    pub fn vip(&self, vip: VipIndex) -> Option<&Vip> {
        self.vips.get(usize::from(vip))
    }

    /// What all slots hold.
    #[inline(always)]
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// What a slot holds.
    #[inline(always)]
    #[must_use]
    pub fn target(&self, slot: BackendSlot) -> Option<&Target> {
        self.targets.get(usize::from(slot))
    }

    /// What a remembered backend is now, if it still exists and serves `vip`.
    ///
    /// The latter could only be otherwise when two flows' hashes collide.
    #[inline(always)]
    #[must_use]
    pub fn remembered(&self, backend: BackendRef, vip: VipIndex) -> Option<&Target> {
        let target = self.target(backend.slot)?;
        // A vacant slot has an incarnation that nothing remembered has.
        target.identity.is(backend.incarnation, vip).then_some(target)
    }
}

#[inline(always)]
fn ipv6_key(address: u128, port: u16, protocol: Protocol) -> (u128, u32) {
    (address, u32::from(port) << 8 | u32::from(protocol.number()))
}

/// A key of [`VipMap`].
trait VipKey: Copy + Default + PartialEq {
    /// A word that depends on all of the key.
    fn word(self) -> u64;
}

impl VipKey for u64 {
    #[inline(always)]
    fn word(self) -> u64 {
        self
    }
}

impl VipKey for (u128, u32) {
    #[inline(always)]
    fn word(self) -> u64 {
        ((self.0 >> 64) as u64).rotate_left(24) ^ self.0 as u64 ^ u64::from(self.1) << 32
    }
}

/// Maps address, port and protocol to a VIP: open addressing, at most a quarter full, never changed once made.
#[derive(Clone, Debug)]
struct VipMap<K> {
    places: Vec<(K, VipIndex)>,
    shift: u32,
}

impl<K: VipKey> VipMap<K> {
    fn new(vips: usize) -> Self {
        let size = (vips * 4).next_power_of_two().max(4);
        Self {
            places: vec![(K::default(), NO_VIP); size],
            shift: 64 - size.trailing_zeros(),
        }
    }

    /// The first place to look for a key.
    #[inline(always)]
    fn home(&self, key: K) -> usize {
        // Fibonacci hashing: the product's top bits depend on all bits of the key.
        (key.word().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Adds a key that isn't there.
    fn insert(&mut self, key: K, vip: VipIndex) {
        let home = self.home(key);
        let (before, after) = self.places.split_at_mut(home);
        if let Some(place) = after.iter_mut().chain(before).find(|place| place.1 == NO_VIP) {
            *place = (key, vip);
        }
    }

    #[inline(always)]
    fn get(&self, key: K) -> Option<VipIndex> {
        let mut index = self.home(key);
        loop {
            let &(candidate, vip) = self.places.get(index)?;
            if vip == NO_VIP {
                return None;
            }
            if candidate == key {
                return Some(vip);
            }
            index = (index + 1) & (self.places.len() - 1);
        }
    }
}

/// Where the current snapshot is handed over.
#[derive(Debug)]
pub struct Published {
    version: AtomicU64,
    current: spin::Mutex<Arc<Snapshot>>,
}

impl Published {
    /// Begins with a first snapshot, as version 1.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            version: AtomicU64::new(1),
            current: spin::Mutex::new(Arc::new(snapshot)),
        }
    }

    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        let new = Arc::new(snapshot);
        let old = {
            let mut current = self.current.lock();
            self.version.fetch_add(1, Ordering::Release);
            core::mem::replace(&mut *current, new)
        };
        // Freeing the old one can take a while, so not under the lock.
        drop(old);
    }

    /// The number of the current snapshot: the one thing that forwarding looks at for each batch.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The current snapshot and its number.
    #[must_use]
    pub fn current(&self) -> (u64, Arc<Snapshot>) {
        let current = self.current.lock();
        (self.version.load(Ordering::Acquire), Arc::clone(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that share a home are told apart, and a key that isn't there isn't found, however full the map is.
    #[test]
    fn vip_map_finds_all_and_nothing_else() {
        let mut map = VipMap::new(100);
        let key = |index: u32| destination_key(0x0a00_0000 + index, 80, Protocol::Tcp);
        for index in 0..100 {
            map.insert(key(u32::from(index)), index);
        }
        for index in 0..100 {
            assert_eq!(map.get(key(u32::from(index))), Some(index));
        }
        for index in 100..10_000 {
            assert_eq!(map.get(key(index)), None);
        }
    }

    #[test]
    fn an_empty_map_finds_nothing() {
        assert_eq!(VipMap::<u64>::new(0).get(0), None);
    }
}
