//! A backend of the load balancer: answers every request with its name, so that a client sees who served it.
//!
//! `GET /` gives the name; `GET /bytes/N` gives N bytes; `GET /count` gives the counters as JSON. UDP datagrams on the
//! same addresses are counted and answered with the name, except those that begin with `quiet`, which load tests send.
//! Counters are of this process: connections accepted, requests answered, datagrams received.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::{JoinSet, LocalSet, spawn_local};

use crate::http::{Request, RequestError, RequestReader};

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 8192;
/// Largest answer to `/bytes/N`.
const LARGEST_BODY: u64 = 1 << 40;
/// Datagrams that are taken before the event loop runs again.
const DATAGRAM_BATCH: usize = 256;
/// Bytes of datagrams that wait to be counted, at most.
const DATAGRAM_BUFFER: usize = 16 << 20;
/// A line for the lab, which waits for it.
const READY: &str = "ready";
/// Datagrams that begin with this are counted and not answered.
const QUIET: &[u8] = b"quiet";

#[derive(Default)]
struct Counters {
    connections: Cell<u64>,
    requests: Cell<u64>,
    datagrams: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

struct Backend {
    name: String,
    counters: Counters,
}

/// Serves until it is ended from outside, or an address can't be served. Says [`READY`] once all addresses are.
pub async fn serve(name: String, addresses: Vec<SocketAddr>) -> Result<()> {
    let backend = Rc::new(Backend {
        name,
        counters: Counters::default(),
    });
    LocalSet::new()
        .run_until(async {
            let mut servers = JoinSet::new();
            for address in addresses {
                // A socket for each address, so that a UDP answer leaves from the address that was asked.
                let listener = listen(address).with_context(|| format!("TCP {address} can't be served"))?;
                let datagrams =
                    bind_datagrams(address).with_context(|| format!("UDP {address} can't be served"))?;
                servers.spawn_local(accept(Rc::clone(&backend), listener));
                servers.spawn_local(answer_datagrams(Rc::clone(&backend), datagrams));
            }
            println!("{READY}");
            servers.join_all().await;
            Ok(())
        })
        .await
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // A burst must not be lost while this process waits for a CPU. Root may go beyond the system's limit; for others the
    // limit is what they get.
    if setsockopt(&socket, RcvBufForce, &DATAGRAM_BUFFER).is_err() {
        let _ = setsockopt(&socket, RcvBuf, &DATAGRAM_BUFFER);
    }
    UdpSocket::from_std(socket)
}

async fn accept(backend: Rc<Backend>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                count(&backend.counters.connections);
                spawn_local(serve_connection(Rc::clone(&backend), stream));
            }
            // Out of descriptors: those that are open will end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_connection(backend: Rc<Backend>, mut stream: TcpStream) {
    // Latency of small answers matters more than fewer segments; without it they only come later.
    let _ = stream.set_nodelay(true);
    let mut reader = RequestReader::new();
    loop {
        let request = match reader.next(&mut stream).await {
            Ok(request) => request,
            Err(RequestError::Closed) => return,
            Err(RequestError::Malformed) => {
                let _ = stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    .await;
                return;
            }
        };
        count(&backend.counters.requests);
        if backend.answer(&mut stream, &request).await.is_err() || !request.keep_alive {
            return;
        }
    }
}

impl Backend {
    async fn answer(&self, stream: &mut TcpStream, request: &Request) -> io::Result<()> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return self.send(stream, "405 Method Not Allowed", "", false).await;
        }
        let head = request.method == "HEAD";
        match request.path.as_str() {
            "/" => {
                self.send(stream, "200 OK", &format!("{}\n", self.name), head)
                    .await
            }
            "/count" => self.send(stream, "200 OK", &self.counters_as_json(), head).await,
            path => match path
                .strip_prefix("/bytes/")
                .and_then(|number| number.parse().ok())
            {
                Some(length) if length <= LARGEST_BODY => self.send_bytes(stream, length, head).await,
                _ => self.send(stream, "404 Not Found", "", head).await,
            },
        }
    }

    fn counters_as_json(&self) -> String {
        let counters = &self.counters;
        serde_json::json!({
            "name": self.name,
            "connections": counters.connections.get(),
            "requests": counters.requests.get(),
            "datagrams": counters.datagrams.get(),
        })
        .to_string()
    }

    async fn send(&self, stream: &mut TcpStream, status: &str, body: &str, head: bool) -> io::Result<()> {
        let mut text = self.head(status, body.len() as u64);
        if !head {
            text.push_str(body);
        }
        stream.write_all(text.as_bytes()).await
    }

    /// `length` bytes that repeat the name, so that a mixed-up stream would show.
    async fn send_bytes(&self, stream: &mut TcpStream, length: u64, head: bool) -> io::Result<()> {
        stream.write_all(self.head("200 OK", length).as_bytes()).await?;
        let chunk = self.name.repeat(1 + 65_536 / self.name.len().max(1));
        let mut left = if head { 0 } else { length };
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            stream
                .write_all(chunk.as_bytes().get(..part).unwrap_or_default())
                .await?;
            left -= part as u64;
        }
        Ok(())
    }

    fn head(&self, status: &str, length: u64) -> String {
        format!(
            "HTTP/1.1 {status}\r\nServer: {}\r\nContent-Length: {length}\r\n\r\n",
            self.name
        )
    }
}

async fn answer_datagrams(backend: Rc<Backend>, socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error from an earlier answer arrives here as an error of the socket; it concerns nobody.
        if socket.readable().await.is_err() {
            continue;
        }
        // Many at a time, but not without end: connections want their turn.
        for _ in 0..DATAGRAM_BATCH {
            let Ok((length, from)) = socket.try_recv_from(&mut buffer) else {
                break;
            };
            count(&backend.counters.datagrams);
            if !buffer.get(..length).unwrap_or_default().starts_with(QUIET) {
                let _ = socket.send_to(backend.name.as_bytes(), from).await;
            }
        }
    }
}
