//! The kernel's part in live updates as an interface: `interface::update::ImageControl`, implemented.
//!
//! Only translation between the kernel's own types and exchangeable ones; the work is done in `isolation`.

use crate::services::state;
use interface::update::{
    Build, DomainImages, ImageControl, ImagePart, ImageSource, PART_BYTES, Replaced, UpdateError,
};
use isolation::upload::UploadError;
use isolation::{Domain, ReplaceError, Source};
use rref::{RRef, Text};

/// [`ImageControl`] over `isolation`.
pub struct Images;

fn domain(index: u16) -> Result<&'static Domain, UpdateError> {
    isolation::domain(index).ok_or(UpdateError::NoDomain)
}

/// A domain whose image can be another. The supervisor's can't: its death restarts the machine.
fn replaceable(index: u16) -> Result<&'static Domain, UpdateError> {
    match index {
        0 => Err(UpdateError::Supervisor),
        index => domain(index),
    }
}

fn upload_error(error: UploadError) -> UpdateError {
    match error {
        UploadError::BadSize { limit } => UpdateError::BadSize { limit },
        UploadError::Busy => UpdateError::Busy,
        UploadError::NoUpload => UpdateError::NoUpload,
        UploadError::OutOfOrder { expected } => UpdateError::OutOfOrder { expected },
        UploadError::Incomplete { received, total } => UpdateError::Incomplete { received, total },
        UploadError::OutOfMemory => UpdateError::OutOfMemory,
    }
}

fn replace_error(error: ReplaceError) -> UpdateError {
    match error {
        ReplaceError::Nothing => UpdateError::NothingStaged,
        ReplaceError::Image(reason) => UpdateError::Refused(Text::format(format_args!("{reason}"))),
        ReplaceError::TooLarge => {
            UpdateError::Refused(Text::new("it needs more memory than the domain's quota allows"))
        }
        ReplaceError::Same(build) => UpdateError::SameImage(Build::new(&build)),
        ReplaceError::Starting => UpdateError::WrongState(state(isolation::State::Starting)),
        ReplaceError::Upload(error) => upload_error(error),
    }
}

impl ImageControl for Images {
    fn images(&self, index: u16) -> Result<DomainImages, UpdateError> {
        let domain = domain(index)?;
        let images = isolation::images(domain);
        let build = |name: Option<alloc::string::String>| name.map(|name| Build::new(&name));
        Ok(DomainImages {
            current: build(images.current),
            previous: build(images.previous),
            uploaded: build(images.uploaded),
            has_spare: images.has_spare,
            trial_ms: domain.manifest.trial_ms,
        })
    }

    fn upload_begin(&self, index: u16, bytes: u32) -> Result<u64, UpdateError> {
        isolation::upload_begin(replaceable(index)?, bytes).map_err(upload_error)
    }

    fn upload_part(&self, upload: u64, offset: u32, part: &RRef<ImagePart>) -> Result<(), UpdateError> {
        let length = (part.length as usize).min(PART_BYTES);
        let bytes = part.data.get(..length).unwrap_or(&[]);
        isolation::upload_part(upload, offset, bytes).map_err(upload_error)
    }

    fn upload_finish(&self, upload: u64) -> Result<Build, UpdateError> {
        let build = isolation::upload_finish(upload).map_err(replace_error)?;
        Ok(Build::new(&build))
    }

    fn upload_abandon(&self, upload: u64) -> Result<(), UpdateError> {
        isolation::upload_abandon(upload).map_err(upload_error)
    }

    fn replace(&self, index: u16, source: ImageSource) -> Result<Replaced, UpdateError> {
        let source = match source {
            ImageSource::Spare => Source::Spare,
            ImageSource::Upload => Source::Upload,
        };
        let replaced = isolation::replace(replaceable(index)?, source).map_err(replace_error)?;
        Ok(Replaced {
            from: replaced.from.map(|build| Build::new(&build)),
            to: Build::new(&replaced.to),
            generation: replaced.generation,
            killed: replaced.killed,
        })
    }

    fn revert(&self, index: u16) -> Result<Build, UpdateError> {
        let build = isolation::revert(replaceable(index)?).ok_or(UpdateError::NothingStaged)?;
        Ok(Build::new(&build))
    }

    fn settle(&self, index: u16) -> Result<(), UpdateError> {
        isolation::settle(replaceable(index)?);
        Ok(())
    }
}
