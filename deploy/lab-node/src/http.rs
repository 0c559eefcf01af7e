//! The little HTTP/1.1 that the lab's own ends speak: a request is read up to its empty line, a body is never expected.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of request head at most.
const HEAD_LIMIT: usize = 16 * 1024;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
}

/// Why no request could be read.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The other side closed, or the connection failed.
    Closed,
    /// What came is no HTTP request, or one too long.
    Malformed,
}

/// Reads requests from one connection, pipelined ones included.
pub struct RequestReader {
    buffer: Vec<u8>,
}

impl RequestReader {
    pub fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// The next request.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, RequestError> {
        loop {
            if let Some((request, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(request);
            }
            if self.buffer.len() >= HEAD_LIMIT {
                return Err(RequestError::Malformed);
            }
            match stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(RequestError::Closed),
                Ok(_) => {}
            }
        }
    }
}

/// The first request in `bytes` and its length, if it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes).map_err(|_| RequestError::Malformed)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let connection = request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("connection"))
                .map(|header| header.value.to_ascii_lowercase());
            let keep_alive = match connection.as_deref() {
                Some(b"close") => false,
                Some(b"keep-alive") => true,
                _ => request.version == Some(1),
            };
            let method = request.method.unwrap_or_default().to_owned();
            let path = request.path.unwrap_or_default().to_owned();
            Ok(Some((
                Request {
                    method,
                    path,
                    keep_alive,
                },
                length,
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_requests_come_one_by_one() {
        let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
        let (first, length) = parse(text).unwrap().unwrap();
        assert_eq!(
            first,
            Request {
                method: "GET".into(),
                path: "/a".into(),
                keep_alive: true
            }
        );
        let (second, rest) = parse(&text[length..]).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.keep_alive), ("/b", false));
        assert_eq!(length + rest, text.len());
    }

    #[test]
    fn half_a_request_waits_and_nonsense_is_refused() {
        assert_eq!(parse(b"GET / HT"), Ok(None));
        assert_eq!(parse(b"\x16\x03\x01 hello\r\n\r\n"), Err(RequestError::Malformed));
    }
}
