//! Several CPUs: starting them, and making all of them take notice of something.

use super::acpi::Platform;
use super::apic::{self, Message};
use super::interrupts::{self, BROADCAST_VECTOR};
use super::memory::{self, Stack};
use super::{clock, cpu, fault, paging, thread};
use crate::membarrier::Broadcasts;
use crate::memory::PAGE_SIZE;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where a CPU begins in real mode: RAM below 1 MiB that nobody else uses.
const START_UP_PAGE: u64 = 0x8000;
/// How long a CPU may take to come up.
const START_UP_LIMIT_NS: u64 = 1_000_000_000;
/// Pages of the stack that a CPU comes up on, which becomes its idle thread's.
const IDLE_STACK_PAGES: usize = 8;

core::arch::global_asm!(
    r#"
    .section .rodata.start_up, "a", @progbits
    .global start_up_code
    .global start_up_code_end
    .code16
    start_up_code:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl (start_up_gdt_pointer - start_up_code + {base})
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $(start_up_protected - start_up_code + {base})

    .code32
    start_up_protected:
        movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        /* PAE, OSFXSR, OSXMMEXCPT */
        movl %cr4, %eax
        orl $0x620, %eax
        movl %eax, %cr4
        movl (start_up_root - start_up_code + {base}), %eax
        movl %eax, %cr3
        /* Long mode, no-execute */
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x900, %eax
        wrmsr
        /* Paging, write protection, FPU present and not emulated, caches on */
        movl %cr0, %eax
        andl $0x9ffffff3, %eax
        orl $0x80010023, %eax
        movl %eax, %cr0
        ljmpl $24, $(start_up_long - start_up_code + {base})

    .code64
    start_up_long:
        movq (start_up_stack - start_up_code + {base}), %rsp
        movq (start_up_argument - start_up_code + {base}), %rdi
        movq (start_up_entry - start_up_code + {base}), %rax
        xorl %ebp, %ebp
        call *%rax
        ud2

    .balign 8
    start_up_gdt:
        .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00cf93000000ffff
        .quad 0x00af9b000000ffff
    start_up_gdt_pointer:
        .short 31
        .long start_up_gdt - start_up_code + {base}
    .balign 8
    start_up_root:
        .quad 0
    start_up_stack:
        .quad 0
    start_up_argument:
        .quad 0
    start_up_entry:
        .quad 0
    start_up_code_end:
    "#,
    base = const START_UP_PAGE,
    options(att_syntax)
);

// SAFETY: Labels of the assembly above, in this order; what is between them is constant data of the image.
unsafe extern "C" {
    static start_up_code: u8;
    static start_up_code_end: u8;
}

/// Starts every CPU that ACPI names, one after the other; those that don't come up are left out.
pub(super) fn start_others(platform: &Platform) {
    let boot_cpu = cpu::current().apic_id;
    let others = || platform.apic_ids.iter().copied().filter(|&id| id != boot_cpu);
    if others().next().is_none() {
        return;
    }
    let started = memory::with_start_up_page(START_UP_PAGE, |page| {
        let length = (&raw const start_up_code_end).addr() - (&raw const start_up_code).addr();
        // SAFETY: The page is RAM of nobody else, the code is shorter than a page, and it ends with the four
        // words.
        let words = unsafe {
            page.copy_from_nonoverlapping(&raw const start_up_code, length);
            core::slice::from_raw_parts_mut(page.add(length - 32).cast::<u64>(), 4)
        };
        for apic_id in others() {
            apic::send(apic_id, Message::Init);
        }
        clock::busy_wait_us(10_000);
        for apic_id in others() {
            let index = cpu::count();
            if index as usize == cpu::MAX_CPUS {
                log::warn!("only {index} CPUs are used");
                break;
            }
            let stack = match Stack::allocate(IDLE_STACK_PAGES) {
                Ok(stack) => stack,
                Err(error) => fault::stop(format_args!("no stack for CPU {index}: {error}")),
            };
            let block = cpu::prepare(index, apic_id);
            let values = [
                paging::root(),
                stack.top() as u64,
                core::ptr::from_ref(block).addr() as u64,
                start_up_entry(),
            ];
            words.copy_from_slice(&values);
            // The CPU keeps its stack for good.
            stack.keep();
            if !start_one(apic_id, index) {
                log::warn!("CPU with APIC number {apic_id} doesn't start");
                // It may still come up later and must then not meet the next one's values.
                break;
            }
        }
    });
    if started.is_none() {
        log::warn!("no memory to start other CPUs");
    }
}

fn start_up_entry() -> u64 {
    (other_cpu_main as extern "C" fn(&'static cpu::Cpu) -> !) as usize as u64
}

fn start_one(apic_id: u32, index: u32) -> bool {
    for _ in 0..2 {
        apic::send(
            apic_id,
            Message::StartUp((START_UP_PAGE / PAGE_SIZE as u64) as u8),
        );
        let limit = clock::now_ns() + START_UP_LIMIT_NS / 2;
        while clock::now_ns() < limit {
            if cpu::get(index).is_some() {
                return true;
            }
            core::hint::spin_loop();
        }
    }
    false
}

/// The first Rust code on another CPU: on its own stack, on the kernel's page tables, with interrupts off.
extern "C" fn other_cpu_main(cpu: &'static cpu::Cpu) -> ! {
    cpu::install(cpu);
    interrupts::load();
    apic::start();
    thread::start_other_cpu(cpu);
    cpu.flush_seen
        .store(FLUSHES.load(Ordering::Acquire), Ordering::Release);
    cpu.listener.answer(BROADCASTS.newest());
    cpu.set_online();
    // Flushes that were asked for between the last two lines were not waited for.
    paging::flush_this_cpu();
    thread::become_idle()
}

static BROADCASTS: Broadcasts = Broadcasts::new(AtomicU64::new(0));
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// Makes every other CPU run the return hook on what it is running (`interrupts::set_return_hook`) and waits
/// until each has; CPUs that are idle run nothing and aren't woken. Everything written before is visible to
/// them afterwards, and the other way round: a membarrier.
///
/// Call it on a thread, with interrupts on and no lock held: the CPUs answer as soon as they take interrupts.
pub fn broadcast_and_wait() {
    broadcast(false);
}

fn broadcast(wake_idle: bool) {
    let number = BROADCASTS.begin();
    if cpu::count() == 1 {
        return;
    }
    let me = cpu::current().index();
    let is_left_alone = |cpu: &cpu::Cpu| !wake_idle && cpu.listener.is_idle();
    for other in cpu::all().filter(|cpu| cpu.index() != me && !is_left_alone(cpu)) {
        apic::send(other.apic_id, Message::Vector(BROADCAST_VECTOR));
    }
    for other in cpu::all().filter(|cpu| cpu.index() != me) {
        while !other.listener.has_answered(number) && !is_left_alone(other) {
            core::hint::spin_loop();
        }
    }
}

/// Makes every CPU forget what it has cached of the page tables, idle ones before they run anything again.
/// Same conditions as [`broadcast_and_wait`], except while the machine comes up.
pub(super) fn flush_all_cpus() {
    FLUSHES.fetch_add(1, Ordering::SeqCst);
    paging::flush_this_cpu();
    broadcast(false);
}

/// The same, for when page tables are going to be freed: idle CPUs too do it now, since a processor may walk
/// tables that it remembers even while it waits.
pub(super) fn flush_all_cpus_before_freeing_tables() {
    FLUSHES.fetch_add(1, Ordering::SeqCst);
    paging::flush_this_cpu();
    broadcast(true);
}

/// This CPU is about to halt, with interrupts off: from now on broadcasts leave it alone.
pub(super) fn enter_idle(cpu: &cpu::Cpu) {
    cpu.listener.enter_idle();
}

/// This CPU is going to do something again: makes up for the broadcasts that left it alone. Called before
/// anything else that an interrupt of an idle CPU does, and before the idle loop goes on.
pub(super) fn leave_idle(cpu: &cpu::Cpu) {
    cpu.listener.leave_idle(|| broadcast_received(cpu));
}

/// The interrupt of a broadcast on a CPU that is asked; the number to be acknowledged once the return hook
/// has run.
pub(super) fn broadcast_received(cpu: &cpu::Cpu) -> u64 {
    let number = BROADCASTS.newest();
    let flushes = FLUSHES.load(Ordering::SeqCst);
    if cpu.flush_seen.load(Ordering::Relaxed) < flushes {
        paging::flush_this_cpu();
        cpu.flush_seen.store(flushes, Ordering::Relaxed);
    }
    number
}
