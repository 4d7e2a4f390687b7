//! What hostile clients do to a login, done to a PeerJS client's.

use std::fs;
use std::time::Instant;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use signal_server::limits::{LOGIN_DELAY, LOGIN_TRIES, Timeouts};
use std::time::Duration;

use crate::client::{OPEN, claim, connect, from, heard_nothing, open, open_with, server, to};
use crate::common::{Link, Local, Server, scratch};

crate::trials! {
    ids_that_are_no_names_are_errors
    an_id_of_64_kib_is_no_request
    proto_is_an_id_like_any_other
    a_storm_on_one_id_from_50_connections_has_one_winner
    a_storm_with_one_token_leaves_one_connection
    pages_from_elsewhere_get_no_websocket
    one_address_has_only_its_connections
    only_a_user_with_the_right_token_gets_in
    wrong_tokens_make_an_address_wait
    who_is_no_user_any_more_is_disconnected
    one_who_floods_absent_ids_disturbs_nobody
    two_who_send_to_each_other_and_read_nothing_disturb_nobody
}

fn error(link: Link, server: &Server, query: &str) -> Value {
    let mut client = connect(&server.door(), link, &format!("/peerjs?key=peerjs&{query}"));
    let reply = client.receive_json();
    assert_eq!(client.closed_with(), 1008, "{query}");
    reply
}

fn ids_that_are_no_names_are_errors(link: Link) {
    let server = server();
    for id in ["%00", "a%0ab", "%ff%00", "+a", "a%20", "%e2%80%8b", &"x".repeat(129)] {
        assert_eq!(error(link, &server, &format!("id={id}&token=t"))["type"], "ERROR", "{id}");
    }
    assert!(server.log().lines().all(|line| !line.contains('\0')));
    open(&server.door(), link, "innocent");
}

fn an_id_of_64_kib_is_no_request(link: Link) {
    let server = server();
    let id = "x".repeat(64 * 1024);
    let response = server
        .exchange(link, format!("GET /peerjs?id={id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    assert!(response.starts_with("HTTP/1.1 431 ") || response.is_empty(), "{response}");
    open(&server.door(), link, "innocent");
}

fn proto_is_an_id_like_any_other(link: Link) {
    let server = server();
    let mut client = open(&server.door(), link, "__proto__");
    heard_nothing(&mut client, "__proto__");
}

fn a_storm_on_one_id_from_50_connections_has_one_winner(link: Link) {
    let server = server();
    let door = server.door();
    let threads: Vec<_> = (0..50)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = claim(&door, link, "wanted", &format!("t{number}"));
                let first = client.receive_json();
                // Stays until the server closes, and answers pings meanwhile.
                if first["type"] != "OPEN" {
                    assert_eq!(first["type"], "ID-TAKEN");
                    client.closed_with();
                    return None;
                }
                let handle = client.socket.try_clone().unwrap();
                let reader = std::thread::spawn(move || while client.websocket.read().is_ok() {});
                Some((handle, reader))
            })
        })
        .collect();
    let winners: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(winners.len(), 1);
    for (handle, reader) in winners {
        handle.shutdown(std::net::Shutdown::Both).unwrap();
        reader.join().unwrap();
    }
}

fn a_storm_with_one_token_leaves_one_connection(link: Link) {
    let server = server();
    let door = server.door();
    let mut last = open_with(&door, link, "wanted", "t");
    for _ in 0..50 {
        let next = open_with(&door, link, "wanted", "t");
        assert!(last.websocket.read().is_err());
        last = next;
    }
    heard_nothing(&mut last, "wanted");
}

const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn pages_from_elsewhere_get_no_websocket(link: Link) {
    let server =
        Server::start_with(&["--peerjs", "peerjs", "--allow-origin", "https://good.example"]);
    let request = format!(
        "GET /peerjs?key=peerjs&id=a&token=t HTTP/1.1\r\n{UPGRADE}Origin: https://evil.example\r\n\r\n"
    );
    assert!(server.exchange(link, request.as_bytes()).starts_with("HTTP/1.1 403 "));
    open(&server.door(), link, "a");
}

fn one_address_has_only_its_connections(link: Link) {
    let server = Server::start_with(&["--peerjs", "peerjs", "--max-per-ip", "2"]);
    let _pair = ["a", "b"].map(|id| open(&server.door(), link, id));
    let _ = server.door().open_socket(link);
    server.wait_for_log("too many connections from this address");
}

fn users(name: &str, link: Link) -> String {
    let path = scratch(&format!("peerjs-{name}-{link:?}")).join("users");
    let line = |name: &str| {
        format!("{name}:{}\n", HEXLOWER.encode(&Sha256::digest(format!("{name}s-token"))))
    };
    fs::write(&path, line("alice") + &line("bob")).unwrap();
    path.to_str().unwrap().to_string()
}

fn invalid_token() -> Value {
    json!({"type": "ERROR", "payload": {"msg": "Invalid token provided"}})
}

fn only_a_user_with_the_right_token_gets_in(link: Link) {
    let file = users("right", link);
    let server = Server::start_with(&["--peerjs", "peerjs", "--users", &file]);
    let mut alice = open(&server.door(), link, "alice");
    for query in
        ["id=alice&token=wrong", "id=carol&token=carols-token", "id=bob&token=alices-token"]
    {
        assert_eq!(error(link, &server, query), invalid_token());
    }
    heard_nothing(&mut alice, "alice");
    assert!(!server.log().contains("alices-token"));
}

fn wrong_tokens_make_an_address_wait(link: Link) {
    let file = users("wait", link);
    let server = Server::start_with(&["--peerjs", "peerjs", "--users", &file]);
    for _ in 0..LOGIN_TRIES {
        assert_eq!(error(link, &server, "id=alice&token=wrong"), invalid_token());
    }
    let start = Instant::now();
    open(&server.door(), link, "alice");
    assert!(start.elapsed() >= LOGIN_DELAY);
}

fn who_is_no_user_any_more_is_disconnected(link: Link) {
    let file = users("removed", link);
    let timeouts = Timeouts { idle: Duration::from_millis(100), ..Timeouts::default() };
    let server = Local::start_with(timeouts, &["--peerjs", "peerjs", "--users", &file]);
    let mut alice = open(&server.door, link, "alice");
    fs::write(&file, "").unwrap();
    assert_eq!(alice.closed_with(), 1008);
}

fn one_who_floods_absent_ids_disturbs_nobody(link: Link) {
    let server = server();
    let door = server.door();
    let mut mallory = open(&door, link, "mallory");
    for number in 0..2000 {
        mallory.send_json(&to("OFFER", &format!("nobody {number}"), &json!(number)));
    }
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&door, link, id));
    for number in 0..100 {
        alice.send_json(&to("OFFER", "bob", &json!(number)));
        assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!(number)));
    }
    mallory.kill();
}

fn two_who_send_to_each_other_and_read_nothing_disturb_nobody(link: Link) {
    let server = server();
    let door = server.door();
    let mut pair = ["x", "y"].map(|id| open(&door, link, id));
    let big = json!("x".repeat(60_000));
    for _ in 0..10 {
        for (client, other) in pair.iter_mut().zip(["y", "x"]) {
            client.socket.set_nonblocking(false).unwrap();
            client.send_json(&to("OFFER", other, &big));
        }
    }
    let [mut alice, mut bob] = ["alice", "bob"].map(|id| open(&door, link, id));
    alice.send_json(&to("OFFER", "bob", &json!(1)));
    assert_eq!(bob.receive_json(), from("OFFER", "alice", "bob", &json!(1)));
    for client in pair {
        client.kill();
    }
    assert_eq!(claim(&door, link, "x", "another").receive(), OPEN);
}
