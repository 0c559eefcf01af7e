//! Which registers exist, what a plain read or write does to them, and their values after a reset (datasheet 8.2.2).
//!
//! Registers that do more than keep a value (doorbells, handshakes, interrupt causes) get their side effects in
//! `device.rs`; here they are only listed.

/// What software's accesses do to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Keeps what is written to its writable bits.
    ReadWrite,
    /// Ignores writes.
    ReadOnly,
    /// A statistics counter: reading clears it, counting stops at its maximum, writes are ignored.
    ReadClear,
    /// Reads as zero; what a write does is a side effect.
    WriteOnly,
}

/// A register, or an array of them at a constant distance.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The datasheet's name.
    pub name: &'static str,
    /// Offset of the first in BAR 0.
    pub base: u32,
    /// Distance between two, in bytes.
    pub stride: u32,
    /// How many.
    pub count: u32,
    /// What plain accesses do.
    pub access: Access,
    /// Value after a reset.
    pub reset: u32,
    /// Bits that a write changes.
    pub writable: u32,
    /// A memory that a software reset leaves as it is, so that drivers must initialise it (datasheet 4.6.7).
    pub survives: bool,
}

const fn block(name: &'static str, base: u32, stride: u32, count: u32, access: Access, reset: u32) -> Block {
    Block {
        name,
        base,
        stride,
        count,
        access,
        reset,
        writable: u32::MAX,
        survives: false,
    }
}

const fn rw(name: &'static str, base: u32, reset: u32) -> Block {
    block(name, base, 4, 1, Access::ReadWrite, reset)
}

const fn rws(name: &'static str, base: u32, count: u32) -> Block {
    block(name, base, 4, count, Access::ReadWrite, 0)
}

/// Plain registers of each receive queue: two groups of 64.
const fn receive(name: &'static str, group: u32, register: u32, reset: u32, writable: u32) -> Block {
    let base = if group == 0 { 0x1000 } else { 0xD000 };
    Block {
        writable,
        ..block(name, base + register, 0x40, 64, Access::ReadWrite, reset)
    }
}

const fn transmit(name: &'static str, register: u32, writable: u32) -> Block {
    Block {
        writable,
        ..block(name, 0x6000 + register, 0x40, 128, Access::ReadWrite, 0)
    }
}

const fn ro(name: &'static str, base: u32, reset: u32) -> Block {
    block(name, base, 4, 1, Access::ReadOnly, reset)
}

const fn counter(name: &'static str, base: u32) -> Block {
    block(name, base, 4, 1, Access::ReadClear, 0)
}

const fn counters(name: &'static str, base: u32, stride: u32, count: u32) -> Block {
    block(name, base, stride, count, Access::ReadClear, 0)
}

/// The upper part of a 36-bit counter.
const fn counter_high(name: &'static str, base: u32) -> Block {
    Block {
        writable: 0xF,
        ..counter(name, base)
    }
}

const fn memory(name: &'static str, base: u32, stride: u32, count: u32) -> Block {
    Block {
        survives: true,
        ..block(name, base, stride, count, Access::ReadWrite, 0)
    }
}

/// Every register of the model.
pub const BLOCKS: &[Block] = &[
    // General control and status (8.2.3.1).
    rw("CTRL", 0x00000, 0),
    ro("STATUS", 0x00008, 0x0008_0000),
    rw("CTRL_EXT", 0x00018, 0),
    // Pin 2 is an input that says that a module is in the cage, as on the X520.
    rw("ESDP", 0x00020, 0x4),
    rw("I2CCTL", 0x00028, 0x0000_000F),
    rw("FRTIMER", 0x00048, 0),
    rw("TCPTIMER", 0x0004C, 0),
    rw("LEDCTL", 0x00200, 0x0E00_8400),
    rw("CORESPARE", 0x00600, 0),
    rws("PFVFLREC", 0x00700, 4),
    rws("PFMBICR", 0x00710, 4),
    rws("PFMBIMR", 0x00720, 4),
    rws("PFVFLRE", 0x001C0, 1),
    // Interrupts (8.2.3.5).
    rw("EICR", 0x00800, 0),
    block("EICS", 0x00808, 4, 1, Access::WriteOnly, 0),
    Block {
        writable: 0x4000_FFFF,
        ..rw("EIAC", 0x00810, 0)
    },
    rws("EITR", 0x00820, 24),
    rws("EITR", 0x12300, 104),
    rw("EIMS", 0x00880, 0),
    block("EIMC", 0x00888, 4, 1, Access::WriteOnly, 0),
    rw("EIAM", 0x00890, 0),
    rw("EITRSEL", 0x00894, 0),
    rw("GPIE", 0x00898, 0),
    rws("IVAR", 0x00900, 64),
    rw("IVAR_MISC", 0x00A00, 0),
    block("EICS_EX", 0x00A90, 4, 2, Access::WriteOnly, 0),
    rws("EIMS_EX", 0x00AA0, 2),
    block("EIMC_EX", 0x00AB0, 4, 2, Access::WriteOnly, 0),
    rws("EIAM_EX", 0x00AD0, 2),
    // Receive DMA (8.2.3.8).
    receive("RDBAL", 0, 0x00, 0, 0xFFFF_FF80),
    receive("RDBAH", 0, 0x04, 0, u32::MAX),
    receive("RDLEN", 0, 0x08, 0, 0x000F_FFFF),
    receive("DCA_RXCTRL", 0, 0x0C, 0x1200, u32::MAX),
    receive("RDH", 0, 0x10, 0, 0xFFFF),
    receive("SRRCTL", 0, 0x14, 0x402, u32::MAX),
    receive("RDT", 0, 0x18, 0, 0xFFFF),
    receive("RXDCTL", 0, 0x28, 0, u32::MAX),
    receive("RSCCTL", 0, 0x2C, 0, u32::MAX),
    receive("RDBAL", 1, 0x00, 0, 0xFFFF_FF80),
    receive("RDBAH", 1, 0x04, 0, u32::MAX),
    receive("RDLEN", 1, 0x08, 0, 0x000F_FFFF),
    receive("DCA_RXCTRL", 1, 0x0C, 0x1200, u32::MAX),
    receive("RDH", 1, 0x10, 0, 0xFFFF),
    receive("SRRCTL", 1, 0x14, 0x402, u32::MAX),
    receive("RDT", 1, 0x18, 0, 0xFFFF),
    receive("RXDCTL", 1, 0x28, 0, u32::MAX),
    receive("RSCCTL", 1, 0x2C, 0, u32::MAX),
    counters("QPRC", 0x01030, 0x40, 16),
    counters("QBRC_L", 0x01034, 0x40, 16),
    Block {
        writable: 0xF,
        ..counters("QBRC_H", 0x01038, 0x40, 16)
    },
    counters("QPRDC", 0x01430, 0x40, 16),
    rws("RTRPT4C", 0x02140, 8),
    block("RTRPT4S", 0x02160, 4, 8, Access::ReadOnly, 0),
    rws("RQSMR", 0x02300, 32),
    rw("DMACR", 0x02400, 0),
    rw("DMCTLX", 0x02404, 0),
    rws("FCPTRL", 0x02410, 3),
    rw("FCOERPDC", 0x0241C, 0),
    rws("FCDMARW", 0x02420, 4),
    rw("RTRPCS", 0x02430, 0),
    Block {
        writable: !0x8,
        ..rw("RDRXCTL", 0x02F00, 0x0000_8008)
    },
    rw("QDE", 0x02F04, 0),
    rws("RDPROBE", 0x02F08, 16),
    rw("RXDSTATCTRL", 0x02F40, 0),
    counter("RXDGPC", 0x02F50),
    counter("RXDGBCL", 0x02F54),
    counter_high("RXDGBCH", 0x02F58),
    counter("RXDDGPC", 0x02F5C),
    counters("RXDDGBC", 0x02F60, 4, 2),
    counters("RXLPBK", 0x02F68, 4, 6),
    rws("LMVM_RX", 0x02FA4, 2),
    rws("WQBR_RX", 0x02FB0, 4),
    // Receive control and packet buffer (8.2.3.8, 8.2.3.3).
    rw("RXCTRL", 0x03000, 0),
    rw("PFCTOP", 0x03008, 0),
    rw("RTRUP2TC", 0x03020, 0),
    rw("STARCTRL", 0x03024, 0),
    rw("RSCDBU", 0x03028, 0),
    rws("RXWRPTR", 0x03100, 40),
    rws("FCTTV", 0x03200, 4),
    rw("FCADBUL", 0x03210, 0),
    rw("FCADBUH", 0x03214, 0),
    rws("FCRTL", 0x03220, 8),
    rws("FCRTH", 0x03260, 8),
    rw("FCRTV", 0x032A0, 0),
    rw("PBRXECC", 0x03300, 0),
    rws("RXBUFCTRL", 0x03600, 8),
    rws("RXBUFPTR", 0x03700, 16),
    block("RXPBSIZE", 0x03C00, 4, 8, Access::ReadWrite, 0x0008_0000),
    rw("FCCFG", 0x03D00, 0),
    rw("DROPEN", 0x03D04, 0),
    // Statistics of the packet buffers and the MAC (8.2.3.23).
    counters("PXONTXC", 0x03F00, 4, 8),
    counters("PXOFFTXC", 0x03F20, 4, 8),
    counter("LXONTXC", 0x03F60),
    counter("LXOFFTXC", 0x03F68),
    ro("RXDBUECC", 0x03F70, 0),
    ro("RXDBUEST", 0x03F74, 0),
    counters("MPC", 0x03FA0, 4, 8),
    counters("RNBC", 0x03FC0, 4, 8),
    counters("PXON2OFFCNT", 0x03240, 4, 8),
    counter("CRCERRS", 0x04000),
    counter("ILLERRC", 0x04004),
    counter("ERRBC", 0x04008),
    counter("MSPDC", 0x04010),
    counter("MLFC", 0x04034),
    counter("MRFC", 0x04038),
    counter("RLEC", 0x04040),
    counters("PRC", 0x0405C, 4, 6),
    counter("GPRC", 0x04074),
    counter("BPRC", 0x04078),
    counter("MPRC", 0x0407C),
    counter("GPTC", 0x04080),
    counter("GORCL", 0x04088),
    counter_high("GORCH", 0x0408C),
    counter("GOTCL", 0x04090),
    counter_high("GOTCH", 0x04094),
    counter("RUC", 0x040A4),
    counter("RFC", 0x040A8),
    counter("ROC", 0x040AC),
    counter("RJC", 0x040B0),
    counter("MNGPRC", 0x040B4),
    counter("MNGPDC", 0x040B8),
    counter("TORL", 0x040C0),
    counter_high("TORH", 0x040C4),
    counter("TPR", 0x040D0),
    counter("TPT", 0x040D4),
    counters("PTC", 0x040D8, 4, 6),
    counter("MPTC", 0x040F0),
    counter("BPTC", 0x040F4),
    counter("XEC", 0x04120),
    counters("PXONRXCNT", 0x04140, 4, 8),
    counters("PXOFFRXCNT", 0x04160, 4, 8),
    counter("LXONRXCNT", 0x041A4),
    counter("LXOFFRXCNT", 0x041A8),
    counter("RXNFGPC", 0x041B0),
    counter("RXNFGBCL", 0x041B4),
    counter_high("RXNFGBCH", 0x041B8),
    // MAC and link (8.2.3.22).
    rws("PCS1G", 0x04200, 10),
    rw("HLREG0", 0x04240, 0x0001_0C03),
    ro("HLREG1", 0x04244, 0),
    rw("PAP", 0x04248, 0xFFFF_0000),
    rw("MSCA", 0x0425C, 0),
    rw("MSRWD", 0x04260, 0),
    rw("MLADD", 0x04264, 0),
    Block {
        writable: 0xFFFF_0000,
        ..rw("MAXFRS", 0x04268, 0x05EE_0000)
    },
    rw("TREG", 0x0426C, 0),
    ro("PCSS1", 0x04288, 0),
    ro("PCSS2", 0x0428C, 0),
    ro("XPCSS", 0x04290, 0),
    rw("MFLCN", 0x04294, 0),
    ro("SERDESC", 0x04298, 0),
    rw("MACS", 0x0429C, 0),
    rw("AUTOC", 0x042A0, 0xC09C_6004),
    ro("LINKS", 0x042A4, 0),
    rw("AUTOC2", 0x042A8, 0x000A_0000),
    rw("AUTOC3", 0x042AC, 0),
    ro("ANLP1", 0x042B0, 0x0001_0000),
    ro("ANLP2", 0x042B4, 0),
    rws("MDFT", 0x042B8, 6),
    rw("MMNGC", 0x042D0, 0),
    ro("ANLPNP1", 0x042D4, 0),
    ro("ANLPNP2", 0x042D8, 0),
    rws("KRPCS", 0x042E0, 4),
    rw("SGMIIC", 0x04314, 0),
    rw("MPVC", 0x04318, 0),
    ro("LINKS2", 0x04324, 0),
    rws("FCAMAC", 0x04328, 2),
    rw("MACC", 0x04330, 0),
    rw("ATLASCTL", 0x04800, 0),
    // Transmit arbitration and DMA (8.2.3.9, 8.2.3.10).
    rw("RTTDCS", 0x04900, 0),
    rw("RTTDQSEL", 0x04904, 0),
    rw("RTTDT1C", 0x04908, 0),
    ro("RTTDT1S", 0x0490C, 0),
    rws("RTTDT2C", 0x04910, 8),
    block("RTTDT2S", 0x04930, 4, 8, Access::ReadOnly, 0),
    block("TXPBTHRESH", 0x04950, 4, 8, Access::ReadWrite, 0x96),
    rws("RTTBCN", 0x04980, 5),
    rw("DMATXCTL", 0x04A80, 0x8100_0000),
    rw("DTXTCPFLGL", 0x04A88, 0x0FF6_0FF6),
    rw("DTXTCPFLGH", 0x04A8C, 0x0000_0F7F),
    rws("RTTBCNTG", 0x04A90, 3),
    rws("PFMAILBOX", 0x04B00, 64),
    transmit("TDBAL", 0x00, 0xFFFF_FF80),
    transmit("TDBAH", 0x04, u32::MAX),
    transmit("TDLEN", 0x08, 0x000F_FFFF),
    transmit("DCA_TXCTRL", 0x0C, u32::MAX),
    transmit("TDH", 0x10, 0xFFFF),
    transmit("TDT", 0x18, 0xFFFF),
    transmit("TXDCTL", 0x28, u32::MAX),
    transmit("TDWBAL", 0x38, u32::MAX),
    transmit("TDWBAH", 0x3C, u32::MAX),
    rws("DCA_TXCTRL", 0x07200, 16),
    rws("TQSMR", 0x07300, 8),
    rws("PFVMVIR", 0x08000, 64),
    rw("DTXMXSZRQ", 0x08100, 0x10),
    rws("LVMMC_TX", 0x08108, 2),
    rws("PFVFTE", 0x08110, 2),
    rw("MTQC", 0x08120, 0),
    rws("LMVM_TX", 0x08124, 7),
    rws("PFVFSPOOF", 0x08200, 8),
    rw("PFDTXGSWC", 0x08220, 0),
    rws("TDPROBE", 0x082B0, 20),
    rws("TQSM", 0x08600, 32),
    counters("QPTC", 0x08680, 4, 16),
    counters("QBTC_L", 0x08700, 8, 16),
    Block {
        writable: 0xF,
        ..counters("QBTC_H", 0x08704, 8, 16)
    },
    counter("SSVPC", 0x08780),
    counters("FCOETX", 0x08784, 4, 2),
    rws("PFVMECM", 0x08790, 4),
    counter("TXDGPC", 0x087A0),
    counter("TXDGBCL", 0x087A4),
    counter_high("TXDGBCH", 0x087A8),
    // Security blocks, which are fused off: only their data path switches do something (8.2.3.12, 8.2.3.13).
    rw("SECTXCTRL", 0x08800, 0x1),
    ro("SECTXSTAT", 0x08804, 0x1),
    rw("SECTXBUFFAF", 0x08808, 0x250),
    rw("SECTXMINIFG", 0x08810, 0x0000_1001),
    rws("IPSTX", 0x08900, 6),
    rws("LSECTX", 0x08A00, 20),
    rws("RTTBCNC", 0x08B00, 6),
    rws("TSYNC", 0x08C00, 28),
    rw("SECRXCTRL", 0x08D00, 0x1),
    ro("SECRXSTAT", 0x08D04, 0x1),
    rws("IPSRX", 0x08E00, 13),
    rws("LSECRX", 0x08F00, 40),
    // Receive filters (8.2.3.7).
    rw("RXCSUM", 0x05000, 0),
    rw("RFCTL", 0x05008, 0),
    rws("MAVTV", 0x05010, 8),
    rws("MFUTP", 0x05030, 8),
    rws("BMCIP", 0x05050, 5),
    rw("EXVET", 0x05078, 0x8100),
    rw("FCTRL", 0x05080, 0),
    rw("VLNCTRL", 0x05088, 0x8100),
    rw("MCSTCTRL", 0x05090, 0),
    rw("RFVAL", 0x050A4, 0),
    rws("PFFLP", 0x050B0, 2),
    rws("FCOE", 0x05100, 8),
    rw("RXMTRL", 0x05120, 0),
    rws("ETQF", 0x05128, 8),
    rw("RTTBCNRTT", 0x05150, 0),
    rw("REOFF", 0x05158, 0),
    rws("MDEF_EXT", 0x05160, 8),
    rws("PFVMTXSW", 0x05180, 2),
    rw("TSYNCRXCTL", 0x05188, 0),
    rws("METF", 0x05190, 4),
    block("RXTS", 0x051A0, 4, 3, Access::ReadOnly, 0),
    rw("PFVTCTL", 0x051B0, 0),
    ro("RXFECCERR0", 0x051B8, 0),
    rw("FCPARAM", 0x051D8, 0),
    rws("PFVFRE", 0x051E0, 2),
    ro("RXSTMPL", 0x051E8, 0),
    rw("RSOFF", 0x051F8, 0),
    memory("MTA", 0x05200, 4, 128),
    rw("WUC", 0x05800, 0),
    rw("WUFC", 0x05808, 0),
    rw("WUS", 0x05810, 0),
    rw("MANC", 0x05820, 0),
    rws("MFVAL", 0x05824, 1),
    rw("IPAV", 0x05838, 0),
    rws("IP4AT", 0x05840, 8),
    rw("MANC2H", 0x05860, 0),
    rws("IP6AT", 0x05880, 4),
    rws("MDEF", 0x05890, 8),
    rws("MIPAF", 0x058B0, 16),
    rw("WUPL", 0x05900, 0),
    rws("MMA", 0x05910, 8),
    rws("WUPM", 0x05A00, 32),
    rws("IMIR", 0x05A80, 17),
    memory("FHFT", 0x09000, 4, 768),
    memory("VFTA", 0x0A000, 4, 128),
    rws("RAL/RAH", 0x0A200, 256),
    memory("MPSAR", 0x0A600, 4, 256),
    rws("DPF", 0x0E000, 128),
    rws("DAQF", 0x0E200, 128),
    rws("SDPQF", 0x0E400, 128),
    rws("FTQF", 0x0E600, 128),
    rws("L34TIMIR", 0x0E800, 128),
    rws("PSRTYPE", 0x0EA00, 64),
    rws("RETA", 0x0EB00, 32),
    rws("RSSRK", 0x0EB80, 10),
    rws("ETQS", 0x0EC00, 8),
    rw("SYNQF", 0x0EC30, 0),
    rws("RQTC", 0x0EC70, 1),
    rw("MRQC", 0x0EC80, 0),
    rw("LLITHRESH", 0x0EC90, 0),
    rw("FCRECTL", 0x0ED00, 0),
    rws("FCRETA", 0x0ED10, 8),
    rws("FDIR", 0x0EE00, 32),
    rws("PFVML2FLT", 0x0F000, 64),
    memory("PFVLVF", 0x0F100, 4, 64),
    memory("PFVLVFB", 0x0F200, 4, 128),
    memory("PFUTA", 0x0F400, 4, 128),
    rws("PFMRCTL", 0x0F600, 4),
    rws("PFMRVLAN", 0x0F610, 8),
    rws("PFMRVM", 0x0F630, 8),
    // Transmit packet buffer and scheduling (8.2.3.9).
    rws("TXWRPTR", 0x0C100, 40),
    rw("PBTXECC", 0x0C300, 0),
    rws("TXBUFCTRL", 0x0C600, 8),
    rws("TXBUFPTR", 0x0C700, 16),
    rw("RTTUP2TC", 0x0C800, 0),
    rw("LBDRPEN", 0x0CA00, 0),
    rw("TIPG", 0x0CB00, 0),
    block("TXPBSIZE", 0x0CC00, 4, 8, Access::ReadWrite, 0x0002_8000),
    rw("RTTPCS", 0x0CD00, 0),
    rw("MNGTXMAP", 0x0CD10, 0),
    rws("RTTPT2C", 0x0CD20, 8),
    block("RTTPT2S", 0x0CD40, 4, 8, Access::ReadOnly, 0),
    rw("TFCS", 0x0CE00, 1),
    counters("PXONRXC", 0x0CF00, 4, 8),
    counters("PXOFFRXC", 0x0CF20, 4, 8),
    counter("LXONRXC", 0x0CF60),
    counter("LXOFFRXC", 0x0CF68),
    ro("TXDBUECC", 0x0CF70, 0),
    ro("TXDBUEST", 0x0CF74, 0),
    counter("MNGPTC", 0x0CF90),
    // EEPROM, flash, firmware (8.2.3.2, 8.2.3.24).
    rw("EEC", 0x10010, 0x0000_2310),
    rw("EERD", 0x10014, 0x2),
    rw("EEWR", 0x10018, 0x2),
    rw("FLA", 0x1001C, 0),
    ro("EEMNGCTL", 0x10110, 0x000C_0000),
    rws("FLMNG", 0x10114, 4),
    rw("FLOP", 0x1013C, 0),
    rw("SWSM", 0x10140, 0),
    ro("FWSM", 0x10148, 0x0000_8000),
    ro("FACTPS", 0x10150, 0),
    rw("SW_FW_SYNC", 0x10160, 0),
    rw("GRC", 0x10200, 0),
    rws("SRAMREL", 0x10210, 1),
    // PCIe (8.2.3.4).
    rw("GCR", 0x11000, 0),
    rws("PCIEPIPE", 0x11004, 11),
    rw("GSCL_5", 0x11030, 0),
    rws("GSCN", 0x11034, 6),
    rw("GCR_EXT", 0x11050, 0),
    ro("MREVID", 0x11064, 0x1),
    rw("PCIEECCCTL", 0x1106C, 0),
    ro("DCA_ID", 0x11070, 0),
    rw("DCA_CTRL", 0x11074, 0x1),
    rws("CIA", 0x11088, 2),
    block("PCIE_DIAG", 0x11090, 4, 8, Access::ReadOnly, 0),
    rws("PICAUSE", 0x110B0, 4),
    rws("PBACL", 0x110C0, 8),
    ro("ECC_STATUS", 0x110E0, 0),
    rw("MISC_REG", 0x110F0, 0),
    ro("BARCTRL", 0x110F4, 0),
    rws("PCIEECCCTL0", 0x11100, 2),
    rws("PFMBMEM", 0x13000, 1024),
    rw("CORECTL", 0x14F00, 0),
    rws("HICR", 0x15F00, 6),
    rw("SMADARCTL", 0x14F10, 0),
];
