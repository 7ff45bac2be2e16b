//! A line to a server that can be cut and healed: a proxy of bytes, for servers whose single requests do not matter.
//! Each connection has two threads, which end with it. What is cut is closed at once, as by a server that dies.
use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::{Failed, ports};

/// A proxy before a port of 127.0.0.1.
pub struct Line {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    is_over: bool,
    refused: u64,
    open: Vec<TcpStream>,
}

impl Line {
    /// Listens on a free port, and leads to this one.
    pub fn to(port: u16) -> Result<Self, Failed> {
        let listener = ports::listen()?;
        let address = listener.local_addr().map_err(|e| format!("the line's port: {e}"))?;
        let state = Arc::<Mutex<State>>::default();
        let accepting = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if locked(&accepting).is_over {
                    return;
                }
                // Dropped, a connection is closed.
                let _ = client.and_then(|client| connect(&accepting, &client, port));
            }
        });
        Ok(Self { address, state })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, and new ones as soon as they come.
    pub fn cut(&self) {
        let mut state = locked(&self.state);
        state.is_cut = true;
        state.close();
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        locked(&self.state).is_cut = false;
    }

    /// How many connections have come while it was cut.
    pub fn refused(&self) -> u64 {
        locked(&self.state).refused
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        state.is_over = true;
        state.close();
        drop(state);
        // What accepts is woken by a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl State {
    fn close(&mut self) {
        for end in self.open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(state: &Mutex<State>, client: &TcpStream, port: u16) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    {
        let mut state = locked(state);
        if state.is_cut || state.is_over {
            state.refused += 1;
            return Ok(());
        }
        state.open.extend([client.try_clone()?, server.try_clone()?]);
    }
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client.try_clone()?)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            // With one direction the other ends too.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_line_that_is_cut_can_be_healed() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let line = Line::to(server.local_addr().unwrap().port()).unwrap();
        thread::spawn(move || {
            for client in server.incoming().flatten() {
                thread::spawn(move || io::copy(&mut client.try_clone().unwrap(), &mut &client));
            }
        });
        let echo = |client: &mut TcpStream| {
            let mut byte = [0];
            client.write_all(&[7]).and_then(|()| client.read_exact(&mut byte)).is_ok() && byte == [7]
        };
        let connect = || TcpStream::connect(line.address()).unwrap();
        let mut client = connect();
        assert!(echo(&mut client));
        line.cut();
        assert!(!echo(&mut client) && !echo(&mut connect()));
        assert!(line.refused() > 0);
        line.heal();
        assert!(echo(&mut connect()));
    }
}
