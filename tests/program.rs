//! The program as its operator meets it: options, certificate files, ports, log, signals.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    CERTIFICATE, CONNECTOR, Link, Server, big, make_certificate, message, openssl, options,
    outcome, program, run, scratch, signal,
};
use serde_json::json;
use tungstenite::Message;

/// The first lines of its log, up to the one that contains `last`; then it is killed.
fn log_until(command: &mut Command, last: &str) -> String {
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        log.push_str(&line);
        log.push('\n');
        if line.contains(last) {
            break;
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(log.contains(last), "no {last:?} in:\n{log}");
    log
}

#[test]
fn help_and_version_are_printed() {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, 0);
    for option in [
        "--listen",
        "--tls-listen",
        "--cert",
        "--key",
        "--ice-servers",
        "--log",
        "--max-connections",
        "--max-per-ip",
        "--max-message",
        "--max-rate",
        "--max-calls",
        "--check",
        "--print-limits",
        "--users",
        "--turn",
        "--turn-secret",
        "user add",
        "--allow-origin",
        "--trust-proxy",
        "--help",
        "--version",
        "SIGNAL_MAX_RATE",
    ] {
        assert!(help.contains(option), "{option}");
    }
    assert!(help.lines().all(|line| line.len() <= 86), "a line is too wide");
    assert_eq!(run(&["--version"]), (0, format!("signal-server {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_is_not_understood_is_named_and_refused_with_2() {
    let cases: [(&[&str], &str); 9] = [
        (&["--listne", "x"], "--listne"),
        (&["-x"], "-x"),
        (&["8080"], "8080"),
        (&["--listen"], "--listen"),
        (&["--listen", "8080"], "--listen takes an address and a port"),
        (&["--listen", "localhost:8080"], "localhost:8080"),
        (&["--tls-listen", "[::1]"], "--tls-listen takes"),
        (&["--log", "loud"], "--log takes off, error, warn"),
        (&["--listen", "off", "--tls-listen", "off"], "both off"),
    ];
    for (arguments, word) in cases {
        let (code, said) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(said.contains(word), "{said}");
    }
    let (code, said) = outcome(program().env("SIGNAL_LOG", "loud").output().unwrap());
    assert!(code == 2 && said.contains("SIGNAL_LOG takes"), "{said}");
}

#[test]
fn the_environment_sets_options_and_arguments_win() {
    let mut command = program();
    command
        .env("SIGNAL_LISTEN", "off")
        .env("SIGNAL_TLS_LISTEN", "127.0.0.1:0")
        .env("SIGNAL_CERT", &CERTIFICATE.cert)
        .env("SIGNAL_KEY", &CERTIFICATE.key)
        .env("SIGNAL_LOG", "") // set to nothing: not set
        .args(["--listen", "127.0.0.1:0"]);
    let log = log_until(&mut command, "listening on wss://127.0.0.1:");
    assert!(log.contains("listening on ws://127.0.0.1:"), "{log}");
}

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
fn without_the_default_certificate_one_line_says_how_to_make_it() {
    let mut command = program();
    command.current_dir(scratch("empty")).args(["--listen", "127.0.0.1:0"]);
    let log = log_until(&mut command, "listening on ws://");
    assert!(log.contains("certs/generate.sh"), "{log}");
    assert!(!log.contains("wss://127"), "{log}");
}

#[test]
fn the_default_certificate_is_used_when_it_is_there() {
    let folder = scratch("with certs");
    fs::create_dir_all(folder.join("certs")).unwrap();
    fs::copy(&CERTIFICATE.cert, folder.join("certs/cert.pem")).unwrap();
    fs::copy(&CERTIFICATE.key, folder.join("certs/key.pem")).unwrap();
    let mut command = program();
    command.current_dir(&folder).args(["--listen", "off"]);
    // The default port may be taken on this machine; what matters is that TLS was tried.
    let log = log_until(&mut command, "8443");
    assert!(log.contains("listening on wss://") || log.contains("in use"), "{log}");

    // Half a pair is a mistake, not a wish for no TLS.
    fs::remove_file(folder.join("certs/key.pem")).unwrap();
    let mut command = program();
    command.current_dir(&folder).args(["--listen", "127.0.0.1:0"]);
    let (code, said) = outcome(command.output().unwrap());
    assert!(code == 1 && said.contains("certs/key.pem"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_explained_and_never_a_plain_port() {
    let folder = scratch("bad certificates");
    let file = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let cert = CERTIFICATE.cert.to_str().unwrap();
    let key = CERTIFICATE.key.to_str().unwrap();
    let sec1 = file("sec1.pem", &openssl(&["ec", "-in", key]));
    let rsa = file("rsa.pem", &openssl(&["genrsa", "1024"]));
    let pkcs1 = file("pkcs1.pem", &openssl(&["rsa", "-traditional", "-in", &rsa]));
    let locked =
        file("locked.pem", &openssl(&["pkcs8", "-topk8", "-in", key, "-passout", "pass:x"]));
    let other = make_certificate("another").key;
    let der = file("der.pem", &openssl(&["x509", "-in", cert, "-outform", "der"]));
    let noise = file("noise.pem", b"hello\n");
    let empty = file("empty.pem", b"");
    let cut = file("cut.pem", &fs::read(cert).unwrap()[..200]);
    let cut_key = file("cutkey.pem", &fs::read(key).unwrap()[..100]);
    let missing = folder.join("missing.pem").to_str().unwrap().to_string();

    let cases: [(&str, &str, &[&str]); 14] = [
        (&missing, key, &["missing.pem", "No such file", "generate.sh"]),
        (cert, &missing, &["missing.pem", "No such file"]),
        (folder.to_str().unwrap(), key, &["bad certificates", "directory"]),
        (&noise, key, &["noise.pem", "not PEM"]),
        (&empty, key, &["empty.pem", "not PEM"]),
        (&der, key, &["der.pem", "not PEM", "-inform der"]),
        (cert, &noise, &["noise.pem", "not PEM"]),
        (cert, &sec1, &["sec1.pem", "SEC1", "openssl pkcs8 -topk8 -nocrypt"]),
        (cert, &pkcs1, &["pkcs1.pem", "PKCS#1", "openssl pkcs8 -topk8 -nocrypt"]),
        (cert, &locked, &["locked.pem", "encrypted", "openssl pkcs8 -topk8 -nocrypt"]),
        (key, cert, &["swapped"]),
        (cert, other.to_str().unwrap(), &["does not belong to", "openssl"]),
        (&cut, key, &["cut.pem"]),
        (cert, &cut_key, &["cutkey.pem"]),
    ];
    for (cert, key, words) in cases {
        let (code, said) = run(&["--listen", "127.0.0.1:0", "--cert", cert, "--key", key]);
        assert_eq!(code, 1, "{said}");
        assert!(!said.contains("listening"), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    // Asked for by address alone: then too.
    let mut command = program();
    command.current_dir(scratch("empty"));
    command.args(["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
    let (code, said) = outcome(command.output().unwrap());
    assert!(code == 1 && said.contains("certs/cert.pem"), "{said}");
}

#[test]
fn an_unreadable_key_is_explained() {
    let path = scratch("unreadable").join("key.pem");
    fs::copy(&CERTIFICATE.key, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        return; // root reads everything
    }
    let (code, said) =
        run(&["--cert", CERTIFICATE.cert.to_str().unwrap(), "--key", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(said.contains("Permission denied") && said.contains("the server's user"), "{said}");
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
fn a_key_behind_other_text_is_found() {
    let folder = scratch("text before");
    let path = folder.join("key.pem");
    let key = fs::read_to_string(&CERTIFICATE.key).unwrap();
    fs::write(&path, format!("Bag Attributes: none\n\n{key}")).unwrap();
    let server = Server::start_with(&["--key", path.to_str().unwrap()]);
    server.login(Link::Tls, "alice");
}

#[test]
fn tls_older_than_1_2_is_refused() {
    // Whether 1.3 works is for the system's library; on Linux, native-tls 0.2 leaves it out.
    let server = Server::start();
    let address = format!("127.0.0.1:{}", server.tls_port());
    for (version, works) in [("-tls1_2", true), ("-tls1_1", false), ("-tls1", false)] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-cipher", "DEFAULT:@SECLEVEL=0"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.success(), works, "{version}: {output:?}");
    }
}

#[test]
fn plain_bytes_on_the_tls_port_and_the_reverse_hurt_nobody() {
    let server = Server::start();
    let mut alice = server.login(Link::Plain, "alice");
    let mut bob = server.login(Link::Tls, "bob");
    let mut on_tls = server.door().open_socket(Link::Tls);
    std::io::Write::write_all(&mut on_tls, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    common::read_to_end(&mut on_tls);
    assert!(CONNECTOR.connect("localhost", server.door().open_socket(Link::Plain)).is_err());
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
}

#[test]
fn bad_ice_servers_are_explained() {
    let path = scratch("bad ice").join("ice.json");
    let cases = [
        ("{", "EOF"),
        ("{}", "must be a JSON array"),
        ("[{}]", "entry 0 needs \"urls\""),
        (r#"[{"urls": []}]"#, "entry 0 needs \"urls\""),
        (r#"[{"urls": "stun:a"}, {"urls": [7]}]"#, "entry 1 has a url that is not a string"),
        (r#"[{"urls": "http://a"}]"#, "must start with stun:"),
        (r#"[{"urls": "stun:"}]"#, "must start with stun:"),
        (r#"[{"urls": "turn:a", "username": "u"}]"#, "needs \"username\" and \"credential\""),
    ];
    for (content, word) in cases {
        fs::write(&path, content).unwrap();
        let (code, said) = run(&["--ice-servers", path.to_str().unwrap()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("ice.json") && said.contains(word), "{said}");
    }
    assert_eq!(run(&["--ice-servers", "/nowhere/ice.json"]).0, 1);
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
fn every_option_has_a_variable_of_its_name() {
    let variables = [
        ("SIGNAL_MAX_CONNECTIONS", "11", "11"),
        ("SIGNAL_MAX_PER_IP", "12", "12"),
        ("SIGNAL_MAX_MESSAGE", "13333", "13333 bytes"),
        ("SIGNAL_MAX_RATE", "14", "14 a second"),
        ("SIGNAL_MAX_CALLS", "0", "no limit"),
    ];
    let mut command = program();
    command.arg("--print-limits");
    for (name, value, _) in variables {
        command.env(name, value);
    }
    let (_, report) = outcome(command.output().unwrap());
    for (name, _, shown) in variables {
        assert!(report.contains(shown), "{name}: {report}");
    }
    // With a limit missing, no sum is given.
    assert!(report.contains("memory has no bound"), "{report}");
}

#[test]
fn print_limits_shows_the_arithmetic() {
    let (code, report) = run(&["--print-limits"]);
    assert_eq!(code, 0);
    for word in ["1024", "128", "65536 bytes", "50 a second", "32", "10s", "stack", "TLS", "MiB"] {
        assert!(report.contains(word), "no {word}: {report}");
    }
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
