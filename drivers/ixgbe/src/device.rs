//! The device as others see it: `NetDevice`, with a lock for each queue, and the thread that looks after the link.

use crate::eeprom;
use crate::error::DeviceError;
use crate::filters::{self, FRAME_LIMIT_BYTES, Groups, STANDARD_FRAME_BYTES};
use crate::link::Link;
use crate::queue::QueuePair;
use crate::registers as r;
use crate::startup::{self, Start};
use crate::statistics::{self, Hardware};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use dma::ixgbe::Adapter;
use dma::{Interrupt, Wake};
use domain_rt::clock::now_ns;
use domain_rt::sync::Mutex;
use interface::net::{
    DeviceInfo, Exchanged, LinkState, MacAddress, NetConfiguration, NetDevice, NetError, NetStatistics,
    WaitResult,
};
use rref::PacketBatch;

/// Queue pairs at most: RSS reaches as many.
const QUEUE_LIMIT: u16 = 16;
/// A sleeper looks at memory at least this often, in case an interrupt was lost.
const SLEEP_NS: u64 = 100_000_000;
/// A sleeper whose transmit ring is nearly full looks this often: sent frames raise no interrupt.
const CROWDED_SLEEP_NS: u64 = 1_000_000;
/// The link is looked at this often without an interrupt.
const LINK_INTERVAL_NS: u64 = 1_000_000_000;
/// After a quick start what can wait is done this late: the first packets needn't share the bus with it.
const CATCH_UP_AFTER_NS: u64 = 100_000_000;
/// Bytes of a VLAN tag in a frame, which don't count as its length.
const VLAN_BYTES: u32 = 4;

/// One queue pair and its interrupt.
struct Queue {
    pair: Mutex<QueuePair>,
    interrupt: Interrupt,
    interrupts: AtomicU64,
}

/// See [`Device::configured`].
struct Configured {
    configuration: NetConfiguration,
    /// How far the table of groups is to be relied on: [`Groups::AtLeast`] until it has been written whole.
    groups: Groups,
}

/// An address in the log, where it is known yet.
struct Address(Option<MacAddress>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(mac) => mac.fmt(f),
            None => f.write_str("as before"),
        }
    }
}

/// A running 82599.
pub struct Device {
    adapter: Adapter,
    queues: Box<[Queue]>,
    link_interrupt: Interrupt,
    link: Link,
    /// Read when it is first asked for, or looked after.
    mac: Mutex<Option<MacAddress>>,
    start: Start,
    /// Longest frame that is sent, in bytes.
    transmit_limit_bytes: AtomicU32,
    /// What the filters are set to.
    configured: Mutex<Configured>,
    hardware: Mutex<Hardware>,
    interrupts: AtomicU64,
}

impl Device {
    /// Brings a claimed device up with a queue pair for each of `cpus` CPUs: quickly when an earlier life left it in order, else by a reset.
    pub fn start(adapter: Adapter, cpus: u16) -> Result<Device, DeviceError> {
        let queues = cpus.clamp(1, QUEUE_LIMIT);
        let began_ns = now_ns();
        let (found, pairs) = match Device::start_queues(&adapter, queues, true) {
            Err(error @ DeviceError::Timeout { .. }) => {
                log::warn!("the device can't be taken over as it is ({error}); resetting it");
                Device::start_queues(&adapter, queues, false)?
            }
            other => other?,
        };
        let registers = adapter.registers();
        let attach = |entry: u16, cpu: u16| {
            adapter
                .interrupt(u32::from(entry), cpu)
                .ok_or(DeviceError::NoInterrupt)
        };
        let link_interrupt = attach(queues, 0)?;
        let queues = (0..)
            .zip(pairs)
            .map(|(queue, pair)| {
                Ok(Queue {
                    pair: Mutex::new(pair),
                    interrupt: attach(queue, queue)?,
                    interrupts: AtomicU64::new(0),
                })
            })
            .collect::<Result<Box<[Queue]>, DeviceError>>()?;
        startup::set_up_interrupts(registers, queues.len() as u16);
        let link = Link::default();
        link.note(found.links.unwrap_or_else(|| registers.read(r::LINKS)));
        startup::enable_receive(registers)?;
        startup::mark_complete(registers);
        // A quick start is one of many; its line takes the serial port longer than the start itself.
        let level = match found.start {
            startup::Start::Quick => log::Level::Debug,
            _ => log::Level::Info,
        };
        log::log!(
            level,
            "82599 {}: {:?} start in {} us, {} queue pairs, link {}",
            Address(found.mac),
            found.start,
            now_ns().saturating_sub(began_ns) / 1000,
            queues.len(),
            if link.is_up() { "up" } else { "down" }
        );
        Ok(Device {
            adapter,
            queues,
            link_interrupt,
            link,
            mac: Mutex::new(found.mac),
            start: found.start,
            transmit_limit_bytes: AtomicU32::new(u32::from(STANDARD_FRAME_BYTES) + VLAN_BYTES),
            configured: Mutex::new(Configured {
                configuration: NetConfiguration::default(),
                groups: match found.start {
                    Start::Quick => Groups::AtLeast,
                    Start::Cold => Groups::Exact,
                },
            }),
            hardware: Mutex::new(Hardware::new(now_ns())),
            interrupts: AtomicU64::new(0),
        })
    }

    fn start_queues(
        adapter: &Adapter,
        queues: u16,
        allow_quick: bool,
    ) -> Result<(startup::Found, Vec<QueuePair>), DeviceError> {
        let found = startup::bring_up(adapter, queues, allow_quick)?;
        let mut pairs = Vec::new();
        for queue in 0..queues {
            let mut pair = QueuePair::new(adapter, queue)?;
            pair.start()?;
            pairs.push(pair);
        }
        Ok((found, pairs))
    }

    /// How it came up.
    pub fn start_kind(&self) -> Start {
        self.start
    }

    fn queue(&self, queue: u16) -> Result<&Queue, NetError> {
        self.queues.get(usize::from(queue)).ok_or(NetError::NoQueue {
            queue,
            queues: self.queues.len() as u16,
        })
    }

    /// Looks after the link and the counters until the domain ends: the body of a thread of its own.
    pub fn look_after(&self) {
        // What the counters hold is an earlier life's.
        let mut stale = self.start == Start::Quick;
        loop {
            let interval_ns = if stale {
                CATCH_UP_AFTER_NS
            } else {
                LINK_INTERVAL_NS
            };
            match self.link_interrupt.wait(now_ns().saturating_add(interval_ns)) {
                Wake::Cancelled => return,
                wake => {
                    if core::mem::take(&mut stale) {
                        self.catch_up();
                    }
                    self.service(wake == Wake::Interrupt);
                }
            }
        }
    }

    /// Writes what a quick start left out of the filters. Part of [`catch_up`](Self::catch_up).
    pub fn complete_filters(&self) {
        let mut configured = self.configured.lock();
        if configured.groups == Groups::AtLeast {
            configured.groups = Groups::Exact;
            filters::apply(
                self.adapter.registers(),
                &configured.configuration,
                configured.groups,
            );
        }
    }

    /// Ends the domain: only a reset of the whole device helps, which the next life begins with.
    fn give_up(&self, why: fmt::Arguments<'_>) -> ! {
        startup::mark_incomplete(self.adapter.registers());
        panic!("{why}");
    }

    /// Does what a quick start left for later. Part of [`look_after`](Self::look_after).
    pub fn catch_up(&self) {
        let registers = self.adapter.registers();
        statistics::clear(registers);
        self.complete_filters();
        match startup::catch_up(registers, self.queues.len() as u16) {
            Ok(mac) => *self.mac.lock() = Some(mac),
            Err(error) => self.give_up(format_args!("the device can't be relied on: {error}")),
        }
    }

    fn mac(&self) -> MacAddress {
        *self
            .mac
            .lock()
            .get_or_insert_with(|| eeprom::address(self.adapter.registers()))
    }

    /// What an interrupt that isn't a queue's, or the lack of one, calls for.
    pub fn service(&self, interrupted: bool) {
        let registers = self.adapter.registers();
        if interrupted {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
            // Reading clears the causes; the link is looked at whatever they are.
            registers.read(r::EICR);
        }
        if let Some(state) = self.link.refresh(registers) {
            if state.up {
                log::info!("link up at {} Mb/s", state.speed_mbps);
            } else {
                log::warn!("link down");
            }
        }
        registers.write(r::EIMS, r::CAUSE_LINK);
        self.hardware
            .lock()
            .refresh(registers, now_ns(), statistics::LIMIT_NS);
    }
}

/// What is exported: the device, shared with its link thread.
pub struct Exported(pub Arc<Device>);

impl NetDevice for Exported {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        Ok(DeviceInfo {
            mac: self.0.mac(),
            queues: self.0.queues.len() as u16,
            frame_limit_bytes: FRAME_LIMIT_BYTES,
            receive_checksum: true,
            transmit_checksum: true,
        })
    }

    fn configure(&self, configuration: NetConfiguration) -> Result<(), NetError> {
        if configuration.frame_bytes > FRAME_LIMIT_BYTES {
            return Err(NetError::Unsupported);
        }
        let mut configured = self.0.configured.lock();
        configured.configuration = configuration;
        filters::apply(self.0.adapter.registers(), &configuration, configured.groups);
        for queue in &self.0.queues {
            queue.pair.lock().set_vlan_strip(configuration.vlan_offload);
        }
        let frame_bytes = configuration.frame_bytes.max(STANDARD_FRAME_BYTES);
        self.0
            .transmit_limit_bytes
            .store(u32::from(frame_bytes) + VLAN_BYTES, Ordering::Relaxed);
        Ok(())
    }

    fn link(&self) -> Result<LinkState, NetError> {
        Ok(self.0.link.state())
    }

    fn exchange(&self, queue: u16, transmit: PacketBatch, empty: PacketBatch) -> Result<Exchanged, NetError> {
        let limit_bytes = self.0.transmit_limit_bytes.load(Ordering::Relaxed) as usize;
        let link_up = self.0.link.is_up();
        let result = self
            .0
            .queue(queue)?
            .pair
            .lock()
            .exchange(transmit, empty, limit_bytes, link_up);
        match result {
            Ok(exchanged) => Ok(exchanged),
            Err(error) => self
                .0
                .give_up(format_args!("queue {queue} is beyond repair: {error}")),
        }
    }

    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, NetError> {
        let number = queue;
        let queue = self.0.queue(queue)?;
        loop {
            if queue.pair.lock().has_work() {
                return Ok(WaitResult::Ready);
            }
            self.0
                .adapter
                .registers()
                .write(r::EIMS, 1 << (number % QUEUE_LIMIT));
            // A frame that came before the mask was open raises its interrupt when it is; this look spares the sleep.
            let crowded = {
                let pair = queue.pair.lock();
                if pair.has_work() {
                    return Ok(WaitResult::Ready);
                }
                pair.is_crowded()
            };
            let now = now_ns();
            if now >= deadline_ns {
                return Ok(WaitResult::TimedOut);
            }
            let longest = if crowded { CROWDED_SLEEP_NS } else { SLEEP_NS };
            match queue.interrupt.wait(deadline_ns.min(now.saturating_add(longest))) {
                Wake::Interrupt => {
                    queue.interrupts.fetch_add(1, Ordering::Relaxed);
                    return Ok(WaitResult::Ready);
                }
                Wake::TimedOut => {}
                Wake::Cancelled => return Ok(WaitResult::Cancelled),
            }
        }
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        let mut total = NetStatistics {
            interrupts: self.0.interrupts.load(Ordering::Relaxed),
            ..NetStatistics::default()
        };
        for queue in &self.0.queues {
            queue.pair.lock().counters().add_to(&mut total);
            total.interrupts += queue.interrupts.load(Ordering::Relaxed);
        }
        let mut hardware = self.0.hardware.lock();
        hardware.refresh(self.0.adapter.registers(), now_ns(), statistics::REFRESH_NS);
        hardware.fill(&mut total);
        Ok(total)
    }
}
