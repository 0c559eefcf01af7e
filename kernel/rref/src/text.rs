//! Short texts and boot files that may cross.

use crate::exchange::{Exchange, Share};
use core::fmt::{self, Write};

/// Up to `N` bytes of UTF-8 text, by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    length: u16,
    bytes: [u8; N],
}

// SAFETY: Bytes only.
unsafe impl<const N: usize> Exchange for Text<N> {}
// SAFETY: Bytes only.
unsafe impl<const N: usize> Share for Text<N> {}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Text<N> = Text {
        length: 0,
        bytes: [0; N],
    };

    /// `text`, cut at a character's boundary if it is longer than `N` bytes.
    pub fn new(text: &str) -> Text<N> {
        let mut result = Text::EMPTY;
        result.push(text);
        result
    }

    /// What `arguments` format to, cut as in [`new`](Self::new).
    pub fn format(arguments: fmt::Arguments<'_>) -> Text<N> {
        let mut result = Text::EMPTY;
        // Writing to a `Text` cuts instead of failing; a formatter that fails leaves what it wrote.
        result.write_fmt(arguments).ok();
        result
    }

    /// Adds as much of `text` as fits.
    pub fn push(&mut self, text: &str) {
        let start = usize::from(self.length);
        let mut count = text.len().min(N - start.min(N));
        while !text.is_char_boundary(count) {
            count -= 1;
        }
        if let (Some(to), Some(from)) = (
            self.bytes.get_mut(start..start + count),
            text.as_bytes().get(..count),
        ) {
            to.copy_from_slice(from);
            self.length += count as u16;
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Text::EMPTY
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Part of a file in the boot archive: read-only memory that belongs to no domain and is never freed, so it may cross.
#[derive(Clone, Copy)]
pub struct BootBytes {
    data: *const u8,
    length: usize,
}

// SAFETY: Points to memory that no domain owns, that is never written and never freed.
unsafe impl Send for BootBytes {}
// SAFETY: As above.
unsafe impl Sync for BootBytes {}
// SAFETY: As above: the pointer is into no private heap or image.
unsafe impl Exchange for BootBytes {}
// SAFETY: As above.
unsafe impl Share for BootBytes {}

impl BootBytes {
    /// The file at `path` of the boot archive.
    pub fn open(path: &str) -> Option<BootBytes> {
        let raw = (abi::sys().boot_file)(abi::sys::RawBytes::of(path));
        (!raw.data.is_null()).then_some(BootBytes {
            data: raw.data,
            length: raw.length,
        })
    }

    /// The path of the `index`-th file of the boot archive; `None` past the last.
    pub fn name(index: usize) -> Option<&'static str> {
        let raw = (abi::sys().boot_file_name)(index);
        if raw.data.is_null() {
            return None;
        }
        // SAFETY: The kernel gives the bytes of a path inside the archive, which is never freed nor written.
        core::str::from_utf8(unsafe { core::slice::from_raw_parts(raw.data, raw.length) }).ok()
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &'static [u8] {
        // SAFETY: The kernel gave the range: it is never freed nor written.
        unsafe { core::slice::from_raw_parts(self.data, self.length) }
    }

    /// The part from `start` to `end`, cut to what there is.
    pub fn range(&self, start: usize, end: usize) -> BootBytes {
        let bytes = self.as_slice();
        let end = end.min(bytes.len());
        let part = bytes.get(start.min(end)..end).unwrap_or(&[]);
        BootBytes {
            data: part.as_ptr(),
            length: part.len(),
        }
    }
}
