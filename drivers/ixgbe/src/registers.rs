//! Registers of the 82599 that this driver uses: offsets and bits, by the datasheet's names and sections.
//!
//! Those that concern memory (ring bases, lengths, tails, enables) are missing on purpose: they belong to `dma::ixgbe`.

/// Device status (8.2.3.1.2).
pub const STATUS: u32 = 0x0_0008;
/// The device may master the bus.
pub const STATUS_MASTER_ENABLED: u32 = 1 << 19;
/// Extended device control (8.2.3.1.3).
pub const CTRL_EXT: u32 = 0x0_0018;
/// No snoop is never asked for (4.6.7).
pub const CTRL_EXT_NO_SNOOP_DISABLE: u32 = 1 << 16;
/// A driver is in charge: set when start-up is complete, cleared by a reset.
pub const CTRL_EXT_DRIVER_LOADED: u32 = 1 << 28;
/// Software-definable pins (8.2.3.1.4).
pub const ESDP: u32 = 0x0_0020;
/// Pin 3 turns the transmitter's laser off, on boards that wire it (4.6.4).
pub const ESDP_LASER_OFF: u32 = 1 << 3;
/// Pin 3 is an output.
pub const ESDP_PIN_3_OUTPUT: u32 = 1 << 11;

/// Interrupt causes (8.2.3.5.1); reading clears causes 16 to 29 while GPIE.OCD is set.
pub const EICR: u32 = 0x0_0800;
/// Causes cleared by their message (8.2.3.5.6).
pub const EIAC: u32 = 0x0_0810;
/// Interrupt mask set (8.2.3.5.3).
pub const EIMS: u32 = 0x0_0880;
/// Interrupt mask clear (8.2.3.5.4).
pub const EIMC: u32 = 0x0_0888;
/// Causes masked by their message (8.2.3.5.7).
pub const EIAM: u32 = 0x0_0890;
/// General-purpose interrupt enable (8.2.3.5.18).
pub const GPIE: u32 = 0x0_0898;
/// One message for each vector.
pub const GPIE_MSIX: u32 = 1 << 4;
/// Reading EICR clears the causes of no queue.
pub const GPIE_OTHER_CLEAR_DISABLE: u32 = 1 << 5;
/// EIAM masks causes as their message is sent.
pub const GPIE_AUTO_MASK: u32 = 1 << 30;
/// Pending bits are kept for each vector.
pub const GPIE_PBA: u32 = 1 << 31;
/// What this driver sets GPIE to.
pub const GPIE_VALUE: u32 = GPIE_MSIX | GPIE_OTHER_CLEAR_DISABLE | GPIE_AUTO_MASK | GPIE_PBA;
/// Vectors of queues 2n and 2n+1 (8.2.3.5.16): receive and transmit of each, a byte each.
pub const IVAR: u32 = 0x0_0900;
/// Vectors of other causes (8.2.3.5.17): in bits 8 to 15.
pub const IVAR_MISC: u32 = 0x0_0A00;
/// The vector in this byte counts.
pub const IVAR_VALID: u32 = 0x80;
/// Interrupt mask clear for 64 vectors (8.2.3.5.11): two registers.
pub const EIMC_EX: u32 = 0x0_0AB0;
/// Causes masked by their message, for 64 vectors (8.2.3.5.12): two registers.
pub const EIAM_EX: u32 = 0x0_0AD0;
/// Link status change.
pub const CAUSE_LINK: u32 = 1 << 20;
/// Causes of the sixteen first vectors.
pub const CAUSE_QUEUES: u32 = 0xFFFF;

/// Throttling of vector `vector` (8.2.3.5.15).
pub const fn eitr(vector: u16) -> u32 {
    if vector < 24 {
        0x0_0820 + 4 * vector as u32
    } else {
        0x1_2300 + 4 * (vector as u32 - 24)
    }
}

/// Messages of one vector are at least this far apart: five units of 2.048 µs at 10 Gb/s.
pub const EITR_10_US: u32 = 5 << 3;

/// Receive DMA control (8.2.3.8.8).
pub const RDRXCTL: u32 = 0x0_2F00;
/// Strip the frame check sequence; as HLREG0 has it.
pub const RDRXCTL_CRC_STRIP: u32 = 1 << 1;
/// Receive DMA is initialised.
pub const RDRXCTL_DMA_DONE: u32 = 1 << 3;
/// Must be set (4.6.7).
pub const RDRXCTL_RSCACKC: u32 = 1 << 25;
/// Must be set (4.6.7).
pub const RDRXCTL_FCOE_WRFIX: u32 = 1 << 26;
/// Receive control (8.2.3.8.10).
pub const RXCTRL: u32 = 0x0_3000;
/// Receive enable.
pub const RXCTRL_ENABLE: u32 = 1;

/// Flow control (8.2.3.3): times, thresholds, refresh, configuration.
pub const FCTTV: u32 = 0x0_3200;
/// Low thresholds, a register for each packet buffer.
pub const FCRTL: u32 = 0x0_3220;
/// High thresholds, a register for each packet buffer.
pub const FCRTH: u32 = 0x0_3260;
/// Refresh time.
pub const FCRTV: u32 = 0x0_32A0;
/// Configuration.
pub const FCCFG: u32 = 0x0_3D00;
/// Room that the high threshold leaves in the packet buffer (3.7.7.3.2).
pub const FCRTH_MARGIN: u32 = 0x6000;
/// Receive packet buffer sizes, a register each (8.2.3.8.9).
pub const RXPBSIZE: u32 = 0x0_3C00;
/// All 512 KiB, in bytes as the register has them.
pub const RXPB_BYTES: u32 = 512 << 10;
/// Packet buffers.
pub const PACKET_BUFFERS: u32 = 8;

/// MAC control (8.2.3.22.8).
pub const HLREG0: u32 = 0x0_4240;
/// Reset value with padding of short frames: CRC appended and stripped (8.2.3.22.8).
pub const HLREG0_VALUE: u32 = 0x0001_0C03;
/// Frames up to MAXFRS.
pub const HLREG0_JUMBO: u32 = 1 << 2;
/// Loopback, to flush buffers (5.2.5.3.2).
pub const HLREG0_LOOPBACK: u32 = 1 << 15;
/// Longest frame with check sequence, in bits 16 to 31 (8.2.3.22.13).
pub const MAXFRS: u32 = 0x0_4268;
/// MAC flow control (8.2.3.22.22).
pub const MFLCN: u32 = 0x0_4294;
/// Discard pause frames.
pub const MFLCN_DISCARD_PAUSE: u32 = 1 << 1;
/// Link and auto-negotiation control (8.2.3.22.19).
pub const AUTOC: u32 = 0x0_42A0;
/// Start the link anew.
pub const AUTOC_RESTART: u32 = 1 << 12;
/// Link status (8.2.3.22.20).
pub const LINKS: u32 = 0x0_42A4;
/// The link is up.
pub const LINKS_UP: u32 = 1 << 30;
/// Speed, in two bits.
pub const LINKS_SPEED_SHIFT: u32 = 28;

/// Transmit descriptor plane control (8.2.3.10.1).
pub const RTTDCS: u32 = 0x0_4900;
/// Arbiter off while it is configured.
pub const RTTDCS_ARBITER_DISABLE: u32 = 1 << 6;
/// Transmit packet buffer thresholds in KiB, a register each (8.2.3.9.16).
pub const TXPBTHRESH: u32 = 0x0_4950;
/// The buffer's size less the longest frame.
pub const TXPB_THRESHOLD_KIB: u32 = 0x96;
/// Transmit DMA control (8.2.3.9.2).
pub const DMATXCTL: u32 = 0x0_4A80;
/// Transmit enable, and the VLAN type of inserted tags.
pub const DMATXCTL_VALUE: u32 = 1 | 0x8100 << 16;
/// Transmit packet buffer sizes, a register each (8.2.3.9.13).
pub const TXPBSIZE: u32 = 0x0_CC00;
/// All 160 KiB, in bytes as the register has them.
pub const TXPB_BYTES: u32 = 160 << 10;
/// Bytes of outstanding transmit requests (8.2.3.9.3).
pub const DTXMXSZRQ: u32 = 0x0_8100;
/// As many as there can be.
pub const DTXMXSZRQ_VALUE: u32 = 0xFFF;
/// Transmit queues command (8.2.3.9.15).
pub const MTQC: u32 = 0x0_8120;

/// Receive checksum control (8.2.3.7.5).
pub const RXCSUM: u32 = 0x0_5000;
/// Descriptors have the RSS hash, not a checksum of the fragment.
pub const RXCSUM_RSS_HASH: u32 = 1 << 13;
/// Receive filter control (8.2.3.7.6).
pub const RFCTL: u32 = 0x0_5008;
/// No coalescing.
pub const RFCTL_RSC_DISABLE: u32 = 1 << 5;
/// Filter control (8.2.3.7.1).
pub const FCTRL: u32 = 0x0_5080;
/// Every multicast frame.
pub const FCTRL_ALL_MULTICAST: u32 = 1 << 8;
/// Every unicast frame.
pub const FCTRL_PROMISCUOUS: u32 = 1 << 9;
/// Broadcast frames.
pub const FCTRL_BROADCAST: u32 = 1 << 10;
/// VLAN control (8.2.3.7.2).
pub const VLNCTRL: u32 = 0x0_5088;
/// The type of VLAN tags.
pub const VLNCTRL_TYPE: u32 = 0x8100;
/// Only VLANs in VFTA.
pub const VLNCTRL_FILTER: u32 = 1 << 30;
/// Multicast control (8.2.3.7.3): hash of bits 47 to 36.
pub const MCSTCTRL: u32 = 0x0_5090;
/// Only multicast frames whose hash is in MTA.
pub const MCSTCTRL_FILTER: u32 = 1 << 2;
/// Multicast table (8.2.3.7.7): 128 registers.
pub const MTA: u32 = 0x0_5200;
/// VLAN table (8.2.3.7.11): 128 registers.
pub const VFTA: u32 = 0x0_A000;
/// Registers of MTA and VFTA each.
pub const FILTER_WORDS: usize = 128;
/// Receive address, low and high half: 128 pairs (8.2.3.7.8, .9).
pub const RAL: u32 = 0x0_A200;
/// High half of the first pair.
pub const RAH: u32 = 0x0_A204;
/// The address counts.
pub const RAH_VALID: u32 = 1 << 31;
/// Pairs.
pub const RECEIVE_ADDRESSES: u32 = 128;
/// Pools of receive addresses: two registers each (8.2.3.7.10).
pub const MPSAR: u32 = 0x0_A600;
/// VLAN pool filter: 64 registers (8.2.3.27.15).
pub const PFVLVF: u32 = 0x0_F100;
/// Unicast table: 128 registers (8.2.3.27.17).
pub const PFUTA: u32 = 0x0_F400;
/// Five-tuple filters: 128 registers (8.2.3.7.19).
pub const FTQF: u32 = 0x0_E600;
/// RSS redirection table: 32 registers of four entries (8.2.3.7.13).
pub const RETA: u32 = 0x0_EB00;
/// RSS key: ten registers (8.2.3.7.14).
pub const RSSRK: u32 = 0x0_EB80;
/// Multiple receive queues command (8.2.3.7.12).
pub const MRQC: u32 = 0x0_EC80;

/// Receive security control (8.2.3.12.9): stops the way from packet buffer to DMA.
pub const SECRXCTRL: u32 = 0x0_8D00;
/// Stop.
pub const SECRXCTRL_DISABLE: u32 = 1 << 1;
/// Receive security status (8.2.3.12.10).
pub const SECRXSTAT: u32 = 0x0_8D04;
/// The way is empty.
pub const SECRXSTAT_READY: u32 = 1;

/// EEPROM control (8.2.3.2.1).
pub const EEC: u32 = 0x1_0010;
/// An EEPROM is there.
pub const EEC_PRESENT: u32 = 1 << 8;
/// Hardware has loaded its registers from it.
pub const EEC_AUTO_READ: u32 = 1 << 9;
/// EEPROM read (8.2.3.2.2).
pub const EERD: u32 = 0x1_0014;
/// Begin.
pub const EERD_START: u32 = 1;
/// The data is there.
pub const EERD_DONE: u32 = 1 << 1;
/// Word address.
pub const EERD_ADDRESS_SHIFT: u32 = 2;
/// Data.
pub const EERD_DATA_SHIFT: u32 = 16;
/// Firmware semaphore and state (8.2.3.4.11).
pub const FWSM: u32 = 0x1_0148;
/// External error of the firmware; 0 is none.
pub const FWSM_ERROR: u32 = 0x3F << 19;
/// Extended PCIe control (8.2.3.4.4).
pub const GCR_EXT: u32 = 0x1_1050;
/// Drop what is in the buffers to the bus.
pub const GCR_EXT_BUFFERS_CLEAR: u32 = 1 << 30;

/// Statistics (8.2.3.23), cleared by reading: frames with a wrong check sequence.
pub const CRCERRS: u32 = 0x0_4000;
/// Illegal bytes.
pub const ILLERRC: u32 = 0x0_4004;
/// Missed packets of packet buffer 0.
pub const MPC: u32 = 0x0_3FA0;
/// Length errors.
pub const RLEC: u32 = 0x0_4040;
/// Broadcast frames received.
pub const BPRC: u32 = 0x0_4078;
/// Multicast frames received.
pub const MPRC: u32 = 0x0_407C;
/// Undersized frames.
pub const RUC: u32 = 0x0_40A4;
/// Fragments.
pub const RFC: u32 = 0x0_40A8;
/// Oversized frames.
pub const ROC: u32 = 0x0_40AC;
/// Jabbers.
pub const RJC: u32 = 0x0_40B0;
/// Frames that a queue dropped for want of a descriptor: all queues, since RQSMR maps them to the first counter.
pub const QPRDC: u32 = 0x0_1430;
