//! Any bytes as an HTTP request, in any portions: no panic, and the answer is whole and well-formed.
//!
//! The first two bytes of the input are not part of the request. One chooses the server's options and
//! the client's address, the other the portions in which the request arrives.
#![no_main]

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use signal_server::limits::{HEAD_CHUNK, MAX_HEAD};
use signal_server::peerjs::Login;
use signal_server::web::page;
use signal_server::web::request::{self, Outcome, Site};

/// A request that comes in portions of `portion` bytes, and what is answered to it.
struct Exchange<'a> {
    request: &'a [u8],
    portion: usize,
    received: usize,
    answer: Vec<u8>,
}

impl Read for Exchange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.answer.is_empty(), "read on after the answer");
        let rest = &self.request[self.received..];
        let count = (&rest[..rest.len().min(self.portion)]).read(buffer)?;
        self.received += count;
        Ok(count)
    }
}

impl Write for Exchange<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let [setup, portion, request @ ..] = data else { return };
    let whole = exchange(*setup, request, usize::MAX);
    let portions = exchange(*setup, request, usize::from(*portion) + 1);
    // Which fault of a broken head is found first can depend on how much of it is there.
    let kind = |status: Option<u16>| if status == Some(431) { Some(400) } else { status };
    assert_eq!(kind(whole), kind(portions));
});

/// Serves one request, and returns the status of the answer, if there was one.
fn exchange(setup: u8, request: &[u8], portion: usize) -> Option<u16> {
    let mut assign = |_| if setup & 1 == 0 { Err("too many") } else { Ok(()) };
    let proxy = if setup & 2 == 0 { "127.0.0.0/8" } else { "::/0" };
    let origin = if setup & 4 == 0 { vec![] } else { vec!["https://example.org".to_string()] };
    let site = Site {
        settings: page::settings("[]", None, false, &[]),
        allow_origin: origin,
        trust_proxy: vec![proxy.parse().unwrap()],
        peerjs: (setup & 32 != 0).then(|| "peerjs".into()),
    };
    let ip = if setup & 8 == 0 { "127.0.0.1:1" } else { "[2001:db8::1]:1" };
    let address: SocketAddr = ip.parse().unwrap();
    let mut exchange = Exchange { request, portion, received: 0, answer: Vec::new() };
    let tls = setup & 16 != 0;
    let served = request::serve(&mut exchange, &site, tls, address, &mut assign);
    // At most one portion beyond the limit is ever read.
    assert!(exchange.received <= MAX_HEAD + HEAD_CHUNK);

    let Ok((_, outcome)) = served else {
        assert_eq!(exchange.received, request.len(), "gave up before the end");
        assert!(exchange.answer.is_empty());
        return None;
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(&exchange.answer).unwrap().unwrap();
    let body = &exchange.answer[head..];
    let status = response.code.unwrap();
    let header = |name: &str| {
        let mut found = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        let value = found.next().map(|header| std::str::from_utf8(header.value).unwrap());
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    match outcome {
        Outcome::Upgraded(rest, query) => {
            assert!(query.is_none() || setup & 32 != 0);
            let _ = query.map(|query| Login::parse(&query, "peerjs").is_ok());
            assert_eq!(status, 101);
            assert!(body.is_empty());
            assert!(header("sec-websocket-accept").is_some_and(|accept| accept.len() == 28));
            let head = &request[..exchange.received - rest.len()];
            assert!(request[head.len()..].starts_with(&rest));
            assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
        }
        Outcome::Answered(answered) => {
            assert_eq!(status, answered);
            assert!(status != 401 || setup & 32 != 0);
            assert!([200, 400, 401, 403, 404, 405, 426, 431, 503].contains(&status));
            assert!(header("connection").is_some_and(|value| value.starts_with("close")));
            let length: usize = header("content-length").unwrap().parse().unwrap();
            assert!(body.len() == length || body.is_empty());
        }
    }
    Some(status)
}
