//! Waits for a web server to answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long one attempt may take; short, because a lost SYN is only sent again after a second.
const ATTEMPT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks for `/` until an HTTP answer comes, whatever its status; prints how long that took.
pub async fn wait(address: SocketAddr, limit: Duration) -> Result<()> {
    let started = Instant::now();
    let mut last = String::from("no answer");
    while started.elapsed() < limit {
        match timeout(ATTEMPT, ask(address)).await {
            Ok(Ok(())) => {
                println!("{}", started.elapsed().as_millis());
                return Ok(());
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = String::from("no answer"),
        }
        sleep(PAUSE).await;
    }
    bail!(
        "http://{address}/ did not answer within {} s (last attempt: {last})",
        limit.as_secs()
    )
}

async fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut start = [0; 9];
    stream.read_exact(&mut start).await?;
    if !start.starts_with(b"HTTP/1.") {
        bail!("what answers is no web server");
    }
    Ok(())
}
