//! Where a victim is when it dies.

use crate::attacks::Mode;
use attack_interface::victim::{Dwell, Work};

/// A victim by its place in the chain: the conductor calls A, A calls B, B calls C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `victim-a`.
    A,
    /// `victim-b`.
    B,
    /// `victim-c`.
    C,
}

/// What the conductor's call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// There is none.
    None,
    /// It faults, so many victims further on.
    Fault(u8),
    /// It stays, so many victims further on.
    Dwell(Dwell, u8),
    /// It takes shared objects along, so many victims further on, and faults there if the attack is in the call.
    Hold(u8),
}

/// Whose code faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raiser {
    /// The call's.
    Call,
    /// A thread of each dying victim's own.
    Threads,
    /// The start of the first dying victim.
    Start,
}

/// What the conductor's call must come back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no call.
    Nothing,
    /// A typed error that names this victim.
    Error(Place),
    /// An answer, in which the caller of this victim says that it saw it die.
    Seen(Place),
}

/// A position.
#[derive(Debug)]
pub struct Position {
    /// Name in plans and tables.
    pub name: &'static str,
    /// Threads of A's own that are there too: how they stay, how many.
    pub crowd: Option<(Dwell, u16)>,
    /// What A makes the kernel do meanwhile.
    pub work: &'static [Work],
    /// The call.
    pub call: Call,
    /// Whose code faults.
    pub raiser: Raiser,
    /// Whether the faulting threads run on another CPU than the rest.
    pub other_cpu: bool,
    /// Who dies.
    pub dead: &'static [Place],
    /// What the call comes back with.
    pub answer: Answer,
    /// How often it is tried.
    pub rounds: u32,
}

impl Position {
    /// What the faulting code is part of.
    pub fn mode(&self) -> Mode {
        match self.raiser {
            Raiser::Call => Mode::Call,
            Raiser::Threads => Mode::Thread,
            Raiser::Start => Mode::Start,
        }
    }
}

/// A call of A alone, in which a thread of A's own ends it.
const BASE: Position = Position {
    name: "",
    crowd: None,
    work: &[],
    call: Call::Dwell(Dwell::Spin, 0),
    raiser: Raiser::Threads,
    other_cpu: false,
    dead: &[Place::A],
    answer: Answer::Error(Place::A),
    rounds: 1,
};

/// Every position.
pub const POSITIONS: &[Position] = &[
    Position {
        name: "own-thread",
        call: Call::None,
        answer: Answer::Nothing,
        ..BASE
    },
    Position {
        name: "called",
        call: Call::Fault(0),
        raiser: Raiser::Call,
        ..BASE
    },
    Position {
        name: "nested-inner",
        call: Call::Fault(2),
        raiser: Raiser::Call,
        dead: &[Place::C],
        answer: Answer::Seen(Place::C),
        ..BASE
    },
    Position {
        name: "nested-middle-running",
        call: Call::Dwell(Dwell::Spin, 2),
        dead: &[Place::B],
        answer: Answer::Seen(Place::B),
        ..BASE
    },
    Position {
        name: "nested-middle-asleep",
        call: Call::Dwell(Dwell::Sleep, 2),
        dead: &[Place::B],
        answer: Answer::Seen(Place::B),
        ..BASE
    },
    Position {
        name: "nested-outer-running",
        call: Call::Dwell(Dwell::Spin, 2),
        ..BASE
    },
    Position {
        name: "nested-outer-asleep",
        call: Call::Dwell(Dwell::Sleep, 2),
        ..BASE
    },
    Position {
        name: "nested-two",
        call: Call::Dwell(Dwell::Spin, 2),
        dead: &[Place::B, Place::C],
        answer: Answer::Seen(Place::B),
        ..BASE
    },
    Position {
        name: "nested-all",
        call: Call::Dwell(Dwell::Sleep, 2),
        dead: &[Place::C, Place::B, Place::A],
        ..BASE
    },
    Position {
        name: "other-cpu",
        crowd: Some((Dwell::Spin, 1)),
        other_cpu: true,
        ..BASE
    },
    Position {
        name: "preempted",
        crowd: Some((Dwell::Spin, 3)),
        ..BASE
    },
    Position {
        name: "sleeping",
        crowd: Some((Dwell::Sleep, 4)),
        call: Call::Dwell(Dwell::Sleep, 0),
        ..BASE
    },
    Position {
        name: "locked",
        crowd: Some((Dwell::Lock, 2)),
        call: Call::Dwell(Dwell::Lock, 0),
        ..BASE
    },
    Position {
        name: "waiting",
        crowd: Some((Dwell::Wait, 4)),
        call: Call::Dwell(Dwell::Wait, 0),
        ..BASE
    },
    Position {
        name: "in-crossing",
        crowd: Some((Dwell::Crossing, 4)),
        call: Call::Dwell(Dwell::Crossing, 0),
        ..BASE
    },
    Position {
        name: "start",
        call: Call::None,
        raiser: Raiser::Start,
        answer: Answer::Nothing,
        ..BASE
    },
    Position {
        name: "holding",
        call: Call::Hold(0),
        raiser: Raiser::Call,
        ..BASE
    },
    Position {
        name: "holding-inner",
        call: Call::Hold(2),
        raiser: Raiser::Call,
        dead: &[Place::C],
        answer: Answer::Error(Place::C),
        ..BASE
    },
    Position {
        name: "holding-middle",
        call: Call::Hold(2),
        dead: &[Place::B],
        answer: Answer::Error(Place::B),
        ..BASE
    },
    Position {
        name: "kernel-memory",
        work: &[Work::Private, Work::Shared],
        call: Call::None,
        answer: Answer::Nothing,
        rounds: 4,
        ..BASE
    },
    Position {
        name: "kernel-threads",
        work: &[Work::Threads, Work::Handles],
        call: Call::None,
        answer: Answer::Nothing,
        rounds: 4,
        ..BASE
    },
    Position {
        name: "crossings",
        work: &[Work::Crossings, Work::Crossings],
        call: Call::None,
        answer: Answer::Nothing,
        rounds: 4,
        ..BASE
    },
];
