//! Values that say themselves what they are: key and version, then noise that follows from both.

/// The value of `length` bytes, or as many as key and version take.
pub fn make(key: &str, version: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{key}#{version}#").into_bytes();
    let seed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut noise = fastrand::Rng::with_seed(seed);
    let head = bytes.len();
    bytes.resize(length.max(head), 0);
    if let Some(rest) = bytes.get_mut(head..) {
        noise.fill(rest);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_from_its_name() {
        assert_eq!(make("k", 1, 100), make("k", 1, 100));
        assert_ne!(make("k", 1, 100), make("k", 2, 100));
        assert_eq!(make("k", 1, 100).len(), 100);
        assert_eq!(make("k", 12, 0), b"k#12#");
    }
}
