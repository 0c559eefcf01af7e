//! Work that the kernel does for a domain, again and again, so that a death comes in the middle of it.

use crate::service::Neighbours;
use alloc::vec::Vec;
use attack_interface::victim::{Goods, Victim, VictimError, Work};
use core::hint::black_box;
use domain_rt::thread;
use rref::{Packet, PacketBatch, RRef};

/// Packets in a batch of goods.
const PACKETS: usize = 8;
/// Bytes of private memory asked for at once: more than the heap has in stock.
const PRIVATE_BYTES: usize = 300 * 1024;
/// Shared objects held at once.
const HELD: usize = 16;

/// Objects for a call: one, and a batch.
pub fn objects() -> Result<Goods, VictimError> {
    let object = RRef::new([1; 64]).map_err(|_| VictimError::OutOfMemory)?;
    let mut batch = PacketBatch::new().map_err(|_| VictimError::OutOfMemory)?;
    for _ in 0..PACKETS {
        let packet = Packet::allocate().map_err(|_| VictimError::OutOfMemory)?;
        drop(batch.push(packet));
    }
    Ok(Goods { object, batch })
}

/// Makes the kernel work for ever.
pub fn work(work: Work, neighbours: &Neighbours) -> ! {
    loop {
        match work {
            Work::Private => drop(black_box(Vec::<u8>::with_capacity(black_box(PRIVATE_BYTES)))),
            Work::Shared => shared(),
            Work::Threads => {
                thread::spawn("short", None, || {}).ok();
                thread::yield_now();
            }
            Work::Handles => {
                domain_rt::connect::<dyn Victim>("bystander", 0).ok();
            }
            Work::Crossings => crossing(neighbours),
        }
    }
}

fn shared() {
    let held: Vec<Goods> = (0..HELD).map_while(|_| objects().ok()).collect();
    let mut merged = match PacketBatch::new() {
        Ok(batch) => batch,
        Err(_) => return,
    };
    for mut goods in held {
        merged.append(&mut goods.batch);
    }
}

fn crossing(neighbours: &Neighbours) {
    let (Ok(bystander), Ok(goods), Ok(lent)) = (neighbours.bystander(), objects(), RRef::new([2; 64])) else {
        return;
    };
    drop(bystander.hold(goods, &lent, None, 0, 0));
}
