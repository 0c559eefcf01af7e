//! What trusted code offers to trusted code only.

use rref::OwnerId;
use rref::crossing::Target;

fn main() {
    // An object under another's name would be freed by that one's death under its handle.
    let object = rref::RRef::new(1u64).unwrap();
    rref::Exchange::transfer(&object, OwnerId::NONE); //~ E0133 call to unsafe function `transfer` is unsafe
    let answer: Result<_, rref::RpcError> = Ok(object);
    _ = rref::rpc::Outcome::transferred(answer, OwnerId::NONE); //~ E0133 call to unsafe function `transferred` is unsafe
    _ = Target::<u8>::new(&HEADER, OwnerId::NONE, core::ptr::null()); //~ E0133 call to unsafe function `Target::<O>::new` is unsafe
    rref::crossing::resume(core::ptr::null()); //~ E0133 call to unsafe function `rref::crossing::resume` is unsafe
}

static HEADER: rref::handle::generated::DomainHeader = rref::handle::generated::DomainHeader::new(7);
