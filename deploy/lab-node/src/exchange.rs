//! One connection with bytes of the caller's choice: for what no HTTP client would send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends standard input, then prints all that comes until the other side closes. This side stays open meanwhile, so that a
/// server that waits for more has to decide by itself when it waited long enough.
///
/// # Errors
/// When there is no connection or the other side has not closed within `limit`.
pub async fn exchange(to: SocketAddr, limit: Duration) -> Result<()> {
    let mut input = Vec::new();
    tokio::io::stdin().read_to_end(&mut input).await?;
    let received = timeout(limit, talk(to, &input))
        .await
        .with_context(|| format!("the other side has not closed after {} s", limit.as_secs()))??;
    let mut output = tokio::io::stdout();
    output.write_all(&received).await?;
    Ok(output.flush().await?)
}

async fn talk(to: SocketAddr, input: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await.context("connecting failed")?;
    // A server that refuses may close before it has read everything: its answer counts, not what it left unread.
    let _ = stream.write_all(input).await;
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return Ok(received),
            Ok(length) => received.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if received.is_empty() => return Err(error).context("no answer came"),
            Err(_) => return Ok(received),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_answer_is_all_until_the_close() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(&request).await.unwrap();
                stream.write_all(b"!").await.unwrap();
            });
            assert_eq!(talk(to, b"ping").await.unwrap(), b"ping!");
        });
    }
}
