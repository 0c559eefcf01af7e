//! The least of a Redis client: commands as arrays, and the replies that they get (Redis serialization protocol, version 2).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status or a number, as text.
    Line(String),
    /// An error's text.
    Error(String),
    /// Bytes, or nothing.
    Bulk(Option<Vec<u8>>),
}

/// A connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects, with a limit for that and for each reply.
    pub fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience).context("connecting")?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Sends a command and waits for its reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Reply> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&bytes).context("sending")?;
        read_reply(&mut self.reader)
    }
}

fn read_reply(reader: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line).context("waiting for a reply")?;
    let Some(line) = line.strip_suffix("\r\n") else {
        bail!("the connection was closed")
    };
    let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
    match kind {
        "+" | ":" => Ok(Reply::Line(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        "$" if rest == "-1" => Ok(Reply::Bulk(None)),
        "$" => {
            let length: usize = rest.parse().context("a length that is none")?;
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes).context("reading a value")?;
            bytes.truncate(length);
            Ok(Reply::Bulk(Some(bytes)))
        }
        _ => bail!("a reply of another kind: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let mut text: &[u8] = b"+OK\r\n:3\r\n-ERR no\r\n$3\r\na\r\n\r\n$-1\r\n";
        let mut next = || read_reply(&mut text).unwrap();
        assert_eq!(next(), Reply::Line("OK".into()));
        assert_eq!(next(), Reply::Line("3".into()));
        assert_eq!(next(), Reply::Error("ERR no".into()));
        assert_eq!(next(), Reply::Bulk(Some(b"a\r\n".to_vec())));
        assert_eq!(next(), Reply::Bulk(None));
        assert!(read_reply(&mut text).is_err());
    }
}
