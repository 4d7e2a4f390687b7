//! Sending to slow, stalled and dead clients, and probing them: no other client waits for them.
//!
//! Where an event must not wait for a timeout, the test sets that timeout to an hour. A server that
//! waits for it then fails the test on any machine, fast or slow.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, Door, Link, Local, PATIENCE, Server, big, message, wait_until};
use serde_json::json;
use signal_server::limits::Timeouts;
use tungstenite::{Error, Message};

crate::over_plain_and_tls! {
    a_recipient_that_never_reads_is_refused_messages_and_stays
    a_recipient_that_takes_nothing_is_disconnected_and_its_partners_told
    a_slow_reader_stays_and_has_all_in_order
    twelve_stalled_recipients_do_not_delay_a_sender
    a_user_with_twelve_stalled_partners_has_the_name_again_at_once
    a_slow_reader_delays_nobody
    a_recipient_that_comes_back_has_all_that_was_not_refused
    a_leave_that_is_refused_leaves_the_call_standing
    a_short_leave_finds_room_where_other_messages_do_not
    a_client_that_floods_and_reads_nothing_waits_for_itself
    a_stalled_holder_loses_its_name
    many_who_want_a_name_wake_its_holder_ten_times_a_second
    two_who_want_each_others_names_are_told_soon
    who_closes_and_logs_in_again_at_once_has_the_name
    half_a_frame_holds_up_nobody
}

const HOUR: Duration = Duration::from_secs(3600);

fn a_recipient_that_never_reads_is_refused_messages_and_stays(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    let accepted = send_until_unreachable(&mut alice, "alice", "bob");
    for _ in 0..accepted {
        assert_eq!(bob.receive_json()["fromUser"], "alice");
    }
    bob.heard_nothing_from(&mut alice, "alice", "bob");
}

fn a_recipient_that_takes_nothing_is_disconnected_and_its_partners_told(link: Link) {
    let server = with_stall_timeout(Duration::from_millis(200));
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
    // As long as there is something left to send to him: his network stack may take a lot.
    wait_until("alice is told", || {
        alice.send(&big("alice", "bob"));
        alice.send_json(&json!({"signalType": "mark"}));
        loop {
            let answer = alice.receive_json();
            if answer["signalType"] == "leave" {
                return true;
            }
            if answer["signalType"] == "mark" {
                return false;
            }
            // `user-not-found` comes if Bob has just been disconnected.
            let code = answer["code"].as_str();
            assert!(matches!(code, Some("user-unreachable" | "user-not-found")), "{answer}");
        }
    });
    wait_until("the name is free", || {
        alice.ask(&message("offer", "alice", "bob", json!(1)))["code"] == "user-not-found"
    });
}

fn a_slow_reader_stays_and_has_all_in_order(link: Link) {
    let stall = Duration::from_secs(2);
    let server = with_stall_timeout(stall);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                let payload = json!([number, "x".repeat(60_000)]);
                alice.send_json(&message("candidate", "alice", "bob", payload));
                let answer = alice.ask(&json!({"signalType": "mark"}));
                if answer["signalType"] != "mark" {
                    assert_eq!(answer["code"], "user-unreachable");
                    alice.receive_json();
                    std::thread::sleep(Duration::from_millis(10)); // he is slow
                }
                if done.load(Ordering::Relaxed) {
                    return alice.send_json(&message("candidate", "alice", "bob", json!(["end"])));
                }
            }
        });
        let (mut last, start) = (None, Instant::now());
        while start.elapsed() < stall * 3 / 2 {
            let number = bob.receive_json()["payload"][0].as_u64();
            assert!(number > last, "{number:?} after {last:?}");
            last = number;
            std::thread::sleep(stall / 20); // this is what makes him slow
        }
        done.store(true, Ordering::Relaxed);
        wait_until("the rest is there", || {
            let number = bob.receive_json()["payload"][0].as_u64();
            assert!(number.is_none() || number > last, "{number:?} after {last:?}");
            last = number;
            number.is_none()
        });
    });
}

fn twelve_stalled_recipients_do_not_delay_a_sender(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    let stalled = twelve_stalled_partners(&server, link, &mut alice, "alice");
    for number in 0..100 {
        for stalled in 0..stalled.len() {
            alice.send(&big("alice", &format!("stalled {stalled}")));
        }
        alice.send_json(&message("candidate", "alice", "bob", json!(number)));
        assert_eq!(bob.receive_json()["payload"], number);
        alice.send_json(&json!({"signalType": "mark"}));
        wait_until("all is answered", || alice.receive_json()["signalType"] == "mark");
    }
    check_that_others_can_talk(&server.door, link);
    stalled.into_iter().for_each(Client::kill); // or the server waits an hour for them
}

fn a_user_with_twelve_stalled_partners_has_the_name_again_at_once(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let stalled = twelve_stalled_partners(&server, link, &mut alice, "alice");
    for _ in 0..20 {
        alice.websocket.close(None).unwrap();
        let _ = alice.websocket.flush();
        alice = server.door.login(link, "alice");
    }
    stalled.into_iter().for_each(Client::kill);
}

/// A recipient that reads large portions with long pauses. In an earlier version, every client that
/// sent to such a recipient had to wait.
fn a_slow_reader_delays_nobody(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let slow = server.door.login(link, "slow");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut part = vec![0; 96 * 1024];
            while !done.load(Ordering::Relaxed) {
                assert!((&slow.socket).read(&mut part).unwrap() > 0);
                std::thread::sleep(Duration::from_millis(850)); // this is the slow reader
            }
        });
        for _ in 0..3 {
            send_until_unreachable(&mut alice, "alice", "slow");
        }
        check_that_others_can_talk(&server.door, link);
        done.store(true, Ordering::Relaxed);
    });
}

fn a_recipient_that_comes_back_has_all_that_was_not_refused(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    let mut expected = Vec::new();
    for number in 0..200 {
        // Of all lengths, so that some fit where others do not.
        let payload = json!([number, "x".repeat(number * 7919 % 30_000)]);
        let sent = message("candidate", "alice", "bob", payload).to_string();
        alice.send(&sent);
        let answer = alice.ask(&json!({"signalType": "?"}));
        match answer["code"].as_str().unwrap() {
            "user-unreachable" => assert_eq!(alice.receive_json()["code"], "unknown-command"),
            _ => expected.push(sent),
        }
    }
    assert!((10..200).contains(&expected.len()), "{}", expected.len());
    for sent in expected {
        assert_eq!(bob.receive(), sent);
    }
    bob.heard_nothing_from(&mut alice, "alice", "bob");
}

/// If a `leave` is refused because the recipient's write buffer is full, the two stay partners: the
/// recipient gets a `leave` when the sender disconnects.
fn a_leave_that_is_refused_leaves_the_call_standing(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    wait_until("a leave is refused", || {
        send_until_unreachable(&mut alice, "alice", "bob");
        // As large as what was refused. The network may have taken something meanwhile.
        let leave = big("alice", "bob").replacen("candidate", "leave", 1);
        alice.send(&leave);
        let answer = alice.ask(&json!({"signalType": "mark"}));
        if answer["signalType"] == "mark" {
            alice.send_json(&message("offer", "alice", "bob", json!(1)));
            return false;
        }
        assert_eq!(answer["code"], "user-unreachable");
        true
    });
    alice.kill();
    let expected =
        json!({"msgType": "other", "signalType": "leave", "fromUser": "alice", "toUser": "bob"});
    wait_until("bob is told", || bob.receive_json() == expected);
}

/// A part of the write buffer is reserved for the ends of calls.
fn a_short_leave_finds_room_where_other_messages_do_not(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    send_until_unreachable(&mut alice, "alice", "bob");
    let leave = message("leave", "alice", "bob", json!("x".repeat(60)));
    let question = json!({"signalType": "?"});
    let refused = |alice: &mut Client, message: &serde_json::Value| {
        alice.send_json(message);
        let is_refused = alice.ask(&question)["code"] == "user-unreachable";
        if is_refused {
            assert_eq!(alice.receive_json()["code"], "unknown-command");
        }
        is_refused
    };
    for length in [6000, 600, 50] {
        let candidate = message("candidate", "alice", "bob", json!("x".repeat(length)));
        wait_until("no candidate finds room", || refused(&mut alice, &candidate));
    }
    assert!(!refused(&mut alice, &leave));
    wait_until("bob has it", || bob.receive_json() == leave);
}

/// The server stops reading from a client that does not read its own replies. Nobody else waits.
fn a_client_that_floods_and_reads_nothing_waits_for_itself(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let text = big("alice", "alice");
    alice.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut sent = 0;
    loop {
        match alice.websocket.send(Message::text(json!({"signalType": text}).to_string())) {
            Ok(()) => sent += 1,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 100, "the server reads on, and keeps the answers somewhere");
    }
    check_that_others_can_talk(&server.door, link);
    alice.kill();
}

fn a_stalled_holder_loses_its_name(link: Link) {
    let server = with_stall_timeout(HOUR);
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    send_until_unreachable(&mut alice, "alice", "bob");
    // As long as the network takes bytes for him, he may be alive.
    let mut next = server.door.connect(link);
    wait_until("the name is free", || next.log_in("bob")["success"] == "1");
    drop(bob);
}

/// Many logins for one name share the pings to its holder, because each pong counts towards the
/// holder's message rate.
fn many_who_want_a_name_wake_its_holder_ten_times_a_second(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut pings = 0;
            loop {
                match alice.websocket.read().unwrap() {
                    Message::Ping(_) => pings += 1,
                    Message::Text(_) => return pings,
                    other => panic!("{other:?}"),
                }
            }
        });
        let wanting: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect(link);
                    for _ in 0..5 {
                        assert_eq!(client.log_in("alice")["reason"], "name-taken");
                    }
                })
            })
            .collect();
        wanting.into_iter().for_each(|client| client.join().unwrap());
        let mut bob = server.login(link, "bob");
        bob.send_json(&message("candidate", "bob", "alice", json!("enough")));
        let most = 10 * (start.elapsed().as_secs() + 1);
        assert!((1..=most).contains(&pings.join().unwrap()));
    });
}

/// The server's thread for each user probes the other user, and does not see its own client's pong
/// meanwhile. Both logins must be refused without waiting for the probe's timeout.
fn two_who_want_each_others_names_are_told_soon(link: Link) {
    let server = Local::start(Timeouts { probe: HOUR, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    for _ in 0..5 {
        let login = |name: &str| json!({"signalType": "login", "fromUser": name});
        alice.send_json(&login("bob"));
        bob.send_json(&login("alice"));
        // Both go on reading, and so answer each other's pings, until both have been told.
        let told = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in [&mut alice, &mut bob] {
                scope.spawn(|| {
                    assert_eq!(client.receive_json()["reason"], "name-taken");
                    told.fetch_add(1, Ordering::Relaxed);
                    client.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                    wait_until("both are told", || {
                        let _ = client.websocket.read();
                        told.load(Ordering::Relaxed) == 2
                    });
                    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
                });
            }
        });
    }
}

/// A page that is loaded again: its new connection may be faster than the old one's close.
fn who_closes_and_logs_in_again_at_once_has_the_name(link: Link) {
    let server = Server::start();
    for round in 0..100 {
        let mut former = server.login(link, "alice");
        let mut next = server.connect(link);
        match round % 4 {
            0 => former.websocket.close(None).unwrap(),
            1 => former.socket.shutdown(std::net::Shutdown::Write).unwrap(),
            2 => former.socket.shutdown(std::net::Shutdown::Both).unwrap(),
            _ => {
                // Its last messages are on their way when the new connection asks for the name.
                former.send_json(&message("leave", "alice", "bob", json!(1)));
                former.websocket.close(None).unwrap();
            }
        }
        assert_eq!(next.log_in("alice")["success"], "1", "round {round}");
    }
}

/// Sends to `to` until the server tells that `to` takes data too slowly. Returns how many messages
/// were accepted before that.
fn send_until_unreachable(sender: &mut Client, from: &str, to: &str) -> usize {
    let text = big(from, to);
    let deadline = Instant::now() + PATIENCE;
    for accepted in 0.. {
        assert!(Instant::now() < deadline, "{to} was never unreachable");
        sender.send(&text);
        // A question in between, whose answer comes after that of the message before it.
        let answer = sender.ask(&json!({"signalType": "?"}));
        if answer["code"] == "user-unreachable" {
            assert_eq!(
                (&answer["signalType"], &answer["toUser"]),
                (&json!("candidate"), &json!(to))
            );
            assert_eq!(sender.receive_json()["code"], "unknown-command");
            return accepted;
        }
        assert_eq!(answer["code"], "unknown-command");
    }
    unreachable!()
}

/// A server on which a recipient may take nothing for this long.
fn with_stall_timeout(stall: Duration) -> Local {
    Local::start(Timeouts { stall, ..Timeouts::default() })
}

/// Logs in twelve users who read nothing, fills what the server keeps for them, and makes them
/// partners of `name`.
fn twelve_stalled_partners(
    server: &Local,
    link: Link,
    user: &mut Client,
    name: &str,
) -> Vec<Client> {
    (0..12)
        .map(|number| {
            let to = format!("stalled {number}");
            let stalled = server.door.login(link, &to);
            user.send_json(&message("offer", name, &to, json!(1)));
            send_until_unreachable(user, name, &to);
            stalled
        })
        .collect()
}

fn check_that_others_can_talk(door: &Door, link: Link) {
    let (mut carol, mut dave) = (door.login(link, "carol"), door.login(link, "dave"));
    for number in 0..100 {
        carol.send_json(&message("offer", "carol", "dave", json!(number)));
        assert_eq!(dave.receive_json()["payload"], number);
        dave.send_json(&message("answer", "dave", "carol", json!(number)));
        assert_eq!(carol.receive_json()["payload"], number);
    }
}

fn half_a_frame_holds_up_nobody(link: Link) {
    let hour = Timeouts { idle: HOUR, pong: HOUR, stall: HOUR, ..Timeouts::default() };
    let server = Local::start(hour);
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    // A masked text frame of 100 bytes, of which 3 come.
    bob.websocket.get_mut().write_all(&[0x81, 0x80 | 100, 1, 2, 3, 4, b'{', b'"', b's']).unwrap();
    // Not even messages to that very client wait for the rest of it.
    for number in 0..100 {
        alice.send_json(&message("offer", "alice", "bob", json!(number)));
        assert_eq!(bob.receive_json()["payload"], number);
    }
    check_that_others_can_talk(&server.door, link);
}
