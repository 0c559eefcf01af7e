//! A server to talk to, for tests of commands.

use crate::client::{Client, ClientIndex};
use crate::config::Config;
use crate::protocol::{OwnedCommand, RequestLimits, RequestParser};
use crate::server::{Phase, Server};
use alloc::string::String;
use alloc::vec::Vec;

/// A server with a client.
pub struct Bench {
    /// The server.
    pub server: Server,
    /// The client.
    pub client: ClientIndex,
}

impl Default for Bench {
    fn default() -> Self {
        let mut server = Server::new(Config::default(), 1, 12_345, 1_700_000_000_000);
        server.phase = Phase::Ready;
        let client = connect(&mut server);
        Bench { server, client }
    }
}

/// Another client.
pub fn connect(server: &mut Server) -> ClientIndex {
    let address = "10.0.0.1:1".parse().expect("an address");
    server.connect(|id| Client::new(id, 0, 0, address, address, 1_700_000_000_000))
}

impl Bench {
    /// What the client hears, as it is sent, when it sends this command; its arguments as on a terminal.
    pub fn run(&mut self, line: &str) -> String {
        self.run_as(self.client, line)
    }

    /// The same as another client.
    pub fn run_as(&mut self, client: ClientIndex, line: &str) -> String {
        let mut parser = RequestParser::default();
        let text = alloc::format!("{line}\r\n");
        let limits = RequestLimits {
            bulk_bytes: 1 << 20,
            authenticated: true,
        };
        let parsed = parser.parse(text.as_bytes(), &limits);
        assert_eq!(parsed, Ok(Some(text.len())), "{line}");
        self.server.execute(client, parser.arguments(text.as_bytes()), 0);
        self.heard(client)
    }

    /// The same with arguments of any bytes.
    pub fn send(&mut self, arguments: &[&[u8]]) -> String {
        let command = OwnedCommand::new(arguments.iter().copied());
        self.server.execute(self.client, command.arguments(), 0);
        self.heard(self.client)
    }

    /// What a client heard since.
    pub fn heard(&mut self, client: ClientIndex) -> String {
        let mut output = Vec::new();
        if let Some(client) = self.server.clients.get_mut(client) {
            client.take_output(&mut output);
        }
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Lets time pass.
    pub fn pass_ms(&mut self, milliseconds: u64) {
        self.server.keyspace.now_ms += milliseconds;
        self.server.keyspace.expire_due(1000);
        self.server.expire_waiting();
        self.server.tell_changes();
    }
}

#[test]
fn a_client_is_served() {
    let mut bench = Bench::default();
    assert_eq!(bench.run("set a 1"), "+OK\r\n");
    assert_eq!(bench.run("get a"), "$1\r\n1\r\n");
    assert_eq!(bench.run("get b"), "$-1\r\n");
    assert_eq!(
        bench.run("nonsense x y"),
        "-ERR unknown command 'nonsense', with args beginning with: 'x' 'y' \r\n"
    );
    assert_eq!(
        bench.run("get"),
        "-ERR wrong number of arguments for 'get' command\r\n"
    );
}
