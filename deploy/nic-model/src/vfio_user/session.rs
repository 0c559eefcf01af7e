//! Answers a client's requests for one device: regions, interrupts, memory, reset.

use super::connection::{Connection, ConnectionError, Message};
use super::message::{Command, Reader, Writer};
use crate::config_space::{self, BAR_LENGTHS};
use crate::device::Device;
use crate::interrupts::Signalling;
use guest_memory::{Access, MapError};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

const VERSION_MAJOR: u16 = 0;
const VERSION_MINOR: u16 = 1;
/// What the client is told: QEMU accepts at most 16 descriptors in a message.
const CAPABILITIES: &[u8] = br#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":65536}}"#;
const LONGEST_TRANSFER: usize = 65_536;

/// Region and interrupt indexes of PCI devices, as VFIO numbers them.
const REGION_COUNT: u32 = 9;
const REGION_REGISTERS: u32 = 0;
const REGION_PORTS: u32 = 2;
const REGION_TABLE: u32 = 4;
const REGION_CONFIG: u32 = 7;
const IRQ_COUNT: u32 = 5;
const REGION_READ_WRITE: u32 = 3;
const IRQ_EVENTFD: u32 = 1;
const IRQ_MASKABLE: u32 = 1 << 1;
const IRQ_AUTOMASKED: u32 = 1 << 2;
const IRQ_NO_RESIZE: u32 = 1 << 3;

/// A client's use of a device, over one connection.
pub struct Session {
    connection: Connection,
    /// The I/O address register: registers can be reached through ports, too (datasheet 8.1.1).
    port_address: u32,
    table: Vec<u8>,
}

impl Session {
    /// Starts to serve a client.
    pub fn new(connection: Connection) -> Self {
        let [_, _, table] = BAR_LENGTHS;
        Self {
            connection,
            port_address: 0,
            table: vec![0; table as usize],
        }
    }

    /// The connection, to sleep on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Answers what has arrived; false when there was nothing.
    pub fn serve(&mut self, device: &mut Device) -> Result<bool, ConnectionError> {
        if !self.connection.receive()? {
            return Ok(false);
        }
        while let Some(message) = self.connection.next_message()? {
            if !message.header.is_request() {
                continue;
            }
            let header = message.header;
            let answer = self.answer(device, message);
            if let Err(error) = &answer {
                log::debug!("{:?} refused: {error}", header.command());
            }
            if header.wants_reply() {
                let reply = match &answer {
                    Ok(payload) => header.reply(Ok(payload)),
                    Err(error) => header.reply(Err(error.raw_os_error().unsigned_abs())),
                };
                self.connection.send(&reply)?;
            }
        }
        Ok(true)
    }

    /// What a client that is gone leaves behind is taken back; the device keeps its state.
    pub fn end(self, device: &mut Device) {
        device.memory().clear();
        for signalling in [Signalling::MsiX, Signalling::Msi, Signalling::Pin] {
            device.lines().detach_all(signalling);
        }
    }

    fn answer(&mut self, device: &mut Device, message: Message) -> Result<Vec<u8>, Errno> {
        let payload = message.payload.as_slice();
        match message.header.command() {
            Command::Version => version(payload),
            Command::DmaMap => dma_map(device, payload, message.descriptors),
            Command::DmaUnmap => dma_unmap(device, payload),
            Command::GetInfo => Ok(Writer::default()
                .words(&[16, 0b11, REGION_COUNT, IRQ_COUNT])
                .finish()),
            Command::GetRegionInfo => region_info(payload),
            Command::GetIrqInfo => irq_info(payload),
            Command::SetIrqs => set_irqs(device, payload, message.descriptors),
            Command::RegionRead => self.region_read(device, payload),
            Command::RegionWrite => self.region_write(device, payload),
            Command::Reset => {
                device.reset();
                Ok(Vec::new())
            }
            Command::Other(_) => Err(Errno::NOTSUP),
        }
    }

    fn region_read(&mut self, device: &mut Device, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let access = RegionAccess::decode(payload).ok_or(Errno::INVAL)?;
        let mut data = vec![0; access.check()?];
        match access.region {
            REGION_CONFIG => device.config_read(access.offset, &mut data),
            REGION_REGISTERS => {
                for (i, chunk) in data.chunks_mut(4).enumerate() {
                    let value = device.mmio_read32((access.offset + 4 * i) as u32).to_le_bytes();
                    chunk.copy_from_slice(value.get(..chunk.len()).unwrap_or_default());
                }
            }
            REGION_PORTS => {
                let value = match access.offset {
                    0 => self.port_address,
                    4 => device.mmio_read32(self.port_address),
                    _ => 0,
                };
                for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
                    *byte = value;
                }
            }
            REGION_TABLE => {
                let bytes = self
                    .table
                    .get(access.offset..access.offset + data.len())
                    .ok_or(Errno::INVAL)?;
                data.copy_from_slice(bytes);
            }
            _ => return Err(Errno::INVAL),
        }
        let header = payload.get(..16).unwrap_or_default();
        Ok(Writer::default().bytes(header).bytes(&data).finish())
    }

    fn region_write(&mut self, device: &mut Device, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let access = RegionAccess::decode(payload).ok_or(Errno::INVAL)?;
        let length = access.check()?;
        let data = payload.get(16..16 + length).ok_or(Errno::INVAL)?;
        match access.region {
            REGION_CONFIG => device.config_write(access.offset, data),
            REGION_REGISTERS => {
                for (i, chunk) in data.chunks(4).enumerate() {
                    device.mmio_write32((access.offset + 4 * i) as u32, word(chunk));
                }
            }
            REGION_PORTS => match access.offset {
                0 => self.port_address = word(data),
                4 => device.mmio_write32(self.port_address, word(data)),
                _ => {}
            },
            REGION_TABLE => {
                let bytes = self
                    .table
                    .get_mut(access.offset..access.offset + length)
                    .ok_or(Errno::INVAL)?;
                bytes.copy_from_slice(data);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(payload.get(..16).unwrap_or_default().to_vec())
    }
}

/// Up to four bytes as a number.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The head of a region read or write.
struct RegionAccess {
    offset: usize,
    region: u32,
    count: usize,
}

impl RegionAccess {
    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let offset = usize::try_from(reader.u64()?).ok()?;
        Some(Self {
            offset,
            region: reader.u32()?,
            count: reader.u32()? as usize,
        })
    }

    /// The length, when the access lies in its region.
    fn check(&self) -> Result<usize, Errno> {
        let end = self.offset.checked_add(self.count).ok_or(Errno::INVAL)?;
        let inside = end as u64 <= region_length(self.region) && self.count <= LONGEST_TRANSFER;
        if inside { Ok(self.count) } else { Err(Errno::INVAL) }
    }
}

fn region_length(region: u32) -> u64 {
    let [registers, ports, table] = BAR_LENGTHS;
    match region {
        REGION_REGISTERS => u64::from(registers),
        REGION_PORTS => u64::from(ports),
        REGION_TABLE => u64::from(table),
        REGION_CONFIG => config_space::LENGTH as u64,
        _ => 0,
    }
}

fn version(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(payload);
    let major = reader.u16().ok_or(Errno::INVAL)?;
    let minor = reader.u16().ok_or(Errno::INVAL)?;
    if major != VERSION_MAJOR {
        log::error!(
            "the client speaks version {major}.{minor} of vfio-user, this is {VERSION_MAJOR}.{VERSION_MINOR}"
        );
        return Err(Errno::NOTSUP);
    }
    let version = [
        VERSION_MAJOR.to_le_bytes(),
        minor.min(VERSION_MINOR).to_le_bytes(),
    ]
    .concat();
    Ok(Writer::default()
        .bytes(&version)
        .bytes(CAPABILITIES)
        .bytes(&[0])
        .finish())
}

fn dma_map(device: &mut Device, payload: &[u8], descriptors: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(payload);
    let _size = reader.u32().ok_or(Errno::INVAL)?;
    let flags = reader.u32().ok_or(Errno::INVAL)?;
    let offset = reader.u64().ok_or(Errno::INVAL)?;
    let address = reader.u64().ok_or(Errno::INVAL)?;
    let size = reader.u64().ok_or(Errno::INVAL)?;
    let Some(file) = descriptors.first() else {
        // Memory that can't be mapped (a ROM, another device's window): DMA to it fails as if it weren't there.
        log::debug!("DMA window {address:#x}+{size:#x} has no file and is left out");
        return Ok(Vec::new());
    };
    let access = Access {
        read: flags & 1 != 0,
        write: flags & 2 != 0,
    };
    let mapped = device
        .memory()
        .map_file(address, size, file.as_fd(), offset, access);
    log::debug!("DMA window {address:#x}+{size:#x}: {mapped:?}");
    match mapped {
        Ok(()) => Ok(Vec::new()),
        Err(MapError::Overlap { .. }) => Err(Errno::EXIST),
        Err(MapError::System(error)) => Err(error),
        Err(error) => {
            log::warn!("DMA window {address:#x}+{size:#x} refused: {error}");
            Err(Errno::INVAL)
        }
    }
}

fn dma_unmap(device: &mut Device, payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(payload);
    let _size = reader.u32().ok_or(Errno::INVAL)?;
    let flags = reader.u32().ok_or(Errno::INVAL)?;
    let address = reader.u64().ok_or(Errno::INVAL)?;
    let size = reader.u64().ok_or(Errno::INVAL)?;
    const ALL: u32 = 1 << 1;
    if flags & ALL != 0 {
        device.memory().clear();
    } else if let Err(error) = device.memory().unmap(address, size) {
        // Windows without a file were never mapped; withdrawing one is no error of the client.
        log::debug!("DMA unmap: {error}");
    }
    Ok(payload.get(..24).unwrap_or_default().to_vec())
}

fn region_info(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(payload);
    let (Some(_), Some(_), Some(index)) = (reader.u32(), reader.u32(), reader.u32()) else {
        return Err(Errno::INVAL);
    };
    if index >= REGION_COUNT {
        return Err(Errno::INVAL);
    }
    let length = region_length(index);
    let flags = if length > 0 { REGION_READ_WRITE } else { 0 };
    Ok(Writer::default()
        .words(&[32, flags, index, 0])
        .long(length)
        .long(0)
        .finish())
}

fn irq_info(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(payload);
    let (Some(_), Some(_), Some(index)) = (reader.u32(), reader.u32(), reader.u32()) else {
        return Err(Errno::INVAL);
    };
    let (flags, count) = match index {
        0 => (IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED, 1),
        1 => (IRQ_EVENTFD | IRQ_NO_RESIZE, 1),
        2 => (IRQ_EVENTFD | IRQ_NO_RESIZE, u32::from(crate::registers::VECTORS)),
        _ if index < IRQ_COUNT => (0, 0),
        _ => return Err(Errno::INVAL),
    };
    Ok(Writer::default().words(&[16, flags, index, count]).finish())
}

fn set_irqs(device: &mut Device, payload: &[u8], descriptors: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
    const DATA_NONE: u32 = 1;
    const DATA_BOOL: u32 = 1 << 1;
    const DATA_EVENTFD: u32 = 1 << 2;
    const ACTION_MASK: u32 = 1 << 3;
    const ACTION_UNMASK: u32 = 1 << 4;
    const ACTION_TRIGGER: u32 = 1 << 5;
    let mut reader = Reader::new(payload);
    let mut next = || reader.u32().ok_or(Errno::INVAL);
    let (_size, flags, index, start, count) = (next()?, next()?, next()?, next()?, next()?);
    let signalling = match index {
        0 => Signalling::Pin,
        1 => Signalling::Msi,
        2 => Signalling::MsiX,
        // Error and request notifications: never sent by this device.
        _ if index < IRQ_COUNT => return Ok(Vec::new()),
        _ => return Err(Errno::INVAL),
    };
    let vectors = u32::from(crate::registers::VECTORS);
    if start.checked_add(count).is_none_or(|end| end > vectors) {
        return Err(Errno::INVAL);
    }
    let chosen: Vec<u16> = (start..start + count)
        .enumerate()
        .filter(|(i, _)| flags & DATA_BOOL == 0 || reader.rest().get(*i).is_some_and(|chosen| *chosen != 0))
        .map(|(_, vector)| vector as u16)
        .collect();
    match flags & (ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER) {
        ACTION_TRIGGER if flags & DATA_EVENTFD != 0 => {
            let mut descriptors = descriptors.into_iter();
            for vector in chosen {
                device.lines().attach(signalling, vector, descriptors.next());
            }
        }
        ACTION_TRIGGER if flags & DATA_NONE != 0 && count == 0 => device.lines().detach_all(signalling),
        ACTION_TRIGGER => chosen
            .into_iter()
            .for_each(|vector| device.lines().trigger(signalling, vector)),
        // Eventfds for masking are for hosts that bypass the client; this device needs none.
        ACTION_MASK | ACTION_UNMASK if flags & DATA_EVENTFD != 0 => {}
        ACTION_MASK if signalling == Signalling::Pin => device.lines().mask_pin(),
        ACTION_UNMASK if signalling == Signalling::Pin => device.pin_served(),
        ACTION_MASK | ACTION_UNMASK => {}
        _ => return Err(Errno::INVAL),
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceConfig;
    use crate::wire::MemoryWire;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

    /// A client that sends a request and waits for its answer.
    struct Client {
        socket: OwnedFd,
        session: Session,
        device: Device,
    }

    impl Client {
        fn new() -> Self {
            let flags = SocketFlags::CLOEXEC;
            let (socket, theirs) =
                rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("pair");
            let device = Device::new(DeviceConfig::default(), Box::new(MemoryWire::new()));
            Self {
                socket,
                session: Session::new(Connection::new(theirs)),
                device,
            }
        }

        fn send(&mut self, command: u16, flags: u32, payload: &[u8]) {
            let length = (16 + payload.len()) as u32;
            let head = [1u16.to_le_bytes(), command.to_le_bytes()].concat();
            let message = Writer::default()
                .bytes(&head)
                .words(&[length, flags, 0])
                .bytes(payload)
                .finish();
            rustix::io::write(&self.socket, &message).expect("write");
            self.session.serve(&mut self.device).expect("served");
        }

        /// The answer's payload, or its error number; `None` when there is no answer.
        fn receive(&mut self) -> Option<Result<Vec<u8>, u32>> {
            let mut buffer = vec![0; 200_000];
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT).ok()?;
            let mut reader = Reader::new(&buffer[8..16]);
            let (flags, error) = (reader.u32()?, reader.u32()?);
            Some(if flags & 0x20 != 0 {
                Err(error)
            } else {
                Ok(buffer[16..length].to_vec())
            })
        }

        fn ask(&mut self, command: u16, payload: &[u8]) -> Result<Vec<u8>, u32> {
            self.send(command, 0, payload);
            self.receive().expect("an answer")
        }
    }

    fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
        Writer::default()
            .long(offset)
            .words(&[region, count])
            .bytes(data)
            .finish()
    }

    #[test]
    fn client_finds_a_pci_device_with_its_regions_and_interrupts() {
        let mut client = Client::new();
        let version = client.ask(1, &[0, 0, 3, 0]).expect("accepted");
        assert_eq!(version[..4], [0, 0, 1, 0]);
        assert_eq!(version.last(), Some(&0));
        let info = client
            .ask(4, &Writer::default().words(&[16, 0, 0, 0]).finish())
            .expect("answered");
        assert_eq!(info, Writer::default().words(&[16, 3, 9, 5]).finish());
        let region = client
            .ask(
                5,
                &Writer::default().words(&[32, 0, 7, 0]).long(0).long(0).finish(),
            )
            .expect("answered");
        assert_eq!(region[16..24], 4096u64.to_le_bytes());
        let irq = client
            .ask(7, &Writer::default().words(&[16, 0, 2, 0]).finish())
            .expect("answered");
        assert_eq!(irq[12..16], 64u32.to_le_bytes());
    }

    #[test]
    fn registers_are_read_and_written() {
        let mut client = Client::new();
        let id = client
            .ask(9, &access(0, REGION_CONFIG, 4, &[]))
            .expect("answered");
        assert_eq!(id[16..], [0x86, 0x80, 0xFB, 0x10]);
        client.send(10, 1 << 4, &access(0x5090, REGION_REGISTERS, 4, &[4, 0, 0, 0]));
        assert!(client.receive().is_none(), "posted writes have no answer");
        let value = client
            .ask(9, &access(0x5090, REGION_REGISTERS, 4, &[]))
            .expect("answered");
        assert_eq!(value[16..], [4, 0, 0, 0]);
        // The same register through the I/O ports.
        client
            .ask(10, &access(0, REGION_PORTS, 4, &0x5090u32.to_le_bytes()))
            .expect("answered");
        let value = client.ask(9, &access(4, REGION_PORTS, 4, &[])).expect("answered");
        assert_eq!(value[16..], [4, 0, 0, 0]);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let mut client = Client::new();
        let invalid = Errno::INVAL.raw_os_error().unsigned_abs();
        assert_eq!(
            client.ask(9, &access(0x1FFFE, REGION_REGISTERS, 4, &[])),
            Err(invalid)
        );
        assert_eq!(
            client.ask(9, &access(u64::MAX, REGION_CONFIG, 4, &[])),
            Err(invalid)
        );
        assert_eq!(client.ask(9, &access(0, 3, 4, &[])), Err(invalid));
        assert_eq!(client.ask(10, &access(0, REGION_CONFIG, 8, &[1])), Err(invalid));
        assert_eq!(
            client.ask(8, &Writer::default().words(&[20, 36, 2, 60, 10]).finish()),
            Err(invalid)
        );
        assert_eq!(
            client.ask(99, &[]),
            Err(Errno::NOTSUP.raw_os_error().unsigned_abs())
        );
    }

    proptest! {
        /// No payload of any command ends the session or the process.
        #[test]
        fn any_payload_is_survived(command in 0u16..20, payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut client = Client::new();
            client.send(command, 0, &payload);
            prop_assert!(client.receive().is_some());
        }
    }
}
