//! What only trusted code makes, tried without `unsafe`.

struct Mine(*mut u8);

impl rref::Exchange for Mine {} //~ E0200 the trait `Exchange` requires an `unsafe impl` declaration
impl rref::Share for Mine {} //~ E0200 the trait `Share` requires an `unsafe impl` declaration

fn main() {}
