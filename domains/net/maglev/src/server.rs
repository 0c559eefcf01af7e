//! The domain around the logic: packet batches in and out, management, and the backends' Ethernet addresses.
//!
//! One shard per receive queue, each with its own lock that nobody else takes while packets flow. A thread asks the stack
//! for the backends' addresses once a second, and at once for those that are unknown.

use crate::balancer::{BATCH, Balancer as Shard};
use crate::config::Config;
use crate::connection_table;
use crate::control::{BackendSpec, BackendState as State, Control, ControlError};
use crate::frame::{self, FrameMut, Frames, Verdict as Decision, address};
use crate::hash::HashSeed;
use crate::kept::{Kept, Left};
use crate::packet::{MacAddress as Mac, Protocol as Transport};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, StartError, clock, thread};
use heapless::Vec as FixedVec;
use interface::balance::{
    BackendState, BackendStatus, BalanceError, Balancer, Name, Protocol, ServiceStatus,
};
use interface::net::MacAddress;
use interface::path::{Neighbours, PacketProcessor, PathError, Processed};
use rref::packet::Verdict;
use rref::{OutOfMemory, Packet, PacketBatch};

/// How often the backends' Ethernet addresses are asked for.
const REFRESH_MS: u64 = 1000;
/// How often while one is unknown.
const RETRY_MS: u64 = 50;
/// From when on this incarnation counts as one that lives.
const YOUNG_MS: u64 = 100;
/// CPUs whose tables an earlier incarnation may have left.
const CPU_LIMIT: u16 = 64;
const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;
/// How long the stack may take to come (back) up before the next try.
const CONNECT_MS: u64 = 1000;

/// The packets at the front of a batch that are received frames of their own.
struct Singles<'a>(&'a mut PacketBatch);

impl Frames for Singles<'_> {
    type Frame<'a>
        = Single<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn from(&mut self, first: usize) -> impl Iterator<Item = Single<'_>> {
        self.0.iter_mut_from(first).map(Single)
    }
}

struct Single<'a>(&'a mut Packet);

impl frame::Frame for Single<'_> {
    #[inline(always)]
    fn bytes(&mut self) -> Option<&mut [u8]> {
        self.0.is_received_whole().then(|| self.0.frame_mut())
    }

    #[inline(always)]
    fn address(&mut self, addresses: &[u8; 12]) -> usize {
        address(self.0.frame_mut(), addresses)
    }

    #[inline(always)]
    fn decide(&mut self, decision: Decision) {
        self.0.verdict = verdict_of(decision);
    }
}

#[inline(always)]
fn verdict_of(decision: Decision) -> Verdict {
    match decision {
        Decision::Transmit(_) => Verdict::Transmit,
        Decision::NotMine | Decision::Drop(_) => Verdict::Empty,
    }
}

struct Frame<'a>(&'a mut Packet);

impl FrameMut for Frame<'_> {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.0.frame_mut()
    }
}

struct Service {
    shards: Vec<Mutex<Shard>>,
    control: Mutex<Control>,
    revision: AtomicU64,
}

/// Forwards the frames of a batch in place: sets each packet's verdict, and the addresses of those to be sent.
#[inline(always)]
fn forward(shard: &mut Shard, now_ns: u64, packets: &mut PacketBatch) {
    // Whoever sorted the packets has brought their headers into the cache.
    let singles = shard.forward_frames(now_ns, &mut Singles(packets));
    if singles < packets.len() {
        forward_mixed(shard, now_ns, packets, singles);
    }
}

/// The same for a batch with long frames, which take several packets, or with packets that aren't received frames, from the `first`
/// packet on, with which a frame begins.
#[cold]
fn forward_mixed(shard: &mut Shard, now_ns: u64, packets: &mut PacketBatch, first: usize) {
    let mut frames: FixedVec<Frame<'_>, BATCH> = FixedVec::new();
    // A long frame goes on in the packets after its first, which share its fate.
    let mut continues = false;
    for packet in packets.iter_mut_from(first) {
        let begins = !continues;
        continues = packet.continues;
        if begins && packet.verdict == Verdict::Received {
            // A batch holds no more packets than this has room for.
            frames.push(Frame(packet)).ok();
        }
    }
    let mut decisions = [Decision::NotMine; BATCH];
    shard.forward(now_ns, &mut frames, &mut decisions);
    drop(frames);
    let mut decisions = decisions.into_iter();
    let (mut continues, mut fate) = (false, Verdict::Empty);
    for packet in packets.iter_mut_from(first) {
        let begins = !continues;
        continues = packet.continues;
        if packet.verdict != Verdict::Received {
            continue;
        }
        if begins {
            fate = decisions.next().map_or(Verdict::Empty, verdict_of);
        }
        packet.verdict = fate;
    }
}

struct Path(Arc<Service>);

impl PacketProcessor for Path {
    fn process(&self, shard: u16, mut packets: PacketBatch) -> Result<Processed, PathError> {
        let service = self
            .0
            .shards
            .get(usize::from(shard))
            .ok_or(PathError::NoShard { shard })?;
        forward(&mut service.lock(), clock::now_ns(), &mut packets);
        Ok(Processed {
            packets,
            more: false,
            wake_ns: clock::NEVER,
        })
    }

    /// The balancer sends nothing on its own.
    fn attach(&self, _shard: u16, _runner: u64) -> Result<(), PathError> {
        Ok(())
    }
}

struct Management(Arc<Service>);

impl From<ControlError> for BalanceError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownVip(_) => BalanceError::NoService,
            ControlError::UnknownBackend { .. } => BalanceError::NoBackend,
            ControlError::DuplicateVip(_) | ControlError::DuplicateBackend { .. } => BalanceError::Exists,
            ControlError::TooManyVips | ControlError::TooManyBackends => BalanceError::TooMany,
        }
    }
}

impl Management {
    fn set_state(&self, service: Name, backend: Name, state: State) -> Result<(), BalanceError> {
        Ok(self
            .0
            .control
            .lock()
            .set_state(service.as_str(), backend.as_str(), state)?)
    }
}

impl Balancer for Management {
    fn service(&self, index: u16) -> Result<Option<ServiceStatus>, BalanceError> {
        let control = self.0.control.lock();
        let totals = control.totals();
        Ok(control.summary(index).map(|vip| ServiceStatus {
            name: Name::new(&vip.spec.name),
            address: vip.spec.address,
            port: vip.spec.port,
            protocol: match vip.spec.protocol {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            },
            backends: vip.backends as u16,
            packets: vip.traffic.packets,
            bytes: vip.traffic.bytes,
            connections: vip.traffic.connections,
            dropped: totals.malformed + totals.no_backend + totals.neighbour_unknown,
            tracked: totals.connection_entries,
        }))
    }

    fn backend(&self, service: Name, index: u16) -> Result<Option<BackendStatus>, BalanceError> {
        let control = self.0.control.lock();
        let vip = control
            .report()
            .into_iter()
            .find(|vip| vip.spec.name == service.as_str())
            .ok_or(BalanceError::NoService)?;
        Ok(vip
            .backends
            .into_iter()
            .nth(usize::from(index))
            .map(|backend| BackendStatus {
                name: Name::new(&backend.spec.name),
                address: backend.spec.address,
                mac: backend.mac.map(MacAddress),
                weight: backend.spec.weight,
                state: match backend.state {
                    State::Active => BackendState::Active,
                    State::Draining => BackendState::Draining,
                },
                slots: backend.table_entries as u32,
                packets: backend.traffic.packets,
                bytes: backend.traffic.bytes,
                connections: backend.traffic.connections,
            }))
    }

    fn add(&self, service: Name, backend: Name, address: IpAddr, weight: u16) -> Result<(), BalanceError> {
        if !(1..=1000).contains(&weight) {
            return Err(BalanceError::BadWeight);
        }
        let mut control = self.0.control.lock();
        let report = control.report();
        let vip = report
            .iter()
            .find(|vip| vip.spec.name == service.as_str())
            .ok_or(BalanceError::NoService)?;
        if vip.spec.address.is_ipv4() != address.is_ipv4() {
            return Err(BalanceError::WrongFamily);
        }
        // Shares differ by at most 1 % as long as the table has 100 entries for each backend (NSDI 2016, section 3.4).
        if (vip.backends.len() + 1) * 100 > vip.table_size {
            return Err(BalanceError::TooMany);
        }
        let spec = BackendSpec {
            name: backend.as_str().into(),
            address,
            weight,
        };
        Ok(control.add(service.as_str(), spec)?)
    }

    fn drain(&self, service: Name, backend: Name) -> Result<(), BalanceError> {
        self.set_state(service, backend, State::Draining)
    }

    fn activate(&self, service: Name, backend: Name) -> Result<(), BalanceError> {
        self.set_state(service, backend, State::Active)
    }

    fn remove(&self, service: Name, backend: Name) -> Result<(), BalanceError> {
        Ok(self.0.control.lock().remove(service.as_str(), backend.as_str())?)
    }

    fn revision(&self) -> Result<u64, BalanceError> {
        Ok(self.0.revision.load(Ordering::Relaxed))
    }
}

/// Keeps the backends' Ethernet addresses known, for as long as the domain lives.
fn keep_neighbours(service: &Service) {
    let mut stack: Option<Handle<dyn Neighbours>> = None;
    let mut dead = OwnerId::NONE;
    let young_until_ns = clock::now_ns().saturating_add(YOUNG_MS * NS_PER_MS);
    loop {
        let now_ns = clock::now_ns();
        let young = now_ns < young_until_ns;
        if !young {
            service.control.lock().beat(now_ns / NS_PER_SECOND);
        }
        let Some(neighbours) = &stack else {
            stack = domain_rt::reconnect("neighbours", dead, CONNECT_MS).ok();
            if let Some(neighbours) = &stack
                && let Ok(MacAddress(mac)) = neighbours.own_mac()
            {
                service.control.lock().set_source_mac(mac);
            }
            continue;
        };
        let addresses = service.control.lock().backend_addresses();
        let mut unknown = false;
        let mut failed = false;
        for address in addresses {
            match neighbours.resolve(address) {
                Ok(mac) => {
                    unknown |= mac.is_none();
                    // An address that stopped answering keeps its last known place: the stack says when it is wrong.
                    if mac.is_some() {
                        service
                            .control
                            .lock()
                            .set_neighbour(address, mac.map(|MacAddress(mac)| -> Mac { mac }));
                    }
                }
                Err(PathError::Dead(error)) => {
                    dead = error.target();
                    failed = true;
                    break;
                }
                Err(_) => unknown = true,
            }
        }
        if failed {
            stack = None;
            continue;
        }
        thread::sleep_ms(if unknown || young { RETRY_MS } else { REFRESH_MS });
    }
}

/// A balancer that goes on where the one before ended, as far as what that left can be used; and where to keep what the next one needs.
fn go_on(config: &Config) -> Result<(Control, Kept), StartError> {
    let now_seconds = clock::now_ns() / NS_PER_SECOND;
    let (kept, left) =
        Kept::open(now_seconds).map_err(|OutOfMemory| StartError::new(format_args!("no shared memory")))?;
    if left.young_deaths != 0 {
        log::warn!(
            "{} incarnations died young: starting without what they left",
            left.young_deaths
        );
    }
    if let Some(control) = restored(config, &left, now_seconds) {
        return Ok((control, kept));
    }
    let mut seed = [0; 16];
    for part in seed.chunks_exact_mut(8) {
        part.copy_from_slice(&clock::entropy().to_le_bytes());
    }
    let control = Control::new(config, HashSeed(seed), [0; 6])
        .map_err(|error| StartError::new(format_args!("config/appliance.toml: [maglev]: {error}")))?;
    Ok((control, kept))
}

fn restored(config: &Config, left: &Left, now_seconds: u64) -> Option<Control> {
    let mut control = match Control::restore(config, left.roster.as_ref()?) {
        Ok(control) => control,
        Err(error) => {
            log::warn!("starting without what the last incarnation left: {error}");
            return None;
        }
    };
    if left.tables {
        control.inherit_tables(now_seconds);
    } else {
        log::warn!("connections are forgotten: the last incarnation ended too long ago");
    }
    Some(control)
}

/// The domain's entry.
pub fn start() -> Result<(), StartError> {
    let config = settings::at_start(Config::from_toml)?;
    let (mut control, kept) = go_on(&config)?;
    let mut shards = Vec::new();
    for _ in 0..thread::cpu_count() {
        let shard = control.balancer().map_err(|OutOfMemory| {
            StartError::new(format_args!(
                "no shared memory for connection tables of {} entries: raise `shared` in config/domains.toml",
                config.connection_table_size.get()
            ))
        })?;
        shards.push(Mutex::new(shard));
    }
    connection_table::discard(CPU_LIMIT);
    control.keep_in(kept);
    let remembered = control.totals().connection_entries;
    if remembered != 0 {
        log::info!("{remembered} connections go on");
    }
    let service = Arc::new(Service {
        shards,
        control: Mutex::new(control),
        revision: AtomicU64::new(1),
    });
    domain_rt::export::<dyn PacketProcessor>(Box::new(Path(service.clone())))?;
    domain_rt::export::<dyn Balancer>(Box::new(Management(service.clone())))?;
    thread::spawn("maglev/neighbours", None, move || keep_neighbours(&service))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::testing::segment;

    const CONFIG: &str = r#"
        [[maglev.vip]]
        name = "web"
        address = "10.0.0.100"
        port = 80
        protocol = "tcp"
        backends = [{ name = "one", address = "10.0.0.1" }]
    "#;

    fn shard() -> Shard {
        host_platform::attach();
        let config = Config::from_toml(CONFIG).expect("a good configuration");
        let mut control = Control::new(&config, HashSeed([7; 16]), [2; 6]).expect("it can exist");
        control.set_neighbour("10.0.0.1".parse().expect("an address"), Some([9; 6]));
        control.balancer().expect("unlimited")
    }

    fn syn(destination: [u8; 4]) -> Vec<u8> {
        segment([10, 0, 0, 2], 0, destination, 2)
    }

    fn packet(batch: &mut PacketBatch, bytes: &[u8], continues: bool) {
        let mut packet = Packet::allocate().expect("unlimited");
        packet.resize(bytes.len()).copy_from_slice(bytes);
        packet.verdict = Verdict::Received;
        packet.continues = continues;
        assert!(batch.push(packet).is_ok());
    }

    #[test]
    fn frames_for_the_service_go_to_its_backend_and_others_are_dropped() {
        host_platform::attach();
        let mut batch = PacketBatch::new().expect("unlimited");
        packet(&mut batch, &syn([10, 0, 0, 100]), false);
        packet(&mut batch, &syn([10, 0, 0, 101]), false);
        assert!(batch.push(Packet::allocate().expect("unlimited")).is_ok());
        forward(&mut shard(), 0, &mut batch);
        let verdicts: Vec<Verdict> = batch.iter().map(|packet| packet.verdict).collect();
        assert_eq!(verdicts, [Verdict::Transmit, Verdict::Empty, Verdict::Empty]);
        assert_eq!(
            batch.get(0).map(|packet| packet.frame()[..12].to_vec()),
            Some([[9; 6], [2; 6]].concat())
        );
    }

    #[test]
    fn the_packets_of_a_long_frame_share_its_fate() {
        host_platform::attach();
        let mut batch = PacketBatch::new().expect("unlimited");
        packet(&mut batch, &syn([10, 0, 0, 100]), true);
        packet(&mut batch, &[1; 500], false);
        packet(&mut batch, &syn([10, 0, 0, 101]), true);
        packet(&mut batch, &[1; 500], false);
        forward(&mut shard(), 0, &mut batch);
        let verdicts: Vec<Verdict> = batch.iter().map(|packet| packet.verdict).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Transmit,
                Verdict::Transmit,
                Verdict::Empty,
                Verdict::Empty
            ]
        );
        assert_eq!(
            batch.get(1).map(|packet| packet.frame()[0]),
            Some(1),
            "payload is not touched"
        );
    }
}
