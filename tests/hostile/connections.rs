//! Hostile connections: broken handshakes, floods of connections, and forged origins and addresses.

use std::io::Write;
use std::net::TcpStream;

use crate::common::{Link, Stream, client_over, message, read_to_end, secure, wait_until};
use crate::scene::{HOSTILE, Scene, ask, connect_from, upgrade, wait_until_closed};
use serde_json::json;

crate::over_plain_and_tls! {
    a_flood_from_one_address
    a_flood_from_many_addresses
    pages_from_elsewhere
    a_proxy_that_is_trusted
    a_proxy_that_is_not_trusted
}

#[test]
fn garbage_on_the_tls_port() {
    let scene = Scene::set(Link::Tls);
    let record = |kind: u8, length: u16, body: &[u8]| {
        [&[kind, 3, 3], &length.to_be_bytes()[..], body].concat()
    };
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 20_000],
        vec![0xff; 20_000],
        (0..20_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        record(0x16, 0xffff, &[1; 0xffff]), // longer than a record may be
        record(0x16, 4, &[1, 0xff, 0xff, 0xff]), // a hello of 16 MiB
        record(0x16, 0, &[]).repeat(10_000), // records with nothing in them
        record(0x18, 3, &[1, 0xff, 0xff]),  // a heartbeat of 64 KiB, with 0 bytes
        record(0x15, 2, &[2, 40]),          // an alert
        record(0x17, 5, b"hello"),          // data before there are keys
        vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], // SSL 2
    ];
    for bytes in &garbage {
        for _ in 0..8 {
            let mut socket = scene.socket();
            let _ = socket.write_all(bytes); // It may be closed before all of it is sent.
            let _ = socket.shutdown(std::net::Shutdown::Write);
            wait_until_closed(&mut socket);
        }
    }
    scene.goes_on();
    // And in the middle of a session: that is the end of this client only, and its partner hears.
    let mut alice = scene.login("alice");
    for bytes in &garbage {
        let mut mallory = scene.login("mallory");
        mallory.send_json(&message("offer", "mallory", "alice", json!(1)));
        assert_eq!(alice.receive_json()["payload"], 1);
        let _ = (&mallory.socket).write_all(bytes);
        let _ = mallory.socket.shutdown(std::net::Shutdown::Write);
        assert_eq!(alice.receive_json()["signalType"], "leave");
    }
}

#[test]
fn tls_on_the_plain_port() {
    let scene = Scene::set(Link::Plain);
    for _ in 0..50 {
        assert!(secure(scene.socket(), Link::Tls).is_err());
    }
}

#[test]
fn old_versions_of_tls() {
    let scene = Scene::set(Link::Tls);
    let address = scene.server.address(Link::Tls).to_string();
    for version in ["-tls1", "-tls1_1"] {
        for _ in 0..5 {
            let output = std::process::Command::new("openssl")
                .args(["s_client", "-connect", &address, version])
                .args(["-cipher", "DEFAULT:@SECLEVEL=0"])
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            assert!(!output.status.success(), "{version}");
        }
    }
}

/// Checks that a connection from this address is rejected: with a 503 and `Retry-After` on the
/// plain port, and without a response on the TLS port.
fn is_turned_away(scene: &Scene, from: &str, reason: &str) {
    let mut socket = connect_from(from, scene.server.address(scene.link));
    let response = read_to_end(&mut socket);
    if scene.link == Link::Tls {
        assert_eq!(response, "");
        return;
    }
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
    assert!(response.contains("\r\nRetry-After: 10\r\n"), "{response}");
    assert!(response.contains(reason), "{response}");
}

fn a_flood_from_one_address(link: Link) {
    let scene = Scene::with(link, &["--max-per-ip", "16"]);
    let mut clients: Vec<_> = (0..16).map(|_| scene.connect()).collect();
    for _ in 0..100 {
        is_turned_away(&scene, HOSTILE, "--max-per-ip");
    }
    // Another address has a limit of its own.
    for from in ["127.6.6.7", "127.0.0.2"] {
        client_over(connect_from(from, scene.server.address(link)), link).unwrap().log_in("other");
    }
    // Who leaves makes room for one.
    clients.pop().unwrap().websocket.close(None).unwrap();
    wait_until("there is room for one more", || {
        client_over(scene.socket(), link).map(|client| clients.push(client)).is_ok()
    });
    is_turned_away(&scene, HOSTILE, "--max-per-ip");
    let said = scene.server.log().matches("--max-per-ip").count();
    assert!((1..=65).contains(&said), "{said} lines for 101 connections");
}

fn a_flood_from_many_addresses(link: Link) {
    let scene = Scene::with(link, &["--max-connections", "40"]);
    let address = scene.server.address(link);
    // Two of the 40 are the honest pair's.
    let mut silent: Vec<TcpStream> =
        (0..38).map(|number| connect_from(&format!("127.7.{number}.1"), address)).collect();
    for number in 0..100 {
        is_turned_away(&scene, &format!("127.8.{number}.1"), "--max-connections");
    }
    scene.goes_on();
    silent.pop();
    wait_until("there is room for one more", || client_over(scene.socket(), link).is_ok());
}

/// The status of the answer to a request for a WebSocket with these headers.
fn status(stream: &mut dyn Stream, headers: &str) -> String {
    let response = ask(stream, &upgrade(headers));
    response.split(' ').nth(1).unwrap().into()
}

fn pages_from_elsewhere(link: Link) {
    let allowed = ["--allow-origin", "https://Friend.example", "--allow-origin", "http://[::1]:81"];
    let scene = Scene::with(link, &allowed);
    // The server's own page, and the same host with the other scheme.
    let (plain, tls) = if link == Link::Plain { ("101", "403") } else { ("403", "101") };
    let cases: [(&[u8], &str); 20] = [
        (b"", "101"), // no browser
        (b"Origin: https://friend.example\r\n", "101"),
        (b"Origin: HTTPS://FRIEND.EXAMPLE\r\n", "101"),
        (b"ORIGIN: http://[::1]:81\r\n", "101"),
        (b"Origin: http://signal.example:8080\r\n", plain),
        (b"Origin: https://Signal.Example:8080\r\n", tls),
        (b"Origin: http://friend.example\r\n", "403"),
        (b"Origin: https://friend.example:444\r\n", "403"),
        (b"Origin: https://friend.example.evil\r\n", "403"),
        (b"Origin: https://evil.friend.example\r\n", "403"),
        (b"Origin: https://evil/https://friend.example\r\n", "403"),
        (b"Origin: http://signal.example\r\n", "403"), // another port
        (b"Origin: null\r\n", "403"),
        (b"Origin:\r\n", "403"),
        (b"Origin: signal.example:8080\r\n", "403"), // no origin at all
        (b"Origin: https://\xff\xfe\r\n", "403"),
        (b"Origin: https://friend.example\r\nOrigin: https://evil\r\n", "403"),
        (b"Origin: https://evil\r\nOrigin: https://friend.example\r\n", "403"),
        (b"Origin: https://friend.example, https://evil\r\n", "403"),
        (b"Origin: *\r\n", "403"),
    ];
    for (headers, expected) in cases {
        let mut stream = scene.open();
        let request = upgrade("?");
        let (before, after) = request.split_once('?').unwrap();
        stream.write_all(before.as_bytes()).unwrap();
        stream.write_all(headers).unwrap();
        let response = ask(&mut *stream, after);
        let headers = String::from_utf8_lossy(headers);
        assert_eq!(response.split(' ').nth(1), Some(expected), "{headers:?}");
    }
    // Only WebSockets are refused: what a page may read of another site, browsers decide.
    let mut stream = scene.open();
    let page =
        ask(&mut *stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nOrigin: https://evil\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
}

fn a_proxy_that_is_trusted(link: Link) {
    let options =
        ["--trust-proxy", "127.6.0.0/16", "--trust-proxy", "10.0.0.0/8", "--log", "debug"];
    let scene = Scene::with(link, &[&options[..], &["--max-per-ip", "4"]].concat());
    // All through one proxy, and still each client has its own share of connections.
    let mut open = Vec::new();
    let mut asks = |headers: &str| {
        let mut stream = scene.open();
        let status = status(&mut *stream, headers);
        open.push(stream);
        status
    };
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        for _ in 0..4 {
            assert_eq!(asks(&format!("X-Forwarded-For: {client}\r\n")), "101");
        }
        assert_eq!(asks(&format!("X-Forwarded-For: {client}\r\n")), "503");
        scene.server.wait_for_log(client);
    }
    // However it is written, what counts is the last hop that is no proxy of ours. What comes before
    // that the client may have made up.
    for full in [
        "x-forwarded-for: 198.51.100.9, 203.0.113.1\r\n",
        "X-Forwarded-For: 203.0.113.1,127.6.1.1 ,10.1.2.3\r\n",
        "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 203.0.113.1\r\n",
        "X-Forwarded-For: 203.0.113.1\r\nX: y\r\nX-Forwarded-For: 10.1.2.3\r\n",
        "X-Forwarded-For: garbage, 203.0.113.1:4711\r\n",
        "X-Forwarded-For: \u{e4}, [2001:db8::1]:443\r\n",
        "X-Forwarded-For: [2001:db8::1]\r\n",
        "X-Forwarded-For: ::ffff:203.0.113.2\r\n",
    ] {
        assert_eq!(asks(full), "503", "{full}");
    }
    // Without a valid hop the connection counts for the proxy's own address.
    for (number, headers) in [
        "",
        "X-Forwarded-For: \r\n",
        "X-Forwarded-For: 203.0.113.1, _hidden\r\n",
        "X-Forwarded-For: \u{e4}\u{1F600}\r\n",
        "",
        "X-Forwarded-For: ,\r\n",
        "X-Forwarded-For: 999.1.1.1\r\n",
        "X-Forwarded-For: 203.0.113.1 203.0.113.1\r\n",
        "X-Forwarded-For: unknown\r\n",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(asks(headers), if number < 4 { "101" } else { "503" }, "{headers}");
    }
    let hops = vec!["10.0.0.1"; 700].join(",");
    assert_eq!(asks(&format!("X-Forwarded-For: 203.0.113.1,{hops}\r\n")), "503");
}

fn a_proxy_that_is_not_trusted(link: Link) {
    let options = ["--trust-proxy", "10.0.0.0/8", "--max-per-ip", "4"];
    let scene = Scene::with(link, &options);
    // A client can't make itself another by saying so, and so has no more than its share.
    let open: Vec<Box<dyn Stream>> = (0..4)
        .map(|number| {
            let mut stream = scene.open();
            let headers = format!("X-Forwarded-For: 203.0.113.{number}\r\n");
            assert_eq!(status(&mut *stream, &headers), "101");
            stream
        })
        .collect();
    is_turned_away(&scene, HOSTILE, "--max-per-ip");
    drop(open);
    let log = scene.server.log();
    assert!(!log.contains("203.0.113"), "{log}");
}
