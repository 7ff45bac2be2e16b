//! The testbed's schema registry against itself: a real one answers, keeps what it was told while its line is cut,
//! and refuses what is not compatible, on which the tests of the engine rely.
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use tidegate_testbed::registry::Registry;

#[test]
fn it_answers_refuses_and_can_be_cut_off() {
    let registry = Registry::start().unwrap();
    let register = |field: &str| {
        let schema = format!(r#"{{\"type\":\"record\",\"name\":\"A\",\"fields\":[{field}]}}"#);
        registry.ask("POST", "/subjects/a-value/versions", &format!(r#"{{"schema": "{schema}"}}"#)).unwrap()
    };
    assert_eq!(register(r#"{\"name\":\"a\",\"type\":\"long\"}"#), (200, r#"{"id":1}"#.to_owned()));
    assert_eq!(registry.ask("PUT", "/config", r#"{"compatibility": "BACKWARD"}"#).unwrap().0, 200);
    assert_eq!(register(r#"{\"name\":\"b\",\"type\":\"long\"}"#).0, 409);
    assert_eq!(registry.ask("GET", "/schemas/ids/9", "").unwrap().0, 404);

    let through = || {
        let address = registry.url_of_line();
        let mut stream = TcpStream::connect(address.split('/').nth(2).unwrap()).unwrap();
        let mut answer = String::new();
        let _ = stream.write_all(b"GET /apis/ccompat/v7/subjects HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
        answer.contains("a-value")
    };
    assert!(through());
    registry.line().cut();
    assert!(!through());
    registry.line().heal();
    assert!(through());
}
