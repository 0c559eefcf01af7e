//! What may not be left to an heir: anything of which not every combination of bytes is a value, or whose bytes aren't all laid down.

#[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
#[repr(C)]
struct Entry {
    is_used: bool, //~ E0277 the trait bound `bool: Plain` is not satisfied
}

#[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
#[repr(u8)]
enum State { //~ a plain type is a struct without type parameters
    Open = 1,
}

#[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)] //~ E0080 a plain type has no padding
#[repr(C)]
struct Padded {
    word: u64,
    byte: u8,
}

// The order of fields is the compiler's.
#[derive(Clone, Copy, rref::Exchange, rref::Share, rref::Plain)]
struct Unordered { //~ a plain type has a layout
    word: u64,
}

fn of_what<T: rref::Plain>() {}

fn main() {
    of_what::<rref::RRef<u64>>(); //~ E0277 the trait bound `RRef<u64>: Plain` is not satisfied
}
