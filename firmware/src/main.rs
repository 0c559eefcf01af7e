//! The appliance's image: the microkernel, the kernel's services as interfaces, and the start of the supervisor.
//!
//! `cargo xtask build` makes the bootable ELF (`--profile firmware --target x86_64-unknown-linux-gnu`, with the key and hash that
//! images must match in its environment). In any other profile this is an empty program, so that the whole workspace can be
//! checked on a host.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(panic = "abort")]
extern crate alloc;

#[cfg(panic = "abort")]
mod appliance;
#[cfg(panic = "abort")]
mod black_box;
#[cfg(panic = "abort")]
mod images;
#[cfg(all(panic = "abort", feature = "inject"))]
mod injector;
#[cfg(panic = "abort")]
mod services;

#[cfg(panic = "abort")]
mod image {
    use core::panic::PanicInfo;

    kernel::entry_point!(crate::appliance::main);

    #[panic_handler]
    fn panic(information: &PanicInfo<'_>) -> ! {
        kernel::machine::fault::panic(information)
    }
}

#[cfg(not(panic = "abort"))]
fn main() {
    eprintln!("this is the appliance's image; build it with `cargo xtask build`");
}
