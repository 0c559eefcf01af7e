//! Our side of the measurement: the balancer's own code, called as its domain calls it.

use std::hint::black_box;

use anyhow::Result;
use maglev::balancer::{BATCH, Balancer};
use maglev::connection_table::LONGEST_TIMEOUT_SECONDS;
use maglev::control::Control;
use maglev::frame::Verdict;
use side_by_side::{Round, processor_time_nanoseconds};

use crate::Mode;
use crate::workload::{FRAME_BYTES, Workload};

const FLAGS: usize = 47;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const NANOSECONDS: u64 = 1_000_000_000;

/// A balancer and its frames.
pub struct Subject<'a> {
    control: Control,
    balancer: Balancer,
    frames: Vec<&'a mut [u8]>,
    seconds: u64,
}

impl<'a> Subject<'a> {
    /// A balancer for the workload.
    pub fn new(workload: &'a mut Workload) -> Result<Self> {
        host_platform::attach();
        let mut control = workload.control()?;
        let balancer = control
            .balancer()
            .map_err(|_| anyhow::anyhow!("no memory for a connection table"))?;
        let frames = workload.frames().chunks_exact_mut(FRAME_BYTES).collect();
        Ok(Self {
            control,
            balancer,
            frames,
            seconds: 1,
        })
    }

    /// Forwards all frames as often as `passes` says; the results are a checksum of the MAC addresses of all frames, and the connections remembered.
    pub fn round(&mut self, mode: Mode, passes: usize) -> Result<Round<2>> {
        let flags = if mode == Mode::Miss { SYN } else { ACK };
        for frame in &mut self.frames {
            frame[FLAGS] = flags;
        }
        let mut nanoseconds = 0;
        for _ in 0..passes {
            if mode == Mode::Miss {
                // Long enough for all to expire; what the clock's jump costs isn't measured.
                self.seconds += u64::from(LONGEST_TIMEOUT_SECONDS) - 1;
                self.balancer
                    .forward::<&mut [u8]>(self.seconds * NANOSECONDS, &mut [], &mut []);
            }
            let start = processor_time_nanoseconds()?;
            self.pass();
            nanoseconds += processor_time_nanoseconds()? - start;
        }
        let bytes = self.frames.iter().flat_map(|frame| &frame[..12]);
        let checksum = bytes.fold(0, |sum: u64, &byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        Ok(Round {
            nanoseconds,
            results: [checksum, self.control.totals().connection_entries],
        })
    }

    #[inline(never)]
    fn pass(&mut self) {
        let mut verdicts = [Verdict::NotMine; BATCH];
        for batch in self.frames.chunks_mut(BATCH) {
            self.balancer
                .forward(self.seconds * NANOSECONDS, batch, &mut verdicts);
            black_box(&mut verdicts);
        }
    }
}
