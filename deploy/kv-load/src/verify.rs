//! Asks a running store for every key of a record.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::oracle::Oracle;
use crate::resp::{Connection, Reply};

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Keys that were asked for.
    pub keys: u64,
    /// Acknowledged writes that stand behind them.
    pub acknowledged: u64,
    /// What is wrong, the first of it in words.
    pub wrong: Vec<String>,
}

/// Compares the store at `to` with the record; a store that is still loading is waited for.
///
/// # Errors
/// When it doesn't answer within `patience`.
pub fn run(to: SocketAddr, oracle: &Oracle, patience: Duration) -> Result<Verdict> {
    let until = Instant::now() + patience;
    let mut verdict = Verdict {
        acknowledged: oracle.acknowledged,
        ..Verdict::default()
    };
    let mut connection = None;
    for key in oracle.keys() {
        let found = loop {
            let open = match &mut connection {
                Some(open) => open,
                none => match Connection::open(to, patience) {
                    Ok(open) => none.insert(open),
                    Err(error) if Instant::now() > until => return Err(error),
                    Err(_) => {
                        thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                },
            };
            match open.ask(&[b"GET", key.as_bytes()]) {
                Ok(Reply::Bulk(found)) => break found,
                Ok(Reply::Error(text)) if text.starts_with("LOADING") && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(other) => bail!("{key}: the store answers {other:?}"),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => connection = None,
            }
        };
        verdict.keys += 1;
        if let Err(wrong) = oracle.check(key, found.as_deref(), u64::MAX) {
            verdict.wrong.push(wrong.to_string());
        }
    }
    Ok(verdict)
}
