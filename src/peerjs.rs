//! The protocol of PeerJS, a JavaScript library: the URLs and messages of its clients, and every
//! reply. A PeerJS client has an id, which is its user name here, and a token.
//!
//! No locks and no state; the only I/O is to get random bytes for an id. A payload is checked to be
//! JSON and otherwise not read. `signaling/client/peerjs.rs` relays these messages. Without
//! `--peerjs`, nothing in this file is used.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tungstenite::http::StatusCode;

use crate::names::is_valid_name;

/// The first message to a client that has its id.
pub const OPEN: &str = r#"{"type":"OPEN"}"#;

// The errors for a client that does not get its id, in the words of PeerJS's own server. That
// server has no error for an invalid name, so `INCOMPLETE` is sent instead.

/// A parameter is missing, or the id is not a valid name.
pub const INCOMPLETE: &str =
    r#"{"type":"ERROR","payload":{"msg":"No id, token, or key supplied to websocket server"}}"#;
/// The client's key is not the server's.
pub const WRONG_KEY: &str = r#"{"type":"ERROR","payload":{"msg":"Invalid key provided"}}"#;
/// The server has a list of users, and this id with this token is not on it.
pub const WRONG_TOKEN: &str = r#"{"type":"ERROR","payload":{"msg":"Invalid token provided"}}"#;
/// Another client has the id.
pub const ID_TAKEN: &str = r#"{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}"#;

/// The content type of plain text, with a second header: pages of every origin may read this
/// response, just as they may open a WebSocket.
const TEXT_FOR_ALL: &str = "text/plain; charset=utf-8\r\nAccess-Control-Allow-Origin: *";

/// A status, a content type and a content.
type Response = (StatusCode, (&'static str, Cow<'static, str>));

/// The response to a GET of `…/KEY/id` and `…/KEY/peers`. The key is not checked here: a client with
/// a wrong key gets [`WRONG_KEY`] on its WebSocket.
pub fn endpoint(path: &str) -> Option<Response> {
    let mut segments = path.rsplit('/');
    let (name, key) = (segments.next()?, segments.next()?);
    let (status, body) = match name {
        _ if key.is_empty() => return None,
        "id" => match random_id() {
            Ok(id) => (StatusCode::OK, id.into()),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "No random bytes\n".into()),
        },
        // Nobody is told who is online.
        "peers" => (StatusCode::UNAUTHORIZED, "Unauthorized\n".into()),
        _ => return None,
    };
    Some((status, (TEXT_FOR_ALL, body)))
}

/// A random UUID (RFC 9562, section 5.4).
fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; size_of::<u128>()];
    getrandom::fill(&mut bytes)?;
    let random = u128::from_ne_bytes(bytes);
    Ok(format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        random >> 96,
        random >> 80 & 0xffff,
        random >> 64 & 0xfff,
        random >> 48 & 0x3fff | 0x8000,
        random & 0xffff_ffff_ffff
    ))
}

/// The query of a PeerJS client's WebSocket URL; `None` if the path does not end in `/peerjs`. The
/// app chooses the rest of the path.
pub fn query(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    path.ends_with("/peerjs").then(|| query.into())
}

/// The parameters in the query of a client's WebSocket URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    /// The name that the client wants.
    pub id: String,
    /// The client's secret. A later connection with the same token takes over the id.
    pub token: String,
}

impl Login {
    /// Reads a query, which is form data. If a parameter is repeated, the last value counts.
    ///
    /// # Errors
    /// What the client is told: a parameter is missing or wrong.
    pub fn parse(query: &str, server_key: &str) -> Result<Login, &'static str> {
        let [mut id, mut token, mut key] = [const { String::new() }; 3];
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match &*decode(name) {
                "id" => id = decode(value),
                "token" => token = decode(value),
                "key" => key = decode(value),
                _ => {}
            }
        }
        match id.is_empty() || token.is_empty() || key.is_empty() {
            true => Err(INCOMPLETE),
            false if key != server_key => Err(WRONG_KEY),
            false => Ok(Login { id, token }),
        }
    }
}

/// Decodes form data (WHATWG URL, section 5.1). A percent sign without two hex digits is kept.
fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut decoded = Vec::from(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_at_checked(2).map(|(hex, rest)| (u8::from_str_radix(hex, 16), rest)) {
            Some((Ok(byte), rest)) => {
                decoded.push(byte);
                decoded.extend(rest.bytes());
            }
            _ => {
                decoded.push(b'%');
                decoded.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A message from one client to another. PeerJS's heartbeat has no recipient and is ignored: its
/// bytes alone keep the connection alive.
#[derive(Debug, Deserialize, Serialize)]
pub struct Message<'a> {
    r#type: Kind,
    /// The sender. The server writes this; a `src` from a client is not read.
    #[serde(skip_deserializing)]
    src: &'a str,
    /// Whom it is for: a valid name.
    #[serde(borrow)]
    pub dst: Cow<'a, str>,
    /// `null` counts as absent, as it does for the clients' JavaScript.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// What can be sent to another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Offer,
    Answer,
    Candidate,
    Leave,
    Expire,
}

impl<'a> Message<'a> {
    /// Reads a message of the client `src`. `None` if it is not one that is relayed.
    pub fn parse(text: &'a str, src: &'a str) -> Option<Message<'a>> {
        // serde would also take an array, its elements as the fields in order.
        let message: Message = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text).ok()?,
            false => return None,
        };
        is_valid_name(&message.dst).then_some(Message { src, ..message })
    }

    /// What the client `src` is told if its messages to `dst` cannot be delivered.
    pub fn expire(src: &'a str, dst: &'a str) -> Message<'a> {
        Message { r#type: Kind::Expire, src: dst, dst: src.into(), payload: None }
    }

    /// Whether the sender is told if this message cannot be delivered. Apps show this error to
    /// people. One for each connection attempt is enough, so only an offer or an answer causes it.
    pub fn can_expire(&self) -> bool {
        matches!(self.r#type, Kind::Offer | Kind::Answer)
    }

    /// The message as its recipient gets it.
    pub fn to_json(&self) -> String {
        // Strings and raw values always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(query: &str) -> Result<(String, String), &'static str> {
        Login::parse(query, "k").map(|Login { id, token }| (id, token))
    }

    #[test]
    fn a_query_is_form_data_and_the_last_of_duplicates_counts() {
        let ok = |id: &str, token: &str| Ok((id.into(), token.into()));
        assert_eq!(login("key=k&id=a&token=t&version=1.5.5"), ok("a", "t"));
        assert_eq!(login("key=x&id=x&token=x&key=k&id=a+b%20c&token=%e4%BD%a0"), ok("a b c", "你"));
        assert_eq!(login("%69d=a&token=%&key=k"), ok("a", "%"));
        assert_eq!(login("id=%zz%4&token=a=b&key=%6b"), ok("%zz%4", "a=b"));
        assert_eq!(login("id=%ff&token=t&key=k"), ok("\u{fffd}", "t"));
    }

    #[test]
    fn a_query_needs_an_id_a_token_and_the_key() {
        for query in ["", "id", "id=a&token=t", "id=a&key=k", "token=t&key=k", "id=&token=t&key=k"]
        {
            assert_eq!(login(query), Err(INCOMPLETE), "{query}");
        }
        assert_eq!(login("id=a&token=t&key=K"), Err(WRONG_KEY));
    }

    #[test]
    fn only_the_end_of_a_path_matters() {
        for (target, wanted) in [
            ("/peerjs", Some("")),
            ("/a/b/peerjs?id=a?b", Some("id=a?b")),
            ("http://a/peerjs?id=a", Some("id=a")),
            ("/peerjs/", None),
            ("/xpeerjs", None),
            ("/?/peerjs", None),
            ("peerjs", None),
        ] {
            assert_eq!(query(target).as_deref(), wanted, "{target}");
        }
        for path in ["/", "/id", "id", "/peers", "//id", "/k/id/", "/k/ids"] {
            assert_eq!(endpoint(path), None, "{path}");
        }
        assert_eq!(endpoint("/a/k/peers").unwrap().0, StatusCode::UNAUTHORIZED);
        assert_eq!(endpoint("/a/b/k/id").unwrap().0, StatusCode::OK);
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        let [id, another] = [random_id().unwrap(), random_id().unwrap()];
        assert_ne!(id, another);
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
    }

    #[test]
    fn a_relayed_message_has_its_payload_byte_for_byte_and_nothing_else_of_the_senders() {
        let text = r#" {"src":"x","payload":{"a" : 1.50,"b":[ 1e999 ]},"dst":"b\u006fb","x":1,"type":"OFFER"}"#;
        let message = Message::parse(text, "al\"ice").unwrap();
        assert_eq!(message.dst, "bob");
        assert_eq!(
            message.to_json(),
            r#"{"type":"OFFER","src":"al\"ice","dst":"bob","payload":{"a" : 1.50,"b":[ 1e999 ]}}"#
        );
        let leave = Message::parse(r#"{"type":"LEAVE","dst":"b","payload":null}"#, "a").unwrap();
        assert_eq!(leave.to_json(), r#"{"type":"LEAVE","src":"a","dst":"b"}"#);
    }

    #[test]
    fn what_is_no_message_to_somebody_is_none() {
        for text in [
            "hello",
            "null",
            "",
            "[]",
            r#"["OFFER","b",null]"#,
            r#"{"type":"OFFER"}"#,
            r#"{"type":"OFFER","dst":null}"#,
            r#"{"type":"OFFER","dst":7}"#,
            r#"{"type":"OFFER","dst":""}"#,
            r#"{"type":"OFFER","dst":" b"}"#,
            r#"{"type":"OFFER","dst":"b","dst":"c"}"#,
            r#"{"type":"OPEN","dst":"b"}"#,
            r#"{"type":"offer","dst":"b"}"#,
            r#"{"type":"HEARTBEAT"}"#,
            r#"{"dst":"b"}"#,
        ] {
            assert!(Message::parse(text, "a").is_none(), "{text}");
        }
    }
}
