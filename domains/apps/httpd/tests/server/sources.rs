//! Where the server's metrics come from: a supervisor and a card that answer with made-up numbers, the card only when it is asked to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interface::black_box::DeathCounts;
use interface::holdings::{FrameUses, Holdings};
use interface::kernel::{DeathCause, DomainName, DomainState, DomainStatus, MemoryStatus};
use interface::net::{
    DeviceInfo, Exchanged, LinkState, NetConfiguration, NetDevice, NetError, NetStatistics, WaitResult,
};
use interface::supervise::{Outage, SuperviseError, SupervisedDeath, SupervisedStatus, Supervisor};
use rref::PacketBatch;

/// Knows one domain.
pub struct Overseer;

impl Supervisor for Overseer {
    fn domain(&self, index: u16) -> Result<Option<SupervisedStatus>, SuperviseError> {
        Ok((index == 0).then_some(SupervisedStatus {
            domain: DomainStatus {
                name: DomainName::new("ixgbe"),
                state: DomainState::Running,
                generation: 61,
                threads: 2,
                memory_bytes: 1,
                shared_bytes: 1,
                crossings: 1,
                restart_immediate: 1,
                backoff_floor_ms: 1,
                backoff_ceiling_ms: 1,
                restart_budget: 1,
                window_ms: 1,
                restart_cpu_permille: 1,
            },
            restarts: 60,
            restart_cpu_ns: 0,
            held: false,
            stopped: false,
            refused: false,
            restart_at_ns: 0,
        }))
    }

    fn death(&self, _back: u32) -> Result<Option<SupervisedDeath>, SuperviseError> {
        Ok(None)
    }

    fn numbered_death(&self, _number: u64) -> Result<Option<SupervisedDeath>, SuperviseError> {
        Ok(None)
    }

    fn death_counts(&self, index: u16) -> Result<Option<DeathCounts>, SuperviseError> {
        let mut counts = DeathCounts::default();
        counts.add(DeathCause::Killed);
        Ok((index == 0).then_some(counts))
    }

    fn deaths(&self) -> Result<u64, SuperviseError> {
        Ok(60)
    }

    fn holdings(&self, _index: u16) -> Result<Option<Holdings>, SuperviseError> {
        Ok(Some(Holdings::default()))
    }

    fn report_outage(&self, _outage: Outage) -> Result<(), SuperviseError> {
        Ok(())
    }

    fn memory(&self) -> Result<MemoryStatus, SuperviseError> {
        Ok(MemoryStatus {
            total_pages: 2,
            free_pages: 1,
            shared_used_bytes: 0,
            shared_pages: 0,
            uses: FrameUses::default(),
        })
    }
}

/// A device that can be made to hang in `link`, as a shadow does while its driver is away.
pub struct Device;

pub static DEVICE_HANGS: AtomicBool = AtomicBool::new(false);
pub static DEVICE_USE: Mutex<()> = Mutex::new(());

impl NetDevice for Device {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        Err(NetError::Unsupported)
    }

    fn configure(&self, _configuration: NetConfiguration) -> Result<(), NetError> {
        Err(NetError::Unsupported)
    }

    fn link(&self) -> Result<LinkState, NetError> {
        while DEVICE_HANGS.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(LinkState {
            up: true,
            speed_mbps: 10_000,
            changes: 1,
        })
    }

    fn exchange(&self, _: u16, _: PacketBatch, _: PacketBatch) -> Result<Exchanged, NetError> {
        Err(NetError::Unsupported)
    }

    fn wait(&self, _queue: u16, _deadline_ns: u64) -> Result<WaitResult, NetError> {
        Err(NetError::Unsupported)
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        Ok(NetStatistics::default())
    }
}
