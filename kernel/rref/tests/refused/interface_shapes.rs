//! What the interface macro refuses to make a crossing of.

use rref::RpcError;

#[rref::interface]
pub trait Exclusive {
    fn count(&mut self) -> Result<u64, RpcError>; //~ an interface method takes `&self` first
}

#[rref::interface]
pub trait Owned {
    fn count(self) -> Result<u64, RpcError>; //~ an interface method takes `&self` first
}

#[rref::interface]
pub trait Static {
    fn count() -> Result<u64, RpcError>; //~ an interface method takes `&self` first
}

#[rref::interface]
pub trait Lending {
    fn fill(&self, object: &mut rref::RRef<u64>) -> Result<u64, RpcError>; //~ an argument is moved, or lent as `&RRef<T>`
}

#[rref::interface]
pub trait Generic {
    fn of<T: rref::Exchange>(&self, value: T) -> Result<u64, RpcError>; //~ an interface method is a plain safe function without generics
}

#[rref::interface]
pub trait Unsafe {
    unsafe fn count(&self) -> Result<u64, RpcError>; //~ an interface method is a plain safe function without generics
}

#[rref::interface]
pub trait Default {
    fn count(&self) -> Result<u64, RpcError> { //~ an interface method has no default body: it would run in the caller
        Ok(1)
    }
}

#[rref::interface]
pub trait Nothing {
    fn count(&self); //~ an interface method returns a Result that can hold an RpcError
}

#[rref::interface]
pub trait Constant {
    const NUMBER: u64; //~ an interface has methods only
}

#[rref::interface]
pub trait Parameters<T> { //~ an interface has no type parameters and no supertraits
    fn count(&self) -> Result<u64, RpcError>;
}

#[rref::interface]
pub trait Super: Clone { //~ an interface has no type parameters and no supertraits
    fn count(&self) -> Result<u64, RpcError>;
}

#[derive(rref::Exchange)]
union Hiding { //~ a union can hide a pointer and may not cross
    number: u64,
    pointer: *const u8,
}

fn main() {}
