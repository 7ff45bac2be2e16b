//! Free ports that stay free. A server which is killed and restarted must find its ports again, so they are
//! not of the range from which the system takes ports for outgoing connections (32768 and above on Linux): one of
//! those may be taken by anybody's client while the server is down. Two processes that choose at the same moment
//! may still choose the same one: then a start is tried again with others.
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::{Ipv4Addr, TcpListener},
};

use crate::Failed;

const RANGE: std::ops::Range<u64> = 12_000..32_000;
const TRIES: u64 = 200;
/// How often a start is tried whose ports another process has taken meanwhile.
const STARTS: u32 = 3;
/// What the log of a server says then.
const TAKEN: [&str; 3] = ["ddress already in use", "already bound", "Port in use"];

/// `count` different ports of 127.0.0.1 on which nothing listens.
pub(crate) fn free(count: usize) -> Result<Vec<u16>, Failed> {
    let mut found = Vec::new();
    for candidate in candidates() {
        if found.len() == count {
            return Ok(found);
        }
        if !found.contains(&candidate) && is_free(candidate) {
            found.push(candidate);
        }
    }
    Err(format!("of {TRIES} ports of 127.0.0.1 that were tried, fewer than {count} are free"))
}

/// Starts a server on free ports, of which the first may be given; and again on others, if somebody has taken one of
/// them meanwhile.
pub(crate) fn start<T>(
    given: Option<u16>,
    count: usize,
    start: impl Fn(&[u16]) -> Result<T, Failed>,
) -> Result<T, Failed> {
    if let Some(port) = given.filter(|port| !is_free(*port)) {
        return Err(format!("port {port} of 127.0.0.1 is taken"));
    }
    let mut tried = 1;
    loop {
        let mut ports = free(count)?;
        if let (Some(port), Some(first)) = (given, ports.first_mut()) {
            *first = port;
        }
        match start(&ports) {
            Err(why) if tried < STARTS && TAKEN.iter().any(|taken| why.contains(taken)) => tried += 1,
            started => return started,
        }
    }
}

/// A listener on a port of the range.
pub(crate) fn listen() -> Result<TcpListener, Failed> {
    let listener = candidates().find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    listener.ok_or_else(|| format!("of {TRIES} ports of 127.0.0.1 that were tried, none is free"))
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// In an order of this call's own: processes that start together must not all try the same ones.
fn candidates() -> impl Iterator<Item = u16> {
    let random = RandomState::new();
    (0..TRIES).map(move |n| {
        let mut hasher = random.build_hasher();
        hasher.write_u64(n);
        (RANGE.start + hasher.finish() % (RANGE.end - RANGE.start)) as u16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_and_can_be_listened_on() {
        let ports = free(3).unwrap();
        let listeners: Vec<_> = ports.iter().map(|p| TcpListener::bind((Ipv4Addr::LOCALHOST, *p)).unwrap()).collect();
        assert_eq!(listeners.len(), 3);
        assert!(!is_free(ports[0]) && RANGE.contains(&u64::from(ports[0])));
        let taken = start(Some(ports[0]), 1, |_| Ok(())).unwrap_err();
        assert!(taken.contains("is taken"), "{taken}");
        assert_eq!(start(None, 2, |ports| Ok(ports.len())), Ok(2));
    }

    #[test]
    fn a_start_whose_port_is_taken_meanwhile_is_tried_again() {
        let tried = std::cell::Cell::new(0);
        let started = start(None, 1, |ports| {
            tried.set(tried.get() + 1);
            if tried.get() < 3 { Err("bind: Address already in use".into()) } else { Ok(ports[0]) }
        });
        assert!(started.is_ok() && tried.get() == 3);
        assert_eq!(start::<()>(None, 1, |_| Err("it has ended".into())), Err("it has ended".into()));
    }
}
