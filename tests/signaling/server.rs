//! The program as a whole: what it logs, and how it stops.

use crate::common::{Link, Server, message};
use serde_json::json;
use tungstenite::Message;

#[test]
fn the_log_names_what_happens_and_never_what_is_said() {
    let server = Server::start_with(&["--log", "trace"]);
    let mut alice = server.login(Link::Plain, "alice");
    let mut evil = server.connect(Link::Tls);
    evil.log_in("two\nlines\u{1b}[31m");
    evil.log_in("live\u{202e}");
    assert_eq!(evil.log_in("e\"vil\\")["success"], "1");
    let secret = json!("SECRET-a=candidate");
    for kind in ["offer", "answer", "pranswer", "candidate", "leave"] {
        alice.send_json(&message(kind, "alice", "e\"vil\\", secret.clone()));
        evil.receive_json();
    }
    alice.ask(&json!({"signalType": "SECRET-kind", "toUser": "bob"}));
    alice.ask(&json!({"signalType": "offer", "fromUser": {"SECRET": 1}}));
    alice.ask(&json!({"signalType": 7, "fromUser": ["SECRET"]}));
    alice.send("SECRET that is no JSON");
    alice.receive_json();
    alice.websocket.send(Message::Ping("SECRET-ping".into())).unwrap();
    let frame = tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "SECRET".into() };
    alice.websocket.close(Some(frame)).unwrap();
    assert_eq!(alice.closed_with(), 1000);
    drop(alice);
    server.wait_for_log("closed by the client (1 connections open)");

    let log = server.log();
    for line in [
        "connected (2 connections open)",
        r#"logged in as "alice""#,
        r#"login as "two\nlines\u{1b}[31m" refused: invalid-name"#,
        r#"login as "live\u{202e}" refused: invalid-name"#,
        r#"Offer from "alice" to "e\"vil\\", "#,
        r#"Leave from "alice" to "e\"vil\\", "#,
        "refused: unknown-command",
        "refused: invalid-json",
    ] {
        assert!(log.contains(line), "no {line:?} in:\n{log}");
    }
    assert!(!log.contains("SECRET"), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log}");
    for line in log.lines() {
        // UTC, as in 2026-11-22T20:45:10.377Z; a line that starts otherwise came from a name.
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
    }
}

#[test]
fn sigint_stops_it_too() {
    let mut server = Server::start();
    let mut alice = server.login(Link::Plain, "alice");
    server.signal("INT");
    assert_eq!(alice.closed_with(), 1001);
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start();
    // The stop waits for the thread of a client that does not take its replies.
    let mut alice = server.login(Link::Plain, "alice");
    let text = json!({"signalType": "x".repeat(60_000)}).to_string();
    alice.socket.set_write_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    while alice.websocket.send(Message::text(text.as_str())).is_ok() {}
    server.signal("TERM");
    server.wait_for_log("stopping");
    server.signal("TERM");
    let status = server.wait();
    // The first may have been quick enough; then it ended in good order.
    assert!(matches!(status.code(), Some(0 | 1)), "{status:?}");
}

#[test]
fn no_new_connection_is_taken_while_stopping() {
    let server = Server::start();
    let (plain, tls) = (server.ws_port(), server.tls_port());
    assert!(server.stop().success());
    assert!(std::net::TcpStream::connect(("127.0.0.1", plain)).is_err());
    assert!(std::net::TcpStream::connect(("127.0.0.1", tls)).is_err());
}
