//! Ports of this machine that lead into the lab, for a browser or a client outside of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::up::Lab;

/// A port on the loopback interface and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Where to connect to.
    pub local: SocketAddr,
    /// Where that leads, inside the lab.
    pub to: SocketAddr,
}

impl Lab {
    /// Forwards a port of 127.0.0.1 to an address inside the lab; when the port is taken, another one is.
    ///
    /// # Errors
    /// When no port can be had or the forwarder can't be started.
    pub fn forward(&mut self, node_program: &Path, port: u16, to: SocketAddr) -> Result<Forwarded> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("no local port is free")?;
        let local = listener.local_addr()?;
        let mut command = self.command_in("client", node_program)?;
        command.args(["forward", "--to", &to.to_string()]);
        // The socket stays in this namespace though its owner lives in the client's.
        let name = format!("forward-{}", local.port());
        let process = Process::start(
            &name,
            command,
            &self.log_file(&name),
            Stdio::from(OwnedFd::from(listener)),
        )?;
        self.adopt(process)?;
        Ok(Forwarded { local, to })
    }
}
