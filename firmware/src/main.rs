//! The appliance's image: the microkernel, and what it starts.
//!
//! `cargo build -p firmware --profile firmware --target x86_64-unknown-linux-gnu` makes the bootable ELF. In any other
//! profile this is an empty program, so that the whole workspace can be checked on a host.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(panic = "abort")]
mod appliance {
    use core::panic::PanicInfo;

    kernel::entry_point!(main);

    fn main() {
        kernel::machine::self_test::run_if_asked();
        kernel::machine::power::exit(kernel::machine::power::ExitStatus::Success);
    }

    #[panic_handler]
    fn panic(information: &PanicInfo<'_>) -> ! {
        kernel::machine::fault::panic(information)
    }
}

#[cfg(not(panic = "abort"))]
fn main() {
    eprintln!("this is the appliance's image; build it with `cargo xtask build`");
}
