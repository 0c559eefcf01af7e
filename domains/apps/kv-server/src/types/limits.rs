//! Up to which size a collection counts as small.
//!
//! Redis keeps small collections in packed forms, and users see by OBJECT ENCODING which one it is. Here the form in memory is one, but what is
//! reported follows the same rules: a collection that has once been large stays so.

/// The limits, as CONFIG names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `hash-max-listpack-entries`.
    pub hash_entries: usize,
    /// `hash-max-listpack-value`, in bytes.
    pub hash_value_bytes: usize,
    /// `set-max-intset-entries`.
    pub set_integers: usize,
    /// `set-max-listpack-entries`.
    pub set_entries: usize,
    /// `set-max-listpack-value`, in bytes.
    pub set_value_bytes: usize,
    /// `zset-max-listpack-entries`.
    pub sorted_set_entries: usize,
    /// `zset-max-listpack-value`, in bytes.
    pub sorted_set_value_bytes: usize,
    /// `list-max-listpack-size`: elements if positive, else -1 to -5 for 4 KiB to 64 KiB.
    pub list_size: i64,
    /// `stream-node-max-entries`: what trimming with `~` removes at once.
    pub stream_node_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

impl Limits {
    /// Redis' own.
    pub const DEFAULT: Limits = Limits {
        hash_entries: 128,
        hash_value_bytes: 64,
        set_integers: 512,
        set_entries: 128,
        set_value_bytes: 64,
        sorted_set_entries: 128,
        sorted_set_value_bytes: 64,
        list_size: -2,
        stream_node_entries: 100,
    };

    /// The limit that a name of CONFIG means.
    pub fn by_name(&mut self, name: &str) -> Option<&mut usize> {
        Some(match name {
            "hash-max-listpack-entries" | "hash-max-ziplist-entries" => &mut self.hash_entries,
            "hash-max-listpack-value" | "hash-max-ziplist-value" => &mut self.hash_value_bytes,
            "set-max-intset-entries" => &mut self.set_integers,
            "set-max-listpack-entries" => &mut self.set_entries,
            "set-max-listpack-value" => &mut self.set_value_bytes,
            "zset-max-listpack-entries" | "zset-max-ziplist-entries" => &mut self.sorted_set_entries,
            "zset-max-listpack-value" | "zset-max-ziplist-value" => &mut self.sorted_set_value_bytes,
            "stream-node-max-entries" => &mut self.stream_node_entries,
            _ => return None,
        })
    }

    /// Whether a list of so many elements with so many bytes, packed, is a packed one.
    pub fn list_is_small(&self, entries: usize, packed_bytes: usize) -> bool {
        match usize::try_from(self.list_size) {
            Ok(limit) => entries <= limit && packed_bytes <= 8 << 10,
            Err(_) => packed_bytes <= 2048 << self.list_size.unsigned_abs().clamp(1, 5),
        }
    }
}
