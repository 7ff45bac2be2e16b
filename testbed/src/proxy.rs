//! A proxy that understands requests: it answers some of them itself, as an overloaded server does, delays others,
//! and loses requests and replies.
//!
//! A proxy of bytes cannot show the hard case of a conditional write: the server has written, and the reply is lost,
//! so that the client's second try finds its own first one in the way. So each request is read whole, the server's
//! reply is awaited, and only then the line is cut. A connection is one thread, since a client of HTTP/1.1 asks one
//! thing at a time.
use std::{
    collections::HashMap,
    io::{self, BufReader, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::message::Message;
use crate::{Failed, ports};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this status; the server never sees the request.
    Answer(u16),
    /// The server never sees the request, and the connection is closed.
    LoseRequest,
    /// The server has done it; the client never learns of it, and the connection is closed.
    LoseReply,
    /// The server has done it, and the client sees the reply later.
    DelayReply(Duration),
}

struct Rule {
    /// What the request begins with, as `PUT /bucket/`.
    prefix: String,
    left: u32,
    fault: Fault,
}

#[derive(Default)]
struct State {
    is_over: bool,
    rules: Vec<Rule>,
    /// Method and path of all requests that have come.
    seen: Vec<String>,
    fired: u64,
    connections: HashMap<u64, [TcpStream; 2]>,
    next: u64,
}

#[derive(Default)]
struct Shared {
    port: u16,
    state: Mutex<State>,
    changed: Condvar,
}

/// Ends both directions of both; a thread that reads from one wakes up.
fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// A proxy before a server that speaks HTTP.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port, and leads to this one of 127.0.0.1.
    pub fn to(port: u16) -> Result<Self, Failed> {
        let listener = ports::listen()?;
        let address = listener.local_addr().map_err(|e| format!("the proxy's port: {e}"))?;
        let shared = Arc::new(Shared { port, ..Shared::default() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().is_over {
                    return;
                }
                let Ok(client) = client else { continue };
                let shared = accepting.clone();
                // However it ended, dropped a connection is closed.
                thread::spawn(move || shared.serve(client));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients begin.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this to the next `count` requests that begin so (`PUT /bucket/`, `GET /`; all, if it is empty). Of the rules
    /// that concern a request the first acts.
    pub fn on(&self, prefix: &str, count: u32, fault: Fault) {
        self.shared.lock().rules.push(Rule { prefix: prefix.to_owned(), left: count, fault });
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        self.shared.lock().rules.clear();
    }

    /// Method and path of the requests that have come, and begin so, in their order.
    pub fn seen(&self, prefix: &str) -> Vec<String> {
        self.shared.lock().seen.iter().filter(|line| line.starts_with(prefix)).cloned().collect()
    }

    /// How often a rule has acted.
    pub fn fired(&self) -> u64 {
        self.shared.lock().fired
    }

    /// Waits until rules have acted so often in all; false if the limit comes first.
    pub fn wait_fired(&self, count: u64, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        while state.fired < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.map_or_else(|e| e.into_inner().0, |(state, _)| state);
        }
        true
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.connections.values().for_each(close);
        drop(state);
        // What accepts is woken by a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that is due for this request, if one is.
    fn due(&self, line: &str) -> Option<Fault> {
        let mut state = self.lock();
        state.seen.push(line.to_owned());
        let rule = state.rules.iter_mut().find(|rule| line.starts_with(&rule.prefix))?;
        rule.left = rule.left.saturating_sub(1);
        let fault = rule.fault;
        state.rules.retain(|rule| rule.left > 0);
        Some(fault)
    }

    /// Says that one has acted: after the server has done its part, so that who waits for it can look there.
    fn acted(&self) {
        self.lock().fired += 1;
        self.changed.notify_all();
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        let id = {
            let mut state = self.lock();
            if state.is_over {
                return Ok(());
            }
            state.next += 1;
            let id = state.next;
            state.connections.insert(id, ends);
            id
        };
        let result = self.exchange(&mut client, &mut server);
        self.lock().connections.remove(&id);
        result
    }

    fn exchange(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
        let (mut asked, mut answered) = (BufReader::new(client.try_clone()?), BufReader::new(server.try_clone()?));
        loop {
            let go_on = || client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            let Some(request) = Message::request(&mut asked, go_on)? else { return Ok(()) };
            let fault = self.due(request.line());
            match fault {
                Some(Fault::Answer(status)) => {
                    self.acted();
                    write!(client, "HTTP/1.1 {status} by the proxy\r\ncontent-length: 0\r\n\r\n")?;
                    continue;
                }
                Some(Fault::LoseRequest) => {
                    self.acted();
                    return Ok(());
                }
                _ => server.write_all(&request.bytes())?,
            }
            let reply = loop {
                let reply = Message::reply(&mut answered, request.line().starts_with("HEAD "))?;
                let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
                // The client has been told to go on already.
                if reply.status().is_none_or(|status| status >= 200) {
                    break reply;
                }
            };
            if fault.is_some() {
                self.acted();
            }
            match fault {
                Some(Fault::LoseReply) => return Ok(()),
                Some(Fault::DelayReply(time)) => thread::sleep(time),
                _ => {}
            }
            client.write_all(&reply.bytes())?;
            if reply.is_last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::http;

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
