//! Whole connections: bytes in, bytes out, over a transport in memory that cuts as it likes.

use super::*;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::repeat::Repeats;
use crate::site::Site;
use crate::status::Status;
use crate::testing::boot_file;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::string::{String, ToString};
use std::sync::LazyLock;

const NOW: u64 = 784_111_777;
const LARGE: usize = 100_000;

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let large: Vec<u8> = (0..LARGE).map(|index| (index * 7 / 3) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("/index.html", b"<h1>hello</h1>\n"),
        ("/a.txt", b"0123456789"),
        ("/empty", b""),
        ("/folder/index.html", b"in a folder"),
        ("/large.bin", &large),
    ];
    Site::new(
        files.map(|(path, content)| (path, boot_file(content))),
        Some(NOW - 100),
    )
});

/// A peer that gives `parts` one by one, then closes if `close`; takes as much as `takes` says, in turn.
struct Memory {
    parts: VecDeque<Vec<u8>>,
    close: bool,
    takes: VecDeque<usize>,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: Vec<u8>,
    sends: usize,
}

impl Memory {
    fn new(parts: impl IntoIterator<Item = Vec<u8>>) -> Memory {
        host_platform::attach();
        Memory {
            parts: parts.into_iter().collect(),
            close: true,
            takes: VecDeque::new(),
            input: Vec::new(),
            output: vec![0; 16 * 1024],
            sent: Vec::new(),
            sends: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.takes.pop_front().unwrap_or(usize::MAX));
        self.sent.extend_from_slice(&bytes[..count]);
        count
    }
}

impl Transport for Memory {
    type Error = ();

    fn receive(&mut self) -> Result<Received, ()> {
        self.input = self.parts.pop_front().unwrap_or_default();
        Ok(Received {
            length: self.input.len(),
            more: !self.parts.is_empty(),
            finished: self.parts.is_empty() && self.close,
        })
    }

    fn buffers(&mut self) -> Result<(&[u8], &mut [u8]), ()> {
        Ok((&self.input, &mut self.output))
    }

    fn send(&mut self, length: usize) -> Result<usize, ()> {
        self.sends += 1;
        let bytes = self.output[..length].to_vec();
        Ok(self.take(&bytes))
    }

    fn send_file(&mut self, part: BootBytes) -> Result<usize, ()> {
        self.sends += 1;
        Ok(self.take(part.as_slice()))
    }
}

/// Runs `work` with the usual context.
fn with_context<R>(work: impl FnOnce(&Context<'_>) -> R) -> R {
    work(&Context {
        site: &SITE,
        clock: &Clock::new(NOW),
        counters: &Counters::default(),
        repeats: &Repeats::new(),
        header_bytes: 1024,
        body_bytes: 1000,
        uploads: None,
    })
}

/// All that comes back, until the connection is over or everything is read; and whether it is over.
fn run(memory: &mut Memory) -> bool {
    with_context(|context| {
        let mut stream = Stream::new();
        for _ in 0..100_000 {
            stream.note(true, true);
            match stream.drive(memory, context) {
                Ok(Outcome::Waiting) => {}
                Ok(Outcome::Metrics) => {
                    match stream.supply(Arc::from(&b"metrics 1\n"[..]), memory, context) {
                        Ok(Outcome::Closed) => return true,
                        _ => continue,
                    }
                }
                Ok(Outcome::Closed) => return true,
                Err(()) => unreachable!("memory doesn't fail"),
            }
            if memory.parts.is_empty() && memory.takes.is_empty() && !stream.blocked && !memory.close {
                return false;
            }
        }
        panic!("the connection does not come to an end");
    })
}

fn answers(text: &[u8]) -> Vec<u8> {
    let mut memory = Memory::new([text.to_vec()]);
    assert!(run(&mut memory));
    memory.sent
}

fn answer(text: &str) -> String {
    String::from_utf8_lossy(&answers(text.as_bytes())).into_owned()
}

/// Status codes of the answers to requests that are all GET or refused.
fn codes(text: &str) -> Vec<u16> {
    let answer = answer(text);
    let lines = answer.split("HTTP/1.1 ").skip(1);
    lines.map(|line| line[..3].parse().unwrap()).collect()
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_file() {
    let etag = SITE.file(1).unwrap().etag.clone();
    assert_eq!(
        answer(&get("/a.txt", "")),
        format!(
            "HTTP/1.1 200 OK\r\nServer: redleaf\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 10\r\n\
             Content-Type: text/plain; charset=utf-8\r\nAccept-Ranges: bytes\r\nETag: {etag}\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT\r\n\r\n0123456789"
        )
    );
}

#[test]
fn head_is_get_without_the_body() {
    for target in [
        "/",
        "/a.txt",
        "/large.bin",
        "/empty",
        "/folder",
        "/nothing",
        "/metrics",
        "/healthz",
        "/%",
    ] {
        let get = answer(&get(target, ""));
        let head = answer(&format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let end = get.find("\r\n\r\n").unwrap() + 4;
        assert_eq!(get[..end], head, "{target}");
    }
}

#[test]
fn a_head_and_a_short_body_leave_together() {
    let mut memory = Memory::new([get("/a.txt", "").into_bytes()]);
    run(&mut memory);
    assert_eq!(memory.sends, 1);
}

#[test]
fn a_large_file_arrives_whole() {
    let answer = answers(get("/large.bin", "").as_bytes());
    assert!(answer.ends_with(SITE.file(4).unwrap().content.as_slice()));
}

#[test]
fn statuses() {
    for (request, status) in [
        (get("/", ""), 200),
        (get("/healthz", ""), 200),
        (get("/metrics", ""), 200),
        (get("/folder", ""), 301),
        (get("/nothing", ""), 404),
        (get("/a.txt/", ""), 404),
        (get("/%2e%2e/a.txt", ""), 400),
        (get("/x/%2e%2e/a.txt", ""), 200),
        (get("/a%2Etxt?query", ""), 200),
        (get("/a%00.txt", ""), 400),
        (get("/a.txt", "Range: bytes=2-3\r\n"), 206),
        (get("/a.txt", "Range: bytes=10-\r\n"), 416),
        (get("/a.txt", "If-None-Match: *\r\n"), 304),
        (
            get("/a.txt", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            304,
        ),
        (get("/a.txt", "If-Match: \"x\"\r\n"), 412),
        (get("/a.txt", "Expect: more\r\n"), 417),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 204),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 405),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 405),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 501),
        ("GET / HTTP/2.0\r\n\r\n".to_string(), 505),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(2000)), 414),
        (get("/", &format!("X: {}\r\n", "x".repeat(2000))), 431),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_string(),
            413,
        ),
        ("nonsense\r\n\r\n".to_string(), 400),
    ] {
        assert_eq!(codes(&request), [status], "{request:?}");
    }
}

#[test]
fn fields_that_statuses_need() {
    assert!(answer("POST / HTTP/1.1\r\nHost: a\r\n\r\n").contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
    assert!(answer(&get("/folder", "")).contains("\r\nLocation: /folder/\r\n"));
    assert!(answer(&get("/a.txt", "Range: bytes=99-\r\n")).contains("\r\nContent-Range: bytes */10\r\n"));
    let part = answer(&get("/a.txt", "Range: bytes=2-3\r\n"));
    assert!(
        part.contains("\r\nContent-Range: bytes 2-3/10\r\n") && part.ends_with("\r\n\r\n23"),
        "{part}"
    );
    let unchanged = answer(&get("/a.txt", "If-None-Match: *\r\n"));
    assert!(
        unchanged.contains("\r\nETag: \"") && unchanged.ends_with("\r\n\r\n"),
        "{unchanged}"
    );
    assert!(answer("nonsense\r\n\r\n").contains("\r\nConnection: close\r\n"));
    let metrics = answer(&get("/metrics", ""));
    assert!(
        metrics.contains("version=0.0.4") && metrics.ends_with("\r\n\r\nmetrics 1\n"),
        "{metrics}"
    );
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let row = [
        get("/a.txt", ""),
        get("/nothing", ""),
        get("/metrics", ""),
        get("/large.bin", ""),
        get("/folder", ""),
    ];
    assert_eq!(codes(&row.concat()), [200, 404, 200, 200, 301]);
    let many = get("/", "").repeat(200);
    assert_eq!(codes(&many), [200; 200]);
}

#[test]
fn nothing_is_answered_behind_the_last() {
    assert_eq!(
        codes(&[get("/", "Connection: close\r\n"), get("/", "")].concat()),
        [200]
    );
    assert_eq!(
        codes(&["GET / HTTP/1.0\r\n\r\n".to_string(), get("/", "")].concat()),
        [200]
    );
    assert_eq!(codes(&["bad\r\n\r\n".to_string(), get("/", "")].concat()), [400]);
}

#[test]
fn old_clients_are_told_that_the_connection_stays() {
    let answer = answer("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(answer.contains("\r\nConnection: keep-alive\r\n"), "{answer}");
}

#[test]
fn bodies_are_skipped() {
    let posts = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGETGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(codes(posts), [405, 200]);
    let chunked = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n";
    assert_eq!(codes(&[chunked, &get("/a.txt", "")].concat()), [200, 200]);
    let broken = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nGET";
    assert_eq!(codes(&[broken, &get("/a.txt", "")].concat()), [400]);
    let long = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n";
    assert_eq!(codes(long), [413]);
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
    assert_eq!(codes(get), [100, 200]);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(codes(post), [405]);
    assert!(answer(post).contains("Connection: close"));
}

#[test]
fn a_request_that_is_cut_off_gets_nothing() {
    assert_eq!(answer("GET / HTTP/1.1\r\nHost: a\r\n"), "");
    assert_eq!(
        answer("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"),
        ""
    );
}

/// The request's own time runs from its first byte; idle time begins anew with each answer.
#[test]
fn deadlines() {
    let timeouts = Timeouts {
        request_ns: 10,
        idle_ns: 100,
    };
    with_context(|context| {
        let mut memory = Memory::new([b"GET / ".to_vec()]);
        memory.close = false;
        let mut stream = Stream::new();
        let step = |stream: &mut Stream, memory: &mut Memory, part: &str, now_ns| {
            memory.parts.push_back(part.as_bytes().to_vec());
            stream.note(true, false);
            assert_eq!(stream.drive(memory, context), Ok(Outcome::Waiting));
            stream.renew_deadline(now_ns, &timeouts);
            stream.deadline_ns()
        };
        assert_eq!(step(&mut stream, &mut memory, "", 5), 15);
        assert_eq!(step(&mut stream, &mut memory, "HTTP/1.1\r\n", 9), 15);
        assert_eq!(step(&mut stream, &mut memory, "Host: a\r\n\r\n", 12), 112);
        assert_eq!(step(&mut stream, &mut memory, &(get("/", "") + "G"), 20), 30);
        assert_eq!(
            step(&mut stream, &mut memory, "ET / HTTP/1.1\r\nHost: a\r\n\r\nG", 28),
            38
        );

        memory.sent.clear();
        assert_eq!(stream.expire(&mut memory, context), Ok(true));
        assert!(memory.sent.starts_with(Status::RequestTimeout.line().as_bytes()));
    });
}

#[test]
fn an_idle_connection_ends_without_a_word_and_a_stuck_one_is_cut() {
    with_context(|context| {
        let mut idle = Stream::new();
        let mut memory = Memory::new([]);
        assert_eq!(idle.expire(&mut memory, context), Ok(true));
        assert!(memory.sent.is_empty());

        let mut memory = Memory::new([get("/large.bin", "").into_bytes()]);
        memory.takes = VecDeque::from([usize::MAX, 1000]);
        let mut stuck = Stream::new();
        assert_eq!(stuck.drive(&mut memory, context), Ok(Outcome::Waiting));
        assert!(!stuck.note(true, false));
        assert_eq!(stuck.expire(&mut memory, context), Ok(false));
    });
}

/// A peer that sends and never reads: what is kept for it stays below two buffers and a head.
#[test]
fn memory_of_a_connection_is_bounded() {
    with_context(|context| {
        let mut memory =
            Memory::new((0..100).map(|_| get("/", "").repeat(700).as_bytes()[..16 * 1024].to_vec()));
        memory.takes = VecDeque::from(vec![0; 1000]);
        let mut stream = Stream::new();
        for _ in 0..100 {
            stream.note(true, true);
            assert_eq!(stream.drive(&mut memory, context), Ok(Outcome::Waiting));
            assert!(
                stream.held_bytes() <= 2 * 16 * 1024 + 2048,
                "{}",
                stream.held_bytes()
            );
        }
    });
}

/// A head that comes byte by byte is the same head.
#[test]
fn byte_by_byte() {
    let text = [
        get("/a.txt", "X: y\r\n"),
        get("/large.bin", "Range: bytes=5-9\r\n"),
        get("/folder", ""),
    ]
    .concat();
    let mut memory = Memory::new(text.bytes().map(|byte| vec![byte]));
    assert!(run(&mut memory));
    assert_eq!(memory.sent, answers(text.as_bytes()));
}

fn pieces() -> impl Strategy<Value = String> {
    let requests = prop::sample::select(vec![
        get("/", ""),
        get("/a.txt", "Range: bytes=1-3\r\n"),
        get("/large.bin", ""),
        get("/nothing", ""),
        get("/metrics", ""),
        get("/x", "Connection: close\r\n"),
        "HEAD /large.bin HTTP/1.1\r\nHost: a\r\n\r\n".to_string(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_string(),
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n"
            .to_string(),
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello".to_string(),
        "GET / HTTP/9.9\r\n\r\n".to_string(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_string(),
        "\r\n".to_string(),
    ]);
    prop::collection::vec(requests, 1..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// However requests are cut, and however little is taken at a time, the same bytes come back.
    #[test]
    fn cuts_change_nothing(text in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        takes in prop::collection::vec(0usize..3000, 0..40)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            parts.push(text.as_bytes()[start..cut].to_vec());
            start = cut;
        }
        // An empty part is nothing received, which ends a drive but not the connection.
        let mut memory = Memory::new(parts.into_iter().filter(|part| !part.is_empty()));
        memory.takes = takes.into();
        prop_assert!(run(&mut memory));
        prop_assert_eq!(memory.sent, answers(text.as_bytes()));
    }

    /// As above at every place, for requests that were damaged.
    #[test]
    fn any_one_cut_of_a_damaged_request_changes_nothing(text in pieces(), at: prop::sample::Index, byte: u8) {
        let mut bytes = text.into_bytes();
        bytes.truncate(200);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = answers(&bytes);
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let parts = [first.to_vec(), second.to_vec()];
            let mut memory = Memory::new(parts.into_iter().filter(|part| !part.is_empty()));
            prop_assert!(run(&mut memory));
            prop_assert_eq!(String::from_utf8_lossy(&memory.sent), String::from_utf8_lossy(&whole));
        }
    }

    #[test]
    fn any_bytes_end_without_a_panic(parts in prop::collection::vec(any::<Vec<u8>>(), 0..5), takes in prop::collection::vec(0usize..300, 0..9)) {
        let mut memory = Memory::new(parts);
        memory.takes = takes.into();
        prop_assert!(run(&mut memory));
    }
}
