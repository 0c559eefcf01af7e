//! Memory of a guest, as a device outside of it sees it: windows of DMA addresses, each backed by a shared mapping.
//!
//! Trusted because it maps memory that another process changes at any time. It therefore never lends a reference into a
//! mapping: bytes are copied in and out with atomic accesses, so a racing guest can spoil what is read, never this
//! process. Knows nothing of devices, descriptors or of the protocol that announces the windows.

mod mapping;

pub use mapping::Access;
use mapping::Mapping;
use std::os::fd::BorrowedFd;

/// Why a window could not be added or removed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MapError {
    /// The window is empty, wraps around, or isn't made of whole pages.
    #[error("window {address:#x}+{size:#x} is empty, wraps around or is not page-aligned")]
    BadRange {
        /// First DMA address of the window.
        address: u64,
        /// Length in bytes.
        size: u64,
    },
    /// A part of the window is mapped already.
    #[error("window {address:#x}+{size:#x} overlaps one that is mapped")]
    Overlap {
        /// First DMA address of the window.
        address: u64,
        /// Length in bytes.
        size: u64,
    },
    /// The file is too short for the window; touching the part beyond its end would kill the process.
    #[error("window needs {needed} bytes of a file of {length}")]
    BeyondFile {
        /// End of the window in the file, in bytes.
        needed: u64,
        /// Length of the file in bytes.
        length: u64,
    },
    /// No window has exactly this address and size.
    #[error("no window {address:#x}+{size:#x} to remove")]
    NotMapped {
        /// First DMA address that was asked for.
        address: u64,
        /// Length that was asked for, in bytes.
        size: u64,
    },
    /// The operating system refused.
    #[error("operating system refused: {0}")]
    System(rustix::io::Errno),
}

/// Why an access failed. Nothing, or a prefix of a write, has been done.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccessError {
    /// A byte of the range is in no window.
    #[error("address {address:#x} (length {length}) is not mapped")]
    Unmapped {
        /// First address of the access.
        address: u64,
        /// Length of the access in bytes.
        length: usize,
    },
    /// The guest gave the window for the other direction only.
    #[error("address {address:#x} (length {length}) does not allow this direction")]
    Forbidden {
        /// First address of the access.
        address: u64,
        /// Length of the access in bytes.
        length: usize,
    },
}

/// One window of DMA addresses.
struct Window {
    address: u64,
    size: u64,
    access: Access,
    mapping: Mapping,
}

/// All windows a guest has announced.
#[derive(Default)]
pub struct GuestMemory {
    /// Sorted by address, without overlaps.
    windows: Vec<Window>,
}

impl GuestMemory {
    /// A guest that has announced nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `size` bytes of `file` from `offset` on at DMA address `address`. All three are multiples of a page.
    pub fn map_file(
        &mut self,
        address: u64,
        size: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
    ) -> Result<(), MapError> {
        let slot = self.free_slot(address, size)?;
        let mapping = Mapping::of_file(file, offset, size, access)?;
        self.windows.insert(
            slot,
            Window {
                address,
                size,
                access,
                mapping,
            },
        );
        Ok(())
    }

    /// Maps fresh zeroed memory of this process at DMA address `address`: a guest for tests.
    pub fn map_anonymous(&mut self, address: u64, size: u64) -> Result<(), MapError> {
        let slot = self.free_slot(address, size)?;
        let mapping = Mapping::anonymous(size)?;
        self.windows.insert(
            slot,
            Window {
                address,
                size,
                access: Access::READ_WRITE,
                mapping,
            },
        );
        Ok(())
    }

    /// Removes the window that has exactly this address and size.
    pub fn unmap(&mut self, address: u64, size: u64) -> Result<(), MapError> {
        match self
            .windows
            .iter()
            .position(|w| w.address == address && w.size == size)
        {
            Some(index) => {
                self.windows.remove(index);
                Ok(())
            }
            None => Err(MapError::NotMapped { address, size }),
        }
    }

    /// Removes every window.
    pub fn clear(&mut self) {
        self.windows.clear();
    }

    /// Address and size of every window, in order.
    pub fn windows(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.windows.iter().map(|w| (w.address, w.size))
    }

    /// Copies guest memory at `address` into `into`.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError> {
        let length = into.len();
        let mut done = 0;
        while done < length {
            let (window, offset) = self.find(address, done, length)?;
            if !window.access.read {
                return Err(AccessError::Forbidden { address, length });
            }
            done += window.mapping.read(offset, &mut into[done..]);
        }
        Ok(())
    }

    /// Copies `from` into guest memory at `address`.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        let length = from.len();
        let mut done = 0;
        while done < length {
            let (window, offset) = self.find(address, done, length)?;
            if !window.access.write {
                return Err(AccessError::Forbidden { address, length });
            }
            done += window.mapping.write(offset, &from[done..]);
        }
        Ok(())
    }

    /// Whether every byte of the range may be written.
    pub fn is_writable(&self, address: u64, length: usize) -> bool {
        let mut done = 0;
        while done < length {
            match self.find(address, done, length) {
                Ok((window, offset)) if window.access.write => {
                    done += usize::try_from(window.size - offset)
                        .unwrap_or(usize::MAX)
                        .min(length - done);
                }
                _ => return false,
            }
        }
        true
    }

    /// Stores `value` (little-endian) at an address that is a multiple of 8, as one access, after all earlier writes.
    pub fn store_u64(&self, address: u64, value: u64) -> Result<(), AccessError> {
        let (window, offset) = self.find(address, 0, 8)?;
        if !window.access.write {
            return Err(AccessError::Forbidden { address, length: 8 });
        }
        if window.mapping.store_u64(offset, value) {
            Ok(())
        } else {
            self.write(address, &value.to_le_bytes())
        }
    }

    /// The window that holds byte `done` of an access, and that byte's offset in it.
    fn find(&self, address: u64, done: usize, length: usize) -> Result<(&Window, u64), AccessError> {
        let unmapped = AccessError::Unmapped { address, length };
        let at = address.checked_add(done as u64).ok_or(unmapped)?;
        let index = self.windows.partition_point(|w| w.address <= at);
        let window = index
            .checked_sub(1)
            .and_then(|i| self.windows.get(i))
            .ok_or(unmapped)?;
        let offset = at - window.address;
        if offset < window.size {
            Ok((window, offset))
        } else {
            Err(unmapped)
        }
    }

    /// Where a new window belongs in the sorted list, when it is well-formed and free.
    fn free_slot(&self, address: u64, size: u64) -> Result<usize, MapError> {
        let page = mapping::PAGE_SIZE;
        let end = address
            .checked_add(size)
            .ok_or(MapError::BadRange { address, size })?;
        if size == 0 || !address.is_multiple_of(page) || !size.is_multiple_of(page) {
            return Err(MapError::BadRange { address, size });
        }
        let slot = self.windows.partition_point(|w| w.address < address);
        let below = slot.checked_sub(1).and_then(|i| self.windows.get(i));
        let overlaps_below = below.is_some_and(|w| w.address + w.size > address);
        let overlaps_above = self.windows.get(slot).is_some_and(|w| w.address < end);
        if overlaps_below || overlaps_above {
            return Err(MapError::Overlap { address, size });
        }
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    fn memfd(size: u64) -> std::os::fd::OwnedFd {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::fs::ftruncate(&fd, size).expect("size");
        fd
    }

    #[test]
    fn access_spans_adjacent_windows() {
        let mut memory = GuestMemory::new();
        memory.map_anonymous(0x2000, 0x1000).expect("second window");
        memory.map_anonymous(0x1000, 0x1000).expect("first window");

        let bytes: Vec<u8> = (0..64).collect();
        memory.write(0x1ff0, &bytes).expect("write");

        let mut back = [0; 64];
        memory.read(0x1ff0, &mut back).expect("read");
        assert_eq!(back.as_slice(), bytes);
        assert!(memory.is_writable(0x1000, 0x2000));
        assert!(!memory.is_writable(0x1000, 0x2001));
    }

    #[test]
    fn what_is_outside_is_refused() {
        let mut memory = GuestMemory::new();
        memory.map_anonymous(0x1000, 0x1000).expect("window");
        let unmapped = |address, length| Err(AccessError::Unmapped { address, length });
        assert_eq!(memory.read(0xfff, &mut [0; 2]), unmapped(0xfff, 2));
        assert_eq!(memory.write(0x1fff, &[0; 2]), unmapped(0x1fff, 2));
        assert_eq!(memory.read(u64::MAX, &mut [0; 2]), unmapped(u64::MAX, 2));
        assert_eq!(memory.store_u64(0x3000, 1), unmapped(0x3000, 8));
        assert!(matches!(
            memory.map_anonymous(0x1000, 0x1000),
            Err(MapError::Overlap { .. })
        ));
        assert!(matches!(
            memory.map_anonymous(0, 0x2000),
            Err(MapError::Overlap { .. })
        ));
        assert!(matches!(
            memory.map_anonymous(0x5000, 12),
            Err(MapError::BadRange { .. })
        ));
        memory.unmap(0x1000, 0x1000).expect("unmap");
        assert!(memory.read(0x1000, &mut [0]).is_err());
    }

    #[test]
    fn file_is_shared_and_its_length_is_checked() {
        let fd = memfd(0x3000);
        let mut memory = GuestMemory::new();
        memory
            .map_file(0, 0x2000, fd.as_fd(), 0x1000, Access::READ_WRITE)
            .expect("map");
        memory.store_u64(8, 0x0102_0304_0506_0708).expect("store");
        let mut back = [0; 8];
        rustix::io::pread(&fd, &mut back, 0x1008).expect("pread");
        assert_eq!(u64::from_le_bytes(back), 0x0102_0304_0506_0708);
        assert_eq!(
            memory.map_file(0x10000, 0x4000, fd.as_fd(), 0, Access::READ_WRITE),
            Err(MapError::BeyondFile {
                needed: 0x4000,
                length: 0x3000
            })
        );
        memory
            .map_file(
                0x20000,
                0x1000,
                fd.as_fd(),
                0,
                Access {
                    read: true,
                    write: false,
                },
            )
            .expect("map");
        assert_eq!(
            memory.write(0x20000, &[1]),
            Err(AccessError::Forbidden {
                address: 0x20000,
                length: 1
            })
        );
    }

    proptest! {
        /// Any aligned or unaligned copy reads back, and changes nothing beside it.
        #[test]
        fn copies_are_exact(offset in 0u64..200, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut memory = GuestMemory::new();
            memory.map_anonymous(0x1000, 0x1000).expect("window");
            memory.write(0x1000, &[0xaa; 0x400]).expect("fill");
            memory.write(0x1000 + offset, &bytes).expect("write");
            let mut all = vec![0; 0x400];
            memory.read(0x1000, &mut all).expect("read");
            let at = offset as usize;
            prop_assert_eq!(&all[at..at + bytes.len()], bytes.as_slice());
            prop_assert!(all[..at].iter().all(|b| *b == 0xaa));
            prop_assert!(all[at + bytes.len()..].iter().all(|b| *b == 0xaa));
        }
    }
}
