//! RFC 9112's rules, case by case, and any bytes.

use super::*;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

const LIMIT: usize = 1024;

fn complete(text: &str) -> Request<'_> {
    match parse(text.as_bytes(), LIMIT) {
        Parsed::Complete(request, length) => {
            assert_eq!(length, text.len(), "{text:?}");
            request
        }
        other => panic!("{text:?} is {other:?}"),
    }
}

/// A request with these lines behind its Host.
fn with_fields(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn refused(text: &str) -> Status {
    match parse(text.as_bytes(), LIMIT) {
        Parsed::Refused(status) => status,
        other => panic!("{text:?} is {other:?}"),
    }
}

#[test]
fn a_usual_request() {
    let request = complete("GET /a?b HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\n\r\n");
    assert_eq!(request.method, Method::Get);
    assert_eq!(request.target, Target::Resource(b"/a?b"));
    assert_eq!(request.framing, Framing::Length(0));
    assert_eq!(request.persistence, Persistence::Persist);
    assert!(!request.conditions.any);
}

#[test]
fn methods() {
    for (method, expected) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("OPTIONS", Method::Options),
        ("POST", Method::Refused),
        ("PATCH", Method::Refused),
        ("TRACE", Method::Refused),
        ("get", Method::Unknown),
        ("BREW", Method::Unknown),
        ("GETX", Method::Unknown),
    ] {
        assert_eq!(
            complete(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).method,
            expected,
            "{method}"
        );
    }
    assert_eq!(refused("G@T / HTTP/1.1\r\nHost: a\r\n\r\n"), Status::BadRequest);
}

#[test]
fn forms_of_targets() {
    let target = |text: &'static str| complete(text).target;
    assert_eq!(
        target("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
        Target::Resource(b"/b")
    );
    assert_eq!(
        target("GET HTTP://a:80?b HTTP/1.1\r\nHost: a\r\n\r\n"),
        Target::Resource(b"?b")
    );
    assert_eq!(target("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Target::Server);
    assert_eq!(
        target("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        Target::Server
    );
    for target in [
        "a",
        "*",
        "http://",
        "http:///b",
        "http://a@b/",
        "http://a:b/",
        "ftp://a/",
        "\\",
    ] {
        assert_eq!(
            refused(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Status::BadRequest,
            "{target}"
        );
    }
}

#[test]
fn exactly_one_host() {
    for host in [
        "a",
        "",
        "a.b-c.example:80",
        "10.82.99.10",
        "[fd82:99::10]:8080",
        "[::1]",
        "a:",
    ] {
        complete(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for host in [
        "a b",
        "a/b",
        "a@b",
        "a:80:80",
        "a:123456",
        "a:8x",
        "[::1",
        "[]",
        "[g]",
        "a,b\u{e9}",
        "a?",
    ] {
        assert_eq!(
            refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Status::BadRequest,
            "{host}"
        );
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Status::BadRequest);
    assert_eq!(refused(&with_fields("Host: a\r\n")), Status::BadRequest);
    complete("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        Status::BadRequest
    );
}

#[test]
fn persistence() {
    let of = |text: &str| complete(text).persistence;
    assert_eq!(of(&with_fields("Connection: close\r\n")), Persistence::Close);
    assert_eq!(of(&with_fields("Connection: x, Close\r\n")), Persistence::Close);
    assert_eq!(
        of(&with_fields("Connection: keep-alive\r\n")),
        Persistence::Persist
    );
    assert_eq!(
        of(&with_fields("Connection: keep-alive\r\nConnection: close\r\n")),
        Persistence::Close
    );
    assert_eq!(of("GET / HTTP/1.0\r\n\r\n"), Persistence::Close);
    assert_eq!(
        of("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
        Persistence::PersistTold
    );
}

#[test]
fn framing() {
    let of = |fields: &str| complete(&with_fields(fields)).framing;
    assert_eq!(of("Content-Length: 0\r\n"), Framing::Length(0));
    assert_eq!(of("content-length: 00042\r\n"), Framing::Length(42));
    assert_eq!(of("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
    for (fields, status) in [
        ("Content-Length: \r\n", Status::BadRequest),
        ("Content-Length: -1\r\n", Status::BadRequest),
        ("Content-Length: +1\r\n", Status::BadRequest),
        ("Content-Length: 1 2\r\n", Status::BadRequest),
        ("Content-Length: 5, 5\r\n", Status::BadRequest),
        ("Content-Length: 0x5\r\n", Status::BadRequest),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Status::BadRequest),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Status::BadRequest),
        (
            "Content-Length: 99999999999999999999999\r\n",
            Status::ContentTooLarge,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Status::BadRequest,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            Status::BadRequest,
        ),
        ("Transfer-Encoding: chunked, chunked\r\n", Status::BadRequest),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Status::BadRequest,
        ),
        ("Transfer-Encoding: chunked, identity\r\n", Status::BadRequest),
        ("Transfer-Encoding: identity\r\n", Status::BadRequest),
        ("Transfer-Encoding: xchunked\r\n", Status::BadRequest),
        ("Transfer-Encoding: \r\n", Status::BadRequest),
        ("Transfer-Encoding: gzip, chunked\r\n", Status::NotImplemented),
        ("Transfer-Encoding : chunked\r\n", Status::BadRequest),
        (" Transfer-Encoding: chunked\r\n", Status::BadRequest),
        ("X: a\r\n Transfer-Encoding: chunked\r\n", Status::BadRequest),
    ] {
        assert_eq!(refused(&with_fields(fields)), status, "{fields:?}");
    }
    assert_eq!(
        refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Status::BadRequest
    );
}

#[test]
fn malformed_lines() {
    for text in [
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET /\r\n",
        "GET / HTTP/1.1\rX",
        "GET / http/1.1\r\n",
        "GET / HTTP/11\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n",
        "GET / HTTP/1.1\r\nHo st: a\r\n",
        "GET / HTTP/1.1\r\n: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_eq!(refused(text), Status::BadRequest, "{text:?}");
    }
}

#[test]
fn versions() {
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2"] {
        assert_eq!(
            refused(&format!("GET / {version}\r\n\r\n")),
            Status::VersionNotSupported,
            "{version}"
        );
    }
    assert_eq!(
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Status::VersionNotSupported
    );
    assert_eq!(parse(b"GET / HTTP/2.", LIMIT), Parsed::Partial);
}

#[test]
fn a_line_and_fields_too_long_are_told_apart() {
    let long = "a".repeat(LIMIT);
    assert_eq!(refused(&format!("GET /{long} HTTP/1.1\r\n")), Status::UriTooLong);
    assert_eq!(
        refused(&format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n")),
        Status::FieldsTooLarge
    );
    assert_eq!(
        refused(&with_fields(&"X: y\r\n".repeat(FIELD_LIMIT))),
        Status::FieldsTooLarge
    );
    let exact = |extra: usize| {
        let empty = with_fields("X: \r\n").len();
        with_fields(&format!("X: {}\r\n", "a".repeat(LIMIT - empty + extra)))
    };
    complete(&exact(0));
    assert_eq!(refused(&exact(1)), Status::FieldsTooLarge);
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    complete("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn a_field_sent_twice_is_void() {
    let conditions = |fields: &str| {
        let text = with_fields(fields);
        complete(&text).conditions.range.value().map(<[u8]>::to_vec)
    };
    assert_eq!(conditions("Range: bytes=0-1\r\n"), Some(b"bytes=0-1".to_vec()));
    assert_eq!(conditions("Range: bytes=0-1\r\nRange: bytes=0-1\r\n"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, limit in 1usize..200) {
        parse(&bytes, limit);
    }

    /// What is complete or refused stays that, whatever follows.
    #[test]
    fn more_bytes_change_nothing(
        text in "(GET|PO|\r\n)? ?(/|\\*|http://a)?[ -~]{0,3} ?(HTTP/1\\.1|HTTP/[0-9]\\.)?\r?\n?((Host|Content-Length|X): ?[a0, ]{0,3}\r?\n){0,3}\r?\n?",
        more in "[ -~\r\n]{0,8}",
    ) {
        let before = parse(text.as_bytes(), 100);
        if before != Parsed::Partial {
            let all = [text.as_bytes(), more.as_bytes()].concat();
            prop_assert_eq!(parse(&all, 100), before);
        }
    }
}
