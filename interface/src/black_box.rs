//! Black boxes: what is kept of a death beside its record, for whoever looks for the reason.
//!
//! The kernel keeps those of the newest deaths; the provider is `kernel` in config/domains.toml. A box is asked for piece by piece, since what
//! crosses has a fixed size. Functions get their names when they are asked for.

use crate::kernel::{DeathCause, DomainName, ServiceError};
use rref::{Exchange, Share, Text, interface};

/// A death's black box, without its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct BlackBox {
    /// The death's number.
    pub number: u64,
    /// Who died.
    pub domain: DomainName,
    /// The incarnation.
    pub generation: u64,
    /// How long it had lived, nanoseconds.
    pub uptime_ns: u64,
    /// Crossings into this incarnation.
    pub crossings: u64,
    /// Crossings into the domain since boot.
    pub crossings_since_boot: u64,
    /// Its private memory, bytes: image, heap, stacks.
    pub memory_bytes: u64,
    /// Threads that it had started.
    pub threads: u32,
    /// Shared objects that it owned; `None` as long as they aren't given back.
    pub shared_objects: Option<u64>,
    /// Their bytes, with what was in them.
    pub shared_bytes: Option<u64>,
    /// Threads of which the stack is kept: [`BlackBoxes::thread`].
    pub seen_threads: u16,
    /// Further threads that were in the domain.
    pub more_threads: u32,
    /// Events that are kept: [`BlackBoxes::event`].
    pub events: u16,
}

/// What a thread was doing when its domain's death reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum Position {
    /// What it did is what the domain died of.
    AtFault,
    /// It ran the domain's code.
    InDomain,
    /// It was in the kernel: mostly because it waited.
    InKernel,
}

/// The general registers at an instruction that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
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

impl Registers {
    /// Names and values, in the order in which they are shown.
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("rip", self.rip),
            ("rsp", self.rsp),
            ("flags", self.rflags),
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("rbp", self.rbp),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
        ]
    }
}

/// A CPU exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct FaultDetail {
    /// Vector (Intel SDM volume 3, table 6-1).
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u64,
    /// What a page fault was about.
    pub address: Option<u64>,
    /// The registers.
    pub registers: Registers,
}

/// A thread that was in the domain that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct SeenThread {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: Text<32>,
    /// The CPU that it ran on.
    pub cpu: u32,
    /// What it was doing.
    pub position: Position,
    /// The exception that it raised.
    pub fault: Option<FaultDetail>,
    /// Frames of its stack that are kept: [`BlackBoxes::frame`].
    pub frames: u16,
    /// Whether they are exactly the calls that it was in; otherwise some were found by searching the stack, and may be left over from calls
    /// that had returned.
    pub is_exact: bool,
    /// Crossings that it was in: [`BlackBoxes::crossing`].
    pub crossings: u16,
}

/// A function on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Frame {
    /// Where the thread stood in it.
    pub address: u64,
    /// Whose code it is; `kernel` for proxies too.
    pub domain: DomainName,
    /// Its name; empty where it isn't known.
    pub function: Text<160>,
    /// Bytes from its start.
    pub offset: u64,
}

/// A crossing on a thread's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Crossing {
    /// Who was called.
    pub callee: DomainName,
    /// Which incarnation.
    pub generation: u64,
    /// `Interface.method`; empty for a thread's own entry into its domain.
    pub method: Text<64>,
}

/// What kind of thing a domain did, or was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
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
    /// A thread that was found to hang in it was looked at before: where it was.
    Watched,
    /// It died.
    Died,
}

impl EventKind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            EventKind::Loaded => "loaded",
            EventKind::Running => "running",
            EventKind::ThreadStarted => "thread started",
            EventKind::ThreadEnded => "thread ended",
            EventKind::Exported => "exported",
            EventKind::Connected => "connected",
            EventKind::NotConnected => "not connected",
            EventKind::DeviceClaimed => "device claimed",
            EventKind::InterruptAttached => "interrupt attached",
            EventKind::Refused => "refused",
            EventKind::Logged => "logged",
            EventKind::ProviderDied => "provider died",
            EventKind::Watched => "watched",
            EventKind::Died => "died",
        }
    }
}

/// Something that a domain did before it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct TraceEvent {
    /// When, nanoseconds since boot; of the last one where it came several times in a row.
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

/// The kernel's black boxes.
#[interface]
pub trait BlackBoxes {
    /// The box of the death with this number; `None` if it isn't kept, or hasn't happened.
    fn black_box(&self, number: u64) -> Result<Option<BlackBox>, ServiceError>;

    /// The `index`-th thread in a box; `None` past the last.
    fn thread(&self, number: u64, index: u16) -> Result<Option<SeenThread>, ServiceError>;

    /// The `index`-th frame of a thread's stack, from the innermost; `None` past the last.
    fn frame(&self, number: u64, thread: u16, index: u16) -> Result<Option<Frame>, ServiceError>;

    /// The `index`-th crossing of a thread's chain, from the innermost; `None` past the last.
    fn crossing(&self, number: u64, thread: u16, index: u16) -> Result<Option<Crossing>, ServiceError>;

    /// The `index`-th event before the death, from the oldest kept; `None` past the last.
    fn event(&self, number: u64, index: u16) -> Result<Option<TraceEvent>, ServiceError>;
}

/// Bounds of [`Durations`]' buckets, nanoseconds; the last bucket has none.
pub const DURATION_BOUNDS_NS: [u64; 9] = [
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct Durations {
    /// How many took at most as long as the bound of the same index, and longer than the one before.
    pub buckets: [u64; DURATION_BOUNDS_NS.len()],
    /// How many there were.
    pub count: u64,
    /// All together, nanoseconds.
    pub sum_ns: u64,
    /// The last one, nanoseconds.
    pub last_ns: u64,
}

impl Durations {
    /// Adds one.
    pub fn add(&mut self, duration_ns: u64) {
        let bounds = DURATION_BOUNDS_NS.iter();
        let bucket = self
            .buckets
            .iter_mut()
            .zip(bounds)
            .find(|(_, bound)| duration_ns <= **bound);
        if let Some((bucket, _)) = bucket {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(duration_ns);
        self.last_ns = duration_ns;
    }
}

/// The deaths of one domain since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct DeathCounts {
    /// By cause, in the order of [`DeathCause::LABELS`].
    pub causes: [u64; DeathCause::LABELS.len()],
    /// From a death to the running of the next incarnation.
    pub restarts: Durations,
    /// From a death to the first work that the successor did, where a shadow measures it.
    pub outages: Durations,
}

impl DeathCounts {
    /// Counts a death.
    pub fn add(&mut self, cause: DeathCause) {
        if let Some(count) = self.causes.get_mut(cause.index()) {
            *count += 1;
        }
    }
}

impl DeathCause {
    /// Every cause, in one word for scripts.
    pub const LABELS: [&'static str; 12] = [
        "panic",
        "killed",
        "exception",
        "stack_overflow",
        "memory_quota",
        "shared_quota",
        "deadline",
        "heartbeat",
        "start_timeout",
        "stopped",
        "updated",
        "restarted",
    ];

    /// Index in [`LABELS`](Self::LABELS).
    pub const fn index(self) -> usize {
        match self {
            DeathCause::Panic => 0,
            DeathCause::Killed => 1,
            DeathCause::Exception(_) => 2,
            DeathCause::StackOverflow => 3,
            DeathCause::MemoryQuota => 4,
            DeathCause::SharedQuota => 5,
            DeathCause::Deadline => 6,
            DeathCause::Heartbeat => 7,
            DeathCause::StartTimeout => 8,
            DeathCause::Stopped => 9,
            DeathCause::Updated => 10,
            DeathCause::Restarted => 11,
        }
    }

    /// In one word for scripts.
    pub fn label(self) -> &'static str {
        Self::LABELS.get(self.index()).copied().unwrap_or("unknown")
    }
}
