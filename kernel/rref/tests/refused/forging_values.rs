//! Errors, handles and crossings that only trusted code makes.

use rref::{OwnerId, RRef, RpcError};

fn main() {
    let payload = core::ptr::NonNull::<u64>::dangling();
    _ = RpcError::dead(OwnerId::NONE); //~ E0624 associated function `dead` is private
    _ = RpcError::died(OwnerId::NONE); //~ E0624 associated function `died` is private
    _ = RpcError::default(); //~ E0599 no function or associated item named `default` found for struct `RpcError`
    _ = RRef::from_payload(payload); //~ E0624 associated function `from_payload` is private
    let object = RRef::new(1u64).unwrap();
    _ = object.into_payload(); //~ E0624 method `into_payload` is private
    let object = RRef::new(1u64).unwrap();
    _ = object.header(); //~ E0624 method `header` is private
    let batch = rref::Batch::<u64>::new().unwrap();
    _ = batch.clone(); //~ E0599 no method named `clone` found for struct `Batch<T>`
}
