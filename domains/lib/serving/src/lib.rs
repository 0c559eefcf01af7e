//! Serving for ever: what a shard of a TCP server does when the stack dies or refuses.
//!
//! The server listens on one shard of the stack and serves until something interrupts it. When the stack died its successor is listened on; when it
//! refused, what is open there is given back and the server tries again. What its connections say is the server's own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::convert::Infallible;
use domain_rt::{Handle, reconnect, thread};
use interface::socket::{EVENT_LIMIT, EventList, ListenOptions, SocketError, SocketId, Sockets};
use log::{info, warn};
use rref::RRef;

/// Connections that may wait to be taken, per shard.
const BACKLOG: u16 = 1024;
/// The server's import of the stack, in config/domains.toml.
const IMPORT: &str = "sockets";
/// How long the stack's successor is waited for at a time, milliseconds.
const SUCCESSOR_WAIT_MS: u64 = 1000;
/// Not to spin where connecting fails at once, milliseconds.
const CONNECT_PAUSE_MS: u64 = 10;
/// Between a refusal and the next try, milliseconds.
const REFUSAL_PAUSE_MS: u64 = 50;

/// Why a shard stops serving for a moment.
pub enum Interruption {
    /// The stack died, and every connection with it.
    Dead,
    /// It refused.
    Refused(SocketError),
}

impl From<SocketError> for Interruption {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Dead(_) => Interruption::Dead,
            error => Interruption::Refused(error),
        }
    }
}

/// A shard of a server.
pub trait Shard {
    /// The stack's shard that it serves on.
    fn number(&self) -> u16;

    /// The port that it listens on.
    fn port(&self) -> u16;

    /// The stack, to be replaced by its successor.
    fn sockets(&mut self) -> &mut Handle<dyn Sockets>;

    /// Serves while the port is listened on.
    ///
    /// # Errors
    /// What interrupts it.
    fn serve(&mut self) -> Result<Infallible, Interruption>;

    /// The sockets of its connections.
    fn open(&self) -> impl Iterator<Item = SocketId>;

    /// Forgets its connections, whose sockets are gone.
    fn forget_all(&mut self);
}

/// Serves for ever. Outlives the stack: when that dies, its successor is listened on.
pub fn run(shard: &mut impl Shard) -> ! {
    let mut told = false;
    loop {
        match listen_and_serve(shard, &mut told) {
            Interruption::Dead => follow_stack(shard),
            Interruption::Refused(error) => {
                // The stack lives: what is open there would stay so.
                let open: Vec<SocketId> = shard.open().collect();
                for socket in open {
                    shard.sockets().abort(socket).ok();
                }
                if !told {
                    let (number, port) = (shard.number(), shard.port());
                    warn!("shard {number}: can't serve port {port}: {error}");
                    told = true;
                }
                thread::sleep_ms(REFUSAL_PAUSE_MS);
            }
        }
        shard.forget_all();
    }
}

fn listen_and_serve(shard: &mut impl Shard, told: &mut bool) -> Interruption {
    let (number, port) = (shard.number(), shard.port());
    let options = ListenOptions {
        address: None,
        port,
        backlog: BACKLOG,
    };
    let listener = match shard.sockets().listen(number, options) {
        Ok(listener) => listener,
        Err(error) => return error.into(),
    };
    if *told {
        info!("shard {number}: serving port {port}");
        *told = false;
    }
    let Err(interruption) = shard.serve();
    // Whatever happens next, this listener is not used any more.
    shard.sockets().close(listener).ok();
    interruption
}

fn follow_stack(shard: &mut impl Shard) {
    let number = shard.number();
    info!("shard {number}: the network stack died; waiting for the next");
    let sockets = shard.sockets();
    loop {
        match reconnect::<dyn Sockets>(IMPORT, sockets.target(), SUCCESSOR_WAIT_MS) {
            Ok(successor) => {
                *sockets = successor;
                return;
            }
            Err(_) => thread::sleep_ms(CONNECT_PAUSE_MS),
        }
    }
}

/// A list for the stack to fill.
///
/// # Errors
/// Without memory.
pub fn event_list() -> Result<RRef<EventList>, Interruption> {
    let empty = EventList {
        length: 0,
        events: [None; EVENT_LIMIT],
    };
    RRef::new(empty).map_err(|_| Interruption::Refused(SocketError::Full))
}

/// A socket that is gone already is as good as closed.
///
/// # Errors
/// When the stack is dead.
pub fn only_death(result: Result<(), SocketError>) -> Result<(), Interruption> {
    match result {
        Err(SocketError::Dead(_)) => Err(Interruption::Dead),
        _ => Ok(()),
    }
}
