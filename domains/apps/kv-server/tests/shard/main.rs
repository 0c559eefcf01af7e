//! A shard over a stack in memory, through real proxies: whichever way requests come in and answers go out, a connection hears the answers to what it
//! sent, in order.
#![forbid(unsafe_code)]

mod stack;

use interface::socket::{SocketId, Sockets};
use kv_server::config::Config;
use kv_server::server::{Phase, Server};
use kv_server::service::Service;
use kv_server::shard::Shard;
use proptest::prelude::*;
use stack::{Round, Stack};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// A shard of its own on a stack of its own, which `import` names; it runs until the process ends.
fn start(import: &'static str) -> &'static Stack {
    host_platform::attach();
    let stack: &'static Stack = Box::leak(Box::default());
    host_platform::provide::<dyn Sockets>(import, stack);
    let mut server = Server::new(Config::default(), 1, 1, 1_700_000_000_000);
    server.phase = Phase::Ready;
    let service = Arc::new(Service::new(server, 1, 0));
    std::thread::spawn(move || {
        host_platform::attach();
        let sockets = domain_rt::connect::<dyn Sockets>(import, 1000).expect("it was provided");
        serving::run(&mut Shard::new(0, service, sockets));
    });
    stack
}

fn socket(index: u32) -> SocketId {
    static SERIAL: AtomicU32 = AtomicU32::new(1);
    SocketId {
        shard: 0,
        index,
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
    }
}

/// One list hands a connection over and brings `first`; `second` is there when the shard receives. What the connection hears.
fn answers_of_a_new_connection(stack: &Stack, first: &[u8], second: &[u8]) -> String {
    let socket = socket(1);
    stack.open(socket);
    let mut round = Round::default();
    round.accept(socket);
    round.tell(socket, first, false, false);
    round.arrive_late(socket, second);
    stack.run(round);
    stack.pipe(socket, |pipe| String::from_utf8_lossy(&pipe.answers).into_owned())
}

#[test]
fn a_new_connection_is_received_from_behind_the_bytes_that_came_with_it() {
    let stack = start("new connections");
    assert_eq!(
        answers_of_a_new_connection(stack, b"ECHO first\r\n", b"ECHO second\r\n"),
        "$5\r\nfirst\r\n$6\r\nsecond\r\n"
    );
    assert_eq!(
        answers_of_a_new_connection(
            stack,
            b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$1\r\n7\r\n*2\r\n$3\r\nGET\r\n$16\r\n",
            b"key:000000000001\r\n*1\r\n$4\r\nPING\r\n"
        ),
        "+OK\r\n$1\r\n7\r\n+PONG\r\n"
    );
}

/// A request whose answer is known from what its connection sent before.
#[derive(Clone, Debug)]
enum Request {
    Inline,
    Echo(Vec<u8>),
    Set(u8, Vec<u8>),
    Get(u8),
    Increment,
}

/// Any bytes; now and then more than a segment or than a buffer takes.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![12 => 0_usize..40, 2 => 1000_usize..3000, 1 => 16_000_usize..50_000];
    (length, any::<u8>()).prop_map(|(length, first)| {
        (0..length)
            .map(|index| (index as u8).wrapping_mul(31).wrapping_add(first))
            .collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Inline),
        payload().prop_map(Request::Echo),
        (0_u8..4, payload()).prop_map(|(key, value)| Request::Set(key, value)),
        (0_u8..4).prop_map(Request::Get),
        Just(Request::Increment),
    ]
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn array(arguments: &[&[u8]]) -> Vec<u8> {
    let mut all = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        all.extend(bulk(argument));
    }
    all
}

/// The bytes of a pipeline whose keys begin with `name`, and those of its answers.
fn pipeline(requests: &[Request], name: &str) -> (Vec<u8>, Vec<u8>) {
    let key_of = |key: u8| format!("{name}:{key}").into_bytes();
    let (mut bytes, mut answers) = (Vec::new(), Vec::new());
    let mut values = BTreeMap::new();
    let mut count = 0;
    for request in requests {
        let (question, answer) = match request {
            Request::Inline => (b"PING\r\n".to_vec(), b"+PONG\r\n".to_vec()),
            Request::Echo(payload) => (array(&[b"ECHO", payload]), bulk(payload)),
            Request::Set(key, value) => {
                values.insert(*key, value);
                (array(&[b"SET", &key_of(*key), value]), b"+OK\r\n".to_vec())
            }
            Request::Get(key) => {
                let answer = match values.get(key) {
                    Some(value) => bulk(value),
                    None => b"$-1\r\n".to_vec(),
                };
                (array(&[b"GET", &key_of(*key)]), answer)
            }
            Request::Increment => {
                count += 1;
                let key = format!("{name}:count");
                (
                    array(&[b"INCR", key.as_bytes()]),
                    format!(":{count}\r\n").into_bytes(),
                )
            }
        };
        bytes.extend(question);
        answers.extend(answer);
    }
    (bytes, answers)
}

/// What becomes of a connection in a round.
#[derive(Clone, Debug)]
struct Delivery {
    /// Bytes that come with the list, at most.
    with_list: usize,
    /// Bytes that are there to be received when the list is made.
    waiting: usize,
    /// Bytes that arrive behind the list.
    late: usize,
    /// Bytes that the stack takes of the answers from now on.
    room: usize,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let length = || prop_oneof![2 => Just(0_usize), 4 => 1_usize..60, 1 => 1000_usize..20_000];
    let room = prop_oneof![1 => 0_usize..100, 1 => 0_usize..20_000, 2 => Just(usize::MAX)];
    (length(), length(), length(), room).prop_map(|(with_list, waiting, late, room)| Delivery {
        with_list,
        waiting,
        late,
        room,
    })
}

/// A connection's other end.
struct Client {
    socket: SocketId,
    accepted: bool,
    /// What it hasn't sent yet.
    unsent: Vec<u8>,
    answers: Vec<u8>,
}

impl Client {
    fn next(&mut self, limit: usize) -> Vec<u8> {
        self.unsent.drain(..limit.min(self.unsent.len())).collect()
    }

    /// Adds what a delivery says of this connection to a round.
    fn deliver(&mut self, stack: &Stack, round: &mut Round, delivery: &Delivery) {
        if !self.accepted {
            self.accepted = true;
            round.accept(self.socket);
        }
        // What arrived first comes first.
        let limit = delivery.with_list.min(round.room());
        let mut with_list = stack.pipe(self.socket, |pipe| {
            let count = limit.min(pipe.arrived.len());
            pipe.arrived.drain(..count).collect::<Vec<u8>>()
        });
        let waits_already = stack.pipe(self.socket, |pipe| !pipe.arrived.is_empty());
        if !waits_already {
            with_list.extend(self.next(limit - with_list.len()));
        }
        let waiting = self.next(delivery.waiting);
        let (readable, writable) = stack.pipe(self.socket, |pipe| {
            pipe.arrived.extend(waiting);
            pipe.room = delivery.room;
            let writable = pipe.room > 0 && std::mem::take(&mut pipe.blocked);
            (!pipe.arrived.is_empty() || pipe.client_closed, writable)
        });
        if !with_list.is_empty() || readable || writable {
            round.tell(self.socket, &with_list, readable, writable);
        }
        let late = self.next(delivery.late);
        round.arrive_late(self.socket, &late);
    }

    fn has_heard_all(&self, stack: &Stack) -> bool {
        stack.pipe(self.socket, |pipe| {
            pipe.arrived.is_empty() && pipe.answers.len() >= self.answers.len()
        })
    }
}

/// Rounds until everything is delivered and heard, the rest in large pieces: whether it came to that.
fn drain(stack: &Stack, clients: &mut [Client]) -> bool {
    let all = Delivery {
        with_list: 0,
        waiting: usize::MAX,
        late: 0,
        room: 30_000,
    };
    for _ in 0..1000 {
        let mut round = Round::default();
        for client in clients.iter_mut() {
            client.deliver(stack, &mut round, &all);
        }
        stack.run(round);
        if clients.iter().all(|client| client.has_heard_all(stack)) {
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However pipelines are cut, and whichever way the pieces come, the answers are those of the whole pipelines; and a connection whose client has closed is
    /// closed behind its last answer.
    #[test]
    fn answers_are_those_of_the_whole_pipeline(
        pipelines in prop::collection::vec(prop::collection::vec(request(), 0..12), 1..5),
        rounds in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), delivery()), 0..5), 0..12),
        refusals in any::<u64>(),
    ) {
        static STACK: LazyLock<&Stack> = LazyLock::new(|| start("pipelines"));
        host_platform::attach();
        let stack: &Stack = *STACK;
        stack.refuse_some(refusals);
        let mut clients: Vec<Client> = pipelines
            .iter()
            .enumerate()
            .map(|(index, requests)| {
                // Indices are used again, as the stack does.
                let socket = socket(1 + index as u32);
                stack.open(socket);
                let (unsent, answers) = pipeline(requests, &format!("{}", socket.serial));
                Client { socket, accepted: false, unsent, answers }
            })
            .collect();
        for deliveries in &rounds {
            let mut round = Round::default();
            let mut told = Vec::new();
            for (connection, delivery) in deliveries {
                let index = connection.index(clients.len());
                // A list has one event of a socket.
                if !told.contains(&index) {
                    told.push(index);
                    clients[index].deliver(stack, &mut round, delivery);
                }
            }
            stack.run(round);
        }
        prop_assert!(drain(stack, &mut clients), "answers are missing");
        let mut end = Round::default();
        for client in &clients {
            let ended = stack.pipe(client.socket, |pipe| {
                pipe.client_closed = true;
                pipe.aborted || pipe.closed
            });
            prop_assert!(!ended, "a connection has ended");
            end.tell(client.socket, &[], true, false);
        }
        stack.run(end);
        for client in &clients {
            let (heard, in_order) = stack.pipe(client.socket, |pipe| {
                (std::mem::take(&mut pipe.answers), pipe.closed && !pipe.aborted)
            });
            prop_assert!(
                heard == client.answers,
                "heard {}, not {}",
                heard.escape_ascii(),
                client.answers.escape_ascii()
            );
            prop_assert!(in_order, "it isn't closed");
        }
    }
}
