//! The log: lines are paced, the journal gets them without a time, and a full disk ends nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use crate::common::{self, Link, Server, log_until, options, program, signal};
use serde_json::json;
use signal_server::limits::{LOG_BURST, LOG_INTERVAL};
use tungstenite::Message;

/// A client causes these lines as fast as it can, and they could fill a disk.
#[test]
fn lines_that_clients_cause_are_paced_and_the_missing_ones_are_counted() {
    const FLOOD: usize = 1000;
    let server = Server::start_with(&["--log", "info"]);
    let mut mallory = server.connect(Link::Plain);
    let start = Instant::now();
    for _ in 0..FLOOD {
        assert_eq!(mallory.log_in("")["reason"], "invalid-name");
    }
    // A line of another kind is not lost among them.
    server.login(Link::Plain, "alice");
    server.wait_for_log("logged in as \"alice\"");
    let refused = |log: &str| log.matches("refused: invalid-name").count();
    let printed = refused(&server.log());
    let seconds = (start.elapsed().as_secs_f32() / LOG_INTERVAL.as_secs_f32()) as usize + 1;
    assert!(printed <= LOG_BURST as usize + seconds, "{printed} lines in {seconds} s");

    common::wait_until("a later line counts those that are missing", || {
        mallory.log_in("");
        server.log().contains(" similar lines left out)")
    });
    let log = server.log();
    let left_out = log.split(" similar lines left out)").next().unwrap();
    let left_out: usize = left_out.rsplit('(').next().unwrap().parse().unwrap();
    assert!(left_out <= FLOOD + 1000 && left_out + refused(&log) > FLOOD / 2, "{log}");
}

#[test]
fn a_log_that_cannot_be_written_ends_no_call() {
    // Every write to this device fails, as on a full disk. Without a log the port must be known.
    if !Path::new("/dev/full").exists() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = program()
        .args(["--tls-listen", "off", "--log", "trace", "--listen", &format!("127.0.0.1:{port}")])
        .stderr(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap();
    let mut socket = None;
    common::wait_until("it listens", || {
        socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        socket.is_some()
    });
    let (mut websocket, _) = tungstenite::client("ws://x/", socket.unwrap()).unwrap();
    for number in 0..3 {
        let login = json!({"signalType": "login", "fromUser": number}).to_string();
        websocket.send(Message::text(login)).unwrap();
        assert!(websocket.read().unwrap().to_text().unwrap().contains(r#""success":"1""#));
    }
    signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_journal_gets_lines_without_a_time() {
    for with_time in [true, false] {
        let mut command = program();
        command.args(options());
        if !with_time {
            command.env("JOURNAL_STREAM", "8:1234"); // as systemd does it
        }
        let log = log_until(&mut command, "listening on ws://");
        assert_eq!(log.starts_with("INFO "), !with_time, "{log}");
    }
}
