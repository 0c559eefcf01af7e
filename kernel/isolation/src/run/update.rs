//! Other images in the place of a domain's: uploads of them, and the change from one to the other.
//!
//! An image is verified here before the domain learns of it, whatever the source. The change itself is small: the plan that the next
//! start is from is another one, and the live incarnation is killed. Giving back its memory and starting the next is the usual way of
//! a death. When an image is kept, and when the one before comes back, is the supervisor's to decide.

use super::archive::boot_file;
use super::death::kill;
use super::domain::{Cause, Domain, State};
use super::loader::{drop_useless_standby, load_beside, verified_plan};
use crate::elf::{PAGE_BYTES, Plan};
use crate::image::ImageError;
use crate::upload::{UploadError, Uploads};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use kernel::machine::clock;
use kernel::machine::memory::Frames;
use kernel::machine::sync::InterruptLock;

/// Frames as bytes.
struct Buffer(Frames);

impl Buffer {
    fn allocate(bytes: u32) -> Option<Buffer> {
        let frames = Frames::allocate((bytes as usize).div_ceil(PAGE_BYTES), 1).ok()?;
        Some(Buffer(frames.zeroed()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: The frames are this value's own, in the physical map as long as it lives, initialised (`allocate` fills them), and
        // mapped nowhere else.
        unsafe { core::slice::from_raw_parts(self.0.as_pointer(), self.0.bytes()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: As `deref`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_pointer(), self.0.bytes()) }
    }
}

static UPLOADS: InterruptLock<Uploads<Buffer>> = InterruptLock::new(Uploads::new());

/// Begins the upload of an image of `domain`; its number.
pub fn upload_begin(domain: &Domain, bytes: u32) -> Result<u64, UploadError> {
    let limit = u32::try_from(domain.manifest.memory_quota_bytes).unwrap_or(u32::MAX);
    let now_ns = clock::now_ns();
    let given_up = UPLOADS.lock().make_room(bytes, limit, now_ns)?;
    drop(given_up);
    // Not under the lock, nor is a buffer dropped there.
    let buffer = Buffer::allocate(bytes).ok_or(UploadError::OutOfMemory)?;
    let begun = UPLOADS
        .lock()
        .begin(domain.header.slot - 1, bytes, buffer, now_ns);
    begun.map_err(|(error, _)| error)
}

/// Adds the part of an upload that begins at byte `offset`.
pub fn upload_part(upload: u64, offset: u32, bytes: &[u8]) -> Result<(), UploadError> {
    let now_ns = clock::now_ns();
    UPLOADS.lock().part(upload, offset, bytes, now_ns)
}

/// Ends an upload that will not be complete.
pub fn upload_abandon(upload: u64) -> Result<(), UploadError> {
    let ended = UPLOADS.lock().finish(upload);
    match ended {
        Ok(_) | Err((_, Some(_))) => Ok(()),
        Err((error, None)) => Err(error),
    }
}

/// Verifies a complete upload and keeps it in the place of an earlier one of the same domain; what its signer calls it.
pub fn upload_finish(upload: u64) -> Result<String, ReplaceError> {
    let ended = UPLOADS.lock().finish(upload);
    let complete = ended.map_err(|(error, _)| ReplaceError::Upload(error))?;
    let domain = super::domain::domain(complete.domain).ok_or(ReplaceError::Upload(UploadError::NoUpload))?;
    let file = complete
        .buffer
        .get(..complete.length)
        .ok_or(ReplaceError::Upload(UploadError::NoUpload))?;
    let plan = fitting_plan(domain, file)?;
    let build = plan.build.clone();
    let earlier = domain.life.lock().uploaded.replace(plan);
    drop(earlier);
    Ok(build)
}

/// Where another image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `spare/NAME` of the boot archive.
    Spare,
    /// What was uploaded.
    Upload,
}

/// Why an image doesn't become the domain's. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplaceError {
    /// There is none from this source.
    Nothing,
    /// It is refused.
    Image(ImageError),
    /// It needs more memory than the domain's quota allows.
    TooLarge,
    /// It is what the domain has.
    Same(String),
    /// The domain is being started: in a moment it can be replaced.
    Starting,
    /// It can't be received.
    Upload(UploadError),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The build before.
    pub from: Option<String>,
    /// The build that comes next.
    pub to: String,
    /// The newest incarnation that is not of the new image.
    pub generation: u64,
    /// It lived, and was killed.
    pub killed: bool,
}

/// What images a domain has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// What its next start is from.
    pub current: Option<String>,
    /// What it can go back to.
    pub previous: Option<String>,
    /// What was uploaded and not run yet.
    pub uploaded: Option<String>,
    /// The boot archive has a spare one.
    pub has_spare: bool,
}

fn spare(domain: &Domain) -> Option<&'static [u8]> {
    boot_file(&format!("spare/{}", domain.manifest.name))
}

/// A verified image that the domain's quota has room for beside nothing else.
fn fitting_plan(domain: &Domain, file: &[u8]) -> Result<Arc<Plan>, ReplaceError> {
    let plan = verified_plan(domain, file).map_err(ReplaceError::Image)?;
    let bytes = (plan.pages() + 2) as u64 * PAGE_BYTES as u64;
    if bytes > domain.manifest.memory_quota_bytes {
        return Err(ReplaceError::TooLarge);
    }
    Ok(plan)
}

/// What images `domain` has.
pub fn images(domain: &Domain) -> Images {
    let build = |plan: &Arc<Plan>| plan.build.clone();
    // Counted references, so that no text is copied under the lock.
    let (current, previous, uploaded) = {
        let life = domain.life.lock();
        (life.plan.clone(), life.previous.clone(), life.uploaded.clone())
    };
    Images {
        current: current.as_ref().map(build),
        previous: previous.as_ref().map(build),
        uploaded: uploaded.as_ref().map(build),
        has_spare: spare(domain).is_some(),
    }
}

/// Makes the image from `source` the one that `domain` starts from next, and kills the live incarnation.
///
/// The image that the domain had stays as its previous one; when that was itself on trial, the one before it does.
pub fn replace(domain: &'static Domain, source: Source) -> Result<Replaced, ReplaceError> {
    let candidate = match source {
        Source::Spare => fitting_plan(domain, spare(domain).ok_or(ReplaceError::Nothing)?)?,
        Source::Upload => domain.life.lock().uploaded.clone().ok_or(ReplaceError::Nothing)?,
    };
    let to = candidate.build.clone();
    if !is_current(domain, &candidate) {
        // While the old one still works.
        load_beside(domain, &candidate);
    }
    // What the change lets go of is dropped without the lock.
    let (old, used, generation, live) = {
        let mut life = domain.life.lock();
        if let Some(plan) = &life.plan
            && plan.signature == candidate.signature
        {
            return Err(ReplaceError::Same(to));
        }
        let live = domain.header.live();
        if life.state == State::Starting && live.is_none() {
            return Err(ReplaceError::Starting);
        }
        let used = match source {
            Source::Upload => life
                .uploaded
                .take_if(|uploaded| Arc::ptr_eq(uploaded, &candidate)),
            Source::Spare => None,
        };
        let old = life.plan.replace(candidate);
        if life.previous.is_none() {
            life.previous = old.clone();
        }
        (old, used, life.generation, live)
    };
    drop(used);
    let killed = live.is_some_and(|incarnation| kill(incarnation, Cause::Updated, &to));
    Ok(Replaced {
        from: old.map(|plan| plan.build.clone()),
        to,
        generation,
        killed,
    })
}

fn is_current(domain: &Domain, candidate: &Plan) -> bool {
    let life = domain.life.lock();
    life.plan
        .as_ref()
        .is_some_and(|plan| plan.signature == candidate.signature)
}

/// Makes the image before the one on trial the one that `domain` starts from next; its build, or `None` when none is kept.
pub fn revert(domain: &Domain) -> Option<String> {
    let (previous, failed) = {
        let mut life = domain.life.lock();
        let previous = life.previous.take()?;
        let failed = life.plan.replace(previous.clone());
        (previous, failed)
    };
    drop(failed);
    Some(previous.build.clone())
}

/// Gives up the image before the one that was on trial.
pub fn settle(domain: &Domain) {
    let previous = domain.life.lock().previous.take();
    drop(previous);
    drop_useless_standby(domain);
}
