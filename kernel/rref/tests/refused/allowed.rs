//! The same shapes with exchangeable types compile.

use rref::{RRef, RpcError};

#[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
#[repr(C, align(16))]
struct Entry {
    word: u64,
    halves: [u32; 2],
}

#[derive(rref::Exchange)]
struct Message<T> {
    value: T,
    object: RRef<u64>,
    packets: Option<rref::PacketBatch>,
}

#[derive(rref::Exchange, rref::Share)]
enum Choice {
    None,
    One(u64),
    Named { number: [u16; 3] },
}

#[rref::interface]
pub trait Counter {
    fn count(&self, moved: Message<u8>, lent: &RRef<u64>) -> Result<Message<u32>, RpcError>;
    fn choose(&self, choice: Choice, shared: RRef<Choice>) -> Result<Option<RRef<Choice>>, RpcError>;
}

fn main() {}
