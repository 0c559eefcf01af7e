//! The socket that gives out the totals.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use crate::Counters;

/// A reader that takes nothing must not keep the next one waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes the socket, in the place of one that an earlier run left.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers each connection with one line, for as long as QEMU runs.
pub fn serve(listener: &UnixListener, counters: &Counters) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let totals: Vec<String> = counters
            .read()
            .unwrap_or_default()
            .iter()
            .map(|total| total.to_string())
            .collect();
        let mut line = format!("{{\"instructions\":[{}]", totals.join(","));
        if let Some(blocks) = counters.read_blocks() {
            let blocks: Vec<String> = blocks
                .iter()
                .map(|(address, count)| format!("[{address},{count}]"))
                .collect();
            line.push_str(&format!(",\"blocks\":[{}]", blocks.join(",")));
        }
        line.push_str("}\n");
        // A reader that has gone needs no answer.
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = stream.write_all(line.as_bytes());
    }
}
