//! Message formats of vfio-user: headers, and the payloads that this device needs. All numbers are little-endian.

/// Bytes of every message's header.
pub const HEADER_LENGTH: usize = 16;
/// Longest message that is accepted, header included.
pub const LONGEST_MESSAGE: usize = 1 << 20;

const FLAG_REPLY: u32 = 1;
const FLAG_NO_REPLY: u32 = 1 << 4;
const FLAG_ERROR: u32 = 1 << 5;

/// Requests that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Negotiation, the first message.
    Version,
    /// Announces guest memory.
    DmaMap,
    /// Withdraws guest memory.
    DmaUnmap,
    /// Asks for numbers of regions and interrupts.
    GetInfo,
    /// Asks for a region's size.
    GetRegionInfo,
    /// Asks for an interrupt kind's count.
    GetIrqInfo,
    /// Attaches eventfds to interrupts.
    SetIrqs,
    /// Reads a region.
    RegionRead,
    /// Writes a region.
    RegionWrite,
    /// Resets the device.
    Reset,
    /// Anything else, which is refused.
    Other(u16),
}

impl From<u16> for Command {
    fn from(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::GetInfo,
            5 => Self::GetRegionInfo,
            7 => Self::GetIrqInfo,
            8 => Self::SetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            13 => Self::Reset,
            other => Self::Other(other),
        }
    }
}

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    id: u16,
    command: u16,
    /// Length of the message, header included.
    pub length: usize,
    flags: u32,
}

impl Header {
    /// Reads a header from the first [`HEADER_LENGTH`] bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (id, command) = (reader.u16()?, reader.u16()?);
        let length = usize::try_from(reader.u32()?).ok()?;
        Some(Self {
            id,
            command,
            length,
            flags: reader.u32()?,
        })
    }

    /// What is asked for.
    pub fn command(&self) -> Command {
        Command::from(self.command)
    }

    /// Whether the message is a request, not a reply.
    pub fn is_request(&self) -> bool {
        self.flags & 0xF == 0
    }

    /// Whether the client waits for an answer.
    pub fn wants_reply(&self) -> bool {
        self.flags & FLAG_NO_REPLY == 0
    }

    /// The answer: a payload, or an error number.
    pub fn reply(&self, result: Result<&[u8], u32>) -> Vec<u8> {
        let (payload, flags, error) = match result {
            Ok(payload) => (payload, FLAG_REPLY, 0),
            Err(error) => (&[][..], FLAG_REPLY | FLAG_ERROR, error),
        };
        let length = (HEADER_LENGTH + payload.len()) as u32;
        let mut out = Vec::with_capacity(HEADER_LENGTH + payload.len());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.command.to_le_bytes());
        for word in [length, flags, error] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(payload);
        out
    }
}

/// Takes numbers from the front of a payload.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// The next 16-bit number.
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Puts 32-bit and 64-bit numbers one behind another.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Adds 32-bit numbers.
    pub fn words(mut self, words: &[u32]) -> Self {
        for word in words {
            self.0.extend_from_slice(&word.to_le_bytes());
        }
        self
    }

    /// Adds a 64-bit number.
    pub fn long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_echo_the_request() {
        let bytes = [7, 0, 9, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let header = Header::decode(&bytes).expect("whole header");
        assert_eq!((header.command(), header.length), (Command::RegionRead, 16));
        assert!(header.is_request() && header.wants_reply());
        let reply = header.reply(Err(22));
        assert_eq!(reply, [7, 0, 9, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0]);
        assert_eq!(
            header.reply(Ok(&[1, 2]))[4..],
            [18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Header::decode(&bytes).is_some(), bytes.len() >= 12);
        }
    }
}
