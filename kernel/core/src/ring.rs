//! A bounded ring of bytes for the console: what doesn't fit is refused, nothing is overwritten.

/// A first-in first-out buffer of at most `N` bytes.
pub struct ByteRing<const N: usize> {
    bytes: [u8; N],
    start: usize,
    length: usize,
}

impl<const N: usize> Default for ByteRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> ByteRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            start: 0,
            length: 0,
        }
    }

    /// Appends one byte; false if the ring is full.
    pub fn push(&mut self, byte: u8) -> bool {
        if self.length == N {
            return false;
        }
        self.bytes[(self.start + self.length) % N] = byte;
        self.length += 1;
        true
    }

    /// Takes the oldest byte.
    pub fn pop(&mut self) -> Option<u8> {
        if self.length == 0 {
            return None;
        }
        let byte = self.bytes[self.start];
        self.start = (self.start + 1) % N;
        self.length -= 1;
        Some(byte)
    }

    /// Bytes in the ring.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is in the ring.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn behaves_like_a_bounded_queue(operations in proptest::collection::vec(proptest::option::of(any::<u8>()), 0..300)) {
            let mut ring = ByteRing::<7>::new();
            let mut model = VecDeque::new();
            for operation in operations {
                match operation {
                    Some(byte) => {
                        let fits = model.len() < 7;
                        if fits {
                            model.push_back(byte);
                        }
                        prop_assert_eq!(ring.push(byte), fits);
                    }
                    None => prop_assert_eq!(ring.pop(), model.pop_front()),
                }
                prop_assert_eq!(ring.len(), model.len());
            }
        }
    }
}
