//! Prints the QEMU that the host tools would run, fetching it if needed.

#![forbid(unsafe_code)]

fn main() -> Result<(), provision::Error> {
    let qemu = provision::qemu()?;
    println!("{} ({})", qemu.system.display(), qemu.version);
    Ok(())
}
