//! Clients that are slow, silent, stalled or gone: who waits for whom, and for how long at most.
//!
//! Where one thing must not wait for another, that other is made to last for an hour: the test then
//! fails on any machine, fast or slow, if it does.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Door, Link, Local, PATIENCE, Server, big, message, read_to_end, wait_until};
use serde_json::json;
use signal_server::limits::Timeouts;
use tungstenite::{Error, Message};

over_plain_and_tls! {
    a_recipient_that_never_reads_is_disconnected_and_the_sender_told
    a_recipient_that_drips_is_disconnected_and_the_sender_told
    a_stalled_recipient_delays_nobody_but_its_sender
    half_a_frame_holds_up_nobody
    a_stalled_holder_loses_its_name
    many_who_want_a_name_wake_its_holder_once_a_second
    an_idle_client_is_pinged_and_stays_if_it_answers
    a_silent_client_is_disconnected_and_its_partner_told
    a_client_that_drips_bytes_is_alive
    a_handshake_has_a_deadline_over_all_its_reads
    who_does_not_answer_a_close_is_disconnected
    a_stopping_server_closes_with_1001
    a_client_whose_process_is_killed_is_heard_by_its_partner
}

/// Else they could use up the holder's message rate, and it would be the one to be disconnected.
fn many_who_want_a_name_wake_its_holder_once_a_second(link: Link) {
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
        for _ in 0..4 {
            let mut client = server.connect(link);
            for _ in 0..10 {
                assert_eq!(client.log_in("alice")["reason"], "name-taken");
            }
        }
        let mut bob = server.login(link, "bob");
        bob.send_json(&message("candidate", "bob", "alice", json!("enough")));
        let most = start.elapsed().as_secs() + 1;
        assert!((1..=most).contains(&pings.join().unwrap()));
    });
}

const HOUR: Duration = Duration::from_secs(3600);

/// Sends to `to` until the server tells that `to` takes no data.
fn send_until_unreachable(sender: &mut Client, from: &str, to: &str) {
    let text = big(from, to);
    let deadline = Instant::now() + PATIENCE;
    loop {
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
            return;
        }
        assert_eq!(answer["code"], "unknown-command");
    }
}

/// For those who take nothing, or too little. The default is a second.
fn with_a_short_write_timeout() -> Local {
    Local::start(Timeouts { write: Duration::from_millis(200), ..Timeouts::default() })
}

fn a_recipient_that_never_reads_is_disconnected_and_the_sender_told(link: Link) {
    let server = with_a_short_write_timeout();
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    send_until_unreachable(&mut alice, "alice", "bob");
    wait_until("the name is free", || {
        alice.ask(&message("offer", "alice", "bob", json!(1)))["code"] == "user-not-found"
    });
    drop(bob);
}

fn a_recipient_that_drips_is_disconnected_and_the_sender_told(link: Link) {
    let server = with_a_short_write_timeout();
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            let deadline = Instant::now() + PATIENCE;
            while !done.load(Ordering::Relaxed) && matches!((&bob.socket).read(&mut byte), Ok(1)) {
                assert!(Instant::now() < deadline, "still connected");
                std::thread::sleep(Duration::from_millis(20)); // this is the drip
            }
        });
        send_until_unreachable(&mut alice, "alice", "bob");
        done.store(true, Ordering::Relaxed);
    });
}

fn a_stalled_recipient_delays_nobody_but_its_sender(link: Link) {
    let server = Local::start(Timeouts { write: HOUR, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    send_until_stuck(&mut alice, &big("alice", "bob"));
    check_that_others_can_talk(&server.door, link);
    bob.kill(); // frees alice's thread
}

/// Sends until nothing can be sent any more, since the server no longer reads.
fn send_until_stuck(sender: &mut Client, text: &str) {
    sender.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    loop {
        match sender.websocket.send(Message::text(text)) {
            Ok(()) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
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
    let hour = Timeouts { idle: HOUR, pong: HOUR, write: HOUR, ..Timeouts::default() };
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

fn a_stalled_holder_loses_its_name(link: Link) {
    let server = with_a_short_write_timeout();
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    // Fill what the kernel holds for bob, short of the moment when the server gives up on him.
    let text = big("alice", "bob");
    for _ in 0..20 {
        alice.send(&text);
    }
    assert_eq!(server.door.connect(link).log_in("bob")["success"], "1");
    drop(bob);
}

fn an_idle_client_is_pinged_and_stays_if_it_answers(link: Link) {
    let idle = Duration::from_millis(50);
    let server = Local::start(Timeouts { idle, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    for _ in 0..3 {
        assert!(matches!(alice.websocket.read(), Ok(Message::Ping(_))));
        alice.websocket.flush().unwrap(); // sends the pong
    }
    alice.send_json(&message("candidate", "alice", "alice", json!(1)));
    assert_eq!(alice.receive_json()["payload"], 1);
}

fn a_silent_client_is_disconnected_and_its_partner_told(link: Link) {
    let (idle, pong) = (Duration::from_millis(200), Duration::from_millis(200));
    let server = Local::start(Timeouts { idle, pong, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    let mut bob = server.door.login(link, "bob");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
    // Alice reads nothing from here on, so her pings stay without an answer. Bob reads.
    assert_eq!(
        bob.receive_json(),
        json!({"msgType": "other", "signalType": "leave", "fromUser": "alice", "toUser": "bob"})
    );
    assert_eq!(server.door.connect(link).log_in("alice")["success"], "1");
}

fn a_client_that_drips_bytes_is_alive(link: Link) {
    let (idle, pong) = (Duration::from_millis(300), Duration::from_millis(300));
    let server = Local::start(Timeouts { idle, pong, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    let text = message("candidate", "alice", "alice", json!("slow but well")).to_string();
    // A masked frame, one byte at a time, for longer than a silent client would be let live.
    let mask = [7, 7, 7, 7];
    let frame = [&[0x81, 0x80 | 126], &(text.len() as u16).to_be_bytes()[..], &mask].concat();
    let body: Vec<u8> = text.bytes().map(|byte| byte ^ 7).collect();
    let started = Instant::now();
    for byte in frame.iter().chain(&body) {
        alice.websocket.get_mut().write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(6)); // this is the drip
    }
    assert!(started.elapsed() > idle + pong);
    assert_eq!(alice.receive(), text);
}

fn a_handshake_has_a_deadline_over_all_its_reads(link: Link) {
    let handshake = Duration::from_millis(500);
    let server = Local::start(Timeouts { handshake, ..Timeouts::default() });
    // One says nothing at all, and one drips.
    let mut silent = server.door.open_socket(link);
    let mut stream = server.door.open(link);
    // Each byte comes in time. All of them would not.
    let mut request = b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
    let started = Instant::now();
    while stream.write_all(&[*request.next().unwrap()]).is_ok() {
        assert!(started.elapsed() < PATIENCE, "still open");
        std::thread::sleep(Duration::from_millis(20)); // this is the drip
    }
    // Nothing comes back, and the server closes.
    assert_eq!(read_to_end(&mut stream), "");
    assert_eq!(read_to_end(&mut silent), "");
}

fn who_does_not_answer_a_close_is_disconnected(link: Link) {
    let linger = Duration::from_millis(100);
    let server = Local::start(Timeouts { linger, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    // A reserved opcode. After the answer all is read and dropped, but not for ever.
    alice.websocket.get_mut().write_all(&[0x83, 0x80, 0, 0, 0, 0]).unwrap();
    assert_eq!(alice.closed_with(), 1002);
    wait_until("the server has closed", || alice.socket.write_all(b"x").is_err());
}

fn a_stopping_server_closes_with_1001(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let mut stranger = server.connect(link);
    let mut nothing_said = server.open(link);
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    let status = std::thread::spawn(move || server.stop());
    for client in [&mut alice, &mut bob, &mut stranger] {
        // No `leave` before it: the call can go on without us.
        assert_eq!(client.closed_with(), 1001);
    }
    assert_eq!(read_to_end(&mut nothing_said), "");
    assert!(status.join().unwrap().success());
}

fn a_client_whose_process_is_killed_is_heard_by_its_partner(link: Link) {
    // Any process that holds the socket will do.
    let server = Server::start();
    let mut bob = server.login(link, "bob");
    let mut alice = server.login(link, "alice");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    let socket: std::os::fd::OwnedFd = alice.socket.try_clone().unwrap().into();
    let mut holder = std::process::Command::new("sleep").arg("3600").stdin(socket).spawn().unwrap();
    drop(alice); // the other process still has it
    bob.socket.set_nonblocking(true).unwrap();
    assert!(matches!(bob.websocket.read(), Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock));
    bob.socket.set_nonblocking(false).unwrap();
    holder.kill().unwrap(); // SIGKILL
    holder.wait().unwrap();
    assert_eq!(bob.receive_json()["signalType"], "leave");
}
