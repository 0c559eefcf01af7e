//! What the kernel offers to domains as interfaces: `interface::kernel`, implemented.
//!
//! Only translation between the kernel's own types and exchangeable ones; the work is done in `kernel` and `isolation`.

use interface::holdings::{FINDINGS, FrameUses, Holdings, LeakReport};
use interface::kernel::{
    ControlError, DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus, LogLine,
    LogReader, MemoryStatus, Power, Reaped, SerialConsole, ServiceError,
};
use isolation::{Cause, Death, Domain, StartError, State};
use kernel::machine::memory::FrameUse;
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
        restart_cpu_permille: policy.cpu_permille,
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
            Cause::Restarted => DeathCause::Restarted,
            Cause::Updated => DeathCause::Updated,
        },
        detail: Text::new(&death.detail),
        at_ns: death.at_ns,
        recovered_ns: death.recovered_ns,
    }
}

fn frame_uses() -> FrameUses {
    let pages = |usage| memory::used_pages(usage) as u64;
    FrameUses {
        kernel_heap: pages(FrameUse::KernelHeap),
        page_tables: pages(FrameUse::PageTable),
        stacks: pages(FrameUse::Stack),
        images: pages(FrameUse::Image),
        private_heaps: pages(FrameUse::PrivateHeap),
        shared_heap: pages(FrameUse::SharedHeap),
        dma: pages(FrameUse::Dma),
        other: pages(FrameUse::Other),
    }
}

#[expect(
    clippy::result_large_err,
    reason = "an error that crosses carries its text by value; no caller is hot"
)]
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

    fn kill(&self, index: u16, cause: DeathCause) -> Result<(), ControlError> {
        let domain = domain(index)?;
        let cause = match cause {
            DeathCause::Stopped => Cause::Stopped,
            DeathCause::Restarted => Cause::Restarted,
            DeathCause::Updated => Cause::Updated,
            // The others are for the kernel to find.
            _ => Cause::Killed,
        };
        if isolation::kill_by_order(domain, cause) {
            Ok(())
        } else {
            Err(ControlError::WrongState(state(domain.figures().state)))
        }
    }

    fn reap(&self, index: u16) -> Result<Reaped, ControlError> {
        let domain = domain(index)?;
        isolation::reap(domain)
            .map(|reaped| Reaped {
                threads_ns: reaped.threads_ns,
                kernel_ns: reaped.kernel_ns,
                lived_ns: reaped.lived_ns,
            })
            .ok_or_else(|| ControlError::WrongState(state(domain.figures().state)))
    }

    fn holdings(&self, index: u16) -> Result<Option<Holdings>, ControlError> {
        Ok(isolation::domain(index).map(|domain| {
            let held = isolation::held(domain);
            Holdings {
                image_pages: held.image_pages as u64,
                heap_pages: held.heap_pages as u64,
                stack_pages: held.stack_pages() as u64,
                threads: held.threads,
                handles: held.handles as u32,
                exports: held.exports as u32,
                shared_objects: held.shared_objects,
                shared_bytes: held.shared_bytes,
                dma_pages: held.dma_pages as u64,
                interrupts: held.interrupts as u32,
                devices: held.devices as u32,
            }
        }))
    }

    fn leaks(&self) -> Result<LeakReport, ControlError> {
        let census = isolation::census();
        let mut findings = [Text::EMPTY; FINDINGS];
        for (place, finding) in findings.iter_mut().zip(&census.findings) {
            *place = Text::new(finding);
        }
        Ok(LeakReport {
            found: census.findings.len() as u32,
            findings,
            total_pages: memory::total_pages() as u64,
            free_pages: memory::free_pages() as u64,
            uses: frame_uses(),
            kernel_heap_used_bytes: census.kernel_heap_bytes as u64,
            domain_threads: census.domain_threads as u32,
            kernel_threads: census.kernel_threads as u32,
            shared_objects: census.shared_objects,
        })
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
            uses: frame_uses(),
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
