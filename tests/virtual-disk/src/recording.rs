//! What was done to a medium, and what a power cut at any point can leave of it.
//!
//! A *point* is a number of events. A write has its place among them when it is carried out and remembers the point at which it was handed
//! over; between the two a power cut may leave any part of it. Afterwards too, until it is durable: forced, without a cache, or flushed by a flush that was handed over when the
//! write had been answered, and was done before the cut.

use crate::image::Image;
use fastrand::Rng;
use std::sync::Arc;

/// One change of the medium.
#[derive(Clone, Debug)]
pub enum Event {
    /// Data was written.
    Write {
        /// First logical block.
        address: u64,
        /// Whole logical blocks.
        data: Arc<[u8]>,
        /// Durable when it is done.
        forced: bool,
        /// The point at which it was handed over.
        submitted: usize,
    },
    /// A range was made zeros.
    Discard {
        /// First logical block.
        address: u64,
        /// Logical blocks.
        count: u64,
        /// The point at which it was handed over.
        submitted: usize,
    },
    /// What was done before `submitted` is durable.
    Flush {
        /// The point at which it was handed over.
        submitted: usize,
    },
}

impl Event {
    pub(crate) fn submitted(&self) -> usize {
        match self {
            Event::Write { submitted, .. }
            | Event::Discard { submitted, .. }
            | Event::Flush { submitted } => *submitted,
        }
    }

    pub(crate) fn set_submitted(&mut self, point: usize) {
        match self {
            Event::Write { submitted, .. }
            | Event::Discard { submitted, .. }
            | Event::Flush { submitted } => *submitted = point,
        }
    }

    /// Carries it out.
    fn apply(&self, image: &mut Image) {
        match self {
            Event::Write { address, data, .. } => image.write(*address, data),
            Event::Discard { address, count, .. } => image.discard(*address, *count),
            Event::Flush { .. } => {}
        }
    }
}

/// What was done to a medium since some moment.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(crate) base: Image,
    pub(crate) events: Vec<Event>,
    /// Logical blocks that a power cut leaves all old or all new.
    pub(crate) atomic_blocks: usize,
    /// There is a cache; without one everything is durable when it is done.
    pub(crate) volatile_cache: bool,
}

impl Recording {
    /// Points of it: 0 to this one.
    pub fn points(&self) -> usize {
        self.events.len()
    }

    /// What happened.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The content after `point` events, without any loss.
    pub fn image_at(&self, point: usize) -> Image {
        let mut image = self.base.clone();
        for event in self.events.iter().take(point) {
            event.apply(&mut image);
        }
        image
    }

    /// The content at each point in turn, without any loss.
    pub fn images(&self) -> impl Iterator<Item = Image> {
        let mut image = self.base.clone();
        let first = std::iter::once(image.clone());
        first.chain(self.events.iter().map(move |event| {
            event.apply(&mut image);
            image.clone()
        }))
    }

    /// The content after `point` events if all that is not durable is lost.
    pub fn durable_at(&self, point: usize) -> Image {
        self.after_cut(point, |_| Fate::Lost)
    }

    /// A content that a power cut after `point` events can leave: all that is durable, and of the rest, also of what was under way, what `seed` says.
    pub fn cut_at(&self, point: usize, seed: u64) -> Image {
        let mut random = Rng::with_seed(seed);
        // Some cuts lose little, some nearly all.
        let kept_percent = random.u32(0..=100);
        self.after_cut(point, |blocks| {
            if random.u32(0..100) >= kept_percent {
                Fate::Lost
            } else if blocks <= 1 || random.bool() {
                Fate::Kept
            } else {
                Fate::Torn(random.u64(..))
            }
        })
    }

    /// Events that flushes before `point` have made durable.
    pub(crate) fn flushed_at(&self, point: usize) -> usize {
        let flushes = self.events.iter().take(point).filter_map(|event| match event {
            Event::Flush { submitted } => Some(*submitted),
            _ => None,
        });
        flushes.max().unwrap_or(0)
    }

    fn after_cut(&self, point: usize, mut fate: impl FnMut(usize) -> Fate) -> Image {
        let point = point.min(self.events.len());
        let mut image = self.base.clone();
        let flushed = self.flushed_at(point);
        for (index, event) in self.events.iter().enumerate() {
            let is_done = index < point;
            let is_durable = is_done
                && match event {
                    Event::Write { forced, .. } => *forced || !self.volatile_cache || index < flushed,
                    _ => !self.volatile_cache || index < flushed,
                };
            if is_durable {
                event.apply(&mut image);
            } else if is_done || event.submitted() <= point {
                self.apply_partly(event, &mut image, &mut fate);
            }
        }
        image
    }

    fn apply_partly(&self, event: &Event, image: &mut Image, fate: &mut impl FnMut(usize) -> Fate) {
        let Event::Write { address, data, .. } = event else {
            // A range that is discarded in part isn't relied on by anybody: all or nothing.
            if let Fate::Kept | Fate::Torn(_) = fate(1) {
                event.apply(image);
            }
            return;
        };
        let unit = self.atomic_blocks.max(1) * image.block_bytes();
        match fate(data.len().div_ceil(unit)) {
            Fate::Lost => {}
            Fate::Kept => event.apply(image),
            Fate::Torn(seed) => {
                let mut random = Rng::with_seed(seed);
                for (index, part) in data.chunks(unit).enumerate() {
                    if random.bool() {
                        image.write(address + (index * self.atomic_blocks.max(1)) as u64, part);
                    }
                }
            }
        }
    }
}

/// What becomes of a write that isn't durable.
enum Fate {
    Lost,
    Kept,
    Torn(u64),
}
