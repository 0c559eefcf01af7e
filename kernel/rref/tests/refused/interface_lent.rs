//! Lent arguments are on the shared heap.

use rref::RpcError;

#[rref::interface] //~ E0308 mismatched types
pub trait Vector {
    fn look(&self, words: &Vec<u8>) -> Result<u64, RpcError>;
}

#[rref::interface] //~ E0308 mismatched types
pub trait Number {
    fn look(&self, number: &u64) -> Result<u64, RpcError>;
}

#[rref::interface] //~ E0308 mismatched types
pub trait Text {
    fn look(&self, text: &str) -> Result<u64, RpcError>;
}

#[rref::interface] //~ E0308 mismatched types
pub trait Object {
    fn look(&self, object: &dyn Send) -> Result<u64, RpcError>;
}

fn main() {}
