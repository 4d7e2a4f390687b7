//! The messages: reading the few fields that the server needs, and building every reply.
//!
//! Pure: no I/O, no locks, no state. What a message carries for its recipient (the SDP, the
//! candidate) is checked to be JSON and otherwise never looked at.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{MAX_DEPTH, MAX_INTEGER_NAME};
use crate::names::excerpt;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Take a name.
    Login,
    /// An SDP offer: the start of a call, or a change in one.
    Offer,
    /// The SDP that accepts an offer.
    Answer,
    /// A provisional answer.
    Pranswer,
    /// An ICE candidate.
    Candidate,
    /// The end of a call.
    Leave,
}

/// The fields of a message that the server reads. A field that is `null` counts as absent, as it does
/// for the clients' JavaScript.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    signal_type: Option<String>,
    #[serde(borrow)]
    from_user: Option<Name<'a>>,
    #[serde(borrow)]
    to_user: Option<Name<'a>>,
}

/// A user's name in a message: a JSON string, or an integer.
#[derive(Debug)]
struct Name<'a> {
    /// The string's text, or the integer's digits: the key by which users are found.
    text: String,
    /// The name as it was written. An error reply repeats it, so that the sender recognizes the name.
    json: &'a RawValue,
}

/// Why a message was refused. The sender gets an error reply, and the connection stays open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The `signalType` is unknown or missing. The text is the command that the error reply quotes.
    UnknownCommand(String),
    /// Not a JSON object, or not one that [`Envelope::parse`] allows; the text is the parser's reason.
    /// It can quote the message, so it must not be logged.
    InvalidJson(String),
    /// The sender has not logged in, so its message is not relayed.
    NotLoggedIn,
    /// `fromUser` is not the name that the sender logged in with. The text is the name of the login.
    WrongSender(String),
    /// Nobody is online under this name.
    UserNotFound(String),
    /// The recipient takes data too slowly. Nothing of the message was delivered.
    UserUnreachable(String),
    /// The sender has as many outgoing calls as it may have.
    TooManyCalls,
}

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Another connection, or this one, has the name.
    NameTaken,
    /// Not a valid name.
    InvalidName,
    /// The server has a list of users, and this name with this token is not on it.
    Unauthorized,
}

impl<'a> Envelope<'a> {
    /// Reads a message.
    ///
    /// ```
    /// use signal_server::signaling::protocol::{Envelope, Signal};
    ///
    /// let text = r#"{"signalType":"offer","fromUser":"alice","toUser":7,"sdp":{"type":"offer"}}"#;
    /// let envelope = Envelope::parse(text).unwrap();
    /// assert_eq!(envelope.signal(text), Ok(Signal::Offer));
    /// assert_eq!(envelope.to_user(), "7");
    /// ```
    ///
    /// # Errors
    /// It is not a JSON object, nests deeper than [`MAX_DEPTH`], or has one of our fields twice or
    /// with a wrong type.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        // serde would also take an array, its elements as the fields in order.
        if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
            return Err(Fault::InvalidJson("not an object".into()));
        }
        // serde_json does not limit the nesting of a field that it skips.
        if nests_too_deep(text) {
            return Err(Fault::InvalidJson(format!("nested deeper than {MAX_DEPTH}")));
        }
        serde_json::from_str(text).map_err(|error| Fault::InvalidJson(error.to_string()))
    }

    /// The sender's name, as the message claims; empty if the message has none.
    pub fn from_user(&self) -> &str {
        self.from_user.as_ref().map_or("", |name| &name.text)
    }

    /// The recipient's name; empty if the message has none.
    pub fn to_user(&self) -> &str {
        self.to_user.as_ref().map_or("", |name| &name.text)
    }

    /// What the message asks for. `text` is the whole message: the error for an unknown command
    /// quotes the message's `type`, if that is a string, as the Node server `WebRTC-SignalServer`
    /// did.
    ///
    /// # Errors
    /// [`Fault::UnknownCommand`].
    pub fn signal(&self, text: &str) -> Result<Signal, Fault> {
        #[derive(serde::Deserialize)]
        struct Typed {
            r#type: Option<String>,
        }
        Ok(match self.signal_type.as_deref() {
            Some("login") => Signal::Login,
            Some("offer") => Signal::Offer,
            Some("answer") => Signal::Answer,
            Some("pranswer") => Signal::Pranswer,
            Some("candidate") => Signal::Candidate,
            Some("leave") => Signal::Leave,
            other => {
                let typed = serde_json::from_str::<Typed>(text).ok().and_then(|typed| typed.r#type);
                let command = typed.as_deref().or(other).unwrap_or("undefined");
                return Err(Fault::UnknownCommand(command.into()));
            }
        })
    }

    /// The reply that tells the sender why this message was refused. A message that could not be
    /// parsed is represented by [`Envelope::default`].
    pub fn refusal(&self, fault: &Fault) -> String {
        let (code, message) = fault.words();
        let mut reply =
            format!(r#"{{"type":"error","message":{},"code":"{code}""#, to_json(&message));
        if let Some(signal_type) = &self.signal_type {
            reply += &format!(r#","signalType":{}"#, to_json(signal_type));
        }
        if let Some(name) = &self.to_user {
            reply += &format!(r#","toUser":{}"#, name.json);
        }
        reply + "}"
    }
}

/// The `token` of a login; empty if it is missing, repeated or not a string. It is read from logins
/// only, because in other messages `token` is a field of the clients' own.
pub fn login_token(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Login {
        token: Option<String>,
    }
    serde_json::from_str::<Login>(text).ok().and_then(|login| login.token).unwrap_or_default()
}

impl Fault {
    /// The code, which is the stable word for programs, and the sentence for people. Text from the
    /// wire is cut to [`MAX_NAME`](crate::limits::MAX_NAME) bytes, so that a refusal is never much longer
    /// than what it refuses.
    pub fn words(&self) -> (&'static str, String) {
        let (code, sentence, text) = match self {
            Fault::UnknownCommand(command) => ("unknown-command", "Command not found: ", command),
            Fault::InvalidJson(reason) => ("invalid-json", "Invalid JSON: ", reason),
            Fault::NotLoggedIn => return ("not-logged-in", "Log in first".into()),
            Fault::WrongSender(name) => {
                ("wrong-sender", "fromUser must be the name you logged in with: ", name)
            }
            Fault::UserNotFound(name) => ("user-not-found", "User not found: ", name),
            Fault::UserUnreachable(name) => ("user-unreachable", "User unreachable: ", name),
            Fault::TooManyCalls => return ("too-many-calls", "Too many calls".into()),
        };
        (code, format!("{sentence}{}", excerpt(text)))
    }
}

impl LoginRefusal {
    /// The stable word for programs.
    pub fn reason(self) -> &'static str {
        match self {
            LoginRefusal::NameTaken => "name-taken",
            LoginRefusal::InvalidName => "invalid-name",
            LoginRefusal::Unauthorized => "unauthorized",
        }
    }
}

/// The reply to a login: the fields of the request, each value exactly as it was written, but never the
/// token; and the outcome, which may have a JSON array of `iceServers`. `request` is a message that
/// [`Envelope::parse`] has accepted.
pub fn login_reply(request: &str, outcome: Result<Option<String>, LoginRefusal>) -> String {
    let outcome = match outcome {
        Ok(None) => r#""success":"1""#.into(),
        Ok(Some(ice_servers)) => format!(r#""success":"1","iceServers":{ice_servers}"#),
        Err(refusal) => format!(r#""success":"0","reason":"{}""#, refusal.reason()),
    };
    // An error is impossible after `Envelope::parse`. Even then, the reply would contain the
    // outcome.
    let mut json = serde_json::Deserializer::from_str(request);
    let fields = json.deserialize_map(Echo).unwrap_or_default();
    format!("{{{fields}{outcome}}}")
}

/// What a user's partners get when that user disconnects or takes another name.
pub fn leave_message(from_user: &str, to_user: &str) -> String {
    let [from_user, to_user] = [from_user, to_user].map(to_json);
    format!(
        r#"{{"msgType":"other","signalType":"leave","fromUser":{from_user},"toUser":{to_user}}}"#
    )
}

/// An object's fields as they were written, each followed by a comma, without the token and the
/// fields that only the server may set in a login reply. Copying text needs no more memory than the
/// text; a tree of values would need many times as much.
struct Echo;

impl<'de> Visitor<'de> for Echo {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut fields = String::new();
        while let Some((key, value)) = map.next_entry::<Cow<str>, &RawValue>()? {
            if !matches!(&*key, "success" | "reason" | "token" | "iceServers") {
                fields.extend([&to_json(&key), ":", value.get(), ","]);
            }
        }
        Ok(fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?;
        let written = json.get();
        if let Ok(text) = serde_json::from_str(written) {
            return Ok(Name { text, json });
        }
        // An integer has one form in JSON, apart from -0 and from fractions and exponents, which
        // are refused. So its digits can serve as a name.
        match written.parse::<i64>() {
            Ok(number) if number.unsigned_abs() <= MAX_INTEGER_NAME && written != "-0" => {
                Ok(Name { text: written.into(), json })
            }
            _ => Err(de::Error::custom("a name must be a string or an integer within ±(2^53 - 1)")),
        }
    }
}

/// Whether brackets nest deeper than [`MAX_DEPTH`]. Nearly every message has no more opening brackets
/// than that in all, and counting these is quick.
fn nests_too_deep(json: &str) -> bool {
    let opening =
        |bytes: &[u8]| bytes.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>();
    // The sum of a piece fits into a `u8`, so the compiler can make the loop count many bytes at
    // once.
    let pieces = json.as_bytes().chunks(u8::MAX.into());
    if pieces.map(|piece| usize::from(opening(piece))).sum::<usize>() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

fn to_json(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Envelope::parse(text).unwrap_err().words().1
    }

    #[test]
    fn numbers_are_names_as_long_as_no_digit_is_lost() {
        let name = |number: &str| {
            let text = format!(r#"{{"toUser":{number}}}"#);
            Envelope::parse(&text).ok().map(|envelope| envelope.to_user().to_string())
        };
        for number in ["0", "7", "-1", "9007199254740991", "-9007199254740991"] {
            assert_eq!(name(number).as_deref(), Some(number));
        }
        for number in
            ["1.0", "1e3", "-0", "9007199254740992", "-9007199254740992", "18446744073709551616"]
        {
            assert_eq!(name(number), None, "{number}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_only() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(!nests_too_deep(&nested(MAX_DEPTH)));
        assert!(nests_too_deep(&nested(MAX_DEPTH + 1)));
        assert!(!nests_too_deep(&"[]".repeat(MAX_DEPTH + 1)));
        assert!(!nests_too_deep(&format!("[{},[]]", nested(MAX_DEPTH - 1))));
        assert!(!nests_too_deep(&format!(r#"["\"{}", "\\"]"#, "[".repeat(MAX_DEPTH))));
        assert!(nests_too_deep(&format!(r#"["\\", {}]"#, nested(MAX_DEPTH))));
        // Closing what was never opened gains nothing.
        assert!(nests_too_deep(&("]".repeat(500) + &nested(MAX_DEPTH + 1))));
        assert_eq!(
            fault(&format!(r#"{{"x":{}}}"#, nested(MAX_DEPTH))),
            "Invalid JSON: nested deeper than 128"
        );
    }

    #[test]
    fn a_login_reply_echoes_every_field_but_the_servers_own() {
        let reply = |request: &str| login_reply(request, Ok(None));
        assert_eq!(reply("{}"), r#"{"success":"1"}"#);
        assert_eq!(
            reply(
                r#"{"a" : 1.50 ,"success":"0","reason":[],"iceServers":[],"token":"T","to\u006ben":"T","\u0062\"":{"x": [1e999]}}"#
            ),
            r#"{"a":1.50,"b\"":{"x": [1e999]},"success":"1"}"#
        );
        let own = r#"{"iceServers":[1],"success":"1"}"#;
        assert_eq!(login_reply(own, Ok(Some("[2]".into()))), r#"{"success":"1","iceServers":[2]}"#);
        use LoginRefusal::{InvalidName, NameTaken, Unauthorized};
        for refusal in [NameTaken, InvalidName, Unauthorized] {
            assert_eq!(
                login_reply("{}", Err(refusal)),
                format!(r#"{{"success":"0","reason":"{}"}}"#, refusal.reason())
            );
        }
    }

    #[test]
    fn a_token_is_one_string_or_none() {
        assert_eq!(login_token(r#"{"token":"a\u0062"}"#), "ab");
        for text in ["{}", r#"{"token":7}"#, r#"{"token":null}"#, r#"{"token":"a","token":"a"}"#] {
            assert_eq!(login_token(text), "", "{text}");
        }
    }

    #[test]
    fn no_reply_is_much_longer_than_the_message_it_answers() {
        use crate::limits::MAX_REPLY_OVERHEAD;
        // A control character is the one that takes more room in JSON than in a string.
        let long = "\u{1}".repeat(10_000);
        let text =
            serde_json::json!({"signalType": long, "toUser": long, "type": long}).to_string();
        let envelope = Envelope::parse(&text).unwrap();
        let own = [
            Fault::UnknownCommand(long.clone()),
            Fault::InvalidJson(long.clone()),
            Fault::WrongSender(long.clone()),
            Fault::UserNotFound(long.clone()),
            Fault::UserUnreachable(long.clone()),
        ];
        for fault in own {
            assert!(envelope.refusal(&fault).len() <= text.len() + MAX_REPLY_OVERHEAD);
        }
    }
}
