//! The stack against scripted peers, a bad wire, and the domains around it, in one process.
#![forbid(unsafe_code)]

mod connections;
mod domain;
mod frames;
mod lab;
mod rounds;
mod transfer;
