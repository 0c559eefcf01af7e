//! Collections that Redis keeps in one piece of memory: listpacks, ziplists, sets of integers.

use crate::number::Digits;
use crate::value::Malformed;
use alloc::vec::Vec;

/// Takes `count` bytes off the front.
pub fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes a number of fixed size off the front.
pub fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*taken)
}

fn text(number: i64) -> Vec<u8> {
    Digits::default().of(number).to_vec()
}

/// A signed number of three bytes.
fn three_bytes([low, middle, high]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
}

/// The elements of a listpack, integers as their digits.
pub fn listpack(all: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut bytes = all;
    let total = u32::from_le_bytes(take_array(&mut bytes)?);
    let count = u16::from_le_bytes(take_array(&mut bytes)?);
    if total as usize != all.len() {
        return Err(Malformed);
    }
    let mut elements = Vec::new();
    loop {
        let [first] = take_array(&mut bytes)?;
        if first == 0xff {
            break;
        }
        let before = bytes.len() + 1;
        let length = match first {
            0..0x80 => {
                elements.push(text(i64::from(first)));
                None
            }
            0x80..0xc0 => Some(usize::from(first & 0x3f)),
            0xc0..0xe0 => {
                let [low] = take_array(&mut bytes)?;
                let number = i64::from(first & 0x1f) << 8 | i64::from(low);
                elements.push(text(if number >= 1 << 12 {
                    number - (1 << 13)
                } else {
                    number
                }));
                None
            }
            0xe0..0xf0 => {
                let [low] = take_array(&mut bytes)?;
                Some(usize::from(first & 0x0f) << 8 | usize::from(low))
            }
            0xf0 => Some(u32::from_le_bytes(take_array(&mut bytes)?) as usize),
            0xf1 => {
                elements.push(text(i64::from(i16::from_le_bytes(take_array(&mut bytes)?))));
                None
            }
            0xf2 => {
                elements.push(text(three_bytes(take_array(&mut bytes)?)));
                None
            }
            0xf3 => {
                elements.push(text(i64::from(i32::from_le_bytes(take_array(&mut bytes)?))));
                None
            }
            0xf4 => {
                elements.push(text(i64::from_le_bytes(take_array(&mut bytes)?)));
                None
            }
            _ => return Err(Malformed),
        };
        if let Some(length) = length {
            elements.push(take(&mut bytes, length)?.to_vec());
        }
        let length = before - bytes.len();
        let mut back = Vec::new();
        write_back_length(&mut back, length);
        if take(&mut bytes, back.len())? != back {
            return Err(Malformed);
        }
    }
    if !bytes.is_empty() || count != u16::MAX && usize::from(count) != elements.len() {
        return Err(Malformed);
    }
    Ok(elements)
}

/// The length of an element, as it stands behind it: the last byte first, with a mark on those that have one before them.
fn write_back_length(out: &mut Vec<u8>, length: usize) {
    let size = match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    };
    for place in (0..size).rev() {
        let seven = (length >> (7 * place) & 0x7f) as u8;
        let is_first = place == size - 1;
        out.push(if is_first { seven } else { seven | 0x80 });
    }
}

/// Length and number of elements in front of a listpack.
const HEAD_BYTES: usize = 6;

/// A listpack that is being written.
pub struct Listpack {
    bytes: Vec<u8>,
    count: usize,
}

impl Default for Listpack {
    fn default() -> Self {
        Listpack {
            bytes: alloc::vec![0; HEAD_BYTES],
            count: 0,
        }
    }
}

impl Listpack {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends an integer.
    pub fn integer(&mut self, number: i64) {
        let start = self.bytes.len();
        match u8::try_from(number) {
            Ok(small @ 0..0x80) => self.bytes.push(small),
            _ => {
                self.bytes.push(0xf4);
                self.bytes.extend(number.to_le_bytes());
            }
        }
        self.end(start);
    }

    /// Appends bytes.
    pub fn bytes(&mut self, element: &[u8]) {
        let start = self.bytes.len();
        let length = element.len();
        match length {
            0..0x40 => self.bytes.push(0x80 | length as u8),
            0x40..0x1000 => self
                .bytes
                .extend([0xe0 | (length >> 8) as u8, (length & 0xff) as u8]),
            _ => {
                self.bytes.push(0xf0);
                self.bytes.extend((length as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(element);
        self.end(start);
    }

    fn end(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        write_back_length(&mut self.bytes, length);
        self.count += 1;
    }

    /// Appends another's elements.
    pub fn append(&mut self, other: Listpack) {
        self.bytes
            .extend_from_slice(other.bytes.get(HEAD_BYTES..).unwrap_or_default());
        self.count += other.count;
    }

    /// All of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0xff);
        let total = (self.bytes.len() as u32).to_le_bytes();
        let count = u16::try_from(self.count).unwrap_or(u16::MAX).to_le_bytes();
        for (to, from) in self.bytes.iter_mut().zip(total.into_iter().chain(count)) {
            *to = from;
        }
        self.bytes
    }
}

/// The elements of a ziplist, integers as their digits.
pub fn ziplist(all: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut bytes = all;
    let total = u32::from_le_bytes(take_array(&mut bytes)?);
    let _tail = u32::from_le_bytes(take_array(&mut bytes)?);
    let count = u16::from_le_bytes(take_array(&mut bytes)?);
    if total as usize != all.len() {
        return Err(Malformed);
    }
    let mut elements = Vec::new();
    loop {
        // The length of the element before.
        match take_array(&mut bytes)? {
            [0xff] => break,
            [0xfe] => {
                take(&mut bytes, 4)?;
            }
            _ => {}
        }
        let [first] = take_array(&mut bytes)?;
        let number = match first {
            0x00..0x40 => {
                elements.push(take(&mut bytes, usize::from(first))?.to_vec());
                continue;
            }
            0x40..0x80 => {
                let [low] = take_array(&mut bytes)?;
                let length = usize::from(first & 0x3f) << 8 | usize::from(low);
                elements.push(take(&mut bytes, length)?.to_vec());
                continue;
            }
            0x80..0xc0 => {
                let length = u32::from_be_bytes(take_array(&mut bytes)?) as usize;
                elements.push(take(&mut bytes, length)?.to_vec());
                continue;
            }
            0xc0 => i64::from(i16::from_le_bytes(take_array(&mut bytes)?)),
            0xd0 => i64::from(i32::from_le_bytes(take_array(&mut bytes)?)),
            0xe0 => i64::from_le_bytes(take_array(&mut bytes)?),
            0xf0 => three_bytes(take_array(&mut bytes)?),
            0xfe => i64::from(i8::from_le_bytes(take_array(&mut bytes)?)),
            0xf1..=0xfd => i64::from(first & 0x0f) - 1,
            _ => return Err(Malformed),
        };
        elements.push(text(number));
    }
    if !bytes.is_empty() || count != u16::MAX && usize::from(count) != elements.len() {
        return Err(Malformed);
    }
    Ok(elements)
}

/// The members of a set of integers, as their digits.
pub fn integers(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let size = u32::from_le_bytes(take_array(&mut bytes)?) as usize;
    let count = u32::from_le_bytes(take_array(&mut bytes)?) as usize;
    if !matches!(size, 2 | 4 | 8) || count.checked_mul(size) != Some(bytes.len()) {
        return Err(Malformed);
    }
    let number = |bytes: &[u8]| {
        let filler = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut wide = [filler; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        text(i64::from_le_bytes(wide))
    };
    Ok(bytes.chunks_exact(size).map(number).collect())
}
