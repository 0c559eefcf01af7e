//! Threads of the process as threads of the appliance.

use crate::wiring::host_domain;
use abi::sys::{RawBytes, wake};
use abi::{Continuation, ThreadHeader, current};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Sets the GS base of the calling thread (arch_prctl(2)).
const ARCH_SET_GS: u64 = 0x1001;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static PARKED: LazyLock<Mutex<HashMap<u64, Arc<Token>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Token {
    woken: Mutex<bool>,
    changed: Condvar,
}

/// What the GS base points to.
#[repr(C)]
struct CpuBlock {
    thread: *const ThreadHeader,
}

thread_local! {
    static ATTACHED: Cell<bool> = const { Cell::new(false) };
}

/// Proof that the thread is attached; it stays so for its life.
pub struct Attached(());

/// Makes the calling thread one of the appliance's, in the host domain. May be called again.
pub fn attach() -> Attached {
    crate::wiring::start();
    if !ATTACHED.get() {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // They live as long as the process: a test's threads are few.
        let header: &'static ThreadHeader = Box::leak(Box::new(ThreadHeader::new(id, 0)));
        let base = Continuation::new(std::ptr::null_mut(), host_domain(), None);
        header.top.store(Box::leak(Box::new(base)), Ordering::Relaxed);
        let block: &'static CpuBlock = Box::leak(Box::new(CpuBlock { thread: header }));
        let base = std::ptr::from_ref(block) as u64;
        debug_assert!(std::ptr::eq(block.thread, header));
        let result: i64;
        // SAFETY: System call 158, arch_prctl, sets this thread's GS base, which nothing else on Linux uses.
        unsafe {
            core::arch::asm!("syscall", inlateout("rax") 158i64 => result, in("rdi") ARCH_SET_GS, in("rsi") base,
                out("rcx") _, out("r11") _, options(nostack));
        }
        assert_eq!(result, 0, "arch_prctl(ARCH_SET_GS) failed");
        lock(&PARKED).insert(id, Arc::default());
        ATTACHED.set(true);
    }
    Attached(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Asks the calling thread to look at its chain at the end of trusted code, as a death on the appliance asks every thread. Then it leaves
/// dead domains, innermost first.
pub fn look_for_deaths() {
    current().pending.store(1, Ordering::Relaxed);
}

pub extern "C" fn check_death() {
    let thread = current();
    let mut broken = false;
    let mut record = thread.top.load(Ordering::Relaxed).cast_const();
    while !record.is_null() {
        // SAFETY: Records live on this thread's stack while they are on its chain.
        let continuation = unsafe { &*record };
        broken |= !crate::wiring::is_live(continuation.callee);
        record = continuation.previous;
    }
    if !broken {
        thread.pending.store(0, Ordering::Relaxed);
    } else if !crate::wiring::is_live(thread.owner()) {
        let top = thread.top.load(Ordering::Relaxed);
        // SAFETY: The innermost continuation, in use by the crossing that called the dead domain; the frames that are abandoned are that
        // domain's.
        unsafe { rref::crossing::resume(top) }
    }
}

pub extern "C" fn now_ns() -> u64 {
    START.elapsed().as_nanos() as u64
}

pub extern "C" fn unix_time_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

pub extern "C" fn entropy() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now_ns())
}

pub extern "C" fn spawn(name: RawBytes, _cpu: u32, entry: extern "C" fn(*mut u8), argument: *mut u8) -> u64 {
    let name = crate::text(name).to_owned();
    let argument = argument as usize;
    let (sender, receiver) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        attach();
        // The spawner waits for the number; it can't be gone.
        sender.send(current().id.load(Ordering::Relaxed)).ok();
        entry(argument as *mut u8);
    });
    if spawned.is_err() {
        return 0;
    }
    receiver.recv().unwrap_or(0)
}

pub extern "C" fn park(deadline_ns: u64) -> u32 {
    let id = current().id.load(Ordering::Relaxed);
    let Some(token) = lock(&PARKED).get(&id).cloned() else {
        return wake::CANCELLED;
    };
    let mut woken = lock(&token.woken);
    while !*woken {
        let left = deadline_ns.saturating_sub(now_ns());
        if left == 0 {
            return wake::TIMED_OUT;
        }
        let wait = Duration::from_nanos(left.min(3_600_000_000_000));
        woken = token
            .changed
            .wait_timeout(woken, wait)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0;
    }
    *woken = false;
    wake::WOKEN
}

pub extern "C" fn unpark(id: u64) -> bool {
    let Some(token) = lock(&PARKED).get(&id).cloned() else {
        return false;
    };
    *lock(&token.woken) = true;
    token.changed.notify_one();
    true
}

pub extern "C" fn yield_now() {
    std::thread::yield_now();
}

pub extern "C" fn cpu_count() -> u32 {
    1
}
