//! What only trusted code makes. (Of traits: a program with `unsafe` can, and none outside `kernel/` has the word.)
#![forbid(unsafe_code)]

struct Mine(usize);

unsafe impl rref::Exchange for Mine {} //~ unsafe_code implementation of an `unsafe` trait

fn main() {}
