//! Live update: another signed image in the place of a running domain's.
//!
//! An image comes from the boot archive's spare slot or is uploaded in parts. It is verified before anything is stopped; then the
//! domain is restarted with it. Until it has lived for the domain's trial time the old image is kept, and brought back when the new one
//! dies. Three interfaces for three rights: [`ImageControl`] is the kernel's, for the supervisor; [`Uploads`] lets an image be sent
//! to the appliance, which runs nothing; [`Updates`] lets it be run.

use crate::kernel::{DomainName, DomainState};
use core::fmt;
use rref::{Exchange, RRef, RpcError, Share, Text, interface};

/// Bytes in one part of an uploaded image.
pub const PART_BYTES: usize = 16 * 1024;

/// What tells an image of a domain from another: version and, unless the build was given a name, a digest of the code.
pub type Build = Text<48>;

/// Part of an image on its way to the kernel.
#[derive(Exchange, Share)]
#[repr(C)]
pub struct ImagePart {
    /// Bytes used, from the start of `data`.
    pub length: u32,
    /// The bytes.
    pub data: [u8; PART_BYTES],
}

/// Where an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum ImageSource {
    /// The boot archive's file `spare/NAME`.
    Spare,
    /// What was uploaded last.
    Upload,
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageSource::Spare => "spare slot",
            ImageSource::Upload => "upload",
        })
    }
}

/// Which images of a domain there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct DomainImages {
    /// What its next incarnation starts from: what runs, when it runs. `None` before its image was first verified.
    pub current: Option<Build>,
    /// What it goes back to when the current image dies on trial.
    pub previous: Option<Build>,
    /// What was uploaded, verified, and not run yet.
    pub uploaded: Option<Build>,
    /// The boot archive has an image of it in the spare slot.
    pub has_spare: bool,
    /// How long a new image is on trial, milliseconds.
    pub trial_ms: u32,
}

/// What the kernel has done for an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Replaced {
    /// The image before.
    pub from: Option<Build>,
    /// The image that the next incarnation starts from.
    pub to: Build,
    /// The newest incarnation that is not of the new image.
    pub generation: u64,
    /// It lived, and is dead now for the update.
    pub killed: bool,
}

/// Why there is no update or upload. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum UpdateError {
    /// There is no domain of this name.
    NoDomain,
    /// The supervisor can't be replaced without a restart of the machine.
    Supervisor,
    /// Neither the spare slot nor an upload has an image of this domain.
    NothingStaged,
    /// The image is refused, for this reason.
    Refused(Text<104>),
    /// It is the image that the domain has already.
    SameImage(Build),
    /// The domain is not in a state for this.
    WrongState(DomainState),
    /// The image is empty, or longer than this, in bytes.
    BadSize {
        /// The longest that is allowed.
        limit: u32,
    },
    /// Another image is being uploaded.
    Busy,
    /// There is no such upload: it was never begun, has ended, or was given up.
    NoUpload,
    /// Parts come in order and within the size that was announced: the next one begins here.
    OutOfOrder {
        /// Bytes received so far.
        expected: u32,
    },
    /// The upload's end came before its last part.
    Incomplete {
        /// Bytes received.
        received: u32,
        /// Bytes announced.
        total: u32,
    },
    /// No memory for it.
    OutOfMemory,
    /// The new image could not be started; the old one is back.
    NotStarted,
    /// Whoever was asked has died.
    Dead(RpcError),
}

impl From<RpcError> for UpdateError {
    fn from(error: RpcError) -> Self {
        UpdateError::Dead(error)
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::NoDomain => f.write_str("there is no domain of this name"),
            UpdateError::Supervisor => f.write_str(
                "the supervisor can't be updated while the machine runs; boot the new image instead",
            ),
            UpdateError::NothingStaged => {
                f.write_str("there is no image to update to, neither in the spare slot nor uploaded")
            }
            UpdateError::Refused(reason) => write!(f, "the image is refused: {reason}"),
            UpdateError::SameImage(build) => write!(f, "the domain has that image already ({build})"),
            UpdateError::WrongState(state) => write!(f, "the domain is {state:?}"),
            UpdateError::BadSize { limit } => write!(f, "an image has from 1 to {limit} bytes here"),
            UpdateError::Busy => f.write_str("another image is being uploaded"),
            UpdateError::NoUpload => f.write_str("there is no such upload"),
            UpdateError::OutOfOrder { expected } => {
                write!(f, "the next part of the image begins at byte {expected}")
            }
            UpdateError::Incomplete { received, total } => {
                write!(
                    f,
                    "the image is not complete: {received} of {total} bytes were received"
                )
            }
            UpdateError::OutOfMemory => f.write_str("out of memory"),
            UpdateError::NotStarted => f.write_str("the new image could not be started; the old one is back"),
            UpdateError::Dead(error) => error.fmt(f),
        }
    }
}

/// The images of domains: for the supervisor alone.
#[interface]
pub trait ImageControl {
    /// Which images a domain has, by its index in the manifest.
    fn images(&self, index: u16) -> Result<DomainImages, UpdateError>;

    /// Begins an upload of `bytes` bytes; its number. One is under way at a time; another takes its place when it has stood still for
    /// ten seconds.
    fn upload_begin(&self, index: u16, bytes: u32) -> Result<u64, UpdateError>;

    /// Adds the part that begins at byte `offset`.
    fn upload_part(&self, upload: u64, offset: u32, part: &RRef<ImagePart>) -> Result<(), UpdateError>;

    /// Verifies a complete upload, and keeps it in the place of an earlier one of its domain. However it ends, the upload is over.
    fn upload_finish(&self, upload: u64) -> Result<Build, UpdateError>;

    /// Ends an upload that will not be complete.
    fn upload_abandon(&self, upload: u64) -> Result<(), UpdateError>;

    /// Verifies the image from `source`, makes it the one that the domain starts from next, keeps the one before, and kills the
    /// live incarnation with the cause [`DeathCause::Updated`](crate::kernel::DeathCause::Updated).
    fn replace(&self, index: u16, source: ImageSource) -> Result<Replaced, UpdateError>;

    /// Makes the image before the one on trial the one that the domain starts from next; [`UpdateError::NothingStaged`] when none
    /// is kept.
    fn revert(&self, index: u16) -> Result<Build, UpdateError>;

    /// Ends a trial well: the image before is given up.
    fn settle(&self, index: u16) -> Result<(), UpdateError>;
}

/// Sending an image to the appliance. It is verified and kept; running it is the operator's decision.
// It verifies images, and returns when the new one is up or the old one again.
#[interface(deadline_ms = 60_000)]
pub trait Uploads {
    /// As [`ImageControl::upload_begin`], by name.
    fn begin(&self, name: DomainName, bytes: u32) -> Result<u64, UpdateError>;

    /// As [`ImageControl::upload_part`].
    fn part(&self, upload: u64, offset: u32, part: &RRef<ImagePart>) -> Result<(), UpdateError>;

    /// As [`ImageControl::upload_finish`].
    fn finish(&self, upload: u64) -> Result<Build, UpdateError>;

    /// As [`ImageControl::upload_abandon`].
    fn abandon(&self, upload: u64) -> Result<(), UpdateError>;
}

/// How an update goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum UpdateOutcome {
    /// The new image is being started.
    Starting,
    /// The operator has stopped the domain: its next start is from the new image.
    AtNextStart,
    /// It runs, on trial until this time, nanoseconds since boot.
    OnTrial {
        /// The end of its trial.
        until_ns: u64,
    },
    /// It has lived through its trial.
    Kept,
    /// It died on trial or could not be started, for this reason; the image before is back.
    RolledBack(Text<120>),
    /// Another update came before its trial was over.
    Superseded,
}

impl fmt::Display for UpdateOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateOutcome::Starting => f.write_str("starting"),
            UpdateOutcome::AtNextStart => f.write_str("at the next start"),
            UpdateOutcome::OnTrial { .. } => f.write_str("on trial"),
            UpdateOutcome::Kept => f.write_str("kept"),
            UpdateOutcome::RolledBack(reason) => write!(f, "rolled back: {reason}"),
            UpdateOutcome::Superseded => f.write_str("superseded by another update"),
        }
    }
}

/// An update, as the supervisor remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct UpdateRecord {
    /// Counts updates from 1.
    pub number: u64,
    /// The domain.
    pub name: DomainName,
    /// The image before; `None` when there was none that could be run.
    pub from: Option<Build>,
    /// The new image.
    pub to: Build,
    /// Where it came from.
    pub source: ImageSource,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
    /// From the old incarnation's end to the new one's being up, nanoseconds; 0 as long as it isn't, and when there was none to end.
    pub restart_ns: u64,
    /// How it went.
    pub outcome: UpdateOutcome,
}

/// Running other images: for the operator.
// It verifies images, and returns when the new one is up or the old one again.
#[interface(deadline_ms = 60_000)]
pub trait Updates {
    /// Which images a domain has.
    fn images(&self, name: DomainName) -> Result<DomainImages, UpdateError>;

    /// Restarts a domain with another image: from `source`, or else what was uploaded, or else the spare slot's. Returns when the old
    /// incarnation has ended; [`record`](Self::record) tells how it goes on.
    fn update(&self, name: DomainName, source: Option<ImageSource>) -> Result<UpdateRecord, UpdateError>;

    /// The update of this number; `None` when it is not kept any more or was never made.
    fn record(&self, number: u64) -> Result<Option<UpdateRecord>, UpdateError>;

    /// Updates since boot.
    fn count(&self) -> Result<u64, UpdateError>;
}
