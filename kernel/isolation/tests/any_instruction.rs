//! Death at any instruction of a domain's code (docs/soundness.md, invariants 4 and 6).
//!
//! The processor's trap flag makes every instruction of a callee a chance to kill it there: a signal handler then does what the kernel
//! does on the way back from an interrupt (`redirect` in `run/death.rs`). Each operation on shared objects is run once for each of its
//! instructions, as the compiler has made them. Afterwards the call has returned an error to a caller that is unharmed, and what the dead
//! domain owned is freed, each object once. The kernel's own code is not stepped through: it is never cut short.

mod support;

use rref::{Batch, Block, BlockBatch, Exchange, Handle, OutOfMemory, OwnerId, RRef, RpcError, interface};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use support::Heap;

/// Of the processor's flags: an exception after each instruction (Intel SDM 3.4.3.3).
const TRAP_FLAG: u64 = 1 << 8;

/// Whether a domain's code is stepped through; false inside trusted code.
static STEPPING: AtomicBool = AtomicBool::new(false);
/// Instructions until the death.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// After each instruction while the trap flag is set.
extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: The third argument of a handler with `SA_SIGINFO` is the interrupted context (sigaction(2)).
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    if !STEPPING.load(Ordering::Relaxed) {
        registers[libc::REG_EFL as usize] &= !(TRAP_FLAG as i64);
        return;
    }
    if LEFT.fetch_sub(1, Ordering::Relaxed) > 1 {
        return;
    }
    STEPPING.store(false, Ordering::Relaxed);
    registers[libc::REG_EFL as usize] &= !(TRAP_FLAG as i64);
    registers[libc::REG_RIP as usize] = rref::crossing::resume as *const () as i64;
    registers[libc::REG_RDI as usize] = abi::current().top.load(Ordering::Relaxed) as i64;
}

fn set_trap_flag() {
    // SAFETY: Sets one flag; the exceptions that follow go to `on_trap`, which changes nothing but what this file says. The pushed word is
    // below the red zone's end only after it was moved out of the way.
    unsafe {
        core::arch::asm!(
            "lea rsp, [rsp - 128]",
            "pushfq",
            "or qword ptr [rsp], {flag}",
            "popfq",
            "lea rsp, [rsp + 128]",
            flag = const TRAP_FLAG,
        );
    }
}

/// From here on the callee dies after `LEFT` instructions.
fn begin() {
    STEPPING.store(true, Ordering::SeqCst);
    set_trap_flag();
}

fn end() {
    STEPPING.store(false, Ordering::SeqCst);
}

/// Trusted code runs at full speed.
fn on_trusted(enters: bool) {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    if enters {
        INTERRUPTED.store(STEPPING.swap(false, Ordering::SeqCst), Ordering::SeqCst);
    } else if INTERRUPTED.swap(false, Ordering::SeqCst) {
        begin();
    }
}

type Objects = Batch<u64>;

/// What the callee does with what it gets: every operation on shared objects that isn't a crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange)]
enum Operation {
    New,
    Drop,
    NewBatch,
    DropBatch,
    Push,
    PushToFull,
    Pop,
    PopFront,
    TakeFront,
    Append,
    Change,
}

const OPERATIONS: [Operation; 11] = [
    Operation::New,
    Operation::Drop,
    Operation::NewBatch,
    Operation::DropBatch,
    Operation::Push,
    Operation::PushToFull,
    Operation::Pop,
    Operation::PopFront,
    Operation::TakeFront,
    Operation::Append,
    Operation::Change,
];

#[interface]
trait Victim {
    fn work(
        &self,
        operation: Operation,
        object: RRef<u64>,
        batch: Objects,
        other: Objects,
    ) -> Result<u64, RpcError>;
}

struct Callee;

/// The result is only there to be used.
#[inline(never)]
fn work(
    operation: Operation,
    mut object: RRef<u64>,
    mut batch: Objects,
    mut other: Objects,
) -> Result<u64, OutOfMemory> {
    begin();
    let result = match operation {
        Operation::New => *RRef::new(black_box(7u64))?,
        Operation::Drop => {
            drop(object);
            end();
            return Ok(1);
        }
        Operation::NewBatch => Objects::new()?.len() as u64,
        Operation::DropBatch => {
            drop(batch);
            2
        }
        Operation::Push => {
            let pushed = batch.push(object).is_ok();
            end();
            return Ok(u64::from(pushed));
        }
        Operation::PushToFull => {
            let refused = other.push(object).is_err();
            end();
            return Ok(u64::from(refused));
        }
        Operation::Pop => batch.pop().map_or(0, |object| *object),
        Operation::PopFront => batch.pop_front().map_or(0, |object| *object),
        Operation::TakeFront => {
            // As a transmit ring does: two are taken, a third is refused.
            let mut ring = [const { None }; 4];
            let mut taken = 0;
            // SAFETY: They stay in `ring`.
            unsafe {
                batch.take_front_while(
                    ring.len(),
                    |object| (*object < 2).then_some(*object),
                    |object, _| {
                        if let Some(place) = ring.get_mut(taken) {
                            *place = Some(object);
                            taken += 1;
                        }
                    },
                );
            }
            ring.iter().flatten().map(|object| **object).sum()
        }
        Operation::Append => {
            batch.append(&mut other);
            batch.len() as u64
        }
        Operation::Change => {
            *object = black_box(9);
            batch.iter_mut().for_each(|value| *value += *object);
            batch.iter().sum()
        }
    };
    end();
    Ok(result)
}

impl Victim for Callee {
    fn work(
        &self,
        operation: Operation,
        object: RRef<u64>,
        batch: Objects,
        other: Objects,
    ) -> Result<u64, RpcError> {
        Ok(work(operation, object, batch, other).unwrap_or(0))
    }
}

/// The trap flag, the handler and the victim are the process's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn prepare() -> &'static Heap {
    let heap = support::attach();
    support::watch_trusted(on_trusted);
    // SAFETY: A handler of the right kind, for a signal that nothing else here raises.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut()),
            0
        );
    }
    heap
}

/// A batch of so many objects.
fn batch_of(objects: u64) -> Objects {
    let mut batch = Objects::new().expect("memory");
    for value in 0..objects {
        let object = RRef::new(value).expect("memory");
        assert!(batch.push(object).is_ok());
    }
    batch
}

/// Kills the callee after `instructions` of `operation`; whether it still lived at its end.
fn dies_after(
    heap: &Heap,
    operation: Operation,
    instructions: u64,
    (object, batch, other): (RRef<u64>, Objects, Objects),
) -> bool {
    let name = "victim";
    let incarnation = host_platform::provide_mortal::<dyn Victim>(name, &Callee);
    let victim: Handle<dyn Victim> = Handle::connect(name, OwnerId::NONE, 0).expect("it is up");
    LEFT.store(instructions, Ordering::SeqCst);
    let result = victim.work(operation, object, batch, other);
    assert!(!STEPPING.load(Ordering::SeqCst));
    match result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.target(), incarnation, "{operation:?} after {instructions}");
            assert!(error.during_call());
            host_platform::kill(name);
            heap.reclaim(incarnation);
            false
        }
    }
}

#[test]
fn nothing_is_lost_or_freed_twice_at_any_instruction() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = prepare();
    let before = heap.usage().used_bytes;
    for operation in OPERATIONS {
        let mut instructions = 0;
        loop {
            instructions += 1;
            let objects = if operation == Operation::Append { 2 } else { 3 };
            let full = if operation == Operation::Append {
                2
            } else {
                rref::BATCH_CAPACITY as u64
            };
            let gifts = (
                RRef::new(5u64).expect("memory"),
                batch_of(objects),
                batch_of(full),
            );
            // The caller keeps something that must not be touched.
            let kept = RRef::new(instructions).expect("memory");
            let lived = dies_after(heap, operation, instructions, gifts);
            assert_eq!(*kept, instructions);
            drop(kept);
            assert_eq!(
                heap.usage().used_bytes,
                before,
                "{operation:?} cut off after {instructions} instructions"
            );
            if lived {
                break;
            }
        }
        println!("{operation:?}: {instructions} instructions");
        assert!(instructions > 5, "{operation:?} was stepped through");
    }
    assert!(heap.released_was_untouched());
}

/// Makes things until one is the first of its span; that one, and those before.
fn first_of_a_span<T>(heap: &Heap, make: impl Fn() -> T) -> (T, Vec<T>) {
    let spans = heap.usage().span_bytes;
    let mut before = Vec::new();
    loop {
        let last = make();
        if heap.usage().span_bytes > spans {
            return (last, before);
        }
        before.push(last);
    }
}

/// Objects of a span that goes back while the dead are reclaimed: what a batch still points to must not be looked at then.
#[test]
fn a_span_that_goes_back_is_not_looked_at_again() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = prepare();
    let before = heap.usage().used_bytes;
    // The same holds for taking out, which passes through the same states backwards.
    let operation = Operation::Push;
    let mut instructions = 0;
    loop {
        instructions += 1;
        // Each in a span of its own: the kernel finds the object before the batch, and the object's span goes back, since there is
        // another empty one of its kind.
        let (object, filling) = first_of_a_span(heap, || RRef::new(1u64).expect("memory"));
        let (batch, batches) = first_of_a_span(heap, || batch_of(0));
        drop(filling);
        let other = batch_of(0);
        drop(batches);
        let lived = dies_after(heap, operation, instructions, (object, batch, other));
        assert_eq!(heap.usage().used_bytes, before);
        assert!(
            heap.released_was_untouched(),
            "{operation:?} cut off after {instructions} instructions"
        );
        if lived {
            break;
        }
    }
}

/// What a storage driver holds when a call comes, in its ring.
static RING: Mutex<Option<RRef<Block>>> = Mutex::new(None);

#[interface]
trait Driver {
    fn exchange(&self, requests: BlockBatch) -> Result<BlockBatch, RpcError>;
}

/// Takes one request into its ring, completes the one there was, and gives back what has no room.
struct DriverCallee;

/// The batch is only there to be used.
#[inline(never)]
fn exchange(mut requests: BlockBatch, ring: &mut Option<RRef<Block>>) -> Result<BlockBatch, OutOfMemory> {
    begin();
    let mut answers = BlockBatch::new()?;
    if let Some(mut finished) = ring.take() {
        finished.complete();
        drop(answers.push(finished));
    }
    *ring = requests.pop_front();
    if let Some((request, _)) = requests.front().take_if(|request| request.operation()) {
        drop(answers.back().push(request));
    }
    answers.append(&mut requests);
    drop(requests);
    end();
    Ok(answers)
}

impl Driver for DriverCallee {
    fn exchange(&self, requests: BlockBatch) -> Result<BlockBatch, RpcError> {
        // Taken out of the lock: a death doesn't give it back.
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut answers = exchange(requests, &mut ring).expect("memory");
        if let Some(held) = ring {
            drop(answers.push(held));
        }
        Ok(answers)
    }
}

/// A request, and the address of what it is on the heap.
fn request() -> (RRef<Block>, usize) {
    let block = Block::allocate().expect("memory");
    let address = std::ptr::from_ref(&*block) as usize;
    (block, address)
}

#[test]
fn a_driver_leaves_every_request_at_any_instruction() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = prepare();
    let before = heap.usage().used_bytes;
    let heir = OwnerId::new(9, 1);
    let mut instructions = 0;
    loop {
        instructions += 1;
        let name = "driver";
        let incarnation = host_platform::provide_mortal::<dyn Driver>(name, &DriverCallee);
        let driver: Handle<dyn Driver> = Handle::connect(name, OwnerId::NONE, 0).expect("it is up");
        let (in_ring, address) = request();
        let mut addresses = vec![address];
        // SAFETY: The driver's from here on: the test has no other handle.
        unsafe { in_ring.transfer(incarnation) };
        *RING.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_ring);
        let mut requests = BlockBatch::new().expect("memory");
        for _ in 0..2 {
            let (block, address) = request();
            addresses.push(address);
            assert!(requests.push(block).is_ok());
        }
        LEFT.store(instructions, Ordering::SeqCst);
        let result = driver.exchange(requests);
        let lived = result.is_ok();
        if let Ok(answers) = result {
            assert_eq!(answers.len(), addresses.len());
        } else {
            host_platform::kill(name);
            let mut left = heap.reclaim_requests(incarnation, heir);
            left.sort_unstable();
            addresses.sort_unstable();
            assert_eq!(left, addresses, "cut off after {instructions} instructions");
            heap.reclaim(heir);
        }
        assert_eq!(
            heap.usage().used_bytes,
            before,
            "cut off after {instructions} instructions"
        );
        assert!(heap.released_was_untouched());
        if lived {
            break;
        }
    }
    assert!(instructions > 100, "the exchange was stepped through");
}
