//! What a CPU does beside its threads: it frees what ended ones leave, and stops the processor when none can run.

use super::super::super::cpu::{self, Cpu};
use super::super::super::{clock, smp};
use super::super::{SLOTS, ThreadId, park};
use super::{Queued, Thread, Wake, switch};
use core::sync::atomic::Ordering;
use x86_64::instructions::interrupts as processor;

/// Frees what ended threads of this CPU leave: stack and slot. The reaper's whole life.
pub(in super::super) extern "C" fn reap(_: usize) {
    let cpu = cpu::current();
    loop {
        while let Some(ended) = take_ended(cpu) {
            let thread = ended.thread();
            // SAFETY: The thread has ended and has left its stack, and its slot isn't free yet: only the
            // reaper uses it.
            let stack = unsafe { (*thread.inner.get()).stack.take() };
            drop(stack);
            let id = ThreadId::from_number(thread.header.id.load(Ordering::Relaxed));
            SLOTS.lock().free.push(id.slot());
        }
        park();
    }
}

fn take_ended(cpu: &Cpu) -> Option<Queued> {
    cpu.scheduler.lock().ended.pop()
}

/// See [`become_idle`](super::super::become_idle).
pub(in super::super) fn idle_loop() -> ! {
    loop {
        processor::disable();
        let cpu = cpu::current();
        smp::leave_idle(cpu);
        let next = {
            let mut scheduler = cpu.scheduler.lock();
            let now = clock::now_ns();
            scheduler.expire(now);
            if scheduler.queue.has_ready() {
                // `current` is the next one already when this thread is left.
                scheduler.idle.zip(scheduler.take_next(cpu, now))
            } else {
                scheduler.arm(now);
                None
            }
        };
        if let Some((idle, next)) = next {
            // It returns when nothing else is runnable, with interrupts off since that was seen, and the timer set. What becomes runnable
            // after that comes with an interrupt.
            switch(idle.thread(), next);
        }
        smp::enter_idle(cpu);
        // An interrupt that comes between the two instructions ends the halt at once.
        processor::enable_and_hlt();
    }
}

/// Idles on the stack of the running thread, which has been parked, until it is woken or another one can run. Returns, with interrupts off, when the
/// thread has the CPU again.
pub(super) fn halt(cpu: &'static Cpu, thread: &'static Thread) {
    let this = Queued::from(thread);
    let next = loop {
        smp::enter_idle(cpu);
        // An interrupt that comes between the two instructions ends the halt at once.
        processor::enable_and_hlt();
        processor::disable();
        smp::leave_idle(cpu);
        let mut scheduler = cpu.scheduler.lock();
        let now = clock::now_ns();
        if cpu.halted.is_woken() {
            // SAFETY: The lock of the thread's CPU is held.
            let inner = unsafe { &mut *thread.inner.get() };
            cpu.halted.end();
            // If somebody else has woken it too, this wake is one for the next time.
            let is_halted = scheduler.halted == Some(this);
            inner.tokens.send(is_halted, Wake::Woken);
            if is_halted {
                if !scheduler.queue.has_ready() {
                    return scheduler.go_on(cpu, this, now);
                }
                scheduler.end_halt();
                scheduler.queue_ready(this, inner);
            }
        }
        scheduler.expire(now);
        if scheduler.queue.has_ready() {
            if scheduler.halted == Some(this) {
                let deadline_ns = scheduler.end_halt();
                scheduler.queue.start_timer(deadline_ns, this);
            }
            cpu.halted.end();
            break scheduler.take_next(cpu, now);
        }
        scheduler.arm(now);
    };
    if let Some(next) = next
        && next != this
    {
        switch(thread, next);
    }
}
