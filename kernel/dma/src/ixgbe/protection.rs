//! Which registers of the 82599 a driver may write.
//!
//! An allow-list, because forgetting an entry then costs a driver a feature, not the machine its memory. Not on it, and written by
//! trusted code only or by nobody:
//!
//! - addresses of rings and their extent: RDBAL, RDBAH, RDLEN, RDH, RDT (8.2.3.8.1 to .5), TDBAL, TDBAH, TDLEN, TDH, TDT
//!   (8.2.3.9.5 to .9), head write-back TDWBAL, TDWBAH (8.2.3.9.11, .12);
//! - what decides how hardware uses a posted buffer: SRRCTL (8.2.3.8.7, also at its old place 0x2100), RXDCTL, TXDCTL (8.2.3.8.6,
//!   8.2.3.9.10), RSCCTL (8.2.3.8.13), DCA_RXCTRL, DCA_TXCTRL (8.2.3.11, whose relaxed-ordering bits could let a descriptor overtake its data);
//! - the resets in CTRL (8.2.3.1.1), behind a running ring's back;
//! - addresses of FCoE contexts: FCPTRL, FCPTRH, FCBUFF, FCDMARW (8.2.3.20);
//! - the way into PCI configuration space: CIAA, CIAD (8.2.3.4);
//! - diagnostic access to the descriptor caches: RDPROBE, TDPROBE and their neighbours;
//! - EEPROM and flash, which outlive the driver: EEC, EEWR, FLA, FLOP (8.2.3.2).
//!
//! The MSI-X table, which holds addresses too, is in another BAR that no driver can map.

use crate::mmio::{WritableRange, writable};

/// Sorted by offset.
pub const WRITABLE: &[WritableRange] = &[
    writable(0x00018, 0x00018, "CTRL_EXT"),
    writable(0x00020, 0x00020, "ESDP"),
    writable(0x00028, 0x00028, "I2CCTL"),
    writable(0x00200, 0x00200, "LEDCTL"),
    writable(0x00800, 0x00898, "EICR, EICS, EIAC, EITR, EIMS, EIMC, EIAM, GPIE"),
    writable(0x00900, 0x009FC, "IVAR"),
    writable(0x00A00, 0x00A00, "IVAR_MISC"),
    writable(0x00A90, 0x00AD4, "EICS_EX, EIMS_EX, EIMC_EX, EIAM_EX"),
    writable(0x02300, 0x0237C, "RQSMR"),
    writable(0x02F00, 0x02F00, "RDRXCTL"),
    writable(0x03000, 0x03000, "RXCTRL"),
    writable(0x03028, 0x03028, "RSCDBU"),
    writable(0x03200, 0x0320C, "FCTTV"),
    writable(0x03220, 0x0323C, "FCRTL"),
    writable(0x03260, 0x0327C, "FCRTH"),
    writable(0x032A0, 0x032A0, "FCRTV"),
    writable(0x03C00, 0x03C1C, "RXPBSIZE"),
    writable(0x03D00, 0x03D00, "FCCFG"),
    writable(0x04240, 0x04240, "HLREG0"),
    writable(0x04268, 0x04268, "MAXFRS"),
    writable(0x04294, 0x04294, "MFLCN"),
    writable(0x042A0, 0x042A0, "AUTOC"),
    writable(0x042A8, 0x042A8, "AUTOC2"),
    writable(0x04900, 0x04900, "RTTDCS"),
    writable(0x04950, 0x0496C, "TXPBTHRESH"),
    writable(0x04A80, 0x04A80, "DMATXCTL"),
    writable(0x05000, 0x05000, "RXCSUM"),
    writable(0x05008, 0x05008, "RFCTL"),
    writable(0x05080, 0x05080, "FCTRL"),
    writable(0x05088, 0x05088, "VLNCTRL"),
    writable(0x05090, 0x05090, "MCSTCTRL"),
    writable(0x05200, 0x053FC, "MTA"),
    writable(0x08100, 0x08100, "DTXMXSZRQ"),
    writable(0x08120, 0x08120, "MTQC"),
    writable(0x08600, 0x0867C, "TQSM"),
    writable(0x08800, 0x08800, "SECTXCTRL"),
    writable(0x08D00, 0x08D00, "SECRXCTRL"),
    writable(0x0A000, 0x0A1FC, "VFTA"),
    writable(0x0A200, 0x0A5FC, "RAL, RAH"),
    writable(0x0A600, 0x0A9FC, "MPSAR"),
    writable(0x0CC00, 0x0CC1C, "TXPBSIZE"),
    writable(0x0E600, 0x0E7FC, "FTQF"),
    writable(0x0EB00, 0x0EB7C, "RETA"),
    writable(0x0EB80, 0x0EBA4, "RSSRK"),
    writable(0x0EC80, 0x0EC80, "MRQC"),
    writable(0x0F100, 0x0F1FC, "PFVLVF"),
    writable(0x0F400, 0x0F5FC, "PFUTA"),
    writable(0x10014, 0x10014, "EERD"),
    writable(0x10140, 0x10140, "SWSM"),
    writable(0x10160, 0x10160, "SW_FW_SYNC"),
    writable(0x11050, 0x11050, "GCR_EXT"),
    writable(0x12300, 0x1249C, "EITR"),
    writable(0x14F00, 0x14F00, "CORECTL"),
];
