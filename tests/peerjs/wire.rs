//! The protocol of PeerJS, rule by rule, as docs/peerjs.md describes it.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_server::limits::{HELD_POLL, MAX_HELD, MAX_HELD_BYTES, Timeouts};
use tungstenite::Message;

use crate::client::{
    OPEN, PEERJS, claim, connect, expire, from, heard_nothing, open, open_with, server, to,
};
use crate::common::{Client, Link, Local, Server, message, wait_until};

crate::trials! {
    an_id_is_a_new_uuid_that_any_page_may_read
    a_list_of_peers_is_refused_and_any_page_may_read_that
    an_upgrade_below_any_path_is_answered_with_open
    a_query_is_form_data
    without_id_token_and_key_there_is_an_error_and_the_end
    another_key_is_an_error
    the_key_is_the_operators_choice
    an_id_of_another_token_is_taken_while_its_holder_lives
    the_id_of_a_silent_holder_can_be_had
    the_same_token_takes_over_at_once_and_the_old_connection_ends
    a_page_that_is_loaded_again_twice_has_its_id
    every_type_is_relayed_with_its_sender_and_the_payload_byte_for_byte
    a_binary_frame_is_a_message_too
    what_is_no_message_to_somebody_is_ignored
    a_payload_may_nest_as_deep_as_it_likes
    heartbeats_are_not_answered
    messages_for_somebody_who_is_not_there_yet_are_held_in_order
    an_undeliverable_pair_expires_once
    candidates_alone_and_leaves_do_not_expire
    more_than_can_be_held_expires_at_once
    held_messages_end_with_their_sender
    a_client_is_pinged_after_its_messages_have_expired
    nobody_is_told_when_a_peer_disconnects
    open_comes_before_anybodys_message
    who_has_heard_open_can_be_reached
    a_slow_reader_gets_all_messages_in_order
    what_waits_for_a_slow_reader_is_for_nobody_elses_token
    messages_over_the_rate_are_slowed_and_all_arrive
    a_name_of_one_dialect_is_no_name_of_the_other
    without_the_option_nothing_of_it_is_there
    a_stopping_server_closes_with_1001
}

const SHORT: Timeouts = Timeouts {
    handshake: Duration::from_secs(30),
    idle: Duration::from_secs(30),
    pong: Duration::from_secs(30),
    stall: Duration::from_secs(30),
    probe: Duration::from_millis(300),
    hold: Duration::from_millis(600),
    drain: Duration::from_secs(1),
    stop: Duration::from_secs(2),
};

fn local() -> Local {
    Local::start_with(SHORT, &PEERJS)
}

fn request(server: &Server, link: Link, method: &str, path: &str) -> (String, String) {
    let origin = "Origin: https://example.org\r\n";
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{origin}\r\n");
    let response = server.exchange(link, request.as_bytes());
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

const CORS: &str = "\r\nAccess-Control-Allow-Origin: *";

fn an_id_is_a_new_uuid_that_any_page_may_read(link: Link) {
    let server = server();
    let mut ids = Vec::new();
    for path in ["/peerjs/id?ts=17", "/a/b/peerjs/id?ts=1&version=1.5.5", "/peerjs/id"] {
        let (head, body) = request(&server, link, "GET", path);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(CORS), "{head}");
        assert!(body.len() == 36 && body.chars().all(|c| c == '-' || c.is_ascii_hexdigit()));
        assert!(!ids.contains(&body));
        ids.push(body);
    }
    let (head, body) = request(&server, link, "HEAD", "/peerjs/id");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(CORS), "{head}");
    assert_eq!(body, "");
}

fn a_list_of_peers_is_refused_and_any_page_may_read_that(link: Link) {
    let server = server();
    let _alice = open(&server.door(), link, "alice");
    for method in ["GET", "HEAD"] {
        let (head, body) = request(&server, link, method, "/peerjs/peers?ts=1");
        assert!(head.starts_with("HTTP/1.1 401 ") && head.contains(CORS), "{head}");
        assert!(!body.contains("alice"));
    }
}

fn an_upgrade_below_any_path_is_answered_with_open(link: Link) {
    let server = server();
    for (id, path) in [("a", "/peerjs"), ("b", "/my/app/peerjs"), ("c", "/peerjs/peerjs")] {
        let path = format!("{path}?key=peerjs&id={id}&token=t");
        assert_eq!(connect(&server.door(), link, &path).receive(), OPEN);
    }
}

fn a_query_is_form_data(link: Link) {
    let server = server();
    let door = server.door();
    let path = "/peerjs?id=wrong&id=%61%20+b&token=x&token=t&key=x&key=peerjs";
    let mut client = connect(&door, link, path);
    assert_eq!(client.receive(), OPEN);
    heard_nothing(&mut client, "a  b");
}

fn is_refused(mut client: Client, kind: &str, words: &str) {
    assert_eq!(client.receive_json(), json!({"type": kind, "payload": {"msg": words}}));
    assert_eq!(client.closed_with(), 1008);
}

fn without_id_token_and_key_there_is_an_error_and_the_end(link: Link) {
    let server = server();
    for query in ["", "?", "?id=a&token=t", "?id=a&key=peerjs", "?token=t&key=peerjs&id="] {
        let client = connect(&server.door(), link, &format!("/peerjs{query}"));
        is_refused(client, "ERROR", "No id, token, or key supplied to websocket server");
    }
}

fn another_key_is_an_error(link: Link) {
    let server = server();
    let client = connect(&server.door(), link, "/peerjs?id=a&token=t&key=PEERJS");
    is_refused(client, "ERROR", "Invalid key provided");
}

fn the_key_is_the_operators_choice(link: Link) {
    let server = Server::start_with(&["--peerjs", "my key"]);
    is_refused(claim(&server.door(), link, "a", "t"), "ERROR", "Invalid key provided");
    let path = "/peerjs?id=a&token=t&key=my+key";
    assert_eq!(connect(&server.door(), link, path).receive(), OPEN);
    assert!(request(&server, link, "GET", "/my%20key/id").0.starts_with("HTTP/1.1 200 "));
}

fn an_id_of_another_token_is_taken_while_its_holder_lives(link: Link) {
    let server = server();
    let door = server.door();
    let mut alice = open(&door, link, "alice");
    let answering = std::thread::spawn(move || {
        let received = alice.receive_json(); // answers the ping first
        (alice, received)
    });
    is_refused(claim(&door, link, "alice", "mallorys"), "ID-TAKEN", "ID is taken");
    let mut bob = open(&door, link, "bob");
    bob.send_json(&to("OFFER", "alice", &json!(1)));
    let (_alice, received) = answering.join().unwrap();
    assert_eq!(received, from("OFFER", "bob", "alice", &json!(1)));
}

fn the_id_of_a_silent_holder_can_be_had(link: Link) {
    let server = local();
    let _silent = open(&server.door, link, "alice"); // answers no ping, because nobody reads
    open_with(&server.door, link, "alice", "another");
}

fn the_same_token_takes_over_at_once_and_the_old_connection_ends(link: Link) {
    // If this were the probe of another token, it would take an hour.
    let probe = Duration::from_secs(3600);
    let server = Local::start_with(Timeouts { probe, ..Timeouts::default() }, &PEERJS);
    let mut bob = open(&server.door, link, "bob");
    let mut old = open(&server.door, link, "alice");
    let mut new = open(&server.door, link, "alice");
    assert!(old.websocket.read().is_err());
    let _ = old.websocket.send(Message::text(to("OFFER", "bob", &json!("old")).to_string()));
    new.send_json(&to("OFFER", "bob", &json!("new")));
    assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!("new")));
    bob.send_json(&to("ANSWER", "alice", &json!(2)));
    assert_eq!(new.receive_json(), from("ANSWER", "bob", "alice", &json!(2)));
}

fn a_page_that_is_loaded_again_twice_has_its_id(link: Link) {
    let server = Server::start_with(&["--peerjs", "peerjs", "--max-rate", "20"]);
    let door = server.door();
    for round in 0..5 {
        let id = format!("alice{round}");
        let mut first = open_with(&door, link, &id, "t");
        // Over its rate, it takes a moment to end, and the other two wait for that.
        for _ in 0..100 {
            first.send_json(&json!({"type": "HEARTBEAT"}));
        }
        claim(&door, link, &id, "t").kill();
        assert_eq!(claim(&door, link, &id, "t").receive(), OPEN, "{round}");
    }
}

fn every_type_is_relayed_with_its_sender_and_the_payload_byte_for_byte(link: Link) {
    let server = server();
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    let payload = r#"{"sdp" : {"type":"offer","sdp":"v=0\r\n"}, "n":[1.50,1e999,"\u00e9"], "n":0}"#;
    for kind in ["OFFER", "ANSWER", "CANDIDATE", "LEAVE", "EXPIRE"] {
        alice.send(&format!(
            r#"{{"src":"mallory","more":{{}},"payload":{payload},"type":"{kind}","dst":"bob"}}"#
        ));
        assert_eq!(
            bob.receive(),
            format!(r#"{{"type":"{kind}","src":"alice","dst":"bob","payload":{payload}}}"#)
        );
    }
    alice.send(r#"{"type":"LEAVE","dst":"bob"}"#);
    assert_eq!(bob.receive(), r#"{"type":"LEAVE","src":"alice","dst":"bob"}"#);
    heard_nothing(&mut alice, "alice");
}

fn a_binary_frame_is_a_message_too(link: Link) {
    let server = server();
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    let text = to("OFFER", "bob", &json!("é")).to_string();
    alice.websocket.send(Message::binary(text.into_bytes())).unwrap();
    assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!("é")));
}

fn what_is_no_message_to_somebody_is_ignored(link: Link) {
    let server = server();
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    for text in [
        "hello",
        "null",
        "",
        "7",
        r#"["OFFER","bob",1]"#,
        r#"{"type":"OFFER","payload":1}"#,
        r#"{"type":"OFFER","payload":1,"dst":""}"#,
        r#"{"type":"OFFER","payload":1,"dst":7}"#,
        r#"{"type":"OPEN","dst":"bob"}"#,
        r#"{"type":"ID-TAKEN","dst":"bob"}"#,
        r#"{"type":"ERROR","dst":"bob","payload":{"msg":"x"}}"#,
        r#"{"signalType":"login","fromUser":"alice"}"#,
        r#"{"type":"OFFER","dst":"bob","payload":}"#,
    ] {
        alice.send(text);
    }
    alice.websocket.send(Message::binary(vec![b'{', 0xff])).unwrap();
    heard_nothing(&mut alice, "alice");
    heard_nothing(&mut bob, "bob");
}

fn a_payload_may_nest_as_deep_as_it_likes(link: Link) {
    let server = server();
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    for depth in [100, 30_000] {
        let payload = "[".repeat(depth) + &"]".repeat(depth);
        alice.send(&format!(r#"{{"x":{payload},"type":"OFFER","dst":"bob","payload":7}}"#));
        assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!(7)));
        alice.send(&format!(r#"{{"type":"OFFER","dst":"bob","payload":{payload}}}"#));
        assert_eq!(
            bob.receive(),
            format!(r#"{{"type":"OFFER","src":"alice","dst":"bob","payload":{payload}}}"#)
        );
    }
    heard_nothing(&mut alice, "alice");
}

fn heartbeats_are_not_answered(link: Link) {
    let server = server();
    let mut alice = open(&server.door(), link, "alice");
    for _ in 0..3 {
        alice.send(r#"{"type":"HEARTBEAT"}"#);
    }
    heard_nothing(&mut alice, "alice");
}

fn messages_for_somebody_who_is_not_there_yet_are_held_in_order(link: Link) {
    let server = server();
    let door = server.door();
    let mut alice = open(&door, link, "alice");
    for number in 0..10 {
        alice.send_json(&to(
            if number == 0 { "OFFER" } else { "CANDIDATE" },
            "bob",
            &json!(number),
        ));
    }
    heard_nothing(&mut alice, "alice"); // so all ten have been handled
    let mut bob = open(&door, link, "bob");
    alice.send_json(&to("CANDIDATE", "bob", &json!(10)));
    for number in 0..11 {
        let kind = if number == 0 { "OFFER" } else { "CANDIDATE" };
        assert_eq!(bob.receive_json(), from(kind, "alice", "bob", &json!(number)));
    }
    // Without another message of the sender's, too.
    drop(bob);
    wait_until("bob is gone", || {
        server.log().contains("closed by the client") || server.log().contains("connection lost")
    });
    alice.send_json(&to("OFFER", "bob", &json!("again")));
    heard_nothing(&mut alice, "alice");
    let mut bob = open(&door, link, "bob");
    assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!("again")));
    heard_nothing(&mut alice, "alice");
}

fn an_undeliverable_pair_expires_once(link: Link) {
    let server = local();
    let mut alice = open(&server.door, link, "alice");
    let start = Instant::now();
    for absent in ["bob", "carol"] {
        for kind in ["CANDIDATE", "OFFER", "ANSWER", "OFFER"] {
            alice.send_json(&to(kind, absent, &json!(1)));
        }
    }
    assert_eq!(alice.receive_json(), expire("bob", "alice"));
    assert!(start.elapsed() >= SHORT.hold);
    assert_eq!(alice.receive_json(), expire("carol", "alice"));
    heard_nothing(&mut alice, "alice");
    heard_nothing(&mut open(&server.door, link, "bob"), "bob");
    heard_nothing(&mut alice, "alice");
}

fn candidates_alone_and_leaves_do_not_expire(link: Link) {
    let server = local();
    let mut alice = open(&server.door, link, "alice");
    alice.send_json(&to("CANDIDATE", "bob", &json!(1)));
    for kind in ["LEAVE", "EXPIRE"] {
        alice.send_json(&to(kind, "carol", &json!(1)));
    }
    alice.send_json(&to("OFFER", "later", &json!(1))); // expires after the candidate
    assert_eq!(alice.receive_json(), expire("later", "alice"));
    for id in ["bob", "carol"] {
        heard_nothing(&mut open(&server.door, link, id), id);
    }
}

fn more_than_can_be_held_expires_at_once(link: Link) {
    let hold = Duration::from_secs(3600);
    let server = Local::start_with(Timeouts { hold, ..SHORT }, &PEERJS);
    let mut alice = open(&server.door, link, "alice");
    let big = json!("x".repeat(MAX_HELD_BYTES));
    alice.send_json(&to("OFFER", "bob", &big));
    assert_eq!(alice.receive_json(), expire("bob", "alice"));
    for number in 0..=MAX_HELD {
        let dst = if number < MAX_HELD / 2 { "bob" } else { "carol" };
        alice.send_json(&to("CANDIDATE", dst, &json!(number)));
    }
    alice.send_json(&to("OFFER", "dave", &json!(1)));
    assert_eq!(alice.receive_json(), expire("dave", "alice"));
    for (id, numbers) in [("bob", 0..MAX_HELD / 2), ("carol", MAX_HELD / 2..MAX_HELD)] {
        let mut client = open(&server.door, link, id);
        for number in numbers {
            assert_eq!(client.receive_json(), from("CANDIDATE", "alice", id, &json!(number)));
        }
        heard_nothing(&mut client, id);
    }
    // Somebody who is there gets a large one.
    let mut erin = open(&server.door, link, "erin");
    alice.send_json(&to("OFFER", "erin", &big));
    assert_eq!(erin.receive_json(), from("OFFER", "alice", "erin", &big));
}

fn held_messages_end_with_their_sender(link: Link) {
    let server = server();
    let door = server.door();
    let mut alice = open(&door, link, "alice");
    alice.send_json(&to("OFFER", "bob", &json!(1)));
    heard_nothing(&mut alice, "alice");
    alice.kill();
    server.wait_for_log("connection lost");
    let mut bob = open(&door, link, "bob");
    heard_nothing(&mut bob, "bob");
}

fn a_client_is_pinged_after_its_messages_have_expired(link: Link) {
    let timeouts = Timeouts { idle: 4 * HELD_POLL, ..SHORT };
    let server = Local::start_with(timeouts, &PEERJS);
    let mut alice = open(&server.door, link, "alice");
    alice.send_json(&to("OFFER", "bob", &json!(1)));
    assert_eq!(alice.receive_json(), expire("bob", "alice"));
    let start = Instant::now();
    assert!(matches!(alice.websocket.read(), Ok(Message::Ping(_))));
    assert!(start.elapsed() > 2 * HELD_POLL, "{:?}", start.elapsed());
}

fn nobody_is_told_when_a_peer_disconnects(link: Link) {
    let server = server();
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    for kind in ["OFFER", "ANSWER"] {
        alice.send_json(&to(kind, "bob", &json!(1)));
        bob.receive_json();
        bob.send_json(&to(kind, "alice", &json!(1)));
        alice.receive_json();
    }
    bob.kill();
    server.wait_for_log("connection lost");
    heard_nothing(&mut alice, "alice");
}

fn open_comes_before_anybodys_message(link: Link) {
    let server = server();
    let door = server.door();
    let mut alice = open(&door, link, "alice");
    let socket = alice.socket.try_clone().unwrap();
    let bobs = ["bob-1", "bob-2", "bob-3", "bob-4", "bob-5"];
    let messages = bobs.map(|bob| Message::text(to("CANDIDATE", bob, &json!(1)).to_string()));
    let sender = std::thread::spawn(move || {
        while messages.iter().all(|text| alice.websocket.send(text.clone()).is_ok()) {}
    });
    for name in bobs {
        let mut bob = open(&door, link, name);
        assert_eq!(bob.receive_json(), from("CANDIDATE", "alice", name, &json!(1)));
    }
    // The sender does not read, so that it would not see the end of a connection that the server closes.
    socket.shutdown(Shutdown::Both).unwrap();
    sender.join().unwrap();
}

fn who_has_heard_open_can_be_reached(link: Link) {
    let server = local();
    let mut alice = open(&server.door, link, "alice");
    let big = json!("x".repeat(MAX_HELD_BYTES)); // would expire if Bob were not there
    for number in 0..50 {
        let name = format!("bob-{number}");
        let mut bob = open(&server.door, link, &name);
        alice.send_json(&to("OFFER", &name, &big));
        assert_eq!(bob.receive_json()["src"], "alice");
    }
    heard_nothing(&mut alice, "alice");
}

/// Alice; Bob, who has not read one of her messages to him; and what these are, in order. His buffers are
/// full, and Alice holds at least the last one.
fn alice_and_slow_bob(server: &Local, link: Link) -> (Client, Client, Vec<Value>) {
    let [mut alice, bob] = ["alice", "bob"].map(|id| open(&server.door, link, id));
    let expires = |alice: &mut Client, offer: &Value| {
        alice.send_json(offer);
        let reply = alice.ask(&to("CANDIDATE", "alice", &json!("mark")));
        reply["type"] == "EXPIRE" && alice.receive_json()["payload"] == "mark"
    };
    let padded = |number: usize, size| json!(format!("{number} {}", "x".repeat(size)));
    let mut sent = Vec::new();
    // Too large to be held.
    while !expires(&mut alice, &to("OFFER", "bob", &padded(sent.len(), MAX_HELD_BYTES))) {
        sent.push(from("OFFER", "alice", "bob", &padded(sent.len(), MAX_HELD_BYTES)));
    }
    loop {
        alice.send_json(&to("CANDIDATE", "bob", &padded(sent.len(), 1000)));
        sent.push(from("CANDIDATE", "alice", "bob", &padded(sent.len(), 1000)));
        // So large that it can be held only if nothing else is.
        let (absent, size) = (format!("absent-{}", sent.len()), MAX_HELD_BYTES - 500);
        if expires(&mut alice, &to("OFFER", &absent, &padded(0, size))) {
            return (alice, bob, sent);
        }
        assert_eq!(open(&server.door, link, &absent).receive_json()["src"], "alice");
    }
}

fn a_slow_reader_gets_all_messages_in_order(link: Link) {
    let hold = Duration::from_secs(3600);
    let server = Local::start_with(Timeouts { hold, ..SHORT }, &PEERJS);
    let (mut alice, mut bob, sent) = alice_and_slow_bob(&server, link);
    for number in 0..10 {
        alice.send_json(&to("CANDIDATE", "bob", &json!(number)));
    }
    for message in sent {
        assert_eq!(bob.receive_json(), message);
    }
    for number in 0..10 {
        assert_eq!(bob.receive_json(), from("CANDIDATE", "alice", "bob", &json!(number)));
    }
    alice.send_json(&to("LEAVE", "bob", &json!("last")));
    assert_eq!(bob.receive_json(), from("LEAVE", "alice", "bob", &json!("last")));
}

fn what_waits_for_a_slow_reader_is_for_nobody_elses_token(link: Link) {
    let hold = Duration::from_secs(3600);
    let server = Local::start_with(Timeouts { hold, ..SHORT }, &PEERJS);
    let (mut alice, bob, _) = alice_and_slow_bob(&server, link);
    bob.kill();
    let mut other = claim(&server.door, link, "bob", "another");
    assert_eq!(other.receive(), OPEN);
    alice.send_json(&to("OFFER", "bob", &json!("new")));
    assert_eq!(other.receive_json(), from("OFFER", "alice", "bob", &json!("new")));
    heard_nothing(&mut other, "bob");
    heard_nothing(&mut alice, "alice");
}

fn messages_over_the_rate_are_slowed_and_all_arrive(link: Link) {
    let server = Server::start_with(&["--peerjs", "peerjs", "--max-rate", "20"]);
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&server.door(), link, id));
    let start = Instant::now();
    for number in 0..100 {
        alice.send_json(&to("CANDIDATE", "bob", &json!(number)));
    }
    for number in 0..100 {
        assert_eq!(bob.receive_json(), from("CANDIDATE", "alice", "bob", &json!(number)));
    }
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
}

fn a_name_of_one_dialect_is_no_name_of_the_other(link: Link) {
    let server = Server::start_with(&PEERJS);
    let door = server.door();
    let mut peer = open(&door, link, "alice");
    let mut user = server.login(link, "alice");
    let mut bob = server.login(link, "bob");
    bob.send_json(&message("offer", "bob", "alice", json!(1)));
    assert_eq!(user.receive_json()["signalType"], "offer");
    heard_nothing(&mut peer, "alice");
    peer.send_json(&to("OFFER", "bob", &json!(1)));
    heard_nothing(&mut peer, "alice");
    bob.heard_nothing_from(&mut user, "alice", "bob");
}

fn without_the_option_nothing_of_it_is_there(link: Link) {
    let server = Server::start();
    for path in ["/peerjs/id", "/peerjs/peers"] {
        let (head, _) = request(&server, link, "GET", path);
        assert!(head.starts_with("HTTP/1.1 404 ") && !head.contains("Access-Control"), "{head}");
    }
    // A WebSocket at that path is an ordinary client's: nothing comes before its login.
    let mut client = claim(&server.door(), link, "a", "t");
    assert_eq!(client.log_in("alice")["success"], "1");
    let reply = client.ask(&to("OFFER", "alice", &json!(1)));
    assert_eq!(reply["code"], Value::from("unknown-command"));
    assert!(!server.log().contains("PeerJS"));
}

fn a_stopping_server_closes_with_1001(link: Link) {
    let server = server();
    let mut alice = open(&server.door(), link, "alice");
    alice.send_json(&to("OFFER", "bob", &json!(1)));
    heard_nothing(&mut alice, "alice");
    server.signal("TERM");
    assert_eq!(alice.closed_with(), 1001);
}
