//! A proxy that understands requests: it answers some of them itself, as an overloaded server does, delays others,
//! and loses requests and replies. What a request and a reply are is said by a [`Wire`].
//!
//! A proxy of bytes cannot show the hard case of a conditional write: the server has written, and the reply is lost,
//! so that the client's second try finds its own first one in the way. So each request is read whole, the server's
//! reply is awaited, and only then the line is cut. A connection is one thread and one request at a time: those that a
//! client sends ahead wait for their turn, which changes nothing but the speed.
use std::{
    collections::HashMap,
    io::{self, BufReader, Write as _},
    marker::PhantomData,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{Failed, ports};

/// A protocol of requests and replies that come in turn.
pub trait Wire: 'static {
    /// What the proxy is to answer in the server's place.
    type Answer: Clone + Send + 'static;

    /// Reads the next request; none at the end of the stream. What it says to the client meanwhile goes to `to`.
    fn request(from: &mut BufReader<TcpStream>, to: &mut TcpStream) -> io::Result<Option<Request>>;

    /// Reads the reply to a request.
    fn reply(from: &mut BufReader<TcpStream>, to: &Request) -> io::Result<Reply>;

    /// As it is written.
    fn answer(answer: &Self::Answer) -> Vec<u8>;
}

/// A request as it came.
pub struct Request {
    /// What it is, as rules name it: `PUT /bucket/key`, `SET key value`.
    pub line: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A reply as it came.
pub struct Reply {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Nothing can follow it on its connection.
    pub is_last: bool,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<A> {
    /// The proxy answers; the server never sees the request.
    Answer(A),
    /// The server never sees the request, and the connection is closed.
    LoseRequest,
    /// The server has done it; the client never learns of it, and the connection is closed.
    LoseReply,
    /// The server has done it, and the client sees the reply later.
    DelayReply(Duration),
}

struct Rule<A> {
    prefix: String,
    left: u32,
    fault: Fault<A>,
}

struct State<A> {
    is_over: bool,
    rules: Vec<Rule<A>>,
    /// The lines of all requests that have come.
    seen: Vec<String>,
    fired: u64,
    connections: HashMap<u64, [TcpStream; 2]>,
    next: u64,
}

struct Shared<W: Wire> {
    port: u16,
    state: Mutex<State<W::Answer>>,
    changed: Condvar,
    wire: PhantomData<fn(W)>,
}

/// Ends both directions of both; a thread that reads from one wakes up.
fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// A proxy before a server.
pub struct Proxy<W: Wire> {
    address: SocketAddr,
    shared: Arc<Shared<W>>,
}

impl<W: Wire> Proxy<W> {
    /// Listens on a free port, and leads to this one of 127.0.0.1.
    pub fn to(port: u16) -> Result<Self, Failed> {
        let listener = ports::listen()?;
        let address = listener.local_addr().map_err(|e| format!("the proxy's port: {e}"))?;
        let (rules, seen, connections) = (Vec::new(), Vec::new(), HashMap::new());
        let state = State { is_over: false, rules, seen, fired: 0, connections, next: 0 };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared::<W> { port, state, changed, wire: PhantomData });
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

    /// Does this to the next `count` requests that begin so (`PUT /bucket/`, `SET `; all, if it is empty). Of the rules
    /// that concern a request the first acts.
    pub fn on(&self, prefix: &str, count: u32, fault: Fault<W::Answer>) {
        self.shared.lock().rules.push(Rule { prefix: prefix.to_owned(), left: count, fault });
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        self.shared.lock().rules.clear();
    }

    /// The requests that have come and begin so, in their order.
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

impl<W: Wire> Drop for Proxy<W> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.connections.values().for_each(close);
        drop(state);
        // What accepts is woken by a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl<W: Wire> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W::Answer>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that is due for this request, if one is.
    fn due(&self, line: &str) -> Option<Fault<W::Answer>> {
        let mut state = self.lock();
        state.seen.push(line.to_owned());
        let rule = state.rules.iter_mut().find(|rule| line.starts_with(&rule.prefix))?;
        rule.left = rule.left.saturating_sub(1);
        let fault = rule.fault.clone();
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
            let Some(request) = W::request(&mut asked, client)? else { return Ok(()) };
            let fault = self.due(&request.line);
            match &fault {
                Some(Fault::Answer(answer)) => {
                    self.acted();
                    client.write_all(&W::answer(answer))?;
                    continue;
                }
                Some(Fault::LoseRequest) => {
                    self.acted();
                    return Ok(());
                }
                _ => server.write_all(&request.bytes)?,
            }
            let reply = W::reply(&mut answered, &request)?;
            if fault.is_some() {
                self.acted();
            }
            match fault {
                Some(Fault::LoseReply) => return Ok(()),
                Some(Fault::DelayReply(time)) => thread::sleep(time),
                _ => {}
            }
            client.write_all(&reply.bytes)?;
            if reply.is_last {
                return Ok(());
            }
        }
    }
}
