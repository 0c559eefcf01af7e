//! Calls that are cut short by the callee's death, on the host: results of every class that the calling convention knows.
//!
//! The callee dies of its own doing here: it calls what the kernel calls in its place, from a frame of its own.

use core::hint::black_box;
use core::sync::atomic::Ordering;
use rref::{Exchange, Handle, OwnerId, RRef, RpcError, Share, interface};

/// One byte: a result with it is returned in registers where its value is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
enum Small {
    Refused,
    Dead,
}

impl From<RpcError> for Small {
    fn from(_: RpcError) -> Self {
        Small::Dead
    }
}

#[interface]
trait Mortal {
    fn nothing(&self, die: bool) -> Result<(), Small>;
    fn byte(&self, die: bool) -> Result<u8, Small>;
    fn pair(&self, die: bool) -> Result<u64, Small>;
    fn word(&self, die: bool) -> Result<u64, RpcError>;
    fn array(&self, die: bool, numbers: [u64; 20]) -> Result<[u64; 20], RpcError>;
    fn object(&self, die: bool, object: RRef<u64>) -> Result<RRef<u64>, RpcError>;
    fn many(&self, a: u64, b: &RRef<u64>, c: f64, d: &RRef<u64>, e: u128, die: bool)
    -> Result<f64, RpcError>;
}

struct Callee;

/// Uses every callee-saved register's neighbourhood before it dies, so that a wrong restoration is seen.
#[inline(never)]
fn perhaps_die(die: bool, depth: u64) -> u64 {
    let mut registers = [0u64; 12];
    for (index, register) in registers.iter_mut().enumerate() {
        *register = black_box(!(index as u64 * depth));
    }
    if depth > 0 {
        return black_box(perhaps_die(die, depth - 1)) ^ registers[3];
    }
    if die {
        let top = abi::current().top.load(Ordering::Relaxed);
        // SAFETY: It is this thread's innermost continuation, of the crossing that called this test's callee; the frames
        // in between are this file's and hold nothing.
        unsafe { rref::crossing::resume(top) };
    }
    registers[7]
}

impl Mortal for Callee {
    fn nothing(&self, die: bool) -> Result<(), Small> {
        perhaps_die(die, 5);
        Err(Small::Refused)
    }

    fn byte(&self, die: bool) -> Result<u8, Small> {
        perhaps_die(die, 5);
        Ok(7)
    }

    fn pair(&self, die: bool) -> Result<u64, Small> {
        perhaps_die(die, 5);
        Ok(8)
    }

    fn word(&self, die: bool) -> Result<u64, RpcError> {
        perhaps_die(die, 5);
        Ok(9)
    }

    fn array(&self, die: bool, numbers: [u64; 20]) -> Result<[u64; 20], RpcError> {
        perhaps_die(die, 5);
        Ok(numbers.map(|number| number + 1))
    }

    fn object(&self, die: bool, object: RRef<u64>) -> Result<RRef<u64>, RpcError> {
        perhaps_die(die, 5);
        Ok(object)
    }

    fn many(
        &self,
        a: u64,
        b: &RRef<u64>,
        c: f64,
        d: &RRef<u64>,
        e: u128,
        die: bool,
    ) -> Result<f64, RpcError> {
        perhaps_die(die, 5);
        Ok(a as f64 + **b as f64 + c + **d as f64 + e as f64)
    }
}

/// Calls on, and makes the best of a death behind it.
struct Between(Handle<dyn Mortal>);

impl Mortal for Between {
    fn nothing(&self, die: bool) -> Result<(), Small> {
        self.0.nothing(die)
    }

    fn byte(&self, die: bool) -> Result<u8, Small> {
        self.0.byte(die).or(Ok(1))
    }

    fn pair(&self, die: bool) -> Result<u64, Small> {
        // Dies itself, with a death behind it or without.
        let behind = self.0.pair(die);
        perhaps_die(die, 3);
        behind
    }

    fn word(&self, die: bool) -> Result<u64, RpcError> {
        self.0.word(die).or(Ok(2))
    }

    fn array(&self, die: bool, numbers: [u64; 20]) -> Result<[u64; 20], RpcError> {
        self.0.array(die, numbers)
    }

    fn object(&self, die: bool, object: RRef<u64>) -> Result<RRef<u64>, RpcError> {
        self.0.object(die, object)
    }

    fn many(
        &self,
        a: u64,
        b: &RRef<u64>,
        c: f64,
        d: &RRef<u64>,
        e: u128,
        die: bool,
    ) -> Result<f64, RpcError> {
        self.0.many(a, b, c, d, e, die)
    }
}

fn connect(name: &str, object: &'static dyn Mortal) -> Handle<dyn Mortal> {
    host_platform::attach();
    host_platform::provide::<dyn Mortal>(name, object);
    Handle::connect(name, OwnerId::NONE, 0).expect("provided above")
}

/// `call` gives `dead` when the callee dies and else `alive`, as often as one likes, and leaves what the caller keeps in registers and on
/// its stack as it was, and the chain.
#[inline(never)]
fn alternate<T: PartialEq + core::fmt::Debug>(call: impl Fn(bool) -> T, alive: T, dead: T) {
    let top = abi::current().top.load(Ordering::Relaxed);
    let kept: [u64; 10] = core::array::from_fn(|index| black_box(index as u64 * 3));
    for round in 0..100u64 {
        let die = round % 3 == 1;
        let expected = if die { &dead } else { &alive };
        assert_eq!(&call(black_box(die)), expected, "round {round}");
        assert_eq!(abi::current().top.load(Ordering::Relaxed), top);
    }
    assert!(
        kept.iter()
            .enumerate()
            .all(|(index, &kept)| kept == index as u64 * 3)
    );
}

/// What a death in the host's domain answers: tests can't make an error themselves.
fn death(handle: &dyn Mortal) -> RpcError {
    let error = handle.word(true).expect_err("it dies");
    assert!(error.during_call());
    assert_eq!(error.target(), host_platform::host_domain());
    error
}

#[test]
fn results_in_registers() {
    let handle = connect("registers", &Callee);
    alternate(|die| handle.nothing(die), Err(Small::Refused), Err(Small::Dead));
    alternate(|die| handle.byte(die), Ok(7), Err(Small::Dead));
    alternate(|die| handle.pair(die), Ok(8), Err(Small::Dead));
}

#[test]
fn results_in_memory() {
    let handle = connect("memory", &Callee);
    let error = death(&*handle);
    alternate(|die| handle.word(die), Ok(9), Err(error));
    alternate(|die| handle.array(die, [4; 20]), Ok([5; 20]), Err(error));
}

/// The object that went along is the dead callee's, so it doesn't come back, and the caller makes a new one.
#[test]
fn objects_come_back_or_dont() {
    let handle = connect("objects", &Callee);
    let error = death(&*handle);
    let exchange = |die| {
        let object = RRef::new(5).expect("unlimited");
        handle.object(die, object).map(|object| *object)
    };
    alternate(exchange, Ok(5), Err(error));
}

/// More arguments than registers: some are on the stack.
#[test]
fn arguments_on_the_stack() {
    let handle = connect("stack", &Callee);
    let error = death(&*handle);
    let (b, d) = (RRef::new(2).expect("unlimited"), RRef::new(4).expect("unlimited"));
    alternate(|die| handle.many(1, &b, 3.5, &d, 5, die), Ok(15.5), Err(error));
}

/// The death of a callee's callee is an error for the callee alone; what it makes of it is an answer like another.
#[test]
fn nested_calls_end_one_at_a_time() {
    let inner = connect("inner", &Callee);
    let outer = connect("outer", Box::leak(Box::new(Between(inner))));
    let error = death(&*connect("error", &Callee));
    alternate(|die| outer.byte(die), Ok(7), Ok(1));
    alternate(|die| outer.word(die), Ok(9), Ok(2));
    alternate(|die| outer.pair(die), Ok(8), Err(Small::Dead));
    alternate(|die| outer.array(die, [4; 20]), Ok([5; 20]), Err(error));
}
