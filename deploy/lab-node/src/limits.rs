//! The limit on open files, which is 1024 by default and too low for thousands of connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as this user may; failing to is no error, fewer connections may still be enough.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
