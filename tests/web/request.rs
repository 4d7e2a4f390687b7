//! HTTP requests on both ports: pages, WebSocket upgrades, and what is neither.

use crate::common::{Link, Server, read_to_end, scratch};
use serde_json::{Value, json};
use std::io::Write;

crate::over_plain_and_tls! {
    the_page_and_its_files_are_served
    nothing_on_the_page_comes_from_elsewhere
    every_response_carries_the_security_headers
    health_check_says_ok
    head_gets_the_headers_only
    other_paths_are_404_and_other_methods_405
    a_query_does_not_matter
    garbage_gets_400_and_is_closed
    a_head_over_8_kib_gets_431
    too_many_headers_get_431
    an_upgrade_works_on_any_path_and_query
    the_first_subprotocol_is_echoed
    a_broken_upgrade_gets_400
    another_upgrade_than_websocket_gets_the_page
    a_head_in_single_bytes_is_read
    frames_sent_with_the_request_are_not_lost
    a_request_body_does_not_cut_off_the_response
    a_request_body_without_end_is_read_slowly
    config_json_names_the_ice_servers_and_the_tls_port
    a_request_has_exactly_one_host
    an_absolute_form_target_is_a_path
    an_unsupported_version_gets_426_and_the_supported_one
    an_upgrade_with_other_protocols_and_several_lines_is_understood
    an_allowed_origin_includes_its_scheme
    a_page_behind_a_trusted_proxy_may_have_either_scheme
}

const UPGRADE: &str = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A close frame, so that there is an end to read to.
const CLOSE: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];

fn get(server: &Server, link: Link, path: &str) -> String {
    server.exchange(link, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

fn status(response: &str) -> &str {
    response.split_whitespace().nth(1).unwrap_or("none")
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

fn the_page_and_its_files_are_served(link: Link) {
    let server = Server::start();
    let files = [
        ("/", "text/html; charset=utf-8", include_str!("../../src/web/page/index.html")),
        ("/style.css", "text/css; charset=utf-8", include_str!("../../src/web/page/style.css")),
        ("/icon.svg", "image/svg+xml", include_str!("../../src/web/page/icon.svg")),
        ("/main.js", "text/javascript; charset=utf-8", include_str!("../../src/web/page/main.js")),
        (
            "/signaling.js",
            "text/javascript; charset=utf-8",
            include_str!("../../src/web/page/signaling.js"),
        ),
        (
            "/words/de.js",
            "text/javascript; charset=utf-8",
            include_str!("../../src/web/page/words/de.js"),
        ),
    ];
    for (path, content_type, content) in files {
        let response = get(&server, link, path);
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {response}");
        assert!(response.contains(&format!("\r\nContent-Type: {content_type}\r\n")), "{path}");
        assert!(response.contains(&format!("\r\nContent-Length: {}\r\n", content.len())), "{path}");
        assert_eq!(body(&response), content, "{path}");
    }
}

fn nothing_on_the_page_comes_from_elsewhere(link: Link) {
    let server = Server::start();
    for path in ["/", "/style.css", "/main.js", "/signaling.js", "/words/en.js"] {
        let response = get(&server, link, path);
        for word in [
            "src=\"http",
            "href=\"http",
            "src=\"//",
            "href=\"//",
            "url(http",
            "@import",
            "from 'http",
        ] {
            assert!(!body(&response).contains(word), "{path} has {word}");
        }
        // Relative addresses only, so that the page works below any path.
        for word in ["src=\"/", "href=\"/", "from '/", "url(/"] {
            assert!(!body(&response).contains(word), "{path} has {word}");
        }
    }
}

fn every_response_carries_the_security_headers(link: Link) {
    let server = Server::start();
    for path in ["/", "/main.js", "/healthz", "/config.json", "/nothing"] {
        let response = get(&server, link, path);
        let policy = response
            .lines()
            .find_map(|line| line.strip_prefix("Content-Security-Policy: "))
            .unwrap_or_else(|| panic!("{path} has no policy"));
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        let foreign = policy.split([' ', ';']).find(|word| word.contains(['/', '*', '.']));
        assert_eq!(foreign, None, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(response.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{path}");
        assert!(response.contains("\r\nReferrer-Policy: no-referrer\r\n"), "{path}");
        // A page that was opened by another, or opens one, gets no hold of it.
        assert!(response.contains("\r\nCross-Origin-Opener-Policy: same-origin\r\n"), "{path}");
        assert!(!response.to_lowercase().contains("set-cookie"), "{path}");
    }
}

fn health_check_says_ok(link: Link) {
    let server = Server::start();
    let response = get(&server, link, "/healthz");
    assert_eq!((status(&response), body(&response)), ("200", "ok\n"));
    // As some health checkers still ask.
    assert_eq!(status(&server.exchange(link, b"GET /healthz HTTP/1.0\r\n\r\n")), "200");
}

fn head_gets_the_headers_only(link: Link) {
    let server = Server::start();
    for (path, wanted) in [("/", "200"), ("/healthz", "200"), ("/nothing", "404")] {
        let got = get(&server, link, path);
        let head =
            server.exchange(link, format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(status(&head), wanted);
        assert_eq!(head, got[..got.len() - body(&got).len()]);
    }
}

fn other_paths_are_404_and_other_methods_405(link: Link) {
    let server = Server::start();
    for path in ["/index.html", "/../Cargo.toml", "//", "/healthz/", "/main.js.map", "/%2e", "*"] {
        assert_eq!(status(&get(&server, link, path)), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let response =
            server.exchange(link, format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(status(&response), "405", "{method}");
        assert!(response.contains("\r\nAllow: GET, HEAD\r\n"));
    }
}

fn a_query_does_not_matter(link: Link) {
    let server = Server::start();
    assert_eq!(status(&get(&server, link, "/?x=/nothing")), "200");
    assert_eq!(status(&get(&server, link, "/healthz?")), "200");
}

fn garbage_gets_400_and_is_closed(link: Link) {
    let server = Server::start();
    let garbage: [&[u8]; 7] = [
        b"\x00\x01\x02\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ];
    for bytes in garbage {
        let response = server.exchange(link, bytes);
        assert_eq!(status(&response), "400", "{bytes:?}");
        assert!(response.contains("\r\nConnection: close\r\n"));
    }
}

fn a_head_over_8_kib_gets_431(link: Link) {
    let server = Server::start();
    let fits = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(8192 - 32));
    assert_eq!(fits.len(), 8192);
    assert_eq!(status(&server.exchange(link, fits.as_bytes())), "200");
    let too_long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(8192 - 31));
    assert_eq!(status(&server.exchange(link, too_long.as_bytes())), "431");
    assert_eq!(status(&server.exchange(link, &[b'x'; 100_000])), "431");
}

fn too_many_headers_get_431(link: Link) {
    let server = Server::start();
    let request =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(status(&server.exchange(link, request(64).as_bytes())), "200");
    assert_eq!(status(&server.exchange(link, request(65).as_bytes())), "431");
}

fn an_upgrade_works_on_any_path_and_query(link: Link) {
    let server = Server::start();
    for path in ["/", "/ws", "/socket.io/?EIO=3&transport=websocket", "/healthz", "/a<b", "/?x=%00"]
    {
        let mut stream = server.open(link);
        write!(stream, "GET {path} HTTP/1.1\r\n{UPGRADE}\r\n").unwrap();
        // A close frame, so that there is an end to read to.
        stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
        let response = read_to_end(&mut stream);
        assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{path}: {response}");
        // The example of RFC 6455, section 1.3.
        assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{response}");
        assert!(!response.to_lowercase().contains("sec-websocket-protocol"));
    }
}

fn the_first_subprotocol_is_echoed(link: Link) {
    let server = Server::start();
    for (offered, chosen) in [("chat", "chat"), ("v2.webrtc , v1.webrtc", "v2.webrtc"), (",", "")] {
        let mut stream = server.open(link);
        write!(stream, "GET / HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: {offered}\r\n\r\n")
            .unwrap();
        stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
        let response = read_to_end(&mut stream).to_lowercase();
        match chosen {
            "" => assert!(!response.contains("sec-websocket-protocol")),
            _ => assert!(
                response.contains(&format!("\r\nsec-websocket-protocol: {chosen}\r\n")),
                "{response}"
            ),
        }
    }
}

fn a_broken_upgrade_gets_400(link: Link) {
    let server = Server::start();
    let broken = [
        ("GET", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")),
        ("GET", UPGRADE.replace("keep-alive, Upgrade", "close")),
    ];
    for (method, headers) in broken {
        let response =
            server.exchange(link, format!("{method} / HTTP/1.1\r\n{headers}\r\n").as_bytes());
        assert_eq!(status(&response), "400", "{headers}");
    }
}

fn another_upgrade_than_websocket_gets_the_page(link: Link) {
    let server = Server::start();
    // What curl sends when it would like HTTP/2.
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(status(&server.exchange(link, request.as_bytes())), "200");
}

fn a_head_in_single_bytes_is_read(link: Link) {
    let server = Server::start();
    let mut stream = server.open(link);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(status(&read_to_end(&mut stream)), "200");
}

fn frames_sent_with_the_request_are_not_lost(link: Link) {
    let server = Server::start();
    let login = br#"{"signalType":"login","fromUser":"alice"}"#;
    let mut request = format!("GET / HTTP/1.1\r\n{UPGRADE}\r\n").into_bytes();
    request.extend([0x81, 0x80 | login.len() as u8, 0, 0, 0, 0]);
    request.extend(login);
    request.extend([0x88, 0x80, 0, 0, 0, 0]);
    let answer = server.exchange(link, &request);
    assert!(answer.contains(r#""success":"1""#), "{answer:?}");
}

fn a_request_body_does_not_cut_off_the_response(link: Link) {
    let server = Server::start();
    let mut request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".to_vec();
    request.extend([b'x'; 100_000]);
    let response = server.exchange(link, &request);
    assert_eq!((status(&response), body(&response)), ("405", "Only GET and HEAD\n"));
}

/// Who sends for as long as it is read from is soon read from slowly.
fn a_request_body_without_end_is_read_slowly(link: Link) {
    const SLOWLY: usize = 4 * 1024 * 1024; // in the second of it; loopback could do a thousand times that
    let server = Server::start();
    let mut stream = server.open(link);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let chunk = [b'x'; 16 * 1024];
    let mut sent = 0;
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < SLOWLY);
    }
}

fn config_json_names_the_ice_servers_and_the_tls_port(link: Link) {
    let file = scratch("ice").join(format!("{link:?}.json"));
    let servers = json!([
        {"urls": "stun:stun.example.org:3478"},
        {"urls": ["turn:turn.example.org"], "username": "u", "credential": "c"},
    ]);
    std::fs::write(&file, servers.to_string()).unwrap();
    let server = Server::start_with(&["--ice-servers", file.to_str().unwrap()]);
    let config: Value = serde_json::from_str(body(&get(&server, link, "/config.json"))).unwrap();
    let tls_port = server.tls_port();
    assert_eq!(
        config,
        // A server on the loopback alone has no address that others can reach.
        json!({"iceServers": servers, "tlsPort": tls_port, "tokens": false, "addresses": []})
    );

    let server = Server::start();
    let config: Value = serde_json::from_str(body(&get(&server, link, "/config.json"))).unwrap();
    assert_eq!(config["iceServers"], json!([]));
}

/// RFC 9112, section 3.2.
fn a_request_has_exactly_one_host(link: Link) {
    let server = Server::start();
    for (headers, wanted) in
        [("Host: x\r\n", "200"), ("", "400"), ("Host: x\r\nHost: x\r\n", "400")]
    {
        let request = format!("GET /healthz HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(status(&server.exchange(link, request.as_bytes())), wanted, "{headers}");
        let request = format!("GET / HTTP/1.1\r\n{}{headers}\r\n", &UPGRADE["Host: x\r\n".len()..]);
        let wanted = if wanted == "200" { "101" } else { wanted };
        let request = [request.as_bytes(), CLOSE].concat();
        assert_eq!(status(&server.exchange(link, &request)), wanted, "{headers}");
    }
}

/// RFC 9112, section 3.2.2.
fn an_absolute_form_target_is_a_path(link: Link) {
    let server = Server::start();
    for target in ["http://x/healthz", "HTTPS://x:8443/healthz?a=b", "http://[::1]:8080/healthz"] {
        let response = get(&server, link, target);
        assert_eq!((status(&response), body(&response)), ("200", "ok\n"), "{target}");
    }
    for target in ["http://x", "http://x?a"] {
        assert!(get(&server, link, target).contains("<!doctype html>"), "{target}");
    }
    for target in ["http://x/nothing", "/http://x/healthz"] {
        assert_eq!(status(&get(&server, link, target)), "404", "{target}");
    }
}

/// RFC 6455, section 4.4.
fn an_unsupported_version_gets_426_and_the_supported_one(link: Link) {
    let server = Server::start();
    let version = "Sec-WebSocket-Version: 13\r\n";
    for other in ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 25\r\n", ""] {
        let headers = UPGRADE.replace(version, other);
        let response = server.exchange(link, format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes());
        assert_eq!(status(&response), "426", "{response}");
        assert!(response.contains(&format!("\r\n{version}")), "{response}");
        assert!(response.contains("\r\nUpgrade: websocket\r\n"), "{response}");
    }
}

fn an_upgrade_with_other_protocols_and_several_lines_is_understood(link: Link) {
    let server = Server::start();
    for (was, now) in [
        ("Upgrade: WebSocket", "Upgrade: websocket, h2c"),
        ("Upgrade: WebSocket", "Upgrade: h2c,WebSocket"),
        ("Upgrade: WebSocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("keep-alive, Upgrade", "keep-alive\r\nConnection: Upgrade"),
        ("keep-alive, Upgrade", "Upgrade,\tkeep-alive"),
    ] {
        let headers = UPGRADE.replace(was, now);
        let request = [format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes(), CLOSE].concat();
        assert_eq!(status(&server.exchange(link, &request)), "101", "{now}");
    }
}

/// The status of an upgrade that a page of this origin asks for.
fn status_for(server: &Server, link: Link, origin: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\n{UPGRADE}Origin: {origin}\r\n\r\n");
    status(&server.exchange(link, &[request.as_bytes(), CLOSE].concat())).into()
}

/// A page that somebody on the way could have changed must not connect as the one that is safe.
fn an_allowed_origin_includes_its_scheme(link: Link) {
    let server = Server::start_with(&["--allow-origin", "https://friend.example"]);
    let (own, other) = match link {
        Link::Plain => ("http://x", "https://x"),
        Link::Tls => ("https://x", "http://x"),
    };
    assert_eq!(status_for(&server, link, own), "101");
    assert_eq!(status_for(&server, link, other), "403");
    assert_eq!(status_for(&server, link, "https://friend.example"), "101");
    assert_eq!(status_for(&server, link, "http://friend.example"), "403");
}

fn a_page_behind_a_trusted_proxy_may_have_either_scheme(link: Link) {
    let options = ["--allow-origin", "https://friend.example", "--trust-proxy", "127.0.0.1"];
    let server = Server::start_with(&options);
    for (origin, wanted) in [("https://x", "101"), ("http://x", "101"), ("https://y", "403")] {
        assert_eq!(status_for(&server, link, origin), wanted, "{origin}");
    }
}
