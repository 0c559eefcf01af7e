//! An image on its way to the kernel, part by part.
//!
//! One at a time, in order, of a size that is announced and limited: so that whoever sends one, and stops in the middle, holds no more
//! memory than that, and only until somebody else wants to send one. Says nothing of what was sent: that is `image`'s.

use core::ops::DerefMut;

/// The longest image that may be uploaded, bytes.
pub const SIZE_LIMIT: u32 = 16 << 20;
/// An upload that stood still for this long makes place for another, nanoseconds.
pub const PATIENCE_NS: u64 = 10_000_000_000;

/// Why an upload is refused, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadError {
    /// It is empty or too long.
    BadSize {
        /// The longest that is allowed here.
        limit: u32,
    },
    /// Another is under way.
    Busy,
    /// No upload has this number any more, or had it ever.
    NoUpload,
    /// A part doesn't begin where the one before ended, or goes past the end.
    OutOfOrder {
        /// Where the next one begins.
        expected: u32,
    },
    /// The end came too early.
    Incomplete {
        /// Bytes received.
        received: u32,
        /// Bytes announced.
        total: u32,
    },
    /// No memory for it.
    OutOfMemory,
}

/// A complete upload.
#[derive(Debug)]
pub struct Complete<B> {
    /// Index of the domain that it was announced for.
    pub domain: u16,
    /// The bytes, at the front of the buffer.
    pub buffer: B,
    /// How many.
    pub length: usize,
}

struct Upload<B> {
    number: u64,
    domain: u16,
    buffer: B,
    received: u32,
    total: u32,
    /// When it last went on.
    moved_ns: u64,
}

/// The upload that is under way, if there is one, in a buffer of type `B`.
pub struct Uploads<B> {
    under_way: Option<Upload<B>>,
    count: u64,
}

impl<B: DerefMut<Target = [u8]>> Uploads<B> {
    /// None.
    pub const fn new() -> Uploads<B> {
        Uploads {
            under_way: None,
            count: 0,
        }
    }

    /// Whether one of `total` bytes could begin now; `limit` is its domain's own.
    ///
    /// What stood still for too long is given up by this, and its buffer returned for the caller to drop where that is convenient.
    pub fn make_room(&mut self, total: u32, limit: u32, now_ns: u64) -> Result<Option<B>, UploadError> {
        let limit = limit.min(SIZE_LIMIT);
        if total == 0 || total > limit {
            return Err(UploadError::BadSize { limit });
        }
        match &self.under_way {
            Some(upload) if now_ns.saturating_sub(upload.moved_ns) < PATIENCE_NS => Err(UploadError::Busy),
            _ => Ok(self.under_way.take().map(|upload| upload.buffer)),
        }
    }

    /// Begins one in `buffer`, which holds at least `total` bytes; its number. Gives the buffer back when another was faster.
    pub fn begin(
        &mut self,
        domain: u16,
        total: u32,
        buffer: B,
        now_ns: u64,
    ) -> Result<u64, (UploadError, B)> {
        if self.under_way.is_some() {
            return Err((UploadError::Busy, buffer));
        }
        if buffer.len() < total as usize {
            return Err((UploadError::OutOfMemory, buffer));
        }
        self.count += 1;
        self.under_way = Some(Upload {
            number: self.count,
            domain,
            buffer,
            received: 0,
            total,
            moved_ns: now_ns,
        });
        Ok(self.count)
    }

    /// Adds `bytes`, which begin at `offset` of the image.
    pub fn part(&mut self, number: u64, offset: u32, bytes: &[u8], now_ns: u64) -> Result<(), UploadError> {
        let upload = self
            .under_way
            .as_mut()
            .filter(|upload| upload.number == number)
            .ok_or(UploadError::NoUpload)?;
        let expected = upload.received;
        let out_of_order = UploadError::OutOfOrder { expected };
        let end = offset as usize + bytes.len();
        if offset != expected || end > upload.total as usize {
            return Err(out_of_order);
        }
        let place = upload.buffer.get_mut(offset as usize..end).ok_or(out_of_order)?;
        place.copy_from_slice(bytes);
        upload.received = end as u32;
        upload.moved_ns = now_ns;
        Ok(())
    }

    /// Ends an upload, complete or not.
    pub fn finish(&mut self, number: u64) -> Result<Complete<B>, (UploadError, Option<B>)> {
        let Some(upload) = self.under_way.take_if(|upload| upload.number == number) else {
            return Err((UploadError::NoUpload, None));
        };
        let Upload {
            domain,
            buffer,
            received,
            total,
            ..
        } = upload;
        if received < total {
            return Err((UploadError::Incomplete { received, total }, Some(buffer)));
        }
        Ok(Complete {
            domain,
            buffer,
            length: total as usize,
        })
    }
}

impl<B: DerefMut<Target = [u8]>> Default for Uploads<B> {
    fn default() -> Self {
        Uploads::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn begin(uploads: &mut Uploads<Vec<u8>>, total: u32, now_ns: u64) -> Result<u64, UploadError> {
        uploads.make_room(total, 1000, now_ns)?;
        uploads
            .begin(3, total, vec![0; total as usize], now_ns)
            .map_err(|(error, _)| error)
    }

    fn finish(uploads: &mut Uploads<Vec<u8>>, number: u64) -> Result<Vec<u8>, UploadError> {
        match uploads.finish(number) {
            Ok(complete) => {
                assert_eq!(complete.domain, 3);
                assert_eq!(complete.length, complete.buffer.len());
                Ok(complete.buffer)
            }
            Err((error, _)) => Err(error),
        }
    }

    #[test]
    fn parts_in_order_make_the_image() {
        let mut uploads = Uploads::new();
        let number = begin(&mut uploads, 5, 0).unwrap();
        uploads.part(number, 0, b"hel", 0).unwrap();
        uploads.part(number, 3, b"lo", 0).unwrap();
        assert_eq!(finish(&mut uploads, number), Ok(b"hello".to_vec()));
        assert_eq!(finish(&mut uploads, number), Err(UploadError::NoUpload));
    }

    #[test]
    fn parts_out_of_order_and_past_the_end_are_refused_and_change_nothing() {
        let mut uploads = Uploads::new();
        let number = begin(&mut uploads, 5, 0).unwrap();
        uploads.part(number, 0, b"hel", 0).unwrap();
        for (offset, bytes) in [(0, "xxx"), (2, "x"), (4, "x"), (3, "xxx"), (u32::MAX, "x")] {
            let expected = UploadError::OutOfOrder { expected: 3 };
            assert_eq!(uploads.part(number, offset, bytes.as_bytes(), 0), Err(expected));
        }
        uploads.part(number, 3, b"lo", 0).unwrap();
        assert_eq!(finish(&mut uploads, number), Ok(b"hello".to_vec()));
    }

    #[test]
    fn sizes_are_limited() {
        let mut uploads = Uploads::new();
        for total in [0, 1001, u32::MAX] {
            assert_eq!(
                begin(&mut uploads, total, 0),
                Err(UploadError::BadSize { limit: 1000 })
            );
        }
        assert_eq!(
            uploads.make_room(SIZE_LIMIT + 1, u32::MAX, 0),
            Err(UploadError::BadSize { limit: SIZE_LIMIT })
        );
    }

    #[test]
    fn an_early_end_ends_it() {
        let mut uploads = Uploads::new();
        let number = begin(&mut uploads, 5, 0).unwrap();
        uploads.part(number, 0, b"h", 0).unwrap();
        let incomplete = UploadError::Incomplete {
            received: 1,
            total: 5,
        };
        assert_eq!(finish(&mut uploads, number), Err(incomplete));
        assert_eq!(uploads.part(number, 1, b"e", 0), Err(UploadError::NoUpload));
        assert!(begin(&mut uploads, 5, 0).is_ok());
    }

    #[test]
    fn one_that_stands_still_makes_place_and_its_sender_is_told() {
        let mut uploads = Uploads::new();
        let first = begin(&mut uploads, 5, 0).unwrap();
        uploads.part(first, 0, b"h", 5 * SECOND).unwrap();
        assert_eq!(begin(&mut uploads, 5, 14 * SECOND), Err(UploadError::Busy));
        let second = begin(&mut uploads, 5, 15 * SECOND).unwrap();
        assert_ne!(first, second);
        assert_eq!(
            uploads.part(first, 1, b"e", 15 * SECOND),
            Err(UploadError::NoUpload)
        );
        uploads.part(second, 0, b"other", 15 * SECOND).unwrap();
        assert_eq!(finish(&mut uploads, second), Ok(b"other".to_vec()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(u32),
        Part(u64, u32, usize),
        Finish(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..1200).prop_map(Step::Begin),
            (0u64..6, 0u32..700, 0usize..400)
                .prop_map(|(number, offset, length)| Step::Part(number, offset, length)),
            (0u64..6).prop_map(Step::Finish),
            (0u64..8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever is sent, at most one buffer of the announced size is held, and what comes out complete is what went in, in order.
        #[test]
        fn any_senders_hold_one_buffer_and_get_out_what_they_sent(steps in proptest::collection::vec(step(), 0..60)) {
            let mut uploads: Uploads<Vec<u8>> = Uploads::new();
            let mut sent: Vec<u8> = Vec::new();
            let (mut now_ns, mut fill) = (0, 0u8);
            for step in steps {
                match step {
                    Step::Begin(total) => if begin(&mut uploads, total, now_ns).is_ok() {
                        sent.clear();
                    },
                    Step::Part(number, offset, length) => {
                        fill = fill.wrapping_add(1);
                        let bytes = vec![fill; length];
                        if uploads.part(number, offset, &bytes, now_ns).is_ok() {
                            prop_assert_eq!(offset as usize, sent.len());
                            sent.extend(bytes);
                        }
                    }
                    Step::Finish(number) => if let Ok(image) = finish(&mut uploads, number) {
                        prop_assert_eq!(&image, &sent);
                    },
                    Step::Wait(seconds) => now_ns += seconds * SECOND,
                }
                let held = uploads.under_way.as_ref().map_or(0, |upload| upload.buffer.len());
                prop_assert!(held <= 1000);
            }
        }
    }
}
