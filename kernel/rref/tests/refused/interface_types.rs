//! The interface macro puts the bounds on arguments, moved and lent, and on results; the crossing asks for them once more.

use rref::RpcError;

#[rref::interface] //~ E0277 the trait bound `String: Exchange` is not satisfied //~ E0277 the trait bound `*mut u8: Exchange` is not satisfied //~ E0277 the trait bound `fn(): Exchange` is not satisfied //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
pub trait Moved {
    fn text(&self, line: String) -> Result<(), RpcError>; //~ E0277 the trait bound `String: Exchange` is not satisfied
    fn pointer(&self, at: *mut u8) -> Result<(), RpcError>; //~ E0277 the trait bound `*mut u8: Exchange` is not satisfied
    fn function(&self, call: fn()) -> Result<(), RpcError>; //~ E0277 the trait bound `fn(): Exchange` is not satisfied
    fn second(&self, first: u8, second: Box<u8>) -> Result<(), RpcError>; //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
}

#[rref::interface] //~ E0277 the trait bound `&str: Exchange` is not satisfied //~ E0277 the trait bound `Vec<u8>: Exchange` is not satisfied
pub trait Returned {
    fn name(&self) -> Result<&'static str, RpcError>; //~ E0277 the trait bound `&'static str: Exchange` is not satisfied
    fn names(&self) -> Result<Vec<u8>, RpcError>; //~ E0277 the trait bound `Vec<u8>: Exchange` is not satisfied
}

#[rref::interface] //~ E0277 the trait bound `u64: Outcome` is not satisfied //~ E0277 the trait bound `Option<u64>: Outcome` is not satisfied
pub trait Silent {
    // The answer must be able to say that the callee is dead.
    fn count(&self) -> u64; //~ E0277 the trait bound `u64: Outcome` is not satisfied
    fn maybe(&self) -> Option<u64>; //~ E0277 the trait bound `Option<u64>: Outcome` is not satisfied
}

fn main() {}
