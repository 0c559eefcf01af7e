//! What the kernel offers to domains as interfaces: `interface::kernel`, implemented.
//!
//! Only translation between the kernel's own types and exchangeable ones; the work is done in `kernel` and `isolation`.

use interface::kernel::{
    ControlError, DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus, LogLine,
    LogReader, MemoryStatus, Power, SerialConsole, ServiceError,
};
use isolation::{Cause, Death, Domain, StartError, State};
use kernel::machine::thread::Wake;
use kernel::machine::{console, log, memory, power};
use rref::{OwnerId, Text};

/// [`DomainControl`] over `isolation`.
pub struct Control;

/// A domain's state, for others.
pub fn state(state: State) -> DomainState {
    match state {
        State::Stopped => DomainState::Stopped,
        State::Starting => DomainState::Starting,
        State::Running => DomainState::Running,
        State::Dying | State::Reaping => DomainState::Dying,
        State::Dead => DomainState::Dead,
    }
}

fn status(domain: &Domain) -> DomainStatus {
    let figures = domain.figures();
    let policy = domain.manifest.restart;
    DomainStatus {
        name: DomainName::new(&domain.manifest.name),
        state: state(figures.state),
        generation: figures.generation,
        threads: figures.threads,
        memory_bytes: figures.memory_bytes,
        shared_bytes: figures.shared_bytes,
        crossings: domain.header.crossings(),
        restart_immediate: policy.immediate,
        backoff_floor_ms: policy.backoff_floor_ms,
        backoff_ceiling_ms: policy.backoff_ceiling_ms,
        restart_budget: policy.budget,
        window_ms: policy.window_ms,
    }
}

fn death(death: Death) -> DeathRecord {
    DeathRecord {
        number: death.number,
        domain: death.domain,
        generation: death.generation,
        cause: match death.cause {
            Cause::Panic => DeathCause::Panic,
            Cause::Killed => DeathCause::Killed,
            Cause::Exception(vector) => DeathCause::Exception(vector),
            Cause::StackOverflow => DeathCause::StackOverflow,
            Cause::MemoryQuota => DeathCause::MemoryQuota,
            Cause::SharedQuota => DeathCause::SharedQuota,
            Cause::Deadline => DeathCause::Deadline,
            Cause::Heartbeat => DeathCause::Heartbeat,
            Cause::StartTimeout => DeathCause::StartTimeout,
            Cause::Stopped => DeathCause::Stopped,
            Cause::Updated => DeathCause::Updated,
        },
        detail: Text::new(&death.detail),
        at_ns: death.at_ns,
        recovered_ns: death.recovered_ns,
    }
}

fn domain(index: u16) -> Result<&'static Domain, ControlError> {
    isolation::domain(index).ok_or(ControlError::NoDomain)
}

impl DomainControl for Control {
    fn status(&self, index: u16) -> Result<Option<DomainStatus>, ControlError> {
        Ok(isolation::domain(index).map(status))
    }

    fn start(&self, index: u16) -> Result<OwnerId, ControlError> {
        isolation::start(domain(index)?).map_err(|error| match error {
            StartError::WrongState(now) => ControlError::WrongState(state(now)),
            StartError::Image(reason) => ControlError::BadImage(Text::format(format_args!("{reason}"))),
            StartError::OutOfMemory => ControlError::OutOfMemory,
            StartError::DiedAtStart => ControlError::DiedAtStart,
        })
    }

    fn kill(&self, index: u16) -> Result<(), ControlError> {
        let domain = domain(index)?;
        let live = domain.header.live();
        match live {
            Some(incarnation) if isolation::kill(incarnation, Cause::Killed, "by order") => Ok(()),
            _ => Err(ControlError::WrongState(state(domain.figures().state))),
        }
    }

    fn reap(&self, index: u16) -> Result<(), ControlError> {
        let domain = domain(index)?;
        if isolation::reap(domain) {
            return Ok(());
        }
        Err(ControlError::WrongState(state(domain.figures().state)))
    }

    fn wait_death(&self, after: u64, deadline_ns: u64) -> Result<Option<DeathRecord>, ControlError> {
        Ok(isolation::wait_death(after, deadline_ns).map(death))
    }

    fn death(&self, number: u64) -> Result<Option<DeathRecord>, ControlError> {
        Ok(isolation::death(number).map(death))
    }

    fn memory(&self) -> Result<MemoryStatus, ControlError> {
        let shared = isolation::shared_usage();
        Ok(MemoryStatus {
            total_pages: memory::total_pages() as u64,
            free_pages: memory::free_pages() as u64,
            shared_used_bytes: shared.used_bytes,
            shared_pages: shared.span_bytes / 4096,
        })
    }
}

/// [`SerialConsole`] over COM1.
pub struct Console;

impl SerialConsole for Console {
    fn read(&self, deadline_ns: u64) -> Result<(u8, [u8; 64]), ServiceError> {
        let mut bytes = [0; 64];
        loop {
            return match console::read(&mut bytes, deadline_ns) {
                Ok(count) => Ok((count as u8, bytes)),
                Err(Wake::Cancelled) if isolation::is_cancelled() => Err(ServiceError::Cancelled),
                // Some domain died, but none that this call came through.
                Err(Wake::Cancelled) => continue,
                Err(_) => Ok((0, bytes)),
            };
        }
    }

    fn write(&self, text: Text<512>) -> Result<(), ServiceError> {
        console::write(text.as_str().as_bytes());
        Ok(())
    }

    fn show_log(&self, on: bool) -> Result<(), ServiceError> {
        log::set_console_level(if on {
            ::log::LevelFilter::Info
        } else {
            ::log::LevelFilter::Off
        });
        Ok(())
    }
}

/// [`LogReader`] over the log ring.
pub struct Log;

impl LogReader for Log {
    fn line(&self, from: u64) -> Result<Option<LogLine>, ServiceError> {
        Ok(log::read_from(from).map(|record| LogLine {
            sequence: record.sequence,
            at_ns: record.time_ns,
            cpu: record.cpu,
            level: record.level as u8,
            domain: DomainName::new(&record.domain),
            text: Text::new(&record.text),
        }))
    }
}

/// [`Power`] over ACPI.
pub struct Machine;

impl Power for Machine {
    fn reboot(&self) -> Result<(), ServiceError> {
        power::reboot()
    }

    fn power_off(&self) -> Result<(), ServiceError> {
        power::power_off()
    }
}
