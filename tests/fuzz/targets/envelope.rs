//! Any text as a message: no panic, and each reply is what docs/protocol.md says.
//!
//! - The envelope's fields are those that a JSON parser finds.
//! - A reply is JSON, and at most [`MAX_REPLY_OVERHEAD`] longer than the message.
//! - A login reply has the fields of the request, each as it was written, without the token and the
//!   fields that only the server may set.
//! - A PeerJS message is relayed in a form that is relayed as it is.
//! - An error reply names the message's `signalType` and `toUser`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use signal_server::limits::{MAX_DEPTH, MAX_REPLY_OVERHEAD};
use signal_server::names::is_valid_name;
use signal_server::peerjs;
use signal_server::signaling::protocol::{self, Envelope, Fault, LoginRefusal};

fuzz_target!(|text: &str| {
    if let Some(message) = peerjs::Message::parse(text, "src") {
        let relayed = message.to_json();
        assert!(relayed.len() <= text.len() + MAX_REPLY_OVERHEAD);
        let again = peerjs::Message::parse(&relayed, "src").unwrap();
        assert!(is_valid_name(&again.dst) && again.to_json() == relayed);
    }
    let envelope = match Envelope::parse(text) {
        Ok(envelope) => envelope,
        Err(fault) => {
            let reply = checked(text, Envelope::default().refusal(&fault));
            assert_eq!(reply["code"], "invalid-json");
            return;
        }
    };
    assert!(depth(text) <= MAX_DEPTH);
    // Not everything that the envelope takes can be held in a `Value`: 1e999 is JSON, too.
    let message: Option<Value> = serde_json::from_str(text).ok();
    let signal = envelope.signal(text);
    if let Some(message) = &message {
        assert_eq!(envelope.from_user(), text_of(&message["fromUser"]));
        assert_eq!(envelope.to_user(), text_of(&message["toUser"]));
        let expected = message["signalType"].as_str();
        match &signal {
            Ok(signal) => assert_eq!(Some(format!("{signal:?}").to_lowercase().as_str()), expected),
            Err(Fault::UnknownCommand(name)) => {
                let expected = message["type"].as_str().or(expected).unwrap_or("undefined");
                // Of a field given twice, the two parsers take different ones, or none.
                assert!(
                    name == expected || text.matches("ype\"").count() > 1 || text.contains('\\')
                );
            }
            Err(fault) => panic!("{fault:?}"),
        }
    }

    let _ = protocol::login_token(text);
    let turn = "[1]";
    use LoginRefusal::{InvalidName, NameTaken, Unauthorized};
    for outcome in [Ok(None), Ok(Some(turn)), Err(NameTaken), Err(InvalidName), Err(Unauthorized)] {
        let reply =
            protocol::login_reply(text, outcome.map(|ice_servers| ice_servers.map(str::to_string)));
        assert!(reply.len() <= text.len() + MAX_REPLY_OVERHEAD);
        let mut reply: BTreeMap<String, &RawValue> = serde_json::from_str(&reply).unwrap();
        let mut request: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap();
        for field in ["success", "reason", "token", "iceServers"] {
            request.remove(field);
        }
        let success = reply.remove("success").unwrap().get();
        let reason = reply.remove("reason").map(RawValue::get);
        let ice_servers = reply.remove("iceServers").map(RawValue::get);
        assert_eq!(ice_servers, outcome.ok().flatten());
        match outcome {
            Ok(_) => assert_eq!((success, reason), ("\"1\"", None)),
            Err(refusal) => {
                let expected = format!("\"{}\"", refusal.reason());
                assert_eq!((success, reason), ("\"0\"", Some(expected.as_str())));
            }
        }
        let raw = |fields: BTreeMap<String, &RawValue>| -> Vec<(String, String)> {
            fields.into_iter().map(|(name, value)| (name, value.get().to_string())).collect()
        };
        assert_eq!(raw(reply), raw(request));
    }

    let (from, to) = (envelope.from_user(), envelope.to_user());
    let mut faults = vec![
        Fault::NotLoggedIn,
        Fault::WrongSender("x".repeat(128)),
        Fault::UserNotFound(to.into()),
        Fault::UserUnreachable(to.into()),
        Fault::TooManyCalls,
    ];
    faults.extend(signal.err());
    for fault in faults {
        let reply = checked(text, envelope.refusal(&fault));
        assert_eq!(reply["code"], fault.words().0);
        assert_eq!(reply["message"], fault.words().1);
        assert_eq!(text_of(&reply["toUser"]), to);
        if let Some(message) = &message {
            assert_eq!(reply["signalType"], message["signalType"]);
            assert_eq!(reply["toUser"], message["toUser"]);
        }
    }

    let leave: Value = serde_json::from_str(&protocol::leave_message(from, to)).unwrap();
    assert_eq!(leave["fromUser"], from);
    assert_eq!(leave["toUser"], to);
    assert_eq!(leave["signalType"], "leave");
});

fn checked(text: &str, reply: String) -> Value {
    assert!(reply.len() <= text.len() + MAX_REPLY_OVERHEAD, "{} bytes", reply.len());
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["type"], "error");
    reply
}

/// Empty when there is none, as for the envelope.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// How deep brackets nest in valid JSON, counted another way than the server does it.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => loop {
                match characters.next() {
                    Some('\\') => drop(characters.next()),
                    Some('"') | None => break,
                    Some(_) => {}
                }
            },
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
