//! Attaching to a Linux tap device, and adopting one that a parent has opened.
//!
//! Trusted because both need what safe crates don't offer: the TUNSETIFF request and a descriptor that is only a number.
//! Makes no configuration (addresses, bridges, MTU): the interface's owner does that. Frames carry no extra header.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Attaches to the tap interface `name` of the current network namespace, creating it when it doesn't exist.
///
/// The descriptor doesn't block. Each read takes one Ethernet frame, each write sends one.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no interface name"),
        ));
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty())?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq, and `request` is one that lives across the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}

/// A descriptor of our own for the open tap device that a parent passed as number `number`.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow lasts for the next call only, which duplicates the descriptor or fails with EBADF when no
    // descriptor has this number; nothing is closed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let fd = borrowed.try_clone_to_owned()?;
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_and_numbers_are_refused() {
        for name in ["", "a/b", "a-name-that-is-too-long"] {
            assert_eq!(
                open(name).expect_err("must fail").kind(),
                io::ErrorKind::InvalidInput
            );
        }
        assert!(adopt(-1).is_err());
        assert!(adopt(1_000_000).is_err());
    }

    #[test]
    fn adopted_descriptor_is_the_same_file() {
        let (reader, writer) = io::pipe().expect("pipe");
        let adopted = adopt(writer.as_raw_fd()).expect("adopt");
        drop(writer);
        rustix::io::write(&adopted, b"x").expect("write");
        let mut byte = [0];
        rustix::io::read(&reader, &mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }
}
