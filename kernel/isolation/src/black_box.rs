//! What is kept of a death beside its record: where threads stood, what the domain did last, what it had.
//!
//! Data and bounds, and the walk over a stack; all of it works on a host. Who writes it when is `run::black_box`'s. Everything has a fixed
//! size, so that a crash loop can't use up memory: [`BOX_LIMIT`] boxes, each with at most [`THREAD_LIMIT`] stacks of [`FRAME_LIMIT`] frames and
//! [`EVENT_LIMIT`] events.

use abi::OwnerId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use heapless::HistoryBuf;
use rref::Text;

/// Boxes that are kept.
pub const BOX_LIMIT: usize = 64;
/// Threads of which a box has the stack.
pub const THREAD_LIMIT: usize = 4;
/// Frames of a stack that are kept, from the innermost.
pub const FRAME_LIMIT: usize = 24;
/// Domains of a chain of crossings that are kept, from the innermost.
pub const LINK_LIMIT: usize = 8;
/// Events of a domain that are kept.
pub const EVENT_LIMIT: usize = 32;

/// A mapped domain image, as far as addresses in it need a name. Kept as long as a box has an address in it, so that names stay right when
/// the domain gets another image.
#[derive(Debug)]
pub struct Image {
    /// The domain's slot.
    pub slot: u16,
    /// Where the image is mapped.
    pub base: u64,
    /// Its code.
    pub code: Range<u64>,
    /// The table of its functions, by their addresses in the image (`kernel::symbols`); may be empty.
    pub symbols: Arc<[u8]>,
}

/// A place in code.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The address: of the last byte of the call that has not returned, or of the instruction where the thread stood.
    pub address: u64,
    /// The image that it is in; none for the kernel's.
    pub image: Option<Arc<Image>>,
}

/// A crossing that a thread was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who was called.
    pub callee: OwnerId,
    /// By which method, `Interface.method`; empty for a thread's own entry, and where it isn't known.
    pub method: Text<64>,
}

/// What a thread was doing when its domain's death reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// What it did is what the domain died of.
    AtFault,
    /// It ran the domain's code, or was about to go on with it.
    InDomain,
    /// It was in the kernel: mostly because it waited.
    InKernel,
}

/// The general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the manual names them")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A CPU exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDetail {
    /// Vector (Intel SDM volume 3, table 6-1).
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u64,
    /// What a page fault was about.
    pub address: Option<u64>,
    /// At the instruction that failed.
    pub registers: Registers,
}

/// A thread that was in the domain.
#[derive(Clone, Debug)]
pub struct SeenThread {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: Text<32>,
    /// CPU.
    pub cpu: u32,
    /// What it was doing.
    pub position: Position,
    /// The exception that it raised.
    pub fault: Option<FaultDetail>,
    /// From the innermost function outwards, through every domain on the way.
    pub frames: heapless::Vec<Frame, FRAME_LIMIT>,
    /// Whether `frames` are exactly the calls; otherwise some of them were found by searching the stack, and may be of calls that had
    /// returned.
    pub is_exact: bool,
    /// The crossings it was in, the innermost first.
    pub links: heapless::Vec<Link, LINK_LIMIT>,
}

impl SeenThread {
    /// How much it tells of the death, the least number most: the one that is at fault, then those that were in a crossing, and of these those that
    /// were at work.
    fn rank(&self) -> u8 {
        // A thread's own entry has no method.
        let is_crossing = self.links.iter().any(|link| !link.method.as_str().is_empty());
        match (self.position, is_crossing) {
            (Position::AtFault, _) => 0,
            (Position::InDomain, true) => 1,
            (Position::InKernel, true) => 2,
            (Position::InDomain, false) => 3,
            (Position::InKernel, false) => 4,
        }
    }
}

/// What kind of thing a domain did, or was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An incarnation was loaded.
    Loaded,
    /// Its `start` returned.
    Running,
    /// It started a thread.
    ThreadStarted,
    /// A thread of it ended.
    ThreadEnded,
    /// It offered an interface.
    Exported,
    /// It connected to a provider.
    Connected,
    /// It wanted to connect and couldn't.
    NotConnected,
    /// It took a device.
    DeviceClaimed,
    /// It attached to an interrupt.
    InterruptAttached,
    /// It was refused memory or a thread.
    Refused,
    /// It wrote an error or a warning to the log.
    Logged,
    /// A domain that it imports from died.
    ProviderDied,
    /// The watch looked at a thread of whoever was found to hang: where it was.
    Watched,
    /// It died.
    Died,
}

/// Something that a domain did. Never a crossing or a packet: those are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, nanoseconds since boot; of the last one of a repetition.
    pub at_ns: u64,
    /// The incarnation.
    pub generation: u64,
    /// What kind.
    pub kind: EventKind,
    /// What exactly.
    pub text: Text<88>,
    /// How often it came in a row, at least 1.
    pub count: u32,
}

/// The last events of a domain, over its incarnations.
#[derive(Default)]
pub struct Events {
    kept: HistoryBuf<Event, EVENT_LIMIT>,
    /// The newest, which may still repeat.
    newest: Option<Event>,
}

impl Events {
    /// No events.
    pub const fn new() -> Events {
        Events {
            kept: HistoryBuf::new(),
            newest: None,
        }
    }

    /// Adds an event; one that only repeats the last one is counted there.
    pub fn add(&mut self, event: Event) {
        match &mut self.newest {
            Some(last)
                if (last.generation, last.kind, last.text) == (event.generation, event.kind, event.text) =>
            {
                last.at_ns = event.at_ns;
                last.count = last.count.saturating_add(1);
            }
            newest => {
                if let Some(last) = newest.replace(event) {
                    self.kept.write(last);
                }
            }
        }
    }

    /// The last ones, oldest first: at most [`EVENT_LIMIT`].
    pub fn last(&self) -> impl Iterator<Item = Event> {
        let room = EVENT_LIMIT - usize::from(self.newest.is_some());
        let skipped = self.kept.len().saturating_sub(room);
        let kept = self.kept.oldest_ordered().skip(skipped);
        kept.copied().chain(self.newest)
    }
}

/// What a domain had when it died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How long this incarnation lived, nanoseconds.
    pub uptime_ns: u64,
    /// Crossings into this incarnation.
    pub crossings: u64,
    /// Crossings into the domain since boot.
    pub crossings_since_boot: u64,
    /// Private memory: image, heap, stacks.
    pub memory_bytes: u64,
    /// Threads that it had started.
    pub threads: u32,
    /// Shared objects that it owned, and their bytes; known once they are given back.
    pub shared: Option<(u64, u64)>,
}

/// What is kept of one death.
#[derive(Clone, Debug)]
pub struct BlackBox {
    /// The death's number.
    pub number: u64,
    /// Who died.
    pub owner: OwnerId,
    /// What it had.
    pub counters: Counters,
    /// Where its threads stood: first the one that is at fault, if one is, then those that were in a crossing, then others. At most [`THREAD_LIMIT`].
    pub threads: Vec<SeenThread>,
    /// Threads that there was no room for.
    pub more_threads: u32,
    /// What it did last, oldest first.
    pub events: Vec<Event>,
}

impl BlackBox {
    /// An empty box, with memory for all that it may get, so that nothing is allocated later: some of it comes in interrupt context. On the heap part by
    /// part, since a thread that has used up its stack makes one too.
    pub fn new(number: u64, owner: OwnerId, counters: Counters) -> BlackBox {
        BlackBox {
            number,
            owner,
            counters,
            threads: Vec::with_capacity(THREAD_LIMIT),
            more_threads: 0,
            events: Vec::with_capacity(EVENT_LIMIT),
        }
    }

    /// Adds a thread, unless it is there already. In a full box it takes the place of one that tells less.
    pub fn see(&mut self, thread: SeenThread) {
        if self.threads.iter().any(|known| known.id == thread.id) {
            return;
        }
        let place = self
            .threads
            .partition_point(|known| known.rank() <= thread.rank());
        if self.threads.len() == THREAD_LIMIT {
            self.more_threads += 1;
            if place == THREAD_LIMIT {
                return;
            }
            self.threads.pop();
        }
        // Below the limit, and so without an allocation.
        self.threads.insert(place, thread);
    }
}

// All boxes together are below 1 MiB.
const _: () = {
    let parts = THREAD_LIMIT * size_of::<SeenThread>() + EVENT_LIMIT * size_of::<Event>();
    assert!(BOX_LIMIT * (size_of::<BlackBox>() + parts) <= 1 << 20);
};

/// The boxes that are kept, oldest first.
#[derive(Default)]
pub struct Archive {
    boxes: Vec<BlackBox>,
}

impl Archive {
    /// An empty archive.
    pub const fn new() -> Archive {
        Archive { boxes: Vec::new() }
    }

    /// Adds a box. A full archive gives up the oldest of the domain that has the most, so that one domain's crash loop doesn't push out what
    /// happened to the others.
    #[must_use = "the box that had to go is dropped by the caller, outside of locks"]
    pub fn add(&mut self, black_box: BlackBox) -> Option<BlackBox> {
        self.boxes.push(black_box);
        if self.boxes.len() <= BOX_LIMIT {
            return None;
        }
        let count = |slot| self.boxes.iter().filter(|kept| kept.owner.slot() == slot).count();
        let most = self
            .boxes
            .iter()
            .map(|kept| count(kept.owner.slot()))
            .max()
            .unwrap_or(0);
        let oldest = self
            .boxes
            .iter()
            .position(|kept| count(kept.owner.slot()) == most)?;
        Some(self.boxes.remove(oldest))
    }

    /// The box of the death with this number.
    pub fn find(&self, number: u64) -> Option<&BlackBox> {
        self.boxes.iter().find(|kept| kept.number == number)
    }

    /// The box of an incarnation's death.
    pub fn of(&mut self, owner: OwnerId) -> Option<&mut BlackBox> {
        self.boxes.iter_mut().rev().find(|kept| kept.owner == owner)
    }
}

/// A stack and code to walk over.
pub trait Memory {
    /// The word at an address of the stack; `None` outside of it.
    fn word(&self, address: u64) -> Option<u64>;

    /// The bytes of code before `address`; `None` if that is not in code.
    fn code_before(&self, address: u64) -> Option<[u8; 7]>;
}

/// Finds the return addresses on a stack, from the innermost: along the frame pointers from `frame` as far as they lead, and from there by
/// looking at each word upwards from `stack`. True if frame pointers led to the end.
///
/// Nothing about the stack is believed: a register or a word may hold anything.
pub fn walk(memory: &impl Memory, stack: u64, frame: u64, mut found: impl FnMut(u64) -> bool) -> bool {
    let Some(lowest) = stack.checked_next_multiple_of(8) else {
        return false;
    };
    let (mut position, mut frame) = (lowest, frame);
    while frame != 0 {
        let inside = frame >= position && frame.is_multiple_of(8);
        let words = inside.then(|| Some((memory.word(frame)?, memory.word(frame.checked_add(8)?)?)));
        let Some(Some((next, address))) = words else { break };
        if !is_return_address(memory, address) {
            // The first frame of a thread has nowhere to return to.
            if next == 0 && address == 0 {
                return true;
            }
            break;
        }
        if !found(address) {
            return true;
        }
        position = frame + 16;
        frame = next;
    }
    if frame == 0 && position > lowest {
        return true;
    }
    while let Some(word) = memory.word(position) {
        if is_return_address(memory, word) && !found(word) {
            break;
        }
        position += 8;
    }
    false
}

/// Whether the instruction before `address` is a call (Intel SDM volume 2, CALL): direct, or by a register or memory operand.
fn is_return_address(memory: &impl Memory, address: u64) -> bool {
    let Some(code) = memory.code_before(address) else {
        return false;
    };
    let back = |count: usize| code.iter().rev().nth(count - 1).copied().unwrap_or(0);
    let is_direct = back(5) == 0xe8;
    let is_indirect = |length: usize| {
        let operand = back(length - 1);
        back(length) == 0xff && operand >> 3 & 7 == 2 && lengths(operand).contains(&length)
    };
    is_direct || (2..=code.len()).any(is_indirect)
}

/// How long an indirect call with this operand byte (ModR/M) is, in bytes.
fn lengths(operand: u8) -> &'static [usize] {
    match (operand >> 6, operand & 7) {
        (0, 4) => &[3, 7],
        (0, 5) => &[6],
        (0 | 3, _) => &[2],
        (1, 4) => &[4],
        (1, _) => &[3],
        (_, 4) => &[7],
        _ => &[6],
    }
}

#[cfg(test)]
#[path = "black_box_tests.rs"]
mod tests;
