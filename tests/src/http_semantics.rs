//! HTTP/1.1 through real sockets: what is right is answered in order, what is wrong is refused with the right status.

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::running_lab::RunningLab;

/// A request that is refused, and with what.
struct Refusal {
    what: &'static str,
    request: Vec<u8>,
    status: u16,
}

/// An answer taken apart.
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }
}

/// All of them, one after the other.
pub fn holds(context: &Context) -> Result<()> {
    let page = std::fs::read(context.root.join("config/site/612.html"))?;
    context.with_appliance(|lab| {
        let refusals = refusals();
        for refusal in &refusals {
            refuse(lab, refusal).with_context(|| format!("a request with {}", refusal.what))?;
        }
        head_has_no_body(lab, page.len())?;
        pipelining_keeps_the_order(lab, &page)?;
        context.figure("refusals", refusals.len(), "");
        Ok(())
    })
}

fn refusals() -> Vec<Refusal> {
    let refusal = |what, request: &str, status| Refusal {
        what,
        request: request.as_bytes().to_vec(),
        status,
    };
    vec![
        refusal("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        refusal("a broken request line", "GET\r\n\r\n", 400),
        refusal(
            "two lengths",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        refusal(
            "no such path",
            "GET /no/such HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            404,
        ),
        refusal(
            "a way out of the site",
            "GET /../manifest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            400,
        ),
        refusal(
            "a method that is not supported",
            "DELETE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            405,
        ),
        refusal("no end", "GET / HTTP/1.1\r\nHost: a\r\n", 408),
        refusal(
            "too large a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
            413,
        ),
        refusal(
            "too long a target",
            &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000)),
            414,
        ),
        refusal(
            "too long a field",
            &format!(
                "GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
                "a".repeat(20_000)
            ),
            431,
        ),
        refusal(
            "an unknown method",
            "BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            501,
        ),
        refusal(
            "an unknown transfer coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
        ),
        refusal("another version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ]
}

/// The right status, a body of the length that is said, and the connection's end.
fn refuse(lab: &RunningLab, refusal: &Refusal) -> Result<()> {
    let received = lab.exchange(lab.server()?, &refusal.request)?;
    let answers = take_apart(&received, |_| true)?;
    let [answer] = answers.as_slice() else {
        anyhow::bail!("{} answers came to one request", answers.len());
    };
    ensure!(
        answer.status == refusal.status,
        "{} was expected, {} came",
        refusal.status,
        answer.status
    );
    ensure!(
        answer.status != 405 || answer.field("allow").is_some(),
        "405 has to say which methods are allowed"
    );
    Ok(())
}

fn head_has_no_body(lab: &RunningLab, length: usize) -> Result<()> {
    let received = lab.exchange(
        lab.server()?,
        b"HEAD /612.html HTTP/1.1\r\nHost: a\r\n\r\nHEAD /612.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )?;
    let answers = take_apart(&received, |_| false).context("HEAD")?;
    ensure!(answers.len() == 2, "two HEADs got {} answers", answers.len());
    for answer in &answers {
        ensure!(answer.status == 200, "HEAD was answered with {}", answer.status);
        ensure!(
            answer.field("content-length") == Some(length.to_string().as_str()),
            "HEAD said another length than the file's: {:?}",
            answer.field("content-length")
        );
        ensure!(answer.field("date").is_some(), "an answer has no date");
    }
    Ok(())
}

fn pipelining_keeps_the_order(lab: &RunningLab, page: &[u8]) -> Result<()> {
    let request = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut requests = String::new();
    for _ in 0..10 {
        requests += &request("GET", "/612.html");
        requests += &request("GET", "/missing");
        requests += &request("HEAD", "/612.html");
    }
    requests += "GET /leaf.svg HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let received = lab.exchange(lab.server()?, requests.as_bytes())?;
    let answers = take_apart(&received, |index| index == 30 || index % 3 != 2).context("pipelining")?;
    ensure!(
        answers.len() == 31,
        "31 requests in one go got {} answers",
        answers.len()
    );
    for (index, answer) in answers.iter().enumerate() {
        let as_expected = match (index, index % 3) {
            (30, _) => answer.status == 200 && answer.field("content-type") == Some("image/svg+xml"),
            (_, 0) => answer.status == 200 && answer.body == page,
            (_, 1) => answer.status == 404,
            _ => answer.status == 200,
        };
        ensure!(
            as_expected,
            "answer {index} of 31 belongs to another request: status {}, {} bytes",
            answer.status,
            answer.body.len()
        );
    }
    Ok(())
}

/// Cuts what came into answers; `has_body` says of which requests the answer has one. Fails if something is left.
fn take_apart(mut bytes: &[u8], has_body: impl Fn(usize) -> bool) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes).context("an answer is no HTTP")?
        else {
            anyhow::bail!("an answer's head was cut");
        };
        let fields: Vec<(String, String)> = response
            .headers
            .iter()
            .map(|header| {
                (
                    header.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(header.value).into_owned(),
                )
            })
            .collect();
        let mut answer = Answer {
            status: response.code.unwrap_or_default(),
            fields,
            body: Vec::new(),
        };
        let rest = bytes.get(length..).unwrap_or_default();
        let said = match has_body(answers.len()) {
            true => answer
                .field("content-length")
                .context("an answer has no length")?
                .parse()?,
            false => 0,
        };
        let (body, rest) = rest
            .split_at_checked(said)
            .with_context(|| format!("an answer's body was cut: {} of {said} bytes", rest.len()))?;
        answer.body = body.to_vec();
        answers.push(answer);
        bytes = rest;
    }
    ensure!(!answers.is_empty(), "the connection was closed without an answer");
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n";
        let answers = take_apart(bytes, |index| index == 0).unwrap();
        assert_eq!(answers.len(), 2);
        assert_eq!(
            (answers[0].status, answers[0].body.as_slice()),
            (200, b"hi".as_slice())
        );
        assert_eq!(answers[1].field("content-length"), Some("5"));
        assert!(take_apart(bytes, |_| true).is_err());
        assert!(take_apart(b"", |_| true).is_err());
        assert!(take_apart(b"SSH-2.0\r\n", |_| true).is_err());
    }
}
