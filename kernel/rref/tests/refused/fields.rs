//! A struct or enum is exchangeable only if every field is, whatever it is called. The error is at the field, and once more where it
//! would be passed on.

type Harmless = &'static [u8];

#[derive(rref::Exchange)] //~ E0277 the trait bound `&[u8]: Exchange` is not satisfied
struct Renamed {
    text: Harmless, //~ E0277 the trait bound `&'static [u8]: Exchange` is not satisfied
}

#[derive(rref::Exchange)] //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied
struct Tuple(u8, Box<u8>); //~ E0277 the trait bound `Box<u8>: Exchange` is not satisfied

#[derive(rref::Exchange)] //~ E0277 the trait bound `Arc<u8>: Exchange` is not satisfied //~ E0277 the trait bound `fn(): Exchange` is not satisfied
enum Variants {
    Empty,
    Shared(std::sync::Arc<u8>), //~ E0277 the trait bound `Arc<u8>: Exchange` is not satisfied
    Named {
        call: fn(), //~ E0277 the trait bound `fn(): Exchange` is not satisfied
    },
}

/// Not exchangeable, though all that it holds is.
struct Plain {
    number: u64,
}

#[derive(rref::Exchange)] //~ E0277 the trait bound `Plain: Exchange` is not satisfied
struct Nested {
    plain: Plain, //~ E0277 the trait bound `Plain: Exchange` is not satisfied
}

#[derive(rref::Exchange)] //~ E0277 the trait bound `PhantomData<&u8>: Exchange` is not satisfied
struct Marked<'a> {
    marker: std::marker::PhantomData<&'a u8>, //~ E0277 the trait bound `PhantomData<&'a u8>: Exchange` is not satisfied
}

#[derive(rref::Exchange)]
struct Node {
    next: rref::RRef<u64>,
}

/// `Share` is asked for on its own: what may cross need not live on the shared heap.
#[derive(rref::Share)]
struct Unexchanged { //~ E0277 the trait bound `Unexchanged: Exchange` is not satisfied
    number: u64,
}

#[derive(rref::Exchange, rref::Share)] //~ E0080 a shared type needs no drop
struct Linked {
    next: rref::RRef<u64>, //~ E0277 the trait bound `RRef<u64>: Share` is not satisfied
}

fn main() {}
