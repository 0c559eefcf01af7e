//! The input of the measurement: frames of random flows to one VIP, and the file that tells the C program all of it.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use maglev::config::Config;
use maglev::connection_table::Capacity;
use maglev::control::{BackendSpec, Control, VipSpec};
use maglev::hash::{FlowHasher, HashSeed, NameHasher};
use maglev::lifetime::Timeouts;
use maglev::packet::{MacAddress, Protocol};
use maglev::table::{Candidate, LookupTable, TableSize};

/// Length of every frame.
pub const FRAME_BYTES: usize = 64;

/// Backends of the one VIP.
pub const BACKENDS: usize = 100;

const SEED: HashSeed = HashSeed(*b"maglev benchmark");
const SOURCE_MAC: MacAddress = [2, 0, 0, 0, 0, 10];
const VIP: Ipv4Addr = Ipv4Addr::new(10, 82, 99, 100);
const VIP_PORT: u16 = 80;
/// Places of a balancer's VIP map with one VIP.
const VIP_PLACES: u64 = 4;

/// Frames of as many TCP connections, each one frame, in random order.
pub struct Workload {
    flows: usize,
    frames: Vec<u8>,
}

/// A good enough source of random-looking flows (SplitMix64), the same in every run.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ state >> 31
}

fn frame(flow: u64) -> [u8; FRAME_BYTES] {
    let random = mix(flow).to_be_bytes();
    let mut frame = [0; FRAME_BYTES];
    frame[..6].copy_from_slice(&SOURCE_MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    // IPv4, 50 bytes, "don't fragment", time to live 64, TCP; the checksum is the NIC's business.
    frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame[26..30].copy_from_slice(&random[..4]);
    frame[30..34].copy_from_slice(&VIP.octets());
    frame[34..36].copy_from_slice(&random[4..6]);
    frame[36..38].copy_from_slice(&VIP_PORT.to_be_bytes());
    frame[46] = 0x50;
    frame
}

fn backend_name(index: usize) -> String {
    format!("backend-{index:03}")
}

fn backend_mac(index: usize) -> MacAddress {
    [2, 0, 0, 0, 1, index as u8]
}

impl Workload {
    /// The frames of `flows` connections.
    pub fn new(flows: usize) -> Self {
        Self {
            flows,
            frames: (0..flows as u64).flat_map(frame).collect(),
        }
    }

    /// All frames' bytes, one after the other.
    pub fn frames(&mut self) -> &mut [u8] {
        &mut self.frames
    }

    fn capacity(&self) -> Result<Capacity> {
        Ok(Capacity::new(u32::try_from(self.flows)?)?)
    }

    /// The balancer that both sides are.
    pub fn control(&self) -> Result<Control> {
        let vip = VipSpec {
            name: "web".into(),
            address: VIP.into(),
            port: VIP_PORT,
            protocol: Protocol::Tcp,
        };
        let address =
            |index: usize| Ipv4Addr::from_bits(Ipv4Addr::new(10, 82, 98, 0).to_bits() + index as u32).into();
        let backend = |index| BackendSpec {
            name: backend_name(index),
            address: address(index),
            weight: 1,
        };
        let config = Config {
            connection_table_size: self.capacity()?,
            vips: vec![(vip, (0..BACKENDS).map(backend).collect())],
            ..Config::default()
        };
        let mut control = Control::new(&config, SEED, SOURCE_MAC)?;
        for index in 0..BACKENDS {
            control.set_neighbour(address(index), Some(backend_mac(index)));
        }
        Ok(control)
    }

    /// Writes what the C program needs to know, in the order in which it reads it.
    pub fn write_setup(&self, path: &Path) -> Result<()> {
        let names: Vec<_> = (0..BACKENDS).map(backend_name).collect();
        let candidates: Vec<_> = (0..)
            .zip(&names)
            .map(|(slot, name)| Candidate {
                slot,
                name,
                weight: 1,
            })
            .collect();
        let table = LookupTable::build(TableSize::default(), &NameHasher::new(&SEED), &candidates);
        let timeouts = Timeouts::default();

        let mut words = FlowHasher::new(&SEED).keys().to_vec();
        let buckets = u64::from(self.capacity()?.get() / 4);
        words.extend([table.entries().len() as u64, buckets, BACKENDS as u64]);
        words.extend([self.flows as u64, FRAME_BYTES as u64, VIP_PLACES]);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let timeouts = [
            timeouts.udp_seconds,
            timeouts.tcp_opening_seconds,
            timeouts.tcp_established_seconds,
            timeouts.tcp_closing_seconds,
        ];
        bytes.extend(timeouts.iter().flat_map(|timeout| timeout.to_le_bytes()));
        bytes.extend(SOURCE_MAC);
        bytes.extend(table.entries().iter().flat_map(|entry| entry.to_le_bytes()));
        bytes.extend((0..BACKENDS).flat_map(backend_mac));
        let vip_key =
            u64::from(VIP.to_bits()) << 32 | u64::from(VIP_PORT) << 8 | u64::from(Protocol::Tcp.number());
        bytes.extend(vip_key.to_le_bytes());

        let mut file = BufWriter::new(File::create(path).context("cannot write the C program's setup")?);
        file.write_all(&bytes)?;
        file.write_all(&self.frames)?;
        file.flush().context("cannot write the C program's setup")
    }
}
