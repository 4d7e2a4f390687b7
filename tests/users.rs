//! The users file, as its operator and the users meet it: through the program, over real sockets.

mod common;

use std::fs::Permissions;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Link, Local, Server, message, options, run, scratch};
use serde_json::{Value, json};
use signal_server::limits::{LOGIN_PAUSE, LOGIN_TRIES, MAX_FILE, Timeouts};

/// Runs `signal-server user …`, and returns its exit code and what it printed.
fn user(file: &Path, arguments: &[&str]) -> (i32, String) {
    run(&[&["user"], arguments, &["--users", file.to_str().unwrap()]].concat())
}

/// Adds a user, and returns the token from the line that it stands in alone.
fn add(file: &Path, name: &str) -> String {
    let (code, said) = user(file, &["add", name]);
    assert_eq!(code, 0, "{said}");
    let token = said.lines().find_map(|line| line.strip_prefix("  ")).unwrap();
    token.to_string()
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

#[test]
fn an_edit_counts_from_the_next_login_on_and_a_broken_one_changes_nothing() {
    let file = users_file("edited");
    let alices = add(&file, "alice");
    let server = server(&file);
    let enters = |name: &str, token: &str| {
        log_in(&mut server.connect(Link::Plain), name, token)["success"] == "1"
    };
    let bobs = add(&file, "bob");
    assert!(enters("bob", &bobs));

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}carol:{alices}\n")).unwrap();
    assert!(enters("alice", &alices) && enters("bob", &bobs));
    assert!(server.wait_for_log("the users stay as they were").contains("line 3 "));
    assert!(!enters("carol", &alices));
    fs::remove_file(&file).unwrap();
    assert!(enters("alice", &alices) && enters("bob", &bobs));
    server.wait_for_log("No such file");
    assert_eq!(server.log().matches("stay as they were").count(), 2, "{}", server.log());
    assert!(!server.log().contains(&alices));

    fs::write(&file, good.lines().next().unwrap()).unwrap();
    assert!(enters("alice", &alices) && !enters("bob", &bobs));
}

#[test]
fn what_is_no_file_of_users_holds_up_no_login() {
    let file = users_file("no file");
    let token = add(&file, "alice");
    let good = fs::read_to_string(&file).unwrap();
    let server = server(&file);
    let mut alice = server.connect(Link::Plain);
    let mut enters =
        || log_in(&mut alice, "alice", &token)["reason"].as_str() != Some("unauthorized");
    assert!(enters());
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(enters());
    server.wait_for_log("not an ordinary file; until that is mended");
    fs::remove_file(&file).unwrap();
    File::create(&file).unwrap().set_len(MAX_FILE + 1).unwrap();
    assert!(enters());
    server.wait_for_log("larger than 1048576 bytes; until that is mended");
    // As some editors begin a file.
    fs::write(&file, format!("\u{feff}{good}")).unwrap();
    assert!(enters());
    assert_eq!(user(&file, &["list"]), (0, "alice\n".into()));
    assert_eq!(user(&file, &["remove", "alice"]).0, 0);
    assert!(!enters());
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
    for name in ["alice", "bob", "carol"] {
        assert_eq!(user(&file, &["remove", name]).0, 0);
    }
    add(&file, "carol"); // with another token, as after a loss
    // One is silent but for pongs, and one talks all the time.
    assert_eq!(alice.closed_with(), 1008);
    assert_eq!(carol.closed_with(), 1008);
    while bob.websocket.send(tungstenite::Message::text("{}")).is_ok() {
        if matches!(bob.websocket.read(), Ok(tungstenite::Message::Close(_)) | Err(_)) {
            break;
        }
    }
    assert_eq!(dave.receive_json()["signalType"], "leave");
    let own = message("candidate", "dave", "dave", json!(2));
    assert_eq!(dave.ask(&own), own); // who is still a user stays
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
    let line = server.wait_for_log("too many wrong logins, closed with 1008 (0 connections open)");
    assert!(line.contains("INFO"), "{line}"); // The operator is to see it.
}

#[test]
fn who_waits_with_a_login_still_hears_that_the_server_stops() {
    let file = users_file("stop");
    let token = add(&file, "alice");
    let server = server(&file);
    let mut alice = server.connect(Link::Plain);
    for _ in 0..LOGIN_TRIES {
        log_in(&mut alice, "alice", "wrong");
    }
    let mut alice = server.connect(Link::Plain);
    alice.send_json(&json!({"signalType": "login", "fromUser": "alice", "token": token}));
    server.wait_for_log("2 connections open");
    server.signal("TERM");
    assert_eq!(alice.receive_json()["success"], "1");
    assert_eq!(alice.closed_with(), 1001);
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
    assert!(start.elapsed() < LOGIN_PAUSE);
    assert_eq!(alice.receive_json()["success"], "1");
    assert!(start.elapsed() >= LOGIN_PAUSE);
}

#[test]
fn the_user_command_adds_lists_and_removes() {
    let file = users_file("commands");
    let (code, said) = user(&file, &["add", "zoë & co", "--url", "https://call.example.org/a/"]);
    assert_eq!(code, 0, "{said}");
    let link = said.lines().find(|line| line.contains("https://")).unwrap().trim();
    let (start, token) = link.split_once("&token=").unwrap();
    assert_eq!(start, "https://call.example.org/a/#user=zo%C3%AB%20%26%20co");
    assert!(token.len() == 43 && said.contains(&format!("\n  {token}\n")), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Who made it readable for the server's group finds it so after the next change.
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let other_group = chown(&file, None, Some(1)).is_ok(); // if we may
    add(&file, "al:ice");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    assert!(!other_group || metadata.gid() == 1);
    let before = fs::read_to_string(&file).unwrap();
    for (arguments, word) in [
        (&["add", "al:ice"][..], "is in"),
        (&["remove", "carol"], "is not in"),
        (&["add", "a\nb"], "can't be a user's name"),
        (&["add", "#a"], "can't be a user's name"),
    ] {
        let (code, said) = user(&file, arguments);
        assert!(code == 1 && said.contains(word) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(user(&file, &["list"]), (0, "al:ice\nzoë & co\n".into()));
    assert_eq!(user(&file, &["remove", "zoë & co"]).0, 0);
    assert_eq!(user(&file, &["list"]), (0, "al:ice\n".into()));
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "something was left");
    for arguments in [&[][..], &["add"], &["list", "x"], &["rename", "a"], &["add", "a", "--x"]] {
        assert_eq!(user(&file, arguments).0, 2, "{arguments:?}");
    }
    assert_eq!(user(&file, &["add", "x", "--url", "call.example.org"]).0, 2);
}

#[test]
fn users_added_at_the_same_time_are_all_there() {
    let file = users_file("at once");
    let names: Vec<String> = (0..8).map(|number| format!("user {number}")).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| add(&file, name));
        }
    });
    assert_eq!(user(&file, &["list"]), (0, names.join("\n") + "\n"));
}

#[test]
fn an_interrupted_change_is_in_the_way_and_says_how_to_go_on() {
    let file = users_file("interrupted");
    let draft = file.with_file_name("users.new");
    fs::write(&draft, "").unwrap();
    let (code, said) = user(&file, &["add", "alice"]);
    assert!(code == 1 && said.contains("users.new") && said.contains("remove that file"), "{said}");
    fs::remove_file(&draft).unwrap();
    add(&file, "alice");
}

#[test]
fn a_users_file_that_cannot_be_used_is_explained_and_nobody_is_served() {
    let file = users_file("unusable");
    for (text, word) in [(None, "No such file"), (Some("alice\n"), "line 1 is not a name, a colon")]
    {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let (code, said) = run(&[options(), vec!["--users", file.to_str().unwrap()]].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(word) && !said.contains("listening"), "{said}");
        assert_eq!(user(&file, &["list"]).0, 1);
    }
    assert_eq!(user(&file, &["add", "bob"]).0, 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "alice\n");
}
