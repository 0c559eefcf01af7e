//! Network devices, as the stack above sees them.
//!
//! A device trades buffers: the caller hands over frames to be sent and empty packets, and gets received frames and spent
//! packets back. Packets are never copied between domains. Those that a driver holds when it dies return to the shared heap, not
//! to the caller; frames among them are lost, which networks allow. A shadow offers the same interface as the driver behind it.

use core::fmt;
use rref::{Exchange, PacketBatch, RpcError, Share, interface};

/// Multicast groups that a device filters at most; more make it receive all multicast.
pub const MULTICAST_LIMIT: usize = 32;
/// VLANs that a device filters at most.
pub const VLAN_LIMIT: usize = 32;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, Exchange, Share)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What went wrong on a device, for a caller that can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum NetError {
    /// No such queue on this device.
    NoQueue {
        /// The queue that was asked for.
        queue: u16,
        /// Queues that there are.
        queues: u16,
    },
    /// There is no device, as far as anybody knows.
    NoDevice,
    /// The device can't do this.
    Unsupported,
    /// The device doesn't answer: a wait for it ran out.
    Hardware {
        /// Register offset that didn't change as it should.
        register: u32,
        /// Its last value.
        value: u32,
    },
    /// No memory for rings or packets.
    OutOfMemory,
    /// The domain behind the handle died; connect again.
    Dead(RpcError),
}

impl From<RpcError> for NetError {
    fn from(error: RpcError) -> Self {
        NetError::Dead(error)
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::NoQueue { queue, queues } => {
                write!(f, "there is no queue {queue}; the device has {queues}")
            }
            NetError::NoDevice => f.write_str("there is no network device"),
            NetError::Unsupported => f.write_str("the device can't do this"),
            NetError::Hardware { register, value } => {
                write!(
                    f,
                    "the device doesn't answer: register {register:#x} stays {value:#010x}"
                )
            }
            NetError::OutOfMemory => f.write_str("out of memory"),
            NetError::Dead(error) => error.fmt(f),
        }
    }
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct DeviceInfo {
    /// Its permanent address.
    pub mac: MacAddress,
    /// Queue pairs; one thread each may call `exchange` and `wait`.
    pub queues: u16,
    /// Longest frame that it can be set to, without FCS, in bytes.
    pub frame_limit_bytes: u16,
    /// Whether `Packet::checksum` says something of received frames.
    pub receive_checksum: bool,
    /// Whether `Packet::request` is obeyed.
    pub transmit_checksum: bool,
}

/// The link, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Exchange, Share)]
pub struct LinkState {
    /// Whether frames can pass.
    pub up: bool,
    /// Megabits a second; 0 when down.
    pub speed_mbps: u32,
    /// Changes since the device's domain started.
    pub changes: u32,
}

/// What a device is to do. A shadow replays it to each new driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct NetConfiguration {
    /// Longest frame without FCS, in bytes: 1514 for the usual MTU of 1500.
    pub frame_bytes: u16,
    /// Receive every unicast frame.
    pub promiscuous: bool,
    /// Receive every multicast frame.
    pub all_multicast: bool,
    /// Multicast groups to receive.
    pub multicast: [Option<MacAddress>; MULTICAST_LIMIT],
    /// Take VLAN tags off received frames and put them on sent ones; receive only `vlans` when there are any.
    pub vlan_offload: bool,
    /// VLAN ids to receive.
    pub vlans: [Option<u16>; VLAN_LIMIT],
}

impl Default for NetConfiguration {
    fn default() -> Self {
        NetConfiguration {
            frame_bytes: 1514,
            promiscuous: false,
            all_multicast: false,
            multicast: [None; MULTICAST_LIMIT],
            vlan_offload: false,
            vlans: [None; VLAN_LIMIT],
        }
    }
}

/// What one exchange gave back.
#[derive(Exchange)]
pub struct Exchanged {
    /// Frames that arrived, in order, each marked `Received`; a long frame is a run of packets.
    pub received: PacketBatch,
    /// Packets given back: first, when the transmit ring is full, unsent frames still marked `Transmit`, in order; then spent and unused
    /// ones, marked `Empty`.
    pub spare: PacketBatch,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum WaitResult {
    /// There may be frames, or sent ones to clean up.
    Ready,
    /// The deadline came.
    TimedOut,
    /// A domain on the way died; go on with the next call, which will say.
    Cancelled,
}

/// Counters since the domain started. Bytes are without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct NetStatistics {
    /// Frames received without error and given to software.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Of them, multicast and broadcast.
    pub received_multicast: u64,
    /// Frames sent.
    pub transmitted_frames: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
    /// Frames lost because no descriptor was free.
    pub receive_missed: u64,
    /// Frames with a wrong FCS.
    pub crc_errors: u64,
    /// Frames of a wrong length.
    pub length_errors: u64,
    /// Frames whose IP or transport checksum the device found wrong.
    pub checksum_errors: u64,
    /// Frames that didn't fit a free transmit descriptor and came back.
    pub transmit_full: u64,
    /// Times that the transmit ring hung and was reset.
    pub transmit_hangs: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Restarts of the driver, as its shadow counts them; 0 from a driver itself.
    pub restarts: u64,
}

/// A network device with queue pairs.
#[interface]
pub trait NetDevice {
    /// What the device is.
    fn info(&self) -> Result<DeviceInfo, NetError>;

    /// Sets what the device does; replaces all of an earlier call.
    fn configure(&self, configuration: NetConfiguration) -> Result<(), NetError>;

    /// The link now.
    fn link(&self) -> Result<LinkState, NetError>;

    /// Sends the frames of `transmit` (packets marked `Transmit`; others come back) and takes what has arrived, at most one batch. Keeps what it needs of
    /// `empty` to refill the receive ring. Never blocks; the deadline leaves time for a host that takes a virtual CPU away while another waits for it.
    #[deadline(ms = 50)]
    fn exchange(&self, queue: u16, transmit: PacketBatch, empty: PacketBatch) -> Result<Exchanged, NetError>;

    /// Blocks until the queue has something to do, or until `deadline_ns`.
    #[deadline(none)]
    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, NetError>;

    /// Counters.
    fn statistics(&self) -> Result<NetStatistics, NetError>;
}
