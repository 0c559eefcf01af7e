use super::*;
use crate::answer::{Context, HEAD_ROOM, Output};
use crate::connection::{Connection, Next};
use crate::counters::Counters;
use crate::repeat::Repeats;
use crate::site::Site;
use alloc::sync::Arc;
use proptest::prelude::*;
use rref::Text;
use std::sync::{LazyLock, Mutex};

const TOKEN: &str = "a-token-of-this-test";

/// What a played supervisor has received.
#[derive(Default)]
struct Received {
    begun: Vec<(String, u32)>,
    bytes: Vec<u8>,
    finished: u32,
    abandoned: u32,
    refuses: Option<UpdateError>,
}

struct Played(Arc<Mutex<Received>>);

impl Receiver for Played {
    fn begin(&self, name: &str, bytes: u32) -> Result<u64, UpdateError> {
        let mut received = self.0.lock().unwrap();
        received.begun.push((name.into(), bytes));
        received.bytes.clear();
        match name {
            "nobody" => Err(UpdateError::NoDomain),
            "init" => Err(UpdateError::Supervisor),
            _ => Ok(9),
        }
    }

    fn part(&self, upload: u64, offset: u32, bytes: &[u8]) -> Result<(), UpdateError> {
        let mut received = self.0.lock().unwrap();
        assert_eq!((upload, offset as usize), (9, received.bytes.len()));
        if let Some(error) = received.refuses {
            return Err(error);
        }
        received.bytes.extend(bytes);
        Ok(())
    }

    fn finish(&self, upload: u64) -> Result<Build, UpdateError> {
        let mut received = self.0.lock().unwrap();
        assert_eq!(upload, 9);
        received.finished += 1;
        match received.bytes.as_slice() {
            b"bad" => Err(UpdateError::Refused(Text::new("it has no signature"))),
            _ => Ok(Build::new("0.2.0+aa")),
        }
    }

    fn abandon(&self, _upload: u64) {
        self.0.lock().unwrap().abandoned += 1;
    }
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    host_platform::attach();
    Site::load()
});

/// Sends `input` in pieces of `piece` bytes on one connection that is then closed; what comes back, and what the supervisor got.
fn send(
    input: &[u8],
    piece: usize,
    enabled: bool,
    refuses: Option<UpdateError>,
) -> (String, Arc<Mutex<Received>>) {
    let received = Arc::new(Mutex::new(Received {
        refuses,
        ..Received::default()
    }));
    let entrance = Entrance {
        token: Token::new(TOKEN).unwrap(),
        receiver: Box::new(Played(received.clone())),
    };
    let context = Context {
        site: &SITE,
        clock: &Clock::new(1_700_000_000),
        counters: &Counters::default(),
        repeats: &Repeats::new(),
        header_bytes: 1024,
        body_bytes: 1000,
        uploads: enabled.then_some(&entrance),
    };
    let mut connection = Connection::new();
    let mut answer = Vec::new();
    let mut pieces = input.chunks(piece);
    let mut next = Next::Receive;
    loop {
        let given = match next {
            Next::Receive => pieces.next().unwrap_or_else(|| {
                connection.finish();
                &[]
            }),
            Next::Continue => &[],
            _ => break,
        };
        let mut buffer = [0; 2 * HEAD_ROOM];
        let mut output = Output::new(&mut buffer);
        next = connection.advance(given, &context, &mut output);
        let length = output.len();
        answer.extend_from_slice(&buffer[..length]);
    }
    (String::from_utf8(answer).unwrap(), received)
}

fn put(path: &str, token: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn ask(path: &str, token: &str, body: &str) -> (String, Arc<Mutex<Received>>) {
    send(&put(path, token, "", body), 4000, true, None)
}

fn good() -> String {
    format!("Bearer {TOKEN}")
}

#[test]
fn an_image_arrives_whole_and_the_next_request_is_answered() {
    let mut input = put("/domains/httpd", &good(), "", "an image");
    input.extend(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let (answer, received) = send(&input, 4000, true, None);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("httpd: build 0.2.0+aa is verified and waits"));
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    let received = received.lock().unwrap();
    assert_eq!(received.begun, [("httpd".to_string(), 8)]);
    assert_eq!(
        (received.bytes.as_slice(), received.finished),
        (&b"an image"[..], 1)
    );
}

#[test]
fn without_the_token_nothing_gets_in() {
    for token in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer a-token-of-this-tes",
        "Bearer a-token-of-this-tesT",
        "Bearer a-token-of-this-test0",
        "Basic a-token-of-this-test",
        "a-token-of-this-test",
    ] {
        let (answer, received) = ask("/domains/httpd", token, "image");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{token}: {answer}");
        assert!(answer.contains("WWW-Authenticate: Bearer"));
        assert!(received.lock().unwrap().begun.is_empty());
    }
    let twice = format!("Authorization: {}\r\n", good());
    let input = put("/domains/httpd", &good(), &twice, "image");
    assert!(send(&input, 4000, true, None).0.starts_with("HTTP/1.1 401 "));
}

#[test]
fn the_scheme_s_case_does_not_matter() {
    let (answer, _) = ask("/domains/httpd", &format!("bearer  {TOKEN}"), "image");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn without_a_token_in_the_file_there_is_no_such_method() {
    let input = put("/domains/httpd", &good(), "", "image");
    let (answer, received) = send(&input, 4000, false, None);
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(received.lock().unwrap().begun.is_empty());
}

#[test]
fn refusals_have_their_status_and_their_sentence() {
    for (path, body, status, sentence) in [
        (
            "/domains/httpd",
            "bad",
            422,
            "the image is refused: it has no signature",
        ),
        ("/domains/nobody", "image", 404, "there is no domain of this name"),
        ("/domains/init", "image", 403, "the supervisor can't be updated"),
        ("/domains/", "image", 404, "an image goes to /domains/NAME"),
        ("/domains/../x", "image", 404, "an image goes to /domains/NAME"),
        ("/index.html", "image", 404, "an image goes to /domains/NAME"),
    ] {
        let (answer, _) = ask(path, &good(), body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(sentence),
            "{path}: {answer}"
        );
    }
    let (answer, received) = send(
        &put("/domains/httpd", &good(), "", "image"),
        4000,
        true,
        Some(UpdateError::OutOfMemory),
    );
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(received.lock().unwrap().abandoned, 1);
}

#[test]
fn a_body_without_a_length_or_too_long_is_refused_at_once() {
    let chunked = format!(
        "PUT /domains/httpd HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        good()
    );
    let (answer, _) = send(chunked.as_bytes(), 4000, true, None);
    assert!(
        answer.starts_with("HTTP/1.1 411 ") && answer.contains("Connection: close"),
        "{answer}"
    );
    let endless = "PUT /domains/httpd HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n";
    let (answer, _) = send(endless.as_bytes(), 4000, true, None);
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("Connection: close"),
        "{answer}"
    );
}

#[test]
fn a_client_that_waits_is_told_to_go_on_or_why_not() {
    let expect = "Expect: 100-continue\r\n";
    let (answer, _) = send(&put("/domains/httpd", &good(), expect, "image"), 4000, true, None);
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    let (answer, _) = send(&put("/domains/httpd", "Bearer x", expect, ""), 4000, true, None);
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("Connection: close"),
        "{answer}"
    );
}

#[test]
fn one_that_breaks_off_is_given_up() {
    let input = put("/domains/httpd", &good(), "", "an image");
    let (answer, received) = send(&input[..input.len() - 1], 4000, true, None);
    assert_eq!(answer, "");
    let received = received.lock().unwrap();
    assert_eq!((received.finished, received.abandoned), (0, 1));
}

proptest! {
    /// However the request is cut, the image is the same.
    #[test]
    fn any_cut_gives_the_same_image(body in "[a-z]{1,300}", piece in 1usize..90) {
        let (answer, received) = send(&put("/domains/maglev", &good(), "", &body), piece, true, None);
        prop_assert!(answer.starts_with("HTTP/1.1 200 "));
        prop_assert_eq!(&received.lock().unwrap().bytes, body.as_bytes());
    }
}
