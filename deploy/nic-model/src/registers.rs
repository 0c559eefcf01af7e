//! Register offsets and bits of the 82599 that the model acts on (datasheet section 8.2, "Device Registers").
//!
//! Names are the datasheet's. What a register does when it is read, written or reset is in `register_map.rs`.

/// Length of the register window in BAR 0, in bytes.
pub const WINDOW_LENGTH: u32 = 0x2_0000;
/// Receive and transmit queues each.
pub const QUEUES: u16 = 128;
/// Interrupt vectors that IVAR can name.
pub const VECTORS: u16 = 64;

pub const CTRL: u32 = 0x00000;
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
pub const CTRL_LRST: u32 = 1 << 3;
pub const CTRL_RST: u32 = 1 << 26;
pub const STATUS: u32 = 0x00008;
pub const STATUS_LINK_UP: u32 = 1 << 7;
pub const STATUS_MASTER_ENABLED: u32 = 1 << 19;
pub const ESDP: u32 = 0x00020;
pub const ESDP_MODULE_PRESENT: u32 = 1 << 2;
pub const ESDP_MODULE_PIN_IS_OUTPUT: u32 = 1 << 10;
pub const I2CCTL: u32 = 0x00028;
pub const FRTIMER: u32 = 0x00048;

pub const EICR: u32 = 0x00800;
pub const EICS: u32 = 0x00808;
pub const EIAC: u32 = 0x00810;
pub const EITR_LOW: u32 = 0x00820;
pub const EITR_HIGH: u32 = 0x12300;
pub const EIMS: u32 = 0x00880;
pub const EIMC: u32 = 0x00888;
pub const EIAM: u32 = 0x00890;
pub const GPIE: u32 = 0x00898;
pub const GPIE_MULTIPLE_MSIX: u32 = 1 << 4;
pub const GPIE_OTHER_CLEAR_DISABLE: u32 = 1 << 5;
pub const GPIE_AUTO_MASK_ENABLE: u32 = 1 << 30;
pub const IVAR: u32 = 0x00900;
pub const IVAR_MISC: u32 = 0x00A00;
pub const IVAR_VALID: u8 = 0x80;
pub const EICS_EX: u32 = 0x00A90;
pub const EIMS_EX: u32 = 0x00AA0;
pub const EIMC_EX: u32 = 0x00AB0;
pub const EIAM_EX: u32 = 0x00AD0;
pub const CAUSE_RX_MISS: u32 = 1 << 17;
pub const CAUSE_LINK_STATUS_CHANGE: u32 = 1 << 20;

pub const RDBAL: u32 = 0x00;
pub const RDBAH: u32 = 0x04;
pub const RDLEN: u32 = 0x08;
pub const DCA_RXCTRL: u32 = 0x0C;
pub const RDH: u32 = 0x10;
pub const SRRCTL: u32 = 0x14;
pub const RDT: u32 = 0x18;
pub const RXDCTL: u32 = 0x28;
pub const RSCCTL: u32 = 0x2C;
pub const SRRCTL_DROP_EN: u32 = 1 << 28;
pub const DCTL_ENABLE: u32 = 1 << 25;
pub const RXDCTL_VLAN_STRIP: u32 = 1 << 30;

pub const RDRXCTL: u32 = 0x02F00;
pub const RDRXCTL_CRC_STRIP: u32 = 1 << 1;
#[cfg(test)]
pub const RDRXCTL_DMA_INIT_DONE: u32 = 1 << 3;
pub const RXCTRL: u32 = 0x03000;
pub const RXCTRL_RXEN: u32 = 1;
pub const RXPBSIZE: u32 = 0x03C00;
pub const RXCSUM: u32 = 0x05000;
pub const RXCSUM_PACKET_CHECKSUM_DISABLE: u32 = 1 << 13;
pub const FCTRL: u32 = 0x05080;
pub const FCTRL_MULTICAST_PROMISCUOUS: u32 = 1 << 8;
pub const FCTRL_UNICAST_PROMISCUOUS: u32 = 1 << 9;
pub const FCTRL_BROADCAST_ACCEPT: u32 = 1 << 10;
pub const VLNCTRL: u32 = 0x05088;
pub const VLNCTRL_CFI: u32 = 1 << 28;
pub const VLNCTRL_CFI_ENABLE: u32 = 1 << 29;
pub const VLNCTRL_FILTER_ENABLE: u32 = 1 << 30;
pub const MCSTCTRL: u32 = 0x05090;
pub const MCSTCTRL_FILTER_ENABLE: u32 = 1 << 2;
pub const MTA: u32 = 0x05200;
pub const VFTA: u32 = 0x0A000;
pub const RAL: u32 = 0x0A200;
pub const RAH_VALID: u32 = 1 << 31;
pub const MRQC: u32 = 0x0EC80;
pub const RETA: u32 = 0x0EB00;
pub const RSSRK: u32 = 0x0EB80;
pub const RSSRK_LAST: u32 = 0x0EBA4;
pub const FDIRCTRL: u32 = 0x0EE00;
pub const FDIRCTRL_INIT_DONE: u32 = 1 << 3;
pub const FDIRCMD: u32 = 0x0EE2C;

pub const HLREG0: u32 = 0x04240;
pub const HLREG0_TX_CRC_ENABLE: u32 = 1;
pub const HLREG0_RX_CRC_STRIP: u32 = 1 << 1;
pub const HLREG0_JUMBO_ENABLE: u32 = 1 << 2;
pub const HLREG0_TX_PAD_ENABLE: u32 = 1 << 10;
pub const HLREG0_LOOPBACK: u32 = 1 << 15;
pub const MSCA: u32 = 0x0425C;
pub const MSCA_COMMAND: u32 = 1 << 30;
pub const MSRWD: u32 = 0x04260;
pub const MAXFRS: u32 = 0x04268;
pub const AUTOC: u32 = 0x042A0;
pub const AUTOC_RESTART: u32 = 1 << 12;
pub const LINKS: u32 = 0x042A4;
pub const LINKS_UP: u32 = 1 << 30;
pub const LINKS_SPEED_10G: u32 = 0b11 << 28;
pub const LINKS_KX_SIGNAL: u32 = 1 << 7;

pub const TDBAL: u32 = 0x06000;
pub const TDBAH: u32 = 0x06004;
pub const TDLEN: u32 = 0x06008;
pub const TDH: u32 = 0x06010;
pub const TDT: u32 = 0x06018;
pub const TXDCTL: u32 = 0x06028;
pub const TDWBAL: u32 = 0x06038;
pub const TDWBAH: u32 = 0x0603C;
/// Distance between the registers of one queue and those of the next.
pub const QUEUE_STRIDE: u32 = 0x40;
pub const DMATXCTL: u32 = 0x04A80;
pub const DMATXCTL_TE: u32 = 1;
pub const DTXTCPFLGL: u32 = 0x04A88;
pub const DTXTCPFLGH: u32 = 0x04A8C;
pub const SECTXCTRL: u32 = 0x08800;
pub const SECTXCTRL_TX_DISABLE: u32 = 1 << 1;
pub const SECRXCTRL: u32 = 0x08D00;
pub const SECRXCTRL_RX_DISABLE: u32 = 1 << 1;

pub const EEC: u32 = 0x10010;
pub const EEC_REQUEST: u32 = 1 << 6;
pub const EEC_GRANT: u32 = 1 << 7;
pub const EERD: u32 = 0x10014;
pub const SWSM: u32 = 0x10140;
pub const SWSM_SMBI: u32 = 1;

pub const RQSMR: u32 = 0x02300;
pub const TQSM: u32 = 0x08600;
pub const QPRC: u32 = 0x01030;
pub const QBRC: u32 = 0x01034;
pub const QPRDC: u32 = 0x01430;
pub const QPTC: u32 = 0x08680;
pub const QBTC: u32 = 0x08700;
pub const MPC: u32 = 0x03FA0;
pub const PRC64: u32 = 0x0405C;
pub const GPRC: u32 = 0x04074;
pub const BPRC: u32 = 0x04078;
pub const MPRC: u32 = 0x0407C;
pub const GPTC: u32 = 0x04080;
pub const GORCL: u32 = 0x04088;
pub const GOTCL: u32 = 0x04090;
pub const ROC: u32 = 0x040AC;
pub const TORL: u32 = 0x040C0;
pub const TPR: u32 = 0x040D0;
pub const TPT: u32 = 0x040D4;
pub const PTC64: u32 = 0x040D8;
pub const MPTC: u32 = 0x040F0;
pub const BPTC: u32 = 0x040F4;
pub const RXNFGPC: u32 = 0x041B0;
pub const RXNFGBCL: u32 = 0x041B4;
pub const RXDGPC: u32 = 0x02F50;
pub const RXDGBCL: u32 = 0x02F54;
pub const TXDGPC: u32 = 0x087A0;
pub const TXDGBCL: u32 = 0x087A4;

/// Offset of register `register` (such as [`RDT`]) of receive queue `queue`.
pub const fn receive(queue: u16, register: u32) -> u32 {
    let queue = queue as u32;
    if queue < 64 {
        0x1000 + queue * QUEUE_STRIDE + register
    } else {
        0xD000 + (queue - 64) * QUEUE_STRIDE + register
    }
}

/// Offset of register `register` (such as [`TDT`]) of transmit queue `queue`.
pub const fn transmit(queue: u16, register: u32) -> u32 {
    register + queue as u32 * QUEUE_STRIDE
}

/// Offset of the throttling register of vector `vector`.
pub const fn eitr(vector: u16) -> u32 {
    if vector < 24 {
        EITR_LOW + 4 * vector as u32
    } else {
        EITR_HIGH + 4 * (vector as u32 - 24)
    }
}

/// Queue and register (such as [`RDT`]) of an offset among the receive queues' registers, counters aside.
pub const fn receive_queue(offset: u32) -> Option<(u16, u32)> {
    let (first, base) = match offset {
        0x01000..0x02000 => (0, 0x01000),
        0x0D000..0x0E000 => (64, 0x0D000),
        _ => return None,
    };
    let register = (offset - base) % QUEUE_STRIDE;
    if register <= RSCCTL {
        Some((first + ((offset - base) / QUEUE_STRIDE) as u16, register))
    } else {
        None
    }
}

/// Queue and register (such as [`TDT`]) of an offset among the transmit queues' registers.
pub const fn transmit_queue(offset: u32) -> Option<(u16, u32)> {
    match offset {
        0x06000..0x08000 => Some((
            ((offset - 0x06000) / QUEUE_STRIDE) as u16,
            0x06000 + (offset - 0x06000) % QUEUE_STRIDE,
        )),
        _ => None,
    }
}

/// The vector whose throttling register is at an offset.
pub const fn eitr_vector(offset: u32) -> Option<u16> {
    match offset {
        EITR_LOW..=0x0087C => Some(((offset - EITR_LOW) / 4) as u16),
        EITR_HIGH..=0x1249C => Some(((offset - EITR_HIGH) / 4) as u16 + 24),
        _ => None,
    }
}

/// The offset that a register known under several ones is kept at.
///
/// Several arrays kept the place that the 82598 had them at beside a larger new one (datasheet 8.2.2.1, "alias" column).
pub const fn canonical(offset: u32) -> u32 {
    match offset {
        0x00004 => CTRL,
        0x02100..=0x0213C => receive(((offset - 0x02100) / 4) as u16, SRRCTL),
        0x02200..=0x0223C => receive(((offset - 0x02200) / 4) as u16, DCA_RXCTRL),
        0x05400..=0x0547C => RAL + (offset - 0x05400),
        0x05480..=0x054BC => 0x0EA00 + (offset - 0x05480),
        0x06030..=0x063F0 if offset % QUEUE_STRIDE == 0x30 => QPTC + (offset - 0x06030) / QUEUE_STRIDE * 4,
        0x06034..=0x063F4 if offset % QUEUE_STRIDE == 0x34 => QBTC + (offset - 0x06034) / QUEUE_STRIDE * 8,
        0x05818 => MRQC,
        0x05C00..=0x05C7C => RETA + (offset - 0x05C00),
        0x05C80..=0x05CA4 => RSSRK + (offset - 0x05C80),
        0x11068 => 0x110C0,
        _ => offset,
    }
}
