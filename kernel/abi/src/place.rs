//! Where a packet waits in a device's transmit ring, in one word of its header.
//!
//! The ring that takes a packet writes it there, and the kernel reads it after the driver's death, to find out which packets the
//! device had sent and in which order the others were to go. A ring is a page-aligned array of 16-byte descriptors whose second word
//! gets [`SENT`] once the device has sent all up to it, which it does in order (82599 datasheet, 7.2.3.2.4 and 7.2.3.5).

/// The bit in a descriptor's second word that says that the device is done with it and all before it.
pub const SENT: u64 = 1 << 32;
/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 16;

const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const SLOTS_SHIFT: u32 = COUNT_BITS;
const QUEUE_SHIFT: u32 = SLOTS_SHIFT + 4;
const PAGE_SHIFT: u32 = QUEUE_SHIFT + 4;
/// Bits of an address within a page.
const PAGE_BITS: u32 = 12;

/// A ring's page (36 bits: addresses are 48-bit ones, sign-extended), its queue (4 bits), the logarithm of its slots (4 bits), and
/// the running count of the slot (20 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct TransmitPlace(pub u64);

impl TransmitPlace {
    /// In no ring.
    pub const NONE: TransmitPlace = TransmitPlace(0);

    /// The place of count 0 in the ring of `slots` descriptors at `base`, of a queue below 16.
    ///
    /// # Panics
    /// When `slots` is no power of two up to 2^15, or `base` isn't page aligned.
    pub const fn first(base: usize, queue: u16, slots: usize) -> TransmitPlace {
        assert!(
            slots.is_power_of_two() && slots <= 1 << 15 && base.trailing_zeros() >= PAGE_BITS && queue < 16
        );
        let page = (base as u64) << 16 >> 16 >> PAGE_BITS;
        TransmitPlace(
            page << PAGE_SHIFT
                | (queue as u64) << QUEUE_SHIFT
                | (slots.trailing_zeros() as u64) << SLOTS_SHIFT,
        )
    }

    /// The place of the slot with this running count, in the same ring.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, count: u32) -> TransmitPlace {
        TransmitPlace(self.0 & !COUNT_MASK | count as u64 & COUNT_MASK)
    }

    /// Address of the ring's first descriptor.
    pub const fn base(self) -> usize {
        let address = self.0 >> PAGE_SHIFT << PAGE_BITS;
        ((address << 16) as i64 >> 16) as usize
    }

    /// The ring's queue.
    pub const fn queue(self) -> u16 {
        (self.0 >> QUEUE_SHIFT & 0xF) as u16
    }

    /// Descriptors of the ring.
    pub const fn slots(self) -> usize {
        1 << (self.0 >> SLOTS_SHIFT & 0xF)
    }

    /// Distance of the descriptor's second word from the ring's first byte.
    pub const fn offset(self) -> usize {
        (self.0 & COUNT_MASK) as usize % self.slots() * DESCRIPTOR_BYTES + DESCRIPTOR_BYTES / 2
    }

    /// Position after `other` of the same ring, from half the counts before it to half of them after it, as a number that grows with
    /// the count.
    pub const fn order_from(self, other: TransmitPlace) -> u32 {
        let distance = self.0.wrapping_sub(other.0) & COUNT_MASK;
        ((distance + (1 << (COUNT_BITS - 1))) & COUNT_MASK) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_what_it_was_made_of() {
        for base in [0xffff_8000_1234_5000usize, 0x7fff_ffff_f000] {
            let first = TransmitPlace::first(base, 11, 512);
            for count in [0u32, 511, 512, 0xfffff, 0x100000, u32::MAX] {
                let place = first.at(count);
                assert_eq!((place.base(), place.queue(), place.slots()), (base, 11, 512));
                assert_eq!(place.offset(), count as usize % 512 * 16 + 8);
            }
        }
    }

    #[test]
    fn order_survives_the_wrap_of_the_count() {
        let first = TransmitPlace::first(0x1000, 0, 512);
        let anchor = first.at(0xffff0);
        let orders: [u32; 4] =
            [0xfff00u32, 0xffff0, 0xfffff, 0x100010].map(|count| first.at(count).order_from(anchor));
        assert!(orders.is_sorted() && orders[0] < orders[3]);
    }
}
