//! Registers of an NVMe controller (base specification 2.0, 3.1.3; PCIe transport 1.0, 3.1.2 for doorbells).

use crate::mmio::Mmio;

/// Controller capabilities, low and high half.
pub const CAP: u32 = 0x00;
/// Version.
pub const VS: u32 = 0x08;
/// Controller configuration.
pub const CC: u32 = 0x14;
/// Controller status.
pub const CSTS: u32 = 0x1C;
/// Admin queue attributes.
pub const AQA: u32 = 0x24;
/// Admin submission queue's address, low and high half.
pub const ASQ: u32 = 0x28;
/// Admin completion queue's address, low and high half.
pub const ACQ: u32 = 0x30;
/// The first doorbell.
pub const DOORBELLS: u32 = 0x1000;

/// CC.EN.
pub const CC_ENABLE: u32 = 1;
/// CC.SHN: normal shutdown.
pub const CC_SHUTDOWN_NORMAL: u32 = 1 << 14;
/// CC.SHN's bits.
pub const CC_SHUTDOWN_MASK: u32 = 3 << 14;
/// CC with submission entries of 2^6 bytes and completion entries of 2^4, pages of 4 KiB, NVM command set, round robin.
pub const CC_VALUE: u32 = 6 << 16 | 4 << 20;

/// CSTS.RDY.
pub const CSTS_READY: u32 = 1;
/// CSTS.CFS: the controller failed and needs a reset.
pub const CSTS_FATAL: u32 = 1 << 1;
/// CSTS.SHST: state of a shutdown.
pub const CSTS_SHUTDOWN_MASK: u32 = 3 << 2;
/// CSTS.SHST: the shutdown is complete.
pub const CSTS_SHUTDOWN_COMPLETE: u32 = 2 << 2;
/// What any register of a controller reads that isn't there any more.
pub const GONE: u32 = u32::MAX;

/// What a controller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Reads them.
    pub fn read(registers: &Mmio) -> Capabilities {
        Capabilities(u64::from(registers.read(CAP)) | u64::from(registers.read(CAP + 4)) << 32)
    }

    /// From the register's value.
    pub const fn from_bits(bits: u64) -> Capabilities {
        Capabilities(bits)
    }

    /// Whether nothing answers.
    pub const fn is_gone(self) -> bool {
        self.0 == u64::MAX
    }

    /// Entries of an I/O queue at most (MQES, which counts from 0).
    pub const fn queue_entries(self) -> u32 {
        (self.0 & 0xFFFF) as u32 + 1
    }

    /// How long becoming ready, or not ready, may take (TO), microseconds. A controller that says nothing gets half a second.
    pub const fn ready_limit_us(self) -> u64 {
        let units = self.0 >> 24 & 0xFF;
        (if units == 0 { 1 } else { units }) * 500_000
    }

    /// Bytes from one doorbell to the next (DSTRD).
    pub const fn doorbell_stride(self) -> u32 {
        4 << (self.0 >> 32 & 0xF)
    }

    /// Whether it takes the NVM command set (CSS).
    pub const fn has_nvm_commands(self) -> bool {
        self.0 >> 37 & 1 != 0
    }

    /// Smallest memory page, bytes (MPSMIN).
    pub const fn page_bytes(self) -> u64 {
        1 << (12 + (self.0 >> 48 & 0xF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's: 2,048 entries, 7.5 s, doorbells packed, NVM commands, pages of 4 KiB up.
    #[test]
    fn capabilities_are_read_by_their_fields() {
        let capabilities = Capabilities::from_bits(0x0040_0020_0F01_07FF);
        assert_eq!(capabilities.queue_entries(), 2048);
        assert_eq!(capabilities.ready_limit_us(), 7_500_000);
        assert_eq!(capabilities.doorbell_stride(), 4);
        assert!(capabilities.has_nvm_commands());
        assert_eq!(capabilities.page_bytes(), 4096);
        assert!(!capabilities.is_gone());
        let odd = Capabilities::from_bits(0x0001_0003_0000_0001);
        assert_eq!(
            (odd.queue_entries(), odd.ready_limit_us(), odd.doorbell_stride()),
            (2, 500_000, 32)
        );
        assert_eq!((odd.page_bytes(), odd.has_nvm_commands()), (8192, false));
    }
}
