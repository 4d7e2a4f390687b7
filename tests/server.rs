//! The program as its operator meets it: ports, log, signals, service manager.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    Link, Server, big, log_until, message, options, outcome, program, run, scratch, signal,
};
use serde_json::json;
use tungstenite::Message;

#[test]
fn by_default_it_listens_on_both_families() {
    // Port 0 is not the default, but the address is; the port would clash with a running server.
    let server = Server::start_with(&["--listen", "[::]:0"]);
    for address in ["127.0.0.1", "::1"] {
        let ip: std::net::IpAddr = address.parse().unwrap();
        if std::net::UdpSocket::bind((ip, 0)).is_ok() {
            std::net::TcpStream::connect((ip, server.ws_port())).unwrap();
        }
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = run(&["--tls-listen", "off", "--listen", &address]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}: the port is in use")), "{said}");
    // The same when only the second port is taken.
    let (code, said) = run(&[options(), vec!["--tls-listen", &address]].concat());
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("--tls-listen"), "{said}");
}

#[test]
fn an_address_that_cannot_be_had_is_explained() {
    // Of a network for documentation (RFC 5737), so nobody's.
    let (code, said) = run(&["--tls-listen", "off", "--listen", "192.0.2.1:8080"]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("no such address"), "{said}");
    // A port for root alone, where there are such. Root without that right is like anybody else.
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|port| port.trim().parse::<u16>().is_ok_and(|port| port <= 443)) {
        return;
    }
    let is_root = fs::read("/etc/shadow").is_ok();
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.arg("--bounding-set=-net_bind_service");
    }
    command.args([env!("CARGO_BIN_EXE_signal-server"), "--tls-listen", "off"]);
    let (_, said) = outcome(command.args(["--listen", "127.0.0.1:443"]).output().unwrap());
    assert!(said.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{said}");
}

#[test]
fn the_log_names_what_happens_and_never_what_is_said() {
    let server = Server::start_with(&["--log", "trace"]);
    let mut alice = server.login(Link::Plain, "alice");
    let mut evil = server.connect(Link::Tls);
    evil.log_in("two\nlines\u{1b}[31m");
    assert_eq!(evil.log_in("e\"vil\u{202e}")["success"], "1");
    let secret = json!("SECRET-a=candidate");
    for kind in ["offer", "answer", "pranswer", "candidate", "leave"] {
        alice.send_json(&message(kind, "alice", "e\"vil\u{202e}", secret.clone()));
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
        r#"offer from "alice" to "e\"vil\u{202e}", "#,
        r#"leave from "alice" to "e\"vil\u{202e}", "#,
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
    // A thread that is in the middle of a send to a client that takes nothing: the stop waits for it.
    let mut alice = server.login(Link::Plain, "alice");
    let _bob = server.login(Link::Plain, "bob");
    let text = big("alice", "bob");
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

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let path = scratch("systemd").join("notify");
    let _ = fs::remove_file(&path);
    let file = UnixDatagram::bind(&path).unwrap();
    let name = format!("signal-server-test-{}", std::process::id());
    let unnamed = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (socket, address) in
        [(file, path.to_str().unwrap().to_string()), (unnamed, format!("@{name}"))]
    {
        socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let told = || {
            let mut state = [0; 100];
            let length = socket.recv(&mut state).unwrap();
            String::from_utf8_lossy(&state[..length]).into_owned()
        };
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--tls-listen", "off"]);
        let mut child = command.env("NOTIFY_SOCKET", address).spawn().unwrap();
        assert_eq!(told(), "READY=1");
        signal(child.id(), "TERM");
        assert_eq!(told(), "STOPPING=1");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_service_manager_that_cannot_be_told_ends_nothing() {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--tls-listen", "off"]);
    let said = "cannot tell systemd";
    let log = log_until(command.env("NOTIFY_SOCKET", "/nowhere"), said);
    assert!(log.contains(r#"cannot tell systemd "READY=1" at /nowhere"#), "{log}");
}

#[test]
fn the_journal_gets_lines_without_a_time() {
    // As systemd does it: the variable names the stream, so that a redirection can be told from it.
    for (journal, with_time) in [("$(stat -L -c %d:%i /dev/stderr)", false), ("1:2", true)] {
        let mut command = Command::new("sh");
        let script = format!("JOURNAL_STREAM={journal} exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_signal-server")]);
        command.args(["--listen", "127.0.0.1:0", "--tls-listen", "off"]).stderr(Stdio::piped());
        let log = log_until(&mut command, "listening on ws://");
        assert_eq!(log.starts_with("INFO "), !with_time, "{log}");
    }
}
