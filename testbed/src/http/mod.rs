//! HTTP/1.1 as far as tests need it: [`ask`] is a client that no library is behind, so that a test can look at a server
//! without the client that it tests, and [`Proxy`] stands before a server and does what networks do.
mod message;
mod wire;

use std::{
    io::{BufReader, Write as _},
    net::TcpStream,
    time::Duration,
};

use message::Message;

pub use self::wire::Http;
use crate::{Failed, proxy};

/// A proxy before a server that speaks HTTP.
pub type Proxy = proxy::Proxy<Http>;

/// What happens to one request; an answer in the server's place is a status.
pub type Fault = proxy::Fault<u16>;

/// Nothing that a server of a test is asked takes so long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What a server has answered.
#[derive(Debug)]
pub struct Reply {
    /// As 200.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// What follows them.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value; names are in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        message::header(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks a server (`127.0.0.1:8080`) one thing, on a connection of its own.
pub fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, Failed> {
    let failed = |e: std::io::Error| format!("{method} {path} at {address}: {e}");
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN)).map_err(failed)?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    // In one piece: a server may answer, and close, before it has read all.
    stream.write_all(&[head.as_bytes(), body].concat()).map_err(failed)?;
    let mut stream = BufReader::new(stream);
    loop {
        let reply = Message::reply(&mut stream, method == "HEAD").map_err(failed)?;
        let reply = reply.ok_or_else(|| format!("{method} {path} at {address}: closed without a reply"))?;
        let status = reply.status().ok_or_else(|| format!("{method} {path}: no HTTP: {}", reply.head))?;
        if status >= 200 {
            return Ok(Reply { status, body: reply.content(), head: reply.head });
        }
    }
}
