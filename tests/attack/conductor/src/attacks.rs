//! What is done to a victim, and the cause that its death must have.

use attack::Fault;
use core::iter;
use interface::kernel::DeathCause;

/// Something that ends a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The operator's order, at whatever instruction it comes.
    Order,
    /// Its own fault.
    Fault(Fault),
}

/// What the code that faults is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A crossing.
    Call,
    /// A thread of the domain's own.
    Thread,
    /// The domain's start.
    Start,
}

/// Vectors (Intel SDM volume 3, table 6-1).
const STACK_SEGMENT: DeathCause = DeathCause::Exception(12);
const GENERAL_PROTECTION: DeathCause = DeathCause::Exception(13);
const PAGE_FAULT: DeathCause = DeathCause::Exception(14);

impl Attack {
    /// Every attack.
    pub fn all() -> impl Iterator<Item = Attack> {
        iter::once(Attack::Order).chain(Fault::ALL.into_iter().map(Attack::Fault))
    }

    /// Its name in plans and tables.
    pub fn name(self) -> &'static str {
        match self {
            Attack::Order => "order",
            Attack::Fault(fault) => fault.name(),
        }
    }

    /// The attack of this name.
    pub fn by_name(name: &str) -> Option<Attack> {
        Attack::all().find(|attack| attack.name() == name)
    }

    /// Causes that are right; none when it is no fault there. A thread of a domain's own may sleep, and may make crossings all the time.
    pub fn causes(self, mode: Mode) -> &'static [DeathCause] {
        let Attack::Fault(fault) = self else {
            return &[DeathCause::Killed];
        };
        match fault {
            Fault::Panic | Fault::OverflowPanic | Fault::BoundsPanic => &[DeathCause::Panic],
            Fault::DivideError => &[DeathCause::Exception(0)],
            Fault::SingleStep => &[DeathCause::Exception(1)],
            Fault::Breakpoint => &[DeathCause::Exception(3)],
            Fault::InvalidOpcode => &[DeathCause::Exception(6)],
            Fault::GeneralProtection => &[GENERAL_PROTECTION],
            Fault::StackSegment => &[STACK_SEGMENT, GENERAL_PROTECTION],
            Fault::NullRead
            | Fault::NullCall
            | Fault::UnmappedWrite
            | Fault::OwnCodeWrite
            | Fault::KernelCodeWrite
            | Fault::DataCall => &[PAGE_FAULT],
            Fault::X87 => &[DeathCause::Exception(16)],
            Fault::Simd => &[DeathCause::Exception(19)],
            Fault::StackOverflow | Fault::LargeFrame | Fault::StackInKernel | Fault::StackInCrossing => {
                &[DeathCause::StackOverflow]
            }
            Fault::PrivateQuota => &[DeathCause::MemoryQuota],
            Fault::SharedQuota => &[DeathCause::SharedQuota],
            Fault::Spin | Fault::SpinYield | Fault::Deadlock => match mode {
                Mode::Call => &[DeathCause::Deadline],
                Mode::Thread => &[DeathCause::Heartbeat],
                Mode::Start => &[DeathCause::StartTimeout],
            },
            Fault::SpinCrossing | Fault::Sleep => match mode {
                Mode::Call => &[DeathCause::Deadline],
                Mode::Thread => &[],
                Mode::Start => &[DeathCause::StartTimeout],
            },
        }
    }

    /// Whether it is found only by the timer.
    pub fn is_hang(self) -> bool {
        matches!(
            self,
            Attack::Fault(
                Fault::Spin | Fault::SpinYield | Fault::Deadlock | Fault::SpinCrossing | Fault::Sleep
            )
        )
    }
}
