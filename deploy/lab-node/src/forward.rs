//! Passes connections from one network namespace into another.
//!
//! The listening socket is handed over as standard input by a parent in the outer namespace; a socket stays in the namespace
//! it was made in, while the connections this process opens belong to the namespace it was started in.

use std::io::stdin;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Forwards until it is ended from outside.
pub async fn forward(to: SocketAddr) -> Result<()> {
    let socket = stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("there is no listening socket on standard input")?;
    let listener = std::net::TcpListener::from(socket);
    listener
        .set_nonblocking(true)
        .context("standard input is no listening socket")?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut outer, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that can't be made is closed at once, which is what the client sees as a refusal.
            if let Ok(mut inner) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}
