//! How code for the appliance is compiled and linked.
//!
//! Freestanding code is built for the host's own target, because a stock toolchain has core and alloc for that one; the
//! linker is the toolchain's own and is called without a C compiler, so none is needed and none of its start files or
//! libraries get in.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The target whose core and alloc are linked.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The Cargo profile of what runs on the appliance, defined in the root's Cargo.toml.
pub const PROFILE: &str = "firmware";

/// Flags that decide what code is generated; they are part of an image's identity. Frame pointers are for backtraces.
pub const CODE_GENERATION: [&str; 4] = ["-C", "relocation-model=pic", "-C", "force-frame-pointers=yes"];

/// All flags for domain images: code generation, and a link as static PIE by the linker script.
///
/// `empty_libraries` is a directory from [`write_empty_libraries`].
pub fn domain_flags(root: &Path, empty_libraries: &Path) -> Vec<String> {
    let script = root.join("firmware/domain.ld");
    let link = [
        "-C".to_owned(),
        "linker=rust-lld".to_owned(),
        "-C".to_owned(),
        "linker-flavor=ld.lld".to_owned(),
        // The linker script lays out what RELRO would, and pages are protected by the loader.
        "-C".to_owned(),
        "relro-level=off".to_owned(),
        // Symbols stay, for backtraces; debug information would only fill the boot archive.
        "-C".to_owned(),
        "strip=debuginfo".to_owned(),
        "-C".to_owned(),
        "link-arg=-static".to_owned(),
        "-C".to_owned(),
        "link-arg=--no-dynamic-linker".to_owned(),
        "-C".to_owned(),
        format!("link-arg=-T{}", script.display()),
        "-C".to_owned(),
        format!("link-arg=-L{}", empty_libraries.display()),
    ];
    CODE_GENERATION
        .iter()
        .map(|flag| (*flag).to_owned())
        .chain(link)
        .chain(without_machine_paths(root))
        .collect()
}

/// Makes archives without members for the system libraries that some crates ask for by name on this target, though they
/// use none of them in a freestanding image. A use would end the link with an undefined symbol.
///
/// # Errors
/// When they can't be written.
pub fn write_empty_libraries(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for name in ["c", "m", "rt", "pthread", "util", "dl", "gcc_s"] {
        fs::write(directory.join(format!("lib{name}.a")), "!<arch>\n")?;
    }
    Ok(())
}

/// Flags for the kernel, on top of what its own build script asks the linker for.
pub fn kernel_flags(root: &Path) -> Vec<String> {
    let code = ["-C", "relocation-model=static", "-C", "force-frame-pointers=yes"];
    code.iter()
        .map(|flag| (*flag).to_owned())
        .chain(without_machine_paths(root))
        .collect()
}

/// Source files are named as in the tree, wherever the clone and Cargo's cache are: in messages of panics, and so that the same
/// source gives the same image everywhere.
fn without_machine_paths(root: &Path) -> Vec<String> {
    let mut prefixes = vec![(root.to_path_buf(), "")];
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    prefixes.extend(cargo_home.map(|home| (home.join("registry/src"), "registry")));
    prefixes
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect()
}
