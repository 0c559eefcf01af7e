//! Raises a fault. What safe code can do itself is done here.

use crate::Fault;
use crate::machine;
use alloc::vec::Vec;
use core::hint::black_box;
use domain_rt::sync::Mutex;
use domain_rt::{clock, thread};
use rref::RRef;

/// Bytes of a frame that no stack has room for.
const LARGE_FRAME_BYTES: usize = 1 << 20;
/// Bytes by which private memory is asked for.
const CHUNK_BYTES: usize = 256 * 1024;

/// Raises `fault` on the running thread. `crossing` makes one crossing into another domain, for the faults that need one.
///
/// Ends in the running domain's death, or never. If the fault doesn't come, there is a panic that says so.
pub fn raise(fault: Fault, crossing: &dyn Fn()) -> ! {
    match fault {
        Fault::Panic => panic!("a panic on request"),
        Fault::OverflowPanic => {
            black_box(black_box(i32::MIN) / black_box(-1));
        }
        Fault::BoundsPanic => {
            let values = black_box([1_u8, 2, 3]);
            black_box(values[black_box(3_usize)]);
        }
        Fault::DivideError => machine::divide_error(),
        Fault::SingleStep => machine::single_step(),
        Fault::Breakpoint => machine::breakpoint(),
        Fault::InvalidOpcode => machine::invalid_opcode(),
        Fault::GeneralProtection => machine::general_protection(),
        Fault::StackSegment => machine::stack_segment(),
        Fault::NullRead => machine::null_read(),
        Fault::NullCall => machine::null_call(),
        Fault::UnmappedWrite => machine::unmapped_write(),
        Fault::OwnCodeWrite => machine::own_code_write(),
        Fault::KernelCodeWrite => machine::kernel_code_write(),
        Fault::DataCall => machine::data_call(),
        Fault::X87 => machine::x87(),
        Fault::Simd => machine::simd(),
        Fault::StackOverflow => drop(deeper(0, &|| {})),
        Fault::LargeFrame => large_frame(),
        Fault::StackInKernel => drop(deeper(0, &|| drop(RRef::new([0_u64; 8])))),
        Fault::StackInCrossing => drop(deeper(0, crossing)),
        Fault::PrivateQuota => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(black_box(Vec::with_capacity(CHUNK_BYTES)));
            }
        }
        Fault::SharedQuota => {
            let mut held = Vec::new();
            loop {
                held.extend(RRef::new([0_u8; 4096]));
            }
        }
        Fault::Spin => loop {
            core::hint::spin_loop();
        },
        Fault::SpinCrossing => loop {
            crossing();
        },
        Fault::SpinYield => loop {
            thread::yield_now();
        },
        Fault::Sleep => loop {
            thread::park_until(clock::NEVER);
        },
        Fault::Deadlock => {
            let lock = Mutex::new(());
            let held = lock.lock();
            drop(lock.lock());
            drop(held);
        }
    }
    panic!("{fault} was not raised");
}

/// Recurses until there is no stack left; `each` is called at every depth.
#[inline(never)]
fn deeper(depth: usize, each: &dyn Fn()) -> usize {
    let frame = black_box([depth; 8]);
    each();
    let below = if black_box(true) {
        deeper(depth + 1, each)
    } else {
        0
    };
    below + black_box(frame)[0]
}

#[inline(never)]
fn large_frame() {
    let mut frame = [0_u8; LARGE_FRAME_BYTES];
    black_box(&mut frame);
}
