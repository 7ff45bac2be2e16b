//! HTTP for a [`Proxy`](super::Proxy): a request is named by its method and path, and an answer is a status.
use std::{
    io::{self, BufReader, Write as _},
    net::TcpStream,
};

use super::message::Message;
use crate::proxy::{Reply, Request, Wire};

/// HTTP/1.1.
pub struct Http;

impl Wire for Http {
    type Answer = u16;

    fn request(from: &mut BufReader<TcpStream>, to: &mut TcpStream) -> io::Result<Option<Request>> {
        let request = Message::request(from, || to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n"))?;
        Ok(request.map(|request| Request { line: request.line().to_owned(), bytes: request.bytes() }))
    }

    fn reply(from: &mut BufReader<TcpStream>, to: &Request) -> io::Result<Reply> {
        loop {
            let reply = Message::reply(from, to.line.starts_with("HEAD "))?.ok_or(io::ErrorKind::UnexpectedEof)?;
            // The client has been told to go on already.
            if reply.status().is_none_or(|status| status >= 200) {
                return Ok(Reply { bytes: reply.bytes(), is_last: reply.is_last });
            }
        }
    }

    fn answer(status: &u16) -> Vec<u8> {
        format!("HTTP/1.1 {status} by the proxy\r\ncontent-length: 0\r\n\r\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufReader, Write as _},
        net::{Ipv4Addr, TcpListener},
        sync::{Arc, Mutex},
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::http::{self, Fault, Proxy};

    /// A proxy before a server that answers every request with its body, and how many it has answered.
    fn proxied() -> Proxy {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::to(server.local_addr().unwrap().port()).unwrap();
        let count = Arc::new(Mutex::new(0));
        thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                let count = count.clone();
                thread::spawn(move || {
                    let mut asked = BufReader::new(client.try_clone().unwrap());
                    while let Ok(Some(_)) = Message::request(&mut asked, || Ok(())) {
                        let n = {
                            let mut count = count.lock().unwrap();
                            *count += 1;
                            *count
                        };
                        write!(client, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{n}").unwrap();
                    }
                });
            }
        });
        proxy
    }

    #[test]
    fn faults_meet_the_requests_that_they_are_for() {
        let proxy = proxied();
        let ask = |method: &str, path: &str| {
            let reply = http::ask(&proxy.address().to_string(), method, path, &[], b"body");
            reply.map(|reply| (reply.status, reply.text()))
        };
        let done = |n: u32| Ok((200, n.to_string()));
        assert_eq!(ask("GET", "/a"), done(1));
        proxy.on("PUT /a", 2, Fault::Answer(503));
        assert_eq!(ask("GET", "/a"), done(2));
        assert_eq!([ask("PUT", "/a"), ask("PUT", "/a/b")].map(|r| r.unwrap().0), [503, 503]);
        assert_eq!(ask("PUT", "/a"), done(3));
        proxy.on("", 1, Fault::LoseReply);
        assert!(ask("GET", "/").is_err());
        proxy.on("", 1, Fault::LoseRequest);
        assert!(ask("GET", "/").is_err());
        assert_eq!(ask("GET", "/"), done(5));
        proxy.on("GET /", 1, Fault::DelayReply(Duration::from_millis(50)));
        let began = Instant::now();
        assert_eq!(ask("GET", "/"), done(6));
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert_eq!((proxy.fired(), proxy.seen("PUT /a/").len(), proxy.seen("").len()), (5, 1, 9));
        assert!(proxy.wait_fired(5, Duration::ZERO) && !proxy.wait_fired(6, Duration::from_millis(1)));
    }
}
