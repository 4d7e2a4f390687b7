//! The users file: logins with tokens, edits while the server runs, and `--new-user`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{
    Client, Link, Local, Server, message, options, program, run, scratch, wait_until,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use signal_server::limits::{LOGIN_DELAY, LOGIN_TRIES, MAX_FILE, Timeouts};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

/// Runs `signal-server --new-user NAME …`: its exit code, stdout and stderr.
fn new_user(name: &str, more: &[&str]) -> (i32, String, String) {
    let output = program().args(["--new-user", name]).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Adds a user as an operator does, with `>>`, and returns the token.
fn add(file: &Path, name: &str) -> String {
    let (code, line, secret) = new_user(name, &[]);
    assert_eq!(code, 0, "{secret}");
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
    secret.lines().find_map(|line| line.strip_prefix("  ")).unwrap().to_string()
}

/// Removes users as an operator does, in an editor.
fn remove(file: &Path, names: &[&str]) {
    let text = fs::read_to_string(file).unwrap();
    let is_other = |line: &&str| !names.contains(&line.split(':').next().unwrap());
    let kept: Vec<&str> = text.lines().filter(is_other).collect();
    fs::write(file, kept.join("\n") + "\n").unwrap();
}

fn users_file(name: &str) -> PathBuf {
    let path = scratch(name).join("users");
    let _ = fs::remove_file(&path);
    path
}

fn server(file: &Path) -> Server {
    Server::start_with(&["--log", "trace", "--users", file.to_str().unwrap()])
}

fn log_in(client: &mut Client, name: &str, token: &str) -> Value {
    client.ask(&json!({"signalType": "login", "fromUser": name, "token": token}))
}

fn refused(reason: &str) -> [Value; 2] {
    ["0".into(), reason.into()]
}

fn outcome(reply: &Value) -> [Value; 2] {
    [reply["success"].clone(), reply["reason"].clone()]
}

#[test]
fn only_a_user_with_the_right_token_gets_in() {
    let file = users_file("right token");
    let (alices, bobs) = (add(&file, "alice"), add(&file, "bob"));
    let server = server(&file);
    let mut alice = server.connect(Link::Tls);
    for (name, token) in [("alice", "wrong"), ("alice", &bobs), ("carol", &alices)] {
        assert_eq!(outcome(&log_in(&mut alice, name, token)), refused("unauthorized"));
    }
    assert_eq!(outcome(&alice.log_in("alice")), refused("unauthorized"));
    assert_eq!(outcome(&log_in(&mut alice, "", &alices)), refused("invalid-name"));
    let reply = log_in(&mut alice, "alice", &alices);
    assert_eq!(reply, json!({"signalType": "login", "fromUser": "alice", "success": "1"}));
    // Another name needs that name's token, and one's own again is still taken.
    assert_eq!(outcome(&log_in(&mut alice, "alice", &alices)), refused("name-taken"));
    assert_eq!(log_in(&mut alice, "bob", &bobs)["success"], "1");
}

#[test]
fn a_stranger_does_not_learn_who_is_online() {
    let file = users_file("stranger");
    let token = add(&file, "alice");
    let server = server(&file);
    let mut alice = server.connect(Link::Plain);
    log_in(&mut alice, "alice", &token);
    let mut stranger = server.connect(Link::Plain);
    for name in ["alice", "nobody"] {
        assert_eq!(outcome(&log_in(&mut stranger, name, "wrong")), refused("unauthorized"));
    }
}

#[test]
fn a_token_is_never_echoed_and_never_logged() {
    let file = users_file("secret");
    let token = add(&file, "alice");
    let with = server(&file);
    let without = Server::start_with(&["--log", "trace"]);
    for server in [&with, &without] {
        let mut client = server.connect(Link::Plain);
        let login = json!({"signalType": "login", "fromUser": "alice", "token": token, "x": 1});
        client.send_json(&login);
        let reply = client.receive();
        assert!(reply.contains("\"x\":1") && !reply.contains("oken"), "{reply}");
        // A field of that name in any other message is the clients' own.
        let own =
            json!({"signalType": "candidate", "fromUser": "alice", "toUser": "alice", "token": 7});
        assert_eq!(client.ask(&own), own);
        client.websocket.close(None).unwrap();
        drop(client);
        server.wait_for_log("closed by the client");
        assert!(!server.log().contains(&token), "{}", server.log());
    }
    assert!(!fs::read_to_string(&file).unwrap().contains(&token));
}

/// Lets `name` log in again and again, since files are looked at when somebody asks, until the log
/// has a line with this text.
fn log_in_until(server: &Server, name: &str, token: &str, text: &str) {
    wait_until(text, || {
        let reply = log_in(&mut server.connect(Link::Plain), name, token);
        assert_ne!(reply["reason"], "unauthorized", "{}", server.log());
        server.log().contains(text)
    });
}

#[test]
fn an_edit_counts_within_a_second_and_a_wrong_one_changes_nothing() {
    let file = users_file("edited");
    let alices = add(&file, "alice");
    let server = server(&file);
    let enters = |name: &str, token: &str| {
        log_in(&mut server.connect(Link::Plain), name, token)["success"] == "1"
    };
    let bobs = add(&file, "bob");
    log_in_until(&server, "alice", &alices, "2 users may log in");
    assert!(enters("bob", &bobs));

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}carol:{alices}\n")).unwrap();
    log_in_until(&server, "alice", &alices, "the last good version stays in use");
    let line = server.wait_for_log("the last good version stays in use");
    assert!(line.contains("users: line 3 ") && line.contains(" WARN "), "{line}");
    assert!(enters("bob", &bobs) && !enters("carol", &alices));
    fs::remove_file(&file).unwrap();
    log_in_until(&server, "alice", &alices, "No such file");
    assert!(enters("bob", &bobs));
    assert_eq!(server.log().matches("stays in use").count(), 2, "{}", server.log());
    assert!(!server.log().contains(&alices));

    fs::write(&file, good.lines().next().unwrap()).unwrap();
    log_in_until(&server, "alice", &alices, "1 users may log in");
    wait_until("the new list is the one that counts", || {
        server.log().matches("1 users may log in").count() == 2 || !enters("alice", &alices)
    });
    assert!(!enters("bob", &bobs));
}

#[test]
fn what_is_no_file_of_users_delays_no_login() {
    let file = users_file("no file");
    let token = add(&file, "alice");
    let good = fs::read_to_string(&file).unwrap();
    let server = server(&file);
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    log_in_until(
        &server,
        "alice",
        &token,
        "users: not an ordinary file of at most 1048576 bytes; the last good",
    );
    fs::remove_file(&file).unwrap();
    // As some editors begin a file.
    add(&file, "bob");
    fs::write(&file, format!("\u{feff}{good}")).unwrap();
    log_in_until(&server, "alice", &token, "1 users may log in");
}

#[test]
fn who_is_no_user_any_more_is_disconnected_at_the_next_keepalive() {
    let file = users_file("removed");
    let names = ["alice", "bob", "carol", "dave"];
    let tokens = names.map(|name| add(&file, name));
    let timeouts = Timeouts { idle: Duration::from_millis(100), ..Timeouts::default() };
    let server = Local::start_with(timeouts, &["--users", file.to_str().unwrap()]);
    let mut clients = Vec::new();
    for (name, token) in names.iter().zip(&tokens) {
        let mut client = server.door.connect(Link::Tls);
        assert_eq!(log_in(&mut client, name, token)["success"], "1");
        clients.push(client);
    }
    let [mut alice, mut bob, mut carol, mut dave] =
        <[Client; 4]>::try_from(clients).ok().expect("four");
    dave.send_json(&message("offer", "dave", "alice", json!(1)));
    alice.receive_json();
    remove(&file, &["alice", "bob", "carol"]);
    add(&file, "carol"); // with another token, as after a loss
    // One is silent but for pongs, and one talks all the time.
    assert_eq!(alice.closed_with(), 1008);
    assert_eq!(carol.closed_with(), 1008);
    while bob.websocket.send(Message::text("{}")).is_ok() {
        if matches!(bob.websocket.read(), Ok(Message::Close(_)) | Err(_)) {
            break;
        }
    }
    assert_eq!(dave.receive_json()["signalType"], "leave");
    let own = message("candidate", "dave", "dave", json!(2));
    let start = Instant::now();
    while start.elapsed() < 3 * timeouts.idle {
        assert_eq!(dave.ask(&own), own); // who is still a user stays, also after the next check
    }
}

#[test]
fn wrong_logins_in_a_queue_do_not_hold_a_place_for_hours() {
    let file = users_file("queue");
    add(&file, "alice");
    let server = server(&file);
    let mut mallory = server.connect(Link::Plain);
    let login = json!({"signalType": "login", "fromUser": "alice", "token": "wrong"});
    for _ in 0..10 * LOGIN_TRIES {
        mallory.send_json(&login);
    }
    for _ in 0..LOGIN_TRIES {
        assert_eq!(outcome(&mallory.receive_json()), refused("unauthorized"));
    }
    assert_eq!(mallory.closed_with(), 1008);
    drop(mallory);
    let line = server.wait_for_log("too many failed logins, closed with 1008 (0 connections open)");
    assert!(line.contains("INFO"), "{line}"); // The operator is to see it.
}

#[test]
fn who_waits_with_a_login_still_hears_that_the_server_stops() {
    let file = users_file("stop");
    let token = add(&file, "alice");
    let login = json!({"signalType": "login", "fromUser": "alice", "token": token});
    wait_until("the server is asked to stop while a login waits", || {
        let server = server(&file);
        let mut alice = server.connect(Link::Plain);
        for _ in 0..LOGIN_TRIES {
            log_in(&mut alice, "alice", "wrong");
        }
        let mut alice = server.connect(Link::Plain);
        alice.send_json(&login);
        server.wait_for_log("2 connections open");
        server.signal("TERM");
        match alice.receive_message() {
            Message::Text(reply) => assert!(reply.contains(r#""success":"1""#), "{reply}"),
            // The server was asked before it had read the login.
            Message::Close(Some(frame)) if frame.code == CloseCode::Away => return false,
            other => panic!("{other:?}"),
        }
        assert_eq!(alice.closed_with(), 1001);
        true
    });
}

#[test]
fn too_many_wrong_tokens_make_an_address_wait_and_then_the_right_one_gets_in() {
    let file = users_file("wait");
    let (alices, bobs) = (add(&file, "alice"), add(&file, "bob"));
    let server = server(&file);
    let mut bob = server.connect(Link::Plain);
    log_in(&mut bob, "bob", &bobs);
    let mut alice = server.connect(Link::Plain);
    for _ in 0..LOGIN_TRIES {
        assert_eq!(outcome(&log_in(&mut alice, "alice", "wrong")), refused("unauthorized"));
    }
    assert_eq!(alice.closed_with(), 1008);
    let mut alice = server.connect(Link::Plain);
    let start = Instant::now();
    alice.send_json(&json!({"signalType": "login", "fromUser": "alice", "token": alices}));
    // Who is in already, from the same address, does not notice.
    let own = message("candidate", "bob", "bob", json!(1));
    assert_eq!(bob.ask(&own), own);
    assert!(start.elapsed() < LOGIN_DELAY);
    assert_eq!(alice.receive_json()["success"], "1");
    assert!(start.elapsed() >= LOGIN_DELAY);
}

#[test]
fn a_new_user_gets_a_line_on_stdout_and_a_token_and_link_on_stderr() {
    let (code, line, secret) = new_user("zoë & co: us", &["--url", "https://call.example.org/a/"]);
    assert_eq!(code, 0, "{secret}");
    let link = secret.lines().find(|line| line.contains("https://")).unwrap().trim();
    let (start, token) = link.split_once("&token=").unwrap();
    assert_eq!(start, "https://call.example.org/a/#user=zo%C3%AB%20%26%20co%3A%20us");
    assert!(token.len() == 43 && secret.contains(&format!("\n  {token}\n")), "{secret}");
    let hash = HEXLOWER.encode(&Sha256::digest(token));
    assert_eq!(line, format!("zoë & co: us:{hash}\n"));
    for name in ["a\nb", " a", "#a", "a\u{202e}b", &"x".repeat(129)] {
        let (code, line, said) = new_user(name, &[]);
        assert!(code == 1 && line.is_empty() && said.contains("is not a valid name"), "{said}");
    }
}

#[test]
fn a_users_file_that_cannot_be_used_is_explained_and_nobody_is_served() {
    let file = users_file("unusable");
    for (text, word) in [
        (None, "No such file"),
        (Some("alice\n"), "line 1 is not a name, a colon"),
        (Some(&*"x".repeat(MAX_FILE as usize + 1)), "of at most 1048576 bytes"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let (code, said) = run(&[options(), vec!["--users", file.to_str().unwrap()]].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(word) && !said.contains("listening"), "{said}");
    }
}
