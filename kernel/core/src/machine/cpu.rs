//! One block for each CPU: who runs on it, its segments and interrupt stacks, its share of the scheduler.
//!
//! The GS base points to the block; its first word is the running thread's header (the contract of
//! `abi::thread`), its second the block itself. Every vector enters on a stack of its own kind (IST), because
//! compiled code keeps data below the stack pointer (the red zone).

use super::interrupts::{DEVICE_VECTORS, Handler};
use super::memory::Stack;
use super::sync::InterruptLock;
use super::thread::scheduler::Scheduler;
use super::{apic, fault};
use crate::membarrier::Listener;
use crate::sched::halted::HaltedThread;
use abi::ThreadHeader;
use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// Most CPUs that are used.
pub const MAX_CPUS: usize = abi::domain::CPU_LIMIT;

/// The boot CPU.
pub const FIRST: u32 = 0;

/// Pages of each interrupt stack.
const INTERRUPT_STACK_PAGES: usize = 8;

/// Which interrupt stack a vector uses (index in the IST).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum InterruptStack {
    /// Devices, timer, other CPUs. They don't nest: interrupts stay off in handlers.
    Interrupt = 0,
    /// Exceptions, which may hit an interrupt handler.
    Exception = 1,
    /// Double faults, machine checks and non-maskable interrupts, which may hit anything.
    Critical = 2,
}

/// What belongs to one CPU.
#[repr(C)]
pub struct Cpu {
    /// The running thread's header: the word at gs:[0].
    pub(super) current: AtomicPtr<ThreadHeader>,
    /// This block: the word at gs:[8].
    this: *const Cpu,
    index: u32,
    /// The local APIC's number.
    pub(super) apic_id: u32,
    pub(super) scheduler: InterruptLock<Scheduler>,
    /// The thread on whose stack this CPU is idle.
    pub(super) halted: HaltedThread,
    /// What it has answered of `smp::broadcast`, and whether it is idle.
    pub(super) listener: Listener,
    /// Number of the last TLB flush that this CPU has done.
    pub(super) flush_seen: AtomicU64,
    /// Whether an exception is being handled, so that one inside of it is recognised.
    pub(super) in_exception: AtomicBool,
    online: AtomicBool,
    /// How many interrupts it has taken.
    pub(super) interrupts: AtomicU64,
    /// Handlers of this CPU's device vectors.
    pub(super) handlers: [InterruptLock<Option<Handler>>; DEVICE_VECTORS],
}

// SAFETY: `this` is never written after construction; everything else is Sync by itself.
unsafe impl Sync for Cpu {}
// SAFETY: As above.
unsafe impl Send for Cpu {}

static CPUS: [AtomicPtr<Cpu>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whether the boot CPU's GS base is set, so that `current` works.
static STARTED: AtomicBool = AtomicBool::new(false);

/// This CPU's block. A thread stays on its CPU, so the reference stays right for as long as the thread uses
/// it.
pub(super) fn current() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: `install` set the GS base of this CPU to a block that is never freed, whose second word is its
    // own address.
    unsafe {
        asm!("mov {}, gs:[8]", out(reg) cpu, options(nomem, nostack, preserves_flags));
        &*cpu
    }
}

/// This CPU's number, from 0; 0 before CPUs have blocks.
pub fn current_index() -> u32 {
    if STARTED.load(Ordering::Relaxed) {
        current().index
    } else {
        0
    }
}

/// How many CPUs run.
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// The block of a CPU, whether it runs already or not.
pub(super) fn prepared(index: u32) -> Option<&'static Cpu> {
    let cpu = CPUS.get(index as usize)?.load(Ordering::Acquire);
    // SAFETY: Only leaked boxes are stored.
    unsafe { cpu.as_ref() }
}

/// The block of a CPU that runs.
pub(super) fn get(index: u32) -> Option<&'static Cpu> {
    prepared(index).filter(|cpu| cpu.online.load(Ordering::Acquire))
}

/// All CPUs that run.
pub(super) fn all() -> impl Iterator<Item = &'static Cpu> {
    (0..MAX_CPUS as u32).filter_map(get)
}

impl Cpu {
    /// This CPU's number.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The running thread's header; null before the scheduler starts.
    pub(super) fn current_header(&self) -> *mut ThreadHeader {
        self.current.load(Ordering::Relaxed)
    }

    /// Marks this CPU as running.
    pub(super) fn set_online(&self) {
        // Counted first: whoever finds the CPU running finds it counted.
        COUNT.fetch_add(1, Ordering::AcqRel);
        self.online.store(true, Ordering::Release);
    }
}

/// Makes the block for a CPU; it stays for good.
pub(super) fn prepare(index: u32, apic_id: u32) -> &'static Cpu {
    let cpu = Box::leak(Box::new(Cpu {
        current: AtomicPtr::new(core::ptr::null_mut()),
        this: core::ptr::null(),
        index,
        apic_id,
        scheduler: InterruptLock::new(Scheduler::new()),
        halted: HaltedThread::default(),
        listener: Listener::default(),
        flush_seen: AtomicU64::new(0),
        in_exception: AtomicBool::new(false),
        online: AtomicBool::new(false),
        interrupts: AtomicU64::new(0),
        handlers: [const { InterruptLock::new(None) }; DEVICE_VECTORS],
    }));
    cpu.this = cpu;
    CPUS[index as usize].store(cpu, Ordering::Release);
    cpu
}

/// Gives this CPU its block, segments and interrupt stacks. Called once on each CPU, with interrupts off.
pub(super) fn install(cpu: &'static Cpu) {
    let tss = Box::leak(Box::new(TaskStateSegment::new()));
    for stack in [
        InterruptStack::Interrupt,
        InterruptStack::Exception,
        InterruptStack::Critical,
    ] {
        match Stack::allocate(INTERRUPT_STACK_PAGES) {
            Ok(pages) => {
                tss.interrupt_stack_table[stack as usize] = VirtAddr::new(pages.top() as u64);
                pages.keep();
            }
            Err(error) => fault::stop(format_args!("no interrupt stack for CPU {}: {error}", cpu.index)),
        }
    }
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: The selectors are those of the table just loaded, which is never freed; the block is never
    // freed either.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
    GsBase::write(VirtAddr::from_ptr(cpu));
}

/// Sets the boot CPU up.
pub(super) fn start_first() {
    let cpu = prepare(FIRST, apic::boot_cpu_id());
    install(cpu);
    STARTED.store(true, Ordering::Release);
    cpu.set_online();
}
