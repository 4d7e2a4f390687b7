//! The life of a connection: keepalive, deadlines, and its end.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Link, Local, PATIENCE, Server, big, message, read_to_end, wait_until};
use serde_json::json;
use signal_server::limits::Timeouts;
use socket2::SockRef;
use tungstenite::{Error, Message};

crate::over_plain_and_tls! {
    a_leave_that_crosses_a_close_is_no_error
    an_idle_client_is_pinged_and_stays_if_it_answers
    a_silent_client_is_disconnected_and_its_partner_told
    a_client_that_drips_bytes_is_alive
    a_silent_client_that_takes_data_is_alive
    a_handshake_has_a_deadline_over_all_its_reads
    who_does_not_answer_a_close_is_disconnected
    a_stopping_server_closes_with_1001
    a_client_whose_process_is_killed_is_heard_by_its_partner
}

fn a_leave_that_crosses_a_close_is_no_error(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    for _ in 0..100 {
        let mut bob = server.login(link, "bob");
        alice.send_json(&message("offer", "alice", "bob", json!(1)));
        assert_eq!(bob.receive_json()["payload"], 1);
        bob.websocket.close(None).unwrap();
        alice.send_json(&message("leave", "alice", "bob", json!(1)));
        alice.send_json(&json!({"signalType": "mark"}));
        // The server's own `leave` may have been faster, or come later.
        wait_until("all is answered", || {
            let answer = alice.receive_json();
            assert!(answer["signalType"] == "leave" || answer["signalType"] == "mark", "{answer}");
            answer["signalType"] == "mark"
        });
    }
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

/// A slow reader answers no ping in time, because the ping is queued behind data that it has not
/// read yet. It stays connected as long as it takes data.
fn a_silent_client_that_takes_data_is_alive(link: Link) {
    let (idle, pong) = (Duration::from_millis(500), Duration::from_millis(500));
    let server = Local::start(Timeouts { idle, pong, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    let bob = server.door.login(link, "bob");
    // A small buffer, so that his network stack takes data often. With a large one, seconds can
    // pass between two times on a busy machine.
    SockRef::from(&bob.socket).set_recv_buffer_size(16 * 1024).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                alice.send(&big("alice", "bob"));
                alice.send_json(&json!({"signalType": "mark"}));
                while alice.receive_json()["signalType"] != "mark" {}
            }
        });
        let (mut part, started) = (vec![0; 16 * 1024], Instant::now());
        let mut is_connected = true;
        while is_connected && started.elapsed() < 4 * (idle + pong) {
            is_connected = (&bob.socket).read(&mut part).is_ok_and(|count| count > 0);
            std::thread::sleep(Duration::from_millis(20)); // this is what makes him slow
        }
        done.store(true, Ordering::Relaxed);
        assert!(is_connected, "disconnected");
    });
}

fn a_handshake_has_a_deadline_over_all_its_reads(link: Link) {
    let handshake = Duration::from_millis(500);
    let server = Local::start(Timeouts { handshake, ..Timeouts::default() });
    // One says nothing at all, and one drips.
    let mut silent = server.door.open_socket(link);
    let mut stream = server.door.open(link);
    // Slowloris: each byte comes soon after the last one, but the request never ends.
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
    let drain = Duration::from_millis(100);
    let server = Local::start(Timeouts { drain, ..Timeouts::default() });
    let mut alice = server.door.login(link, "alice");
    // A reserved opcode. After its close frame the server drops what comes, but only for `drain`.
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
