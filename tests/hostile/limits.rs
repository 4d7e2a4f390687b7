//! Clients that reach and exceed their limits: messages a second, calls, sizes, time. The honest pair
//! stays below its limits.

use std::fs::{self, DirEntry};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, Link, PATIENCE, Server, Stream, message, secure, wait_until};
use crate::scene::{
    HOSTILE, Pair, Scene, Usage, connect_from, frame, throw, upgrade, wait_until_closed,
};
use serde_json::json;
use signal_server::limits::Limits;
use tungstenite::Message;

crate::over_plain_and_tls! {
    messages_over_the_rate_are_slowed_and_all_arrive
    a_message_is_charged_for_its_parts
    the_33rd_call_is_refused_until_one_ends
    being_called_by_many_does_not_use_up_ones_own_calls
    calls_that_are_hung_up_at_once_do_not_use_up_ones_calls
    a_message_over_the_chosen_size_closes_with_1009
    without_a_chosen_size_a_header_cannot_ask_for_all_memory
}

const RATE: [&str; 2] = ["--max-rate", "50"];

fn messages_over_the_rate_are_slowed_and_all_arrive(link: Link) {
    const SENT: usize = 230;
    let scene = Scene::with(link, &RATE);
    let (mut alice, mut bob) = (scene.login("alice"), scene.login("bob"));
    let start = Instant::now();
    let sent: Vec<u8> = (0..SENT)
        .flat_map(|number| {
            let text = message("candidate", "alice", "bob", json!(number)).to_string();
            frame(0x81, text.as_bytes())
        })
        .collect();
    throw(&mut alice, &sent);
    for number in 0..SENT {
        assert_eq!(bob.receive_json()["payload"], number);
    }
    // 200 and the login are a burst; the others come at 50 a second.
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
    bob.heard_nothing_from(&mut scene.login("carol"), "carol", "bob");
    alice.send_json(&json!({"signalType": "mark"}));
    assert_eq!(alice.receive_json()["signalType"], "mark", "there was an error before it");
}

fn a_message_is_charged_for_its_parts(link: Link) {
    let server = Server::start_with(&["--max-rate", "10"]); // 40 at once
    let mut alice = server.login(link, "alice");
    let start = Instant::now();
    let long = message("candidate", "alice", "alice", json!("x".repeat(60_000)));
    for _ in 0..4 {
        assert_eq!(alice.ask(&long), long); // at least 15 parts each
    }
    assert!(start.elapsed() > Duration::from_millis(1000), "{:?}", start.elapsed());
}

/// The first bytes of a TLS record that holds a ClientHello of 512 bytes.
const HALF_A_HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[test]
fn a_slow_start_is_over_after_10_s_at_every_stage() {
    let scene = Scene::set(Link::Plain);
    let whole = upgrade("");
    let heads = ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", &whole[..whole.len() - 1]];
    let mut slow: Vec<Box<dyn Stream>> = Vec::new();
    for _ in 0..8 {
        for link in [Link::Plain, Link::Tls] {
            for head in heads {
                let socket = connect_from(HOSTILE, scene.server.address(link));
                let mut stream = secure(socket, link).unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                slow.push(stream);
            }
        }
        for hello in [&HALF_A_HELLO[..0], &HALF_A_HELLO[..1], &HALF_A_HELLO] {
            let mut socket = connect_from(HOSTILE, scene.server.address(Link::Tls));
            socket.write_all(hello).unwrap();
            slow.push(Box::new(socket));
        }
    }
    scene.goes_on();
    for stream in &mut slow {
        wait_until_closed(stream);
    }
}

#[test]
fn floods_are_read_no_faster_than_the_rate_and_disturb_nobody() {
    // High enough for what the kernel holds of each to be handled within the test.
    let scene = Scene::with(Link::Plain, &["--max-rate", "2000"]);
    let json = json!({"signalType": "candidate", "fromUser": "x", "toUser": "y"}).to_string();
    let floods = [
        frame(0x81, json.as_bytes()), // messages
        frame(0x81, b""),             // messages without a byte
        frame(0x89, b"ping"),
        frame(0x8a, b"pong that nobody asked for"),
    ];
    thread::scope(|scope| {
        for (number, frame) in floods.iter().enumerate() {
            let mut client = scene.login(&format!("flood {number}"));
            let mut writer = client.socket.try_clone().unwrap();
            let bytes = frame.repeat(20_000);
            let ended = Arc::new(AtomicBool::new(false));
            let is_over = ended.clone();
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match client.websocket.read() {
                        Ok(Message::Close(frame)) => panic!("{frame:?}"),
                        Ok(Message::Text(text)) => assert!(text.contains("\"code\""), "{text}"),
                        Ok(_) => {}
                        Err(_) => return, // It is killed below.
                    }
                }
            });
            scope.spawn(move || {
                // It can send until all buffers are full, and then no faster than it is read.
                writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
                let deadline = Instant::now() + PATIENCE;
                while writer.write_all(&bytes).is_ok() {
                    assert!(Instant::now() < deadline, "the server reads all of it");
                }
                ended.store(true, Ordering::Relaxed);
                // With a reset: or this side's network stack would go on sending.
                socket2::SockRef::from(&writer).set_linger(Some(Duration::ZERO)).unwrap();
                writer.shutdown(std::net::Shutdown::Read).unwrap();
            });
        }
        scene.goes_on();
    });
}

/// How often the server's threads have waited for something.
fn waits(server: &Server) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let status =
        |task: io::Result<DirEntry>| fs::read_to_string(task.unwrap().path().join("status"));
    tasks
        .filter_map(|task| status(task).ok())
        .map(|status| -> usize {
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse().unwrap()
        })
        .sum()
}

#[test]
fn a_message_does_not_wake_those_who_want_its_recipients_name() {
    const MESSAGES: usize = 500;
    let server = Server::start();
    let mut mallory = server.login(Link::Plain, "mallory"); // does not answer pings
    let others: Vec<Client> = (0..60)
        .map(|_| {
            let mut other = server.connect(Link::Plain);
            other.send_json(&json!({"signalType": "login", "fromUser": "mallory"}));
            other
        })
        .collect();
    let mut alice = server.login(Link::Plain, "alice");
    assert!(matches!(mallory.websocket.get_mut().read(&mut [0; 64]), Ok(1..)), "a ping");
    let before = waits(&server);
    for number in 0..MESSAGES {
        alice.send_json(&message("candidate", "alice", "mallory", json!(number)));
        alice.ask(&message("candidate", "alice", "alice", json!("mark")));
    }
    let waits = waits(&server) - before;
    assert!(waits < MESSAGES * 6, "{waits}");
    drop(others);
}

fn the_33rd_call_is_refused_until_one_ends(link: Link) {
    let scene = Scene::set(link);
    let mut alice = scene.login("alice");
    let mut callees: Vec<Client> =
        (0..34).map(|number| scene.login(&format!("callee {number}"))).collect();
    let mut calls = |alice: &mut Client, number: usize| {
        let to = format!("callee {number}");
        alice.send_json(&message("offer", "alice", &to, json!("ring")));
        alice.send_json(&json!({"signalType": "mark"}));
        let refused = alice.receive_json();
        if refused["signalType"] == "mark" {
            assert_eq!(callees[number].receive_json()["payload"], "ring");
            return true;
        }
        assert_eq!((&refused["code"], &refused["toUser"]), (&json!("too-many-calls"), &json!(to)));
        assert_eq!(alice.receive_json()["signalType"], "mark");
        false
    };
    for number in 0..32 {
        assert!(calls(&mut alice, number), "{number}");
    }
    assert!(!calls(&mut alice, 32));
    assert!(calls(&mut alice, 7), "an offer to a partner is no new call");
    // A call that either of the two ends makes room for another.
    alice.send_json(&message("leave", "alice", "callee 3", json!(0)));
    assert!(calls(&mut alice, 32));
    assert!(!calls(&mut alice, 33));
    callees[5].send_json(&message("leave", "callee 5", "alice", json!(0)));
    assert_eq!(alice.receive_json()["signalType"], "leave");
    let mut calls_33 = message("offer", "alice", "callee 33", json!("ring"));
    alice.send_json(&calls_33);
    assert_eq!(callees[33].receive_json(), calls_33);
    // So does one whose callee is gone.
    callees.remove(9).kill();
    assert_eq!(alice.receive_json()["fromUser"], "callee 9");
    calls_33["toUser"] = json!("callee 5");
    alice.send_json(&calls_33);
    assert_eq!(callees[5].receive_json(), calls_33);
    calls_33["toUser"] = json!("callee 3");
    assert_eq!(alice.ask(&calls_33)["code"], "too-many-calls");
}

fn being_called_by_many_does_not_use_up_ones_own_calls(link: Link) {
    let scene = Scene::with(link, &["--max-calls", "2"]);
    let mut alice = scene.login("alice");
    let _callers: Vec<Client> = (0..50)
        .map(|number| {
            let name = format!("caller {number}");
            let mut caller = scene.login(&name);
            caller.send_json(&message("offer", &name, "alice", json!(1)));
            assert_eq!(alice.receive_json()["fromUser"], name);
            caller
        })
        .collect();
    // Two calls are her own: it does not matter whether she makes or answers them.
    let mut friend = scene.login("friend");
    let offer = message("offer", "alice", "friend", json!(2));
    alice.send_json(&offer);
    assert_eq!(friend.receive_json(), offer);
    alice.send_json(&message("answer", "alice", "caller 7", json!(2)));
    for (kind, to) in [("answer", "caller 8"), ("offer", "honest 1")] {
        assert_eq!(alice.ask(&message(kind, "alice", to, json!(3)))["code"], "too-many-calls");
    }
}

/// A callee whose program hangs up by itself, at once: the call is over, and counts no more.
fn calls_that_are_hung_up_at_once_do_not_use_up_ones_calls(link: Link) {
    let scene = Scene::with(link, &["--max-calls", "1"]);
    let (mut alice, mut busy) = (scene.login("alice"), scene.login("busy"));
    for number in 0..200 {
        let name = format!("busy {number}");
        assert_eq!(busy.log_in(&name)["success"], "1");
        alice.send_json(&message("offer", "alice", &name, json!(number)));
        let leave = message("leave", &name, "alice", json!(number)).to_string();
        assert_eq!(busy.receive_json()["payload"], number);
        busy.send(&leave);
        assert_eq!(alice.receive_json()["signalType"], "leave", "{number}");
    }
}

fn without_a_chosen_size_a_header_cannot_ask_for_all_memory(link: Link) {
    let server = Server::start_with(&["--max-message", "0"]);
    for length in [64 * 1024 * 1024 + 1, 1 << 40, 1 << 62_u64] {
        let mut client = server.connect(link);
        let header = [&[0x81, 0x80 | 127][..], &u64::to_be_bytes(length), &[0; 4]].concat();
        throw(&mut client, &header);
        assert_eq!(client.closed_with(), 1009);
    }
    let mut alice = server.login(link, "alice");
    let long = message("candidate", "alice", "alice", json!("x".repeat(2_000_000)));
    assert_eq!(alice.ask(&long), long);
}

fn a_message_over_the_chosen_size_closes_with_1009(link: Link) {
    for (limit, length) in [("1000", 1000), ("1000000", 1_000_000)] {
        let scene = Scene::with(link, &["--max-message", limit]);
        let mut alice = scene.login("alice");
        let empty = message("candidate", "alice", "alice", json!("")).to_string().len();
        let text = message("candidate", "alice", "alice", json!("x".repeat(length - empty)));
        assert_eq!(alice.ask(&text), text);
        alice.websocket.send(Message::text(format!("{text} "))).unwrap();
        assert_eq!(alice.closed_with(), 1009);
    }
}

/// 200 recipients stall at once, with the default send timeout: threads and memory stay within
/// their bounds, and every partner gets `leave`.
#[test]
fn two_hundred_recipients_that_take_nothing_are_disconnected_after_10_s() {
    const SENDERS: usize = 10;
    const EACH: usize = 20;
    // (No scene: 400 threads leave more behind in the allocator than it allows.)
    let server = Server::start_with(&["--max-connections", "220", "--max-per-ip", "0"]);
    let mut pair = Pair::start(&server, Link::Plain, "127.0.0.1", ["honest 1", "honest 2"]);
    pair.goes_on();
    let before = Usage::of(server.pid());
    let login = |name: &str| server.login(Link::Plain, name);
    let stalled: Vec<Client> =
        (0..SENDERS * EACH).map(|number| login(&format!("stalled {number}"))).collect();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let mut client = login(&format!("sender {sender}"));
            scope.spawn(move || {
                let from = format!("sender {sender}");
                let names = (0..EACH).map(|number| format!("stalled {}", sender * EACH + number));
                let offers: Vec<String> = names
                    .map(|to| message("offer", &from, &to, json!("x".repeat(60_000))).to_string())
                    .collect();
                // As long as there is something left to send, until all of them are gone. Their
                // network stacks may take a little more after the first seconds.
                let (mut leaves, deadline) = (0, Instant::now() + 3 * PATIENCE);
                while leaves < EACH {
                    assert!(Instant::now() < deadline, "{leaves} of {EACH} are disconnected");
                    thread::sleep(Duration::from_millis(500)); // not as fast as possible
                    offers.iter().for_each(|offer| client.send(offer));
                    client.send_json(&json!({"signalType": "mark"}));
                    loop {
                        let heard = client.receive_json();
                        match heard["signalType"].as_str() {
                            Some("mark") => break,
                            Some("leave") => leaves += 1,
                            _ => assert!(heard["code"].is_string(), "{heard}"),
                        }
                    }
                }
            });
        }
        pair.goes_on();
        let usage = Usage::of(server.pid());
        assert!(usage.threads <= 2 * 220 + 5, "{usage:?}");
    });
    let limits = Limits { max_connections: 220, ..Limits::default() };
    let peak = Usage::of(server.pid()).peak * 1024;
    assert!(peak <= limits.worst_case().unwrap(), "{peak} bytes");
    drop(stalled);
    wait_until("threads are given back", || Usage::of(server.pid()).threads == before.threads);
    pair.goes_on();
    pair.stop();
}
