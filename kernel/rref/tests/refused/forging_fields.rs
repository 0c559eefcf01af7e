//! Values of trusted types from parts.

use rref::crossing::Target;
use rref::{OwnerId, RRef, RpcError};

fn main() {
    let payload = core::ptr::NonNull::<u64>::dangling();
    _ = RpcError { target: OwnerId::NONE, during: true }; //~ E0451 fields `target` and `during` of struct `RpcError` are private
    _ = RRef { payload, owns: core::marker::PhantomData }; //~ E0451 fields `payload` and `owns` of struct `RRef` are private
    _ = Target::<u8> { header: &HEADER, incarnation: OwnerId::NONE, object: core::ptr::null() }; //~ E0451 fields `header`, `incarnation` and `object` of struct `Target` are private
}

static HEADER: rref::handle::generated::DomainHeader = rref::handle::generated::DomainHeader::new(7);
