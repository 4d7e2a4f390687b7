//! A bare PeerJS client.

use serde_json::{Value, json};

use crate::common::{Client, Door, Link, Server, secure};

pub const OPEN: &str = r#"{"type":"OPEN"}"#;

/// What every test's server is started with.
pub const PEERJS: [&str; 2] = ["--peerjs", "peerjs"];

pub fn server() -> Server {
    Server::start_with(&PEERJS)
}

/// A WebSocket client at this path, which has yet to read what the server says.
pub fn connect(door: &Door, link: Link, path: &str) -> Client {
    let socket = door.open_socket(link);
    let handle = socket.try_clone().unwrap();
    let stream = secure(socket, link).unwrap();
    let (websocket, _) = tungstenite::client(format!("ws://localhost{path}"), stream).unwrap();
    Client { websocket, socket: handle }
}

/// The same with this id and token.
pub fn claim(door: &Door, link: Link, id: &str, token: &str) -> Client {
    connect(door, link, &format!("/peerjs?key=peerjs&id={id}&token={token}&version=1.5.5"))
}

/// A PeerJS client that has its id, and `ID's token` as its token.
pub fn open(door: &Door, link: Link, id: &str) -> Client {
    open_with(door, link, id, &format!("{id}s-token"))
}

pub fn open_with(door: &Door, link: Link, id: &str, token: &str) -> Client {
    let mut client = claim(door, link, id, token);
    assert_eq!(client.receive(), OPEN, "{id}");
    client
}

pub fn to(kind: &str, dst: &str, payload: &Value) -> Value {
    json!({"type": kind, "payload": payload, "dst": dst})
}

pub fn from(kind: &str, src: &str, dst: &str, payload: &Value) -> Value {
    json!({"type": kind, "src": src, "dst": dst, "payload": payload})
}

pub fn expire(absent: &str, sender: &str) -> Value {
    json!({"type": "EXPIRE", "src": absent, "dst": sender})
}

/// Checks that nothing came to `id` until now: a message to itself is the next.
pub fn heard_nothing(client: &mut Client, id: &str) {
    assert_eq!(
        client.ask(&to("CANDIDATE", id, &json!("mark"))),
        from("CANDIDATE", id, id, &json!("mark"))
    );
}
