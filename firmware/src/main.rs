//! The appliance's image.
#![forbid(unsafe_code)]
fn main() {}
