//! UDP flows that are asked again and again: each is a socket of its own, and each answer is the name of who gave it.
//!
//! Like [`connections::hold`](crate::connections::hold) for datagrams: one round at once, and another for each line on standard input,
//! so that a test sees whether a flow has moved in between. A datagram that is lost is sent again.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connections::Outcome;

/// Time for an answer before the question is sent again, and how often it is sent.
const PATIENCE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 10;
/// What the backends answer with their name.
const QUESTION: &[u8] = b"who";

/// A flow with the server that answered on it first.
struct Flow {
    socket: UdpSocket,
    server: Option<String>,
}

impl Flow {
    async fn open(to: SocketAddr) -> Result<Flow> {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await.context("a socket can't be bound")?;
        socket.connect(to).await?;
        Ok(Flow { socket, server: None })
    }

    async fn ask(&self) -> Result<String> {
        let mut answer = [0; 256];
        for _ in 0..ATTEMPTS {
            self.socket.send(QUESTION).await?;
            if let Ok(length) = timeout(PATIENCE, self.socket.recv(&mut answer)).await {
                let bytes = answer.get(..length?).unwrap_or_default();
                return Ok(String::from_utf8_lossy(bytes).trim().to_owned());
            }
        }
        anyhow::bail!("no answer to {ATTEMPTS} datagrams")
    }
}

/// Opens the flows and asks on each, again for each line on standard input; prints an [`Outcome`] each time. Ends with the input.
pub async fn hold(to: SocketAddr, count: u16) -> Result<()> {
    let mut flows = Vec::new();
    for _ in 0..count {
        flows.push(Flow::open(to).await?);
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        println!("{}", serde_json::to_string(&ask_all(&mut flows).await)?);
        if lines.next_line().await?.is_none() {
            return Ok(());
        }
    }
}

async fn ask_all(flows: &mut Vec<Flow>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut tasks = JoinSet::new();
    for flow in flows.drain(..) {
        tasks.spawn(async move {
            let result = flow.ask().await;
            (flow, result)
        });
    }
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((mut flow, result)) => {
                outcome.count_on(&mut flow.server, result);
                flows.push(flow);
            }
            Err(error) => outcome.count(Err(&error.into())),
        }
    }
    outcome
}
