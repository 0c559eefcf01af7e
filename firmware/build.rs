//! Tells the linker how to make a freestanding, statically linked image at a fixed address.
#![forbid(unsafe_code)]

fn main() {
    let script = format!("{}/kernel.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = [
        "-nostdlib".into(),
        "-nostartfiles".into(),
        "-static".into(),
        "-no-pie".into(),
        format!("-Wl,-T,{script}"),
        "-Wl,-z,norelro".into(),
        "-Wl,-z,max-page-size=4096".into(),
        "-Wl,--no-eh-frame-hdr".into(),
        "-Wl,--build-id=none".into(),
        "-Wl,--orphan-handling=warn".into(),
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
