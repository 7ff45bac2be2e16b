//! A proxy that understands frames: it loses or delays a single request or reply of a given kind, and can cut the
//! line altogether.
//!
//! A proxy of bytes cannot show the hard case of a transaction: the request to commit has arrived and was obeyed,
//! and its reply never comes. So each frame is read whole, the kind of a reply is found by its correlation
//! id, and the rule for it is taken in the same step, so that one rule meets one frame, however many connections
//! a client has. Each connection has two threads, one for each direction, which end with it.
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::wire::Frame;
use crate::{Failed, ports};

/// What happens to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The broker never sees the request, and the connection is closed.
    DropRequest,
    /// The broker sees the request later.
    DelayRequest(Duration),
    /// The broker has obeyed; the client never learns of it, and the connection is closed.
    DropReply,
    /// The client sees the reply later.
    DelayReply(Duration),
}

impl Action {
    fn is_for_requests(self) -> bool {
        matches!(self, Self::DropRequest | Self::DelayRequest(_))
    }
}

struct Rule {
    api: i16,
    /// How many frames it lets pass before it acts.
    passes: u32,
    action: Action,
}

#[derive(Default)]
struct State {
    target: u16,
    is_cut: bool,
    is_over: bool,
    rules: Vec<Rule>,
    seen: HashMap<i16, u64>,
    fired: HashMap<i16, u64>,
    connections: HashMap<u64, [TcpStream; 2]>,
    next: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy between clients and a broker.
pub struct Proxy {
    bootstrap: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port; connections are closed until there is a broker behind it.
    pub fn listen() -> Result<Self, Failed> {
        let listener = ports::listen()?;
        let address = listener.local_addr().map_err(|e| format!("the proxy's port: {e}"))?;
        let shared = Arc::new(Shared::default());
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        Ok(Self { bootstrap: address.to_string(), address, shared, accepting: Some(accepting) })
    }

    /// Forwards new connections to this port of 127.0.0.1. What listens there must advertise the proxy as its own
    /// address, or clients go around it.
    pub fn forward_to(&self, port: u16) {
        self.shared.lock().target = port;
    }

    /// Where clients begin: host and port.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Does this to the next frame of an api (see [`api`](super::api)).
    pub fn on(&self, api: i16, action: Action) {
        self.on_nth(api, 1, action);
    }

    /// Does this to the n-th frame of an api, counted from now; 1 is the next.
    pub fn on_nth(&self, api: i16, n: u32, action: Action) {
        self.shared.lock().rules.push(Rule { api, passes: n.saturating_sub(1), action });
    }

    /// Forgets all rules that have not yet acted.
    pub fn clear(&self) {
        self.shared.lock().rules.clear();
    }

    /// How many requests of an api have come.
    pub fn seen(&self, api: i16) -> u64 {
        self.shared.lock().seen.get(&api).copied().unwrap_or_default()
    }

    /// How many rules for an api have acted.
    pub fn fired(&self, api: i16) -> u64 {
        self.shared.lock().fired.get(&api).copied().unwrap_or_default()
    }

    /// Waits until so many requests of an api have come in all; false if the limit comes first.
    pub fn wait_seen(&self, api: i16, count: u64, limit: Duration) -> bool {
        self.shared.wait(limit, |state| state.seen.get(&api).copied().unwrap_or_default() >= count)
    }

    /// Waits until so many rules for an api have acted in all; false if the limit comes first.
    pub fn wait_fired(&self, api: i16, count: u64, limit: Duration) -> bool {
        self.shared.wait(limit, |state| state.fired.get(&api).copied().unwrap_or_default() >= count)
    }

    /// Closes every connection, and new ones as soon as they come.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.is_cut = true;
        state.close();
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.shared.lock().is_cut = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.close();
        drop(state);
        self.shared.changed.notify_all();
        // What accepts is woken by a connection.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

impl State {
    fn close(&mut self) {
        for (_, ends) in self.connections.drain() {
            close(&ends);
        }
    }

    /// The action that is due for this frame, if one is.
    fn due(&mut self, api: i16, is_request: bool) -> Option<Action> {
        let concerned = |rule: &&mut Rule| rule.api == api && rule.action.is_for_requests() == is_request;
        let mut due = None;
        for rule in self.rules.iter_mut().filter(concerned) {
            if rule.passes > 0 {
                rule.passes -= 1;
            } else if due.is_none() {
                due = Some(rule.action);
                // Marked as done; a rule behind it waits for the next frame.
                rule.api = i16::MIN;
            }
        }
        self.rules.retain(|rule| rule.api != i16::MIN);
        if due.is_some() {
            *self.fired.entry(api).or_default() += 1;
        }
        due
    }
}

/// Ends both directions of both; a thread that reads from one wakes up.
fn close(ends: &[TcpStream]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, limit: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while !is_so(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).map_or_else(|e| e.into_inner().0, |(state, _)| state);
        }
        true
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.lock().is_over {
                return;
            }
            // Dropped, a connection is closed.
            let _ = client.and_then(|client| self.connect(client));
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let target = {
            let state = self.lock();
            if state.is_cut {
                return Ok(());
            }
            state.target
        };
        let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let ends = [client.try_clone()?, broker.try_clone()?];
        let id = {
            let mut state = self.lock();
            // Since it was looked at, it may have been cut.
            if state.is_cut || state.is_over {
                return Ok(());
            }
            state.next += 1;
            let id = state.next;
            state.connections.insert(id, ends);
            id
        };
        let asked = Arc::new(Mutex::new(HashMap::new()));
        for (is_request, from, to) in [(true, client.try_clone()?, broker.try_clone()?), (false, broker, client)] {
            let (shared, asked) = (self.clone(), asked.clone());
            thread::spawn(move || {
                // However it ended: with one direction the other ends too.
                let _ = shared.pump(is_request, from, to, &asked);
                if let Some(ends) = shared.lock().connections.remove(&id) {
                    close(&ends);
                }
            });
        }
        Ok(())
    }

    /// Forwards the frames of one direction until one is to be dropped, or there are no more.
    fn pump(
        &self,
        is_request: bool,
        mut from: TcpStream,
        mut to: TcpStream,
        asked: &Mutex<HashMap<i32, i16>>,
    ) -> io::Result<()> {
        while let Some(frame) = Frame::read(&mut from)? {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let api = if is_request {
                frame.request().map(|(api, id)| {
                    asked.insert(id, api);
                    api
                })
            } else {
                frame.reply().and_then(|id| asked.remove(&id))
            };
            drop(asked);
            let action = api.and_then(|api| {
                let mut state = self.lock();
                if is_request {
                    *state.seen.entry(api).or_default() += 1;
                }
                let action = state.due(api, is_request);
                self.changed.notify_all();
                action
            });
            match action {
                Some(Action::DropRequest | Action::DropReply) => return Ok(()),
                Some(Action::DelayRequest(time) | Action::DelayReply(time)) => thread::sleep(time),
                None => {}
            }
            frame.write(&mut to)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::{super::wire::frame, *};

    /// A proxy before a broker that answers every request with its correlation id.
    fn proxied() -> Proxy {
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::listen().unwrap();
        proxy.forward_to(broker.local_addr().unwrap().port());
        thread::spawn(move || {
            for mut client in broker.incoming().flatten() {
                thread::spawn(move || {
                    while let Ok(Some(request)) = Frame::read(&mut client) {
                        let (_, id) = request.request().unwrap();
                        client.write_all(&frame(&id.to_be_bytes())).unwrap();
                    }
                });
            }
        });
        proxy
    }

    fn ask(client: &mut TcpStream, api: i16, id: i32) -> Option<i32> {
        let request = [&api.to_be_bytes()[..], &[0, 0], &id.to_be_bytes()].concat();
        client.write_all(&frame(&request)).ok()?;
        Frame::read(client).ok().flatten()?.reply()
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).unwrap()
    }

    #[test]
    fn one_rule_meets_one_frame_of_its_kind() {
        let proxy = proxied();
        let mut client = connect(&proxy);
        proxy.on_nth(26, 2, Action::DropReply);
        proxy.on(0, Action::DelayReply(Duration::from_millis(50)));
        assert_eq!(ask(&mut client, 26, 1), Some(1));
        let began = Instant::now();
        assert_eq!(ask(&mut client, 0, 2), Some(2));
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert_eq!(ask(&mut client, 26, 3), None);
        let mut client = connect(&proxy);
        assert_eq!(ask(&mut client, 26, 4), Some(4));
        assert_eq!((proxy.seen(26), proxy.fired(26), proxy.fired(0), proxy.seen(1)), (3, 1, 1, 0));
    }

    #[test]
    fn a_request_that_is_dropped_closes_the_connection() {
        let proxy = proxied();
        proxy.on(3, Action::DropRequest);
        assert_eq!(ask(&mut connect(&proxy), 3, 1), None);
        assert_eq!(ask(&mut connect(&proxy), 3, 2), Some(2));
        assert!(proxy.wait_seen(3, 2, Duration::ZERO) && !proxy.wait_seen(3, 3, Duration::from_millis(1)));
    }

    #[test]
    fn a_line_that_is_cut_can_be_healed() {
        let proxy = proxied();
        let mut client = connect(&proxy);
        assert_eq!(ask(&mut client, 3, 1), Some(1));
        proxy.cut();
        assert_eq!(ask(&mut client, 3, 2), None);
        assert_eq!(ask(&mut connect(&proxy), 3, 3), None);
        proxy.heal();
        assert_eq!(ask(&mut connect(&proxy), 3, 4), Some(4));
        drop(client);
        let mut client = connect(&proxy);
        assert_eq!(ask(&mut client, 3, 5), Some(5));
        drop(proxy);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }
}
