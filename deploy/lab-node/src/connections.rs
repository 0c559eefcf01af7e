//! Many HTTP connections from the client: opened, held, and asked again.
//!
//! Who answered is told by the `Server` header, in which each backend puts its name. [`one_each`] makes a number of connections
//! with one request each; [`hold`] opens all at once and asks on each of them again whenever a line comes on standard
//! input, so that a test sees whether one has moved or was lost in between.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Bytes of an answer's head at most.
const HEAD_LIMIT: usize = 16 * 1024;

/// What came of many requests.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Answers.
    pub answered: u64,
    /// Requests without one, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Answers by server.
    pub by_server: BTreeMap<String, u64>,
    /// Answers by another server than the one that answered first on the same connection.
    pub moved: u64,
    /// Who answered each connection, in the order of their source ports, when these were given: what tells whether a flow
    /// goes where it went before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Option<String>>,
}

impl Outcome {
    /// Counts an answer, and whether it came from another server than `first`, which is noted if it is the first.
    pub fn count_on(&mut self, first: &mut Option<String>, result: Result<String>) {
        self.count(result.as_deref());
        if let Ok(server) = result {
            let first = first.get_or_insert_with(|| server.clone());
            if *first != server {
                self.moved += 1;
            }
        }
    }

    /// Counts an answer, or why there is none.
    pub fn count(&mut self, result: Result<&str, &anyhow::Error>) {
        match result {
            Ok(server) => {
                self.answered += 1;
                *self.by_server.entry(server.to_owned()).or_default() += 1;
            }
            Err(error) => *self.failed.entry(error.to_string()).or_default() += 1,
        }
    }
}

/// A connection with the server that answered on it first.
struct Connection {
    stream: TcpStream,
    host: SocketAddr,
    path: String,
    buffer: Vec<u8>,
    server: Option<String>,
    patience: Duration,
}

impl Connection {
    /// `source_port` 0 lets the system choose one.
    async fn open(plan: &Plan, source_port: u16) -> Result<Self> {
        let (to, patience) = (plan.to, plan.patience);
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if source_port != 0 {
            let any: IpAddr = if to.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            // What other connections of this node left in TIME_WAIT on the port is no obstacle: they were to other addresses.
            socket.set_reuseaddr(true)?;
            socket
                .bind(SocketAddr::new(any, source_port))
                .context("binding the source port")?;
        }
        let stream = timeout(patience, socket.connect(to))
            .await
            .context("connecting took too long")??;
        // An abortive close at the end leaves no port in TIME_WAIT, so that tests can use all of them again.
        stream.set_zero_linger()?;
        Ok(Self {
            stream,
            host: to,
            path: plan.path.clone(),
            buffer: Vec::new(),
            server: None,
            patience,
        })
    }

    /// Sends a request and reads the answer; returns the server's name.
    async fn ask(&mut self) -> Result<String> {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.path, self.host);
        timeout(self.patience, self.exchange(request.as_bytes()))
            .await
            .context("the answer took too long")?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<String> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(head) = parse_head(&self.buffer)? {
                self.buffer.drain(..head.length);
                self.skip_body(head.body).await?;
                anyhow::ensure!(head.status == 200, "status {}", head.status);
                return Ok(head.server);
            }
            anyhow::ensure!(self.buffer.len() < HEAD_LIMIT, "the answer's head is too long");
            let length = self.stream.read_buf(&mut self.buffer).await?;
            anyhow::ensure!(length > 0, "the connection was closed");
        }
    }

    async fn skip_body(&mut self, mut left: u64) -> Result<()> {
        let mut scratch = vec![0; 64 * 1024];
        let buffered = left.min(self.buffer.len() as u64);
        self.buffer.drain(..usize::try_from(buffered)?);
        left -= buffered;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            let length = self
                .stream
                .read(scratch.get_mut(..part).unwrap_or_default())
                .await?;
            anyhow::ensure!(length > 0, "the connection was closed in a body");
            left -= length as u64;
        }
        Ok(())
    }
}

struct Head {
    length: usize,
    status: u16,
    server: String,
    body: u64,
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).context("the answer is no HTTP")? else {
        return Ok(None);
    };
    let header = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let body = header("content-length")
        .and_then(|text| text.trim().parse().ok())
        .context("the answer has no length")?;
    Ok(Some(Head {
        length,
        status: response.code.unwrap_or_default(),
        server: header("server").unwrap_or_default(),
        body,
    }))
}

/// What connections to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where they go.
    pub to: SocketAddr,
    /// What is asked for.
    pub path: String,
    /// How many.
    pub count: u16,
    /// How many are open (or being opened) together at most.
    pub at_once: usize,
    /// The first one's source port, the others' follow; 0 lets the system choose.
    pub source_port: u16,
    /// Time for one connection or one answer. SYNs are sent again after 1, 3 and 7 s.
    pub patience: Duration,
}

impl Plan {
    /// Source ports of the connections, in order.
    fn source_ports(&self) -> impl Iterator<Item = u16> {
        let first = self.source_port;
        (0..self.count).map(move |index| {
            if first == 0 {
                0
            } else {
                first.saturating_add(index)
            }
        })
    }
}

/// Makes the connections with one request each.
pub async fn one_each(plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    if plan.source_port != 0 {
        outcome.servers.resize(usize::from(plan.count), None);
    }
    let mut tasks = JoinSet::new();
    for (index, source_port) in plan.source_ports().enumerate() {
        if tasks.len() >= plan.at_once.max(1) {
            collect(&mut tasks, &mut outcome).await;
        }
        let plan = plan.clone();
        tasks.spawn(async move { (index, ask_once(&plan, source_port).await) });
    }
    while !tasks.is_empty() {
        collect(&mut tasks, &mut outcome).await;
    }
    outcome
}

async fn ask_once(plan: &Plan, source_port: u16) -> Result<String> {
    Connection::open(plan, source_port).await?.ask().await
}

async fn collect(tasks: &mut JoinSet<(usize, Result<String>)>, outcome: &mut Outcome) {
    match tasks.join_next().await {
        Some(Ok((index, result))) => {
            outcome.count(result.as_deref());
            if let Some(place) = outcome.servers.get_mut(index) {
                *place = result.ok();
            }
        }
        Some(Err(error)) => outcome.count(Err(&error.into())),
        None => {}
    }
}

/// Opens the connections, asks once on each, and again for each line on standard input; prints an [`Outcome`] each
/// time. Ends with the input.
pub async fn hold(plan: &Plan) -> Result<()> {
    let mut opened = Outcome::default();
    let mut connections = Vec::new();
    let mut opening = JoinSet::new();
    for source_port in plan.source_ports() {
        if opening.len() >= plan.at_once.max(1) {
            take_opened(&mut opening, &mut connections, &mut opened).await;
        }
        let plan = plan.clone();
        opening.spawn(async move { Connection::open(&plan, source_port).await });
    }
    while !opening.is_empty() {
        take_opened(&mut opening, &mut connections, &mut opened).await;
    }

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let mut outcome = ask_all(&mut connections).await;
        // Those that couldn't be opened are failures of every round.
        for (reason, number) in &opened.failed {
            *outcome.failed.entry(reason.clone()).or_default() += number;
        }
        println!("{}", serde_json::to_string(&outcome)?);
        if lines.next_line().await?.is_none() {
            return Ok(());
        }
    }
}

async fn take_opened(
    opening: &mut JoinSet<Result<Connection>>,
    connections: &mut Vec<Connection>,
    outcome: &mut Outcome,
) {
    match opening.join_next().await {
        Some(Ok(Ok(connection))) => connections.push(connection),
        Some(Ok(Err(error))) => outcome.count(Err(&error)),
        Some(Err(error)) => outcome.count(Err(&error.into())),
        None => {}
    }
}

/// Asks on all connections at the same time; one that fails is not asked again and counts as failed ever after.
async fn ask_all(connections: &mut Vec<Connection>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut tasks = JoinSet::new();
    for mut connection in connections.drain(..) {
        tasks.spawn(async move {
            let result = connection.ask().await;
            (connection, result)
        });
    }
    while let Some(joined) = tasks.join_next().await {
        let (mut connection, result) = match joined {
            Ok(pair) => pair,
            Err(error) => {
                outcome.count(Err(&error.into()));
                continue;
            }
        };
        outcome.count_on(&mut connection.server, result);
        connections.push(connection);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let text = b"HTTP/1.1 200 OK\r\nServer: backend3\r\nContent-Length: 9\r\n\r\nbackend3\n";
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!(
            (head.status, head.server.as_str(), head.body),
            (200, "backend3", 9)
        );
        assert_eq!(head.length, text.len() - 9);
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nServ").unwrap().is_none());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"SSH-2.0-x\r\n").is_err());
    }

    #[test]
    fn connections_are_counted_by_server() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let mut number = 0;
                while let Ok((mut stream, _)) = listener.accept().await {
                    number += 1;
                    let name = if number % 2 == 0 { "even" } else { "odd" };
                    tokio::spawn(async move {
                        let mut request = vec![0; 1000];
                        while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                            let answer =
                                format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: 0\r\n\r\n");
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    });
                }
            });
            let plan = Plan {
                to,
                path: "/".to_owned(),
                count: 10,
                at_once: 3,
                source_port: 0,
                patience: Duration::from_secs(15),
            };
            let outcome = one_each(&plan).await;
            assert_eq!(outcome.answered, 10);
            assert_eq!(
                outcome.by_server,
                [("even".to_owned(), 5), ("odd".to_owned(), 5)].into()
            );
            assert!(outcome.failed.is_empty());
            assert!(outcome.servers.is_empty(), "no ports were given");
        });
    }
}
