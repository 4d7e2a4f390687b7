//! The faults of the original Node server, each by name: this server has none of them.

use std::io::Write;
use std::time::Duration;

use crate::common::{Client, Link, Local, Server, message, read_to_end};
use serde_json::json;
use signal_server::limits::Timeouts;
use tungstenite::Message;

crate::over_plain_and_tls! {
    leave_to_an_unknown_user_ends_nothing
    the_body_null_ends_nothing
    a_frame_with_a_reserved_bit_ends_its_own_connection_only
    a_deeply_nested_login_ends_nothing
    answers_candidates_and_leaves_reach_one_client_only
    a_close_is_told_to_the_partner_and_to_nobody_else
    a_socket_that_logs_in_twice_leaks_no_name
    missing_and_empty_names_lock_nobody_out
    nobody_sends_as_somebody_else
    a_dead_socket_does_not_keep_its_name
    no_sdp_is_logged
    an_oversized_message_closes_with_1009
    text_that_is_not_utf8_closes_with_1007
    broken_frames_close_with_1002
}

/// A server, and two users, Carol and Dave, whose call each test must leave undisturbed.
struct Scene {
    server: Server,
    link: Link,
    carol: Client,
    dave: Client,
}

impl Scene {
    fn set(link: Link) -> Scene {
        let server = Server::start();
        let (carol, dave) = (server.login(link, "carol"), server.login(link, "dave"));
        Scene { server, link, carol, dave }
    }

    /// Checks that the server runs, and that Carol and Dave can talk and got no other message.
    fn goes_on(&mut self) {
        self.carol.send_json(&message("offer", "carol", "dave", json!("still")));
        assert_eq!(self.dave.receive_json()["payload"], "still");
        self.dave.send_json(&message("answer", "dave", "carol", json!("here")));
        assert_eq!(self.carol.receive_json()["payload"], "here");
    }
}

fn leave_to_an_unknown_user_ends_nothing(link: Link) {
    let mut scene = Scene::set(link);
    let mut alice = scene.server.login(link, "alice");
    alice.send_json(&message("leave", "alice", "nobody", json!(1)));
    alice.send_json(&message("candidate", "alice", "alice", json!(2)));
    assert_eq!(alice.receive_json()["payload"], 2);
    scene.goes_on();
}

fn the_body_null_ends_nothing(link: Link) {
    let mut scene = Scene::set(link);
    let mut client = scene.server.connect(link);
    client.send("null");
    assert_eq!(client.receive_json()["code"], "invalid-json");
    scene.goes_on();
}

/// Sends bytes under the WebSocket of a client that is logged in, and returns the close code.
fn closed_after(scene: &Scene, bytes: &[u8]) -> u16 {
    let mut client = scene.server.login(scene.link, "victim");
    client.websocket.get_mut().write_all(bytes).unwrap();
    client.closed_with()
}

fn a_frame_with_a_reserved_bit_ends_its_own_connection_only(link: Link) {
    let mut scene = Scene::set(link);
    assert_eq!(closed_after(&scene, &[0x80 | 0x40 | 1, 0x80, 0, 0, 0, 0]), 1002);
    scene.goes_on();
}

fn a_deeply_nested_login_ends_nothing(link: Link) {
    let mut scene = Scene::set(link);
    let mut client = scene.server.connect(link);
    let nested = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    client.send(&format!(r#"{{"signalType":"login","fromUser":"alice","x":{nested}}}"#));
    assert_eq!(client.receive_json()["code"], "invalid-json");
    scene.goes_on();
}

fn answers_candidates_and_leaves_reach_one_client_only(link: Link) {
    let mut scene = Scene::set(link);
    let (mut alice, mut bob) = (scene.server.login(link, "alice"), scene.server.login(link, "bob"));
    for kind in ["offer", "answer", "candidate", "leave"] {
        alice.send_json(&message(kind, "alice", "bob", json!(kind)));
        assert_eq!(bob.receive_json()["payload"], kind);
    }
    scene.carol.heard_nothing_from(&mut alice, "alice", "carol");
    scene.goes_on();
}

fn a_close_is_told_to_the_partner_and_to_nobody_else(link: Link) {
    let mut scene = Scene::set(link);
    let (mut alice, mut bob) = (scene.server.login(link, "alice"), scene.server.login(link, "bob"));
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    alice.websocket.close(None).unwrap();
    assert_eq!(bob.receive_json()["signalType"], "leave");
    scene.carol.heard_nothing_from(&mut bob, "bob", "carol");
    scene.goes_on();
}

fn a_socket_that_logs_in_twice_leaks_no_name(link: Link) {
    let mut scene = Scene::set(link);
    let mut alice = scene.server.login(link, "alice");
    assert_eq!(alice.log_in("alicia")["success"], "1");
    assert_eq!(scene.server.connect(link).log_in("alice")["success"], "1");
    alice.kill();
    scene.server.wait_for_log("disconnected");
    assert_eq!(scene.server.connect(link).log_in("alicia")["success"], "1");
    scene.goes_on();
}

fn missing_and_empty_names_lock_nobody_out(link: Link) {
    let mut scene = Scene::set(link);
    for _ in 0..2 {
        let mut client = scene.server.connect(link);
        for login in
            [json!({"signalType": "login"}), json!({"signalType": "login", "fromUser": ""})]
        {
            assert_eq!(client.ask(&login)["reason"], "invalid-name");
        }
    }
    scene.goes_on();
}

fn nobody_sends_as_somebody_else(link: Link) {
    let mut scene = Scene::set(link);
    let mut mallory = scene.server.login(link, "mallory");
    let forged = message("leave", "carol", "dave", json!(1));
    assert_eq!(mallory.ask(&forged)["code"], "wrong-sender");
    scene.goes_on();
}

fn a_dead_socket_does_not_keep_its_name(link: Link) {
    let probe = Duration::from_millis(200);
    let server = Local::start(Timeouts { probe, ..Timeouts::default() });
    let dead = server.door.login(link, "alice"); // open, but nobody is there to answer a ping
    assert_eq!(server.door.connect(link).log_in("alice")["success"], "1");
    drop(dead);
}

fn no_sdp_is_logged(link: Link) {
    let mut scene = Scene::set(link);
    scene.carol.send(&crate::common::OFFER.replace("alice", "carol").replace("bob", "dave"));
    scene.dave.receive();
    scene.server.wait_for_log(r#"Offer from "carol" to "dave""#);
    for word in ["v=0", "a=ice", "fingerprint"] {
        assert!(!scene.server.log().contains(word), "{word} is in the log");
    }
}

fn an_oversized_message_closes_with_1009(link: Link) {
    let mut scene = Scene::set(link);
    // 64 KiB is allowed.
    let empty = message("candidate", "carol", "dave", json!("")).to_string().len();
    let largest =
        message("candidate", "carol", "dave", json!("x".repeat(65536 - empty))).to_string();
    assert_eq!(largest.len(), 65536);
    scene.carol.send(&largest);
    assert_eq!(scene.dave.receive(), largest);
    // One byte more is not, and neither is a header that announces 1 EiB.
    let header = [&[0x81, 0x80 | 127][..], &65537_u64.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(closed_after(&scene, &header), 1009);
    let header = [&[0x81, 0x80 | 127][..], &(1_u64 << 60).to_be_bytes(), &[0; 4]].concat();
    assert_eq!(closed_after(&scene, &header), 1009);
    // A client that goes on sending still sees why it was closed.
    let mut client = scene.server.connect(link);
    client.websocket.send(Message::text("x".repeat(300_000))).unwrap();
    assert_eq!(client.closed_with(), 1009);
    // In fragments it is too large as well.
    let fragment =
        [&[0x01, 0x80 | 126][..], &40_000_u16.to_be_bytes(), &[0; 4], &[b' '; 40_000]].concat();
    let more =
        [&[0x80, 0x80 | 126][..], &40_000_u16.to_be_bytes(), &[0; 4], &[b' '; 40_000]].concat();
    assert_eq!(closed_after(&scene, &[fragment, more].concat()), 1009);
    scene.goes_on();
}

fn text_that_is_not_utf8_closes_with_1007(link: Link) {
    let mut scene = Scene::set(link);
    assert_eq!(closed_after(&scene, &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]), 1007);
    scene.goes_on();
}

fn broken_frames_close_with_1002(link: Link) {
    let mut scene = Scene::set(link);
    let broken: [&[u8]; 6] = [
        &[0x81, 0x01, b'x'],             // not masked
        &[0x83, 0x80, 0, 0, 0, 0],       // a reserved opcode
        &[0x8b, 0x80, 0, 0, 0, 0],       // a reserved control opcode
        &[0x09, 0x80, 0, 0, 0, 0],       // a fragmented ping
        &[0x80, 0x80, 0, 0, 0, 0],       // a continuation of nothing
        &[0x88, 0x81, 0, 0, 0, 0, 0x03], // a close with half a code
    ];
    for bytes in broken {
        assert_eq!(closed_after(&scene, bytes), 1002, "{bytes:?}");
    }
    scene.goes_on();
}

#[test]
fn wss_is_never_plain_ws() {
    let server = Server::start();
    let mut socket = server.door().open_socket(Link::Tls);
    write!(
        socket,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    assert!(!read_to_end(&mut socket).contains("101"));
}
