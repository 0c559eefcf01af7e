//! What a completion's status means (base specification 2.0, 4.2.3 "Status Field Definition"; NVM command set 1.0, 3.1).

use rref::block::Fault;

/// A status field without the phase: code in bits 0 to 7, type in 8 to 10, "do not retry" in 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

const GENERIC: u16 = 0;
const COMMAND_SPECIFIC: u16 = 1;
const MEDIA: u16 = 2;
const DO_NOT_RETRY: u16 = 1 << 14;

/// Command Abort Requested.
const ABORT_REQUESTED: u16 = 0x07;

impl Status {
    /// Whether the command did what it was to do.
    #[inline(always)]
    pub fn is_success(self) -> bool {
        self.0 & 0x7FF == 0
    }

    fn parts(self) -> (u16, u16) {
        (self.0 >> 8 & 0x7, self.0 & 0xFF)
    }

    /// Whether the same command may do better soon: what stopped it is not the medium's, and passes.
    pub fn is_transient(self) -> bool {
        self.0 & DO_NOT_RETRY == 0
            && matches!(
                self.parts(),
                // Data transfer, power loss, internal, aborted (three ways), namespace being changed, interrupted, transport, not ready.
                (GENERIC, 0x04..=0x0A | 0x1D | 0x21 | 0x22 | 0x82 | 0x84)
            )
    }

    /// What to say of a request that failed with it.
    pub fn fault(self) -> Fault {
        match self.parts() {
            (GENERIC, 0x01 | 0x02) | (COMMAND_SPECIFIC, 0x80) => Fault::Unsupported,
            (GENERIC, ABORT_REQUESTED) => Fault::TimedOut,
            (GENERIC, 0x0B) => Fault::Gone,
            (GENERIC, 0x20 | 0x83) | (COMMAND_SPECIFIC, 0x82) | (MEDIA, 0x86) => Fault::ReadOnly,
            (GENERIC, 0x80) => Fault::OutOfRange,
            (GENERIC, 0x81) => Fault::NoSpace,
            (MEDIA, 0x80) => Fault::WriteFault,
            // Unrecovered read; guard, application tag and reference tag; deallocated block.
            (MEDIA, 0x81..=0x84 | 0x87) => Fault::Unreadable,
            _ => Fault::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_faults() {
        for (status, fault, transient) in [
            (0x4002, Fault::Unsupported, false),
            (0x0006, Fault::Internal, true),
            (0x4006, Fault::Internal, false),
            (0x0007, Fault::TimedOut, true),
            (0x400B, Fault::Gone, false),
            (0x0020, Fault::ReadOnly, false),
            (0x4080, Fault::OutOfRange, false),
            (0x0081, Fault::NoSpace, false),
            (0x0082, Fault::Internal, true),
            (0x0182, Fault::ReadOnly, false),
            (0x0280, Fault::WriteFault, false),
            (0x0281, Fault::Unreadable, false),
            (0x0286, Fault::ReadOnly, false),
            (0x0701, Fault::Internal, false),
        ] {
            let status = Status(status);
            assert!(!status.is_success());
            assert_eq!(
                (status.fault(), status.is_transient()),
                (fault, transient),
                "{status:?}"
            );
        }
        assert!(Status(0).is_success());
        // Retry delay and "more" say nothing of success.
        assert!(Status(0x3800).is_success());
    }
}
