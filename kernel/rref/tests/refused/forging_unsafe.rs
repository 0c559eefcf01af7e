//! What trusted code offers to trusted code only.

use rref::OwnerId;
use rref::crossing::Target;

fn main() {
    _ = Target::<u8>::new(&HEADER, OwnerId::NONE, core::ptr::null()); //~ E0133 call to unsafe function `Target::<O>::new` is unsafe
    rref::crossing::resume(core::ptr::null()); //~ E0133 call to unsafe function `rref::crossing::resume` is unsafe
}

static HEADER: rref::handle::generated::DomainHeader = rref::handle::generated::DomainHeader::new(7);
