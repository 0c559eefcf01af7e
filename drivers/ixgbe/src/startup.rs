//! Bringing the device up (datasheet 4.6 "Device Initialization").
//!
//! A cold start does everything: master disable, reset, EEPROM, link, tables. A quick start takes over what an earlier life of this
//! driver set up while the link is up: no reset, no wait, the link untouched, few reads, since each costs a round trip over the bus, and no
//! write of what every life sets to the same; how flows are spread is written again a little later ([`catch_up`]). Each wait has a bound, and
//! its error names the register.

use crate::error::DeviceError;
use crate::filters::Groups;
use crate::link;
use crate::registers as r;
use crate::{eeprom, filters, rss, statistics};
use dma::Mmio;
use dma::ixgbe::Adapter;
use domain_rt::thread;
use interface::net::{MacAddress, NetConfiguration};

/// How long a reset may take. Drivers in the field allow some milliseconds.
const RESET_LIMIT_US: u64 = 100_000;
/// After a reset no register is used for this long (4.6.3.2).
const AFTER_RESET_MS: u64 = 10;
/// How long requests to the bus may be outstanding (5.2.5.3.2; PCIe completion time-outs are shorter).
const MASTER_LIMIT_US: u64 = 100_000;
/// How long receive DMA may take to initialise. The datasheet names no bound.
const DMA_LIMIT_US: u64 = 1_000_000;
/// How long the way from the packet buffer may take to empty.
const SECURITY_LIMIT_US: u64 = 10_000;

/// How the device came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By a reset.
    Cold,
    /// As an earlier life left it.
    Quick,
}

/// What start-up found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// How the device came up.
    pub start: Start,
    /// Its permanent address, after a cold start. A quick one leaves it to be read when somebody asks.
    pub mac: Option<MacAddress>,
    /// LINKS, as a quick start has seen it.
    pub links: Option<u32>,
}

/// Brings the device to where rings can be started.
pub fn bring_up(adapter: &Adapter, queues: u16, allow_quick: bool) -> Result<Found, DeviceError> {
    let registers = adapter.registers();
    mask_interrupts(registers);
    let quick = if allow_quick {
        links_if_set_up(adapter)
    } else {
        None
    };
    mark_incomplete(registers);
    let found = match quick {
        Some(links) => Found {
            start: Start::Quick,
            mac: None,
            links: Some(links),
        },
        None => Found {
            start: Start::Cold,
            mac: Some(cold(adapter)?),
            links: None,
        },
    };
    set_up_receive(registers);
    // A driver before this one, since the machine started, has done the rest in the same way.
    if !(found.start == Start::Quick && adapter.had_driver()) {
        set_up_buffers(registers);
        rss::set_up(registers, queues);
    }
    registers.write(r::DMATXCTL, r::DMATXCTL_VALUE);
    Ok(found)
}

/// Writes again what a quick start relied on, as far as that can be done under traffic. Fails when the device's address isn't a station's: then a reset
/// is due.
pub fn catch_up(registers: &Mmio, queues: u16) -> Result<MacAddress, DeviceError> {
    rss::set_up(registers, queues);
    eeprom::station_address(registers)
}

/// LINKS, if an earlier life of this driver completed its start-up and the link is up since.
fn links_if_set_up(adapter: &Adapter) -> Option<u32> {
    let registers = adapter.registers();
    const LOADED: u32 = r::CTRL_EXT_DRIVER_LOADED | r::CTRL_EXT_NO_SNOOP_DISABLE;
    let extended = registers.read(r::CTRL_EXT);
    // A device that is gone reads all ones.
    let is_set_up = extended & LOADED == LOADED
        && extended != u32::MAX
        // Another system's driver, before the machine restarted, may set the same bits.
        && (adapter.had_driver()
            || registers.read(r::GPIE) == r::GPIE_VALUE && registers.read(r::MRQC) == rss::MRQC_VALUE);
    let links = is_set_up.then(|| registers.read(r::LINKS))?;
    (links & r::LINKS_UP != 0).then_some(links)
}

/// From any state to a device that has nothing but its EEPROM's settings, with the link coming up. Returns its address.
fn cold(adapter: &Adapter) -> Result<MacAddress, DeviceError> {
    let registers = adapter.registers();
    let link_is_up = registers.read(r::LINKS) & r::LINKS_UP != 0;
    let twice = stop_master(adapter).is_err();
    adapter.reset(!link_is_up, RESET_LIMIT_US)?;
    if twice {
        // What was in flight may have kept the first reset from being whole (5.2.5.3.2).
        thread::sleep_ms(1);
        adapter.reset(!link_is_up, RESET_LIMIT_US)?;
    }
    thread::sleep_ms(AFTER_RESET_MS);
    mask_interrupts(registers);
    mark_incomplete(registers);
    eeprom::wait_loaded(registers)?;
    registers
        .poll(r::RDRXCTL, DMA_LIMIT_US, |value| value & r::RDRXCTL_DMA_DONE != 0)
        .map_err(DeviceError::waiting("receive DMA to be ready"))?;
    eeprom::check(registers)?;
    let mac = eeprom::station_address(registers)?;
    link::bring_up(registers);
    statistics::clear(registers);
    clear_tables(registers);
    Ok(mac)
}

/// Master disable (5.2.5.3.2): no request to the bus is outstanding after `Ok`.
fn stop_master(adapter: &Adapter) -> Result<(), DeviceError> {
    let registers = adapter.registers();
    adapter.set_master_disable(true);
    let stopped = registers.poll(r::STATUS, MASTER_LIMIT_US, |value| {
        value & r::STATUS_MASTER_ENABLED == 0
    });
    if stopped.is_err() {
        // Requests hang in the buffers: loop them back and drop them.
        let link_control = registers.read(r::HLREG0);
        let extended = registers.read(r::GCR_EXT);
        registers.write(r::HLREG0, link_control | r::HLREG0_LOOPBACK);
        registers.write(r::RXCTRL, 0);
        registers.write(r::GCR_EXT, extended | r::GCR_EXT_BUFFERS_CLEAR);
        thread::sleep_ms(1);
        registers.write(r::HLREG0, link_control);
        registers.write(r::GCR_EXT, extended);
    }
    stopped
        .map(|_| ())
        .map_err(DeviceError::waiting("the bus to be idle"))
}

fn mask_interrupts(registers: &Mmio) {
    registers.write(r::EIMC, u32::MAX);
    registers.write(r::EIMC_EX, u32::MAX);
    registers.write(r::EIMC_EX + 4, u32::MAX);
}

/// Memories that a reset leaves in any state (4.6.7).
fn clear_tables(registers: &Mmio) {
    let fill = |base: u32, words: u32, value: u32| {
        for index in 0..words {
            registers.write(base + index * 4, value);
        }
    };
    // All receive addresses but the first, which has the EEPROM's.
    fill(r::RAL + 8, 2 * (r::RECEIVE_ADDRESSES - 1), 0);
    fill(r::MPSAR, 2 * r::RECEIVE_ADDRESSES, 0);
    registers.write(r::MPSAR, 1);
    fill(r::MTA, 128, 0);
    fill(r::VFTA, 128, 0);
    fill(r::PFVLVF, 64, 0);
    fill(r::PFUTA, 128, 0);
    fill(r::FTQF, 128, 0);
}

/// Receive initialisation (4.6.7) up to the rings: what a configuration or an error changes.
fn set_up_receive(registers: &Mmio) {
    filters::apply(registers, &NetConfiguration::default(), Groups::Exact);
    registers.write(
        r::RDRXCTL,
        r::RDRXCTL_CRC_STRIP | r::RDRXCTL_RSCACKC | r::RDRXCTL_FCOE_WRFIX,
    );
    registers.write(r::RFCTL, r::RFCTL_RSC_DISABLE);
    registers.write(r::RXCSUM, r::RXCSUM_RSS_HASH);
    registers.write(r::MFLCN, r::MFLCN_DISCARD_PAUSE);
}

/// Packet buffers, for both ways: what no life of this driver sets in another way.
fn set_up_buffers(registers: &Mmio) {
    // One packet buffer with all the memory (4.6.11.3.4), and no pause frames sent or obeyed.
    registers.write(r::RXPBSIZE, r::RXPB_BYTES);
    for buffer in 1..r::PACKET_BUFFERS {
        registers.write(r::RXPBSIZE + buffer * 4, 0);
    }
    for index in 0..4 {
        registers.write(r::FCTTV + index * 4, 0);
    }
    for buffer in 0..r::PACKET_BUFFERS {
        registers.write(r::FCRTL + buffer * 4, 0);
        registers.write(r::FCRTH + buffer * 4, 0);
    }
    registers.write(r::FCRTH, r::RXPB_BYTES - r::FCRTH_MARGIN);
    registers.write(r::FCRTV, 0);
    registers.write(r::FCCFG, 0);
    // Transmit initialisation (4.6.8).
    registers.write(r::RTTDCS, r::RTTDCS_ARBITER_DISABLE);
    registers.write(r::DTXMXSZRQ, r::DTXMXSZRQ_VALUE);
    registers.write(r::TXPBSIZE, r::TXPB_BYTES);
    registers.write(r::TXPBTHRESH, r::TXPB_THRESHOLD_KIB);
    for buffer in 1..r::PACKET_BUFFERS {
        registers.write(r::TXPBSIZE + buffer * 4, 0);
        registers.write(r::TXPBTHRESH + buffer * 4, 0);
    }
    registers.write(r::MTQC, 0);
    registers.write(r::RTTDCS, 0);
}

/// Lets frames in, once the receive rings run (4.6.7).
pub fn enable_receive(registers: &Mmio) -> Result<(), DeviceError> {
    registers.write(r::SECRXCTRL, r::SECRXCTRL_DISABLE);
    registers
        .poll(r::SECRXSTAT, SECURITY_LIMIT_US, |value| {
            value & r::SECRXSTAT_READY != 0
        })
        .map_err(DeviceError::waiting("the receive path to be empty"))?;
    registers.write(r::RXCTRL, r::RXCTRL_ENABLE);
    registers.write(r::SECRXCTRL, 0);
    Ok(())
}

/// Interrupts (4.6.3.1, 7.3): vector n for what queue n receives, the one after the queues for the link. Sent frames raise none: they are
/// cleaned up when the queue is next looked at. Queues stay masked until they are armed.
pub fn set_up_interrupts(registers: &Mmio, queues: u16) {
    registers.write(r::GPIE, r::GPIE_VALUE);
    for pair in 0..queues.div_ceil(2) {
        let even = u32::from(pair) * 2;
        let mut vectors = even | r::IVAR_VALID;
        if even + 1 < u32::from(queues) {
            vectors |= ((even + 1) | r::IVAR_VALID) << 16;
        }
        registers.write(r::IVAR + u32::from(pair) * 4, vectors);
    }
    registers.write(r::IVAR_MISC, (u32::from(queues) | r::IVAR_VALID) << 8);
    registers.write(r::EIAC, r::CAUSE_QUEUES);
    registers.write(r::EIAM, r::CAUSE_QUEUES);
    registers.write(r::EIAM_EX, r::CAUSE_QUEUES);
    registers.write(r::EIAM_EX + 4, 0);
    for vector in 0..=queues {
        registers.write(r::eitr(vector), r::EITR_10_US);
    }
    registers.write(r::EIMS, r::CAUSE_LINK);
}

/// Notes that a later life must not take the device over as it is: start-up isn't complete, or the device doesn't work.
pub fn mark_incomplete(registers: &Mmio) {
    registers.write(r::CTRL_EXT, r::CTRL_EXT_NO_SNOOP_DISABLE);
}

/// Notes that start-up is complete, for a later life.
pub fn mark_complete(registers: &Mmio) {
    registers.write(
        r::CTRL_EXT,
        r::CTRL_EXT_DRIVER_LOADED | r::CTRL_EXT_NO_SNOOP_DISABLE,
    );
}
