//! What only trusted code makes, tried without `unsafe`.

struct Mine(*mut u8);

impl rref::Exchange for Mine {} //~ E0200 the trait `Exchange` requires an `unsafe impl` declaration
impl rref::Share for Mine {} //~ E0200 the trait `Share` requires an `unsafe impl` declaration

#[derive(rref::Exchange)]
enum Answer {
    Object(rref::RRef<u64>),
    Dead(rref::RpcError),
}

/// It would keep what it was to give.
impl rref::rpc::Outcome for Answer { //~ E0200 the trait `Outcome` requires an `unsafe impl` declaration
    fn failed(error: rref::RpcError) -> Answer {
        Answer::Dead(error)
    }
    unsafe fn transferred(self, _: rref::OwnerId) -> Answer {
        self
    }
}

fn main() {}
