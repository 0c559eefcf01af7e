//! The stack as a whole: its shards, and the little that they share.
//!
//! On the packet path shards share nothing but counters that change rarely; what is here is for addresses, neighbours, memory
//! and frames that came to another shard than theirs.

use crate::addresses::Addresses;
use crate::config::Config;
use crate::demultiplex::FlowKey;
use crate::device::Capabilities;
use crate::neighbours::{Mac, Neighbours};
use crate::shard::Shard;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::thread::ThreadId;
use hashbrown::HashMap;
use interface::net::{DeviceInfo, MULTICAST_LIMIT, NetConfiguration};
use siphasher::sip::SipHasher13;

/// Frames that wait for another shard at most; more are lost, as on a wire.
const INBOX_LIMIT: usize = 256;

type Hasher = core::hash::BuildHasherDefault<SipHasher13>;

/// What shards hand each other.
#[derive(Default)]
pub struct Inbox {
    /// Frames that came to another shard.
    pub frames: VecDeque<Vec<u8>>,
    /// The shard's runner.
    pub runner: Option<ThreadId>,
}

/// What the shards share.
pub struct Common {
    /// The operator's file.
    pub config: Config,
    /// The device's Ethernet address.
    pub mac: Mac,
    /// What smoltcp is told of the device.
    pub capabilities: Capabilities,
    /// The appliance's addresses; shards copy them when the version changes.
    pub addresses: Mutex<Addresses>,
    /// Counts changes of `addresses`.
    pub addresses_version: AtomicU64,
    /// The neighbours.
    pub neighbours: Mutex<Neighbours>,
    /// Counts neighbours whose address became known.
    pub neighbours_version: AtomicU64,
    /// There are questions in `neighbours`.
    pub questions: AtomicBool,
    /// Bytes of connections' buffers.
    pub buffer_bytes: AtomicU64,
    /// One for each shard.
    pub inboxes: Vec<Mutex<Inbox>>,
    /// Whether a shard's inbox has frames.
    pub inbox_filled: Vec<AtomicBool>,
    /// Connections that start here, whose packets RSS may bring to any shard.
    outbound: Mutex<HashMap<FlowKey, u16, Hasher>>,
    outbound_count: AtomicUsize,
}

impl core::hash::Hash for FlowKey {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(self.remote);
        state.write_u128(self.local);
        state.write_u32(u32::from(self.remote_port) << 16 | u32::from(self.local_port));
    }
}

impl Common {
    /// What the shards of a device share.
    pub fn new(config: Config, information: &DeviceInfo) -> Common {
        let longest = information.frame_limit_bytes.saturating_sub(14).max(1280);
        let capabilities = Capabilities {
            mtu: config.network.mtu.min(longest),
            transmit_checksum: information.transmit_checksum,
            ethernet: false,
        };
        let shards = usize::from(information.queues.max(1));
        Common {
            addresses: Mutex::new(Addresses::new(&config, information.mac)),
            config,
            mac: information.mac.0,
            capabilities,
            addresses_version: AtomicU64::new(1),
            neighbours: Mutex::new(Neighbours::default()),
            neighbours_version: AtomicU64::new(0),
            questions: AtomicBool::new(false),
            buffer_bytes: AtomicU64::new(0),
            inboxes: (0..shards).map(|_| Mutex::new(Inbox::default())).collect(),
            inbox_filled: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            outbound: Mutex::new(HashMap::default()),
            outbound_count: AtomicUsize::new(0),
        }
    }

    /// Shards that there are.
    pub fn shards(&self) -> u16 {
        self.inboxes.len() as u16
    }

    /// Gives a frame to another shard and wakes its runner.
    pub fn hand_over(&self, shard: u16, frame: &[u8]) {
        let index = usize::from(shard);
        let (Some(inbox), Some(filled)) = (self.inboxes.get(index), self.inbox_filled.get(index)) else {
            return;
        };
        let mut inbox = inbox.lock();
        if inbox.frames.len() >= INBOX_LIMIT {
            return;
        }
        inbox.frames.push_back(frame.into());
        filled.store(true, Ordering::Release);
        let runner = inbox.runner;
        drop(inbox);
        if let Some(runner) = runner {
            domain_rt::thread::unpark(runner);
        }
    }

    /// Takes the frames that other shards gave to this one.
    pub fn take_inbox(&self, shard: u16) -> VecDeque<Vec<u8>> {
        let index = usize::from(shard);
        let filled = self.inbox_filled.get(index);
        if !filled.is_some_and(|filled| filled.load(Ordering::Relaxed)) {
            return VecDeque::new();
        }
        if let Some(filled) = filled {
            filled.store(false, Ordering::Relaxed);
        }
        self.inboxes
            .get(index)
            .map_or_else(VecDeque::new, |inbox| core::mem::take(&mut inbox.lock().frames))
    }

    /// Notes where a connection that starts here lives.
    pub fn add_outbound(&self, key: FlowKey, shard: u16) {
        if self.outbound.lock().insert(key, shard).is_none() {
            self.outbound_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets it.
    pub fn remove_outbound(&self, key: &FlowKey) {
        if self.outbound_count.load(Ordering::Relaxed) > 0 && self.outbound.lock().remove(key).is_some() {
            self.outbound_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The shard of a connection that starts here.
    pub fn find_outbound(&self, key: &FlowKey) -> Option<u16> {
        if self.outbound_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.outbound.lock().get(key).copied()
    }
}

/// The stack.
pub struct Stack {
    /// What the shards share.
    pub common: Arc<Common>,
    /// One for each receive queue; a lock each, since applications call too.
    pub shards: Vec<Mutex<Shard>>,
}

/// A handle to the stack that interfaces are implemented for.
pub struct Shared(pub Arc<Stack>);

impl Stack {
    /// A stack on a device.
    pub fn new(config: Config, information: &DeviceInfo) -> Stack {
        let common = Arc::new(Common::new(config, information));
        let shards = (0..common.shards())
            .map(|number| Mutex::new(Shard::new(number, common.clone())))
            .collect();
        Stack { common, shards }
    }

    /// A copy of the appliance's addresses as they are now.
    pub fn addresses(&self) -> Addresses {
        self.common.addresses.lock().clone()
    }

    /// What the device is to do for the stack: its frame length, and the multicast groups of NDP.
    pub fn device_configuration(&self) -> NetConfiguration {
        let groups = self.addresses().multicast_groups();
        let mut configuration = NetConfiguration {
            frame_bytes: self.common.capabilities.mtu + 14,
            all_multicast: groups.len() > MULTICAST_LIMIT,
            ..NetConfiguration::default()
        };
        for (slot, group) in configuration.multicast.iter_mut().zip(groups) {
            *slot = Some(group);
        }
        if let Some(vlan) = self.common.config.network.vlan {
            configuration.vlan_offload = true;
            configuration.vlans[0] = Some(vlan);
        }
        configuration
    }
}
