//! Random calls between a few clients, against a model of the contract that fits on two pages.
//!
//! A *case* is a list of steps by three to five clients: logins, relays, pings, invalid messages and
//! disconnects. After each step each client must have received what the [`Model`] says, byte for byte
//! and in order, and nothing else. No step waits for time to pass: a client sends a command that does
//! not exist, and when the error arrives, all its earlier messages have been handled, and all earlier
//! messages to it have arrived.
//!
//! proptest shrinks a case that fails and keeps its seed in `tests/model.proptest-regressions`. Later
//! runs try these seeds first. `PROPTEST_CASES` sets the number of cases.

mod common;

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use common::{Door, Link, PATIENCE, Server};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::{Value, json};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

// ---- what can happen ----

#[derive(Clone, Debug)]
struct Case {
    clients: usize,
    steps: Vec<Step>,
}

/// Clients are numbers, taken modulo the case's. One that is offline connects when it is to act.
#[derive(Clone, Debug)]
enum Step {
    /// One client sends these in one go, and then perhaps ends its connection.
    Act(usize, Vec<Action>, Option<End>),
    /// All who are logged in send to one another at the same time: `[sender, recipient, kind]`.
    Crossfire(Vec<[usize; 3]>),
    /// All who are connected want the same free name at the same time.
    Race,
    /// These clients end their connections at the same time.
    Exodus(BTreeSet<usize>),
}

#[derive(Clone, Debug)]
enum Action {
    Login(Login),
    Relay { kind: usize, from: From, to: To, binary: bool },
    Unknown { named: bool, typed: bool, to: To },
    Broken(usize),
    Ping(u8),
}

#[derive(Clone, Debug)]
enum Login {
    /// One of the case's names, perhaps as an integer.
    Named(usize, bool),
    /// One that nobody may have.
    Invalid(usize),
}

#[derive(Clone, Debug)]
enum From {
    Oneself(bool),
    Somebody(usize),
    Missing,
}

#[derive(Clone, Debug)]
enum To {
    Oneself,
    Somebody(usize, bool),
    Nobody,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// A close frame, right behind what was sent before it.
    Close,
    /// A FIN, right behind what was sent before it.
    HalfClose,
    /// Both directions at once, without a close frame.
    Vanish,
}

const KINDS: [&str; 5] = ["offer", "answer", "pranswer", "candidate", "leave"];
const NAMES: usize = 6;
const INVALID: usize = 10;
const BROKEN: [&str; 11] = [
    "",
    "null",
    "[]",
    "{",
    r#"{"signalType":"leave","signalType":"leave"}"#,
    r#"{"signalType":7}"#,
    r#"{"signalType":"login","fromUser":1.5}"#,
    r#"{"signalType":"offer","toUser":true}"#,
    r#"{"signalType":"login","fromUser":9007199254740992}"#,
    r#"{"signalType":"leave","toUser":-9007199254740992}"#,
    "{} {}",
];

fn case() -> impl Strategy<Value = Case> {
    let end = prop_oneof![Just(End::Close), Just(End::HalfClose), Just(End::Vanish)];
    let to = || {
        prop_oneof![
            1 => Just(To::Oneself),
            8 => (0..NAMES, any::<bool>()).prop_map(|(name, integer)| To::Somebody(name, integer)),
            1 => Just(To::Nobody),
            1 => Just(To::Missing),
        ]
    };
    let from = prop_oneof![
        16 => any::<bool>().prop_map(From::Oneself),
        1 => (0..NAMES).prop_map(From::Somebody),
        1 => Just(From::Missing),
    ];
    let login = prop_oneof![
        6 => (0..NAMES, any::<bool>()).prop_map(|(name, integer)| Login::Named(name, integer)),
        1 => (0..INVALID).prop_map(Login::Invalid),
    ];
    let action = prop_oneof![
        4 => login.prop_map(Action::Login),
        12 => (0..KINDS.len(), from, to(), any::<bool>())
            .prop_map(|(kind, from, to, binary)| Action::Relay { kind, from, to, binary }),
        1 => (any::<bool>(), any::<bool>(), to())
            .prop_map(|(named, typed, to)| Action::Unknown { named, typed, to }),
        1 => (0..BROKEN.len()).prop_map(Action::Broken),
        1 => any::<u8>().prop_map(Action::Ping),
    ];
    let step = prop_oneof![
        20 => (0..60_usize, vec(action, 1..4), prop::option::weighted(0.12, end))
            .prop_map(|(client, actions, end)| Step::Act(client, actions, end)),
        1 => vec([0..60_usize, 0..60_usize, 0..4_usize], 1..24).prop_map(Step::Crossfire),
        1 => Just(Step::Race),
        1 => prop::collection::btree_set(0..60_usize, 1..4).prop_map(Step::Exodus),
    ];
    (3..=5_usize, vec(step, 1..32)).prop_map(|(clients, steps)| Case { clients, steps })
}

// ---- what must come of it ----

/// What a client must hear.
#[derive(Clone, Debug)]
enum Expected {
    /// A text frame with these bytes.
    Text(String),
    /// A text frame with this JSON, its fields in any order.
    Json(Value),
    /// An `invalid-json` error, its reason being anything.
    InvalidJson,
    Pong(u8),
    /// The answer to its own close.
    Closed,
}

/// The contract: who has which name, and who is in a call with whom.
struct Model {
    names: Vec<Option<String>>,
    calls: BTreeSet<(usize, usize)>,
    /// What each client must have heard by the end of the step.
    expected: Vec<Vec<Expected>>,
    /// How often at most each client may have been pinged in this step: once for each login that
    /// wanted its name. (Not at all if the server has just heard from it anyway.)
    probes: Vec<usize>,
}

impl Model {
    fn new(clients: usize) -> Model {
        Model {
            names: vec![None; clients],
            calls: BTreeSet::new(),
            expected: vec![Vec::new(); clients],
            probes: vec![0; clients],
        }
    }

    fn holder(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|held| held.as_deref() == Some(name))
    }

    fn expect(&mut self, client: usize, what: Expected) {
        self.expected[client].push(what);
    }

    fn login(&mut self, client: usize, name: &str, request: &Value) {
        let is_forbidden = |c: char| c.is_control() || c == '\u{202e}';
        let is_valid = (1..=128).contains(&name.len())
            && !name.contains(is_forbidden)
            && !name.starts_with(char::is_whitespace)
            && !name.ends_with(char::is_whitespace);
        let outcome = if !is_valid {
            Err("invalid-name")
        } else {
            match self.holder(name) {
                Some(holder) => {
                    if holder != client {
                        self.probes[holder] += 1;
                    }
                    Err("name-taken")
                }
                None => Ok(()),
            }
        };
        let mut reply = request.clone();
        match outcome {
            Ok(()) => {
                self.log_out(client);
                self.names[client] = Some(name.into());
                reply["success"] = json!("1");
            }
            Err(reason) => {
                reply["success"] = json!("0");
                reply["reason"] = json!(reason);
            }
        }
        self.expect(client, Expected::Json(reply));
    }

    fn relay(&mut self, client: usize, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        let kind = message["signalType"].as_str().unwrap();
        let (from, to) = (name_in(&message["fromUser"]), name_in(&message["toUser"]));
        let Some(me) = self.names[client].clone() else {
            return self.error(client, &message, "not-logged-in", "Log in first".into());
        };
        if from != me {
            let text = format!("fromUser must be the name you logged in with: {me}");
            return self.error(client, &message, "wrong-sender", text);
        }
        let Some(recipient) = self.holder(&to) else {
            if kind != "leave" {
                self.error(client, &message, "user-not-found", format!("User not found: {to}"));
            }
            return;
        };
        self.expect(recipient, Expected::Text(text.into()));
        let pair = (client.min(recipient), client.max(recipient));
        match kind {
            "offer" | "answer" | "pranswer" if client != recipient => self.calls.insert(pair),
            "leave" => self.calls.remove(&pair),
            _ => false,
        };
    }

    fn error(&mut self, client: usize, message: &Value, code: &str, text: String) {
        let mut reply = json!({"type": "error", "message": text, "code": code});
        for field in ["signalType", "toUser"] {
            if let Some(value) = message.get(field) {
                reply[field] = value.clone();
            }
        }
        self.expect(client, Expected::Json(reply));
    }

    fn unknown(&mut self, client: usize, message: &Value) {
        let name = message.get("type").or(message.get("signalType"));
        let name = name.map_or("undefined", |name| name.as_str().unwrap());
        self.error(client, message, "unknown-command", format!("Command not found: {name}"));
    }

    /// Frees a client's name, and tells everybody who is in a call with it.
    fn log_out(&mut self, client: usize) {
        let Some(me) = self.names[client].take() else { return };
        let partner = |&(a, b): &(usize, usize)| match client {
            client if client == a => Some(b),
            client if client == b => Some(a),
            _ => None,
        };
        let partners: Vec<usize> = self.calls.iter().filter_map(partner).collect();
        self.calls.retain(|pair| partner(pair).is_none());
        let quoted = |name: &str| Value::from(name).to_string();
        for partner in partners {
            let to = self.names[partner].clone().unwrap();
            let text = format!(
                r#"{{"msgType":"other","signalType":"leave","fromUser":{},"toUser":{}}}"#,
                quoted(&me),
                quoted(&to)
            );
            self.expect(partner, Expected::Text(text));
        }
    }
}

/// The name that a field gives, if it gives one.
fn name_in(field: &Value) -> String {
    match field {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

impl Expected {
    fn is(&self, heard: &Heard) -> bool {
        match (self, heard) {
            (Expected::Text(expected), Heard::Text(text)) => expected == text,
            (Expected::Json(expected), Heard::Text(text)) => {
                serde_json::from_str::<Value>(text).is_ok_and(|value| value == *expected)
            }
            (Expected::InvalidJson, Heard::Text(text)) => {
                let reply: Value = serde_json::from_str(text).unwrap_or_default();
                reply["type"] == "error"
                    && reply["code"] == "invalid-json"
                    && reply["message"].as_str().is_some_and(|m| m.starts_with("Invalid JSON: "))
                    && reply.as_object().is_some_and(|fields| fields.len() == 3)
            }
            (Expected::Pong(expected), Heard::Pong(payload)) => payload[..] == [*expected],
            (Expected::Closed, Heard::Closed(code)) => *code == Some(1000),
            _ => false,
        }
    }
}

// ---- what does come of it ----

/// What a client hears.
#[derive(Clone, Debug)]
enum Heard {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    Closed(Option<u16>),
    /// The connection is over.
    End,
}

/// A client that is connected. It has two views on its socket: one to write, and one that a thread
/// of its own reads, and answers pings with, at any time.
struct Client {
    writer: WebSocket<TcpStream>,
    heard: Receiver<Heard>,
}

impl Client {
    fn connect(door: &Door) -> Client {
        let socket = door.open_socket(Link::Plain);
        let (mut reader, _) =
            tungstenite::client("ws://localhost/", socket.try_clone().unwrap()).unwrap();
        let writer = WebSocket::from_raw_socket(socket, Role::Client, None);
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || listen(&mut reader, &sender));
        Client { writer, heard }
    }

    /// Adds a message to what the next [`Client::flush`] sends.
    fn write(&mut self, message: Message) -> Result<(), String> {
        self.writer.write(message).map_err(|error| format!("can't write: {error}"))
    }

    fn flush(&mut self) -> Result<(), String> {
        self.writer.flush().map_err(|error| format!("can't write: {error}"))
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means that the server was quicker, which shows elsewhere.
        let _ = self.writer.get_ref().shutdown(how);
    }

    fn next(&self) -> Result<Heard, String> {
        match self.heard.recv_timeout(PATIENCE) {
            Ok(heard) => Ok(heard),
            Err(RecvTimeoutError::Timeout) => Err("nothing heard for too long".into()),
            Err(RecvTimeoutError::Disconnected) => Err("nothing more to hear".into()),
        }
    }

    /// Asks for a command that does not exist.
    fn ask_for_mark(&mut self) -> Result<Value, String> {
        static MARKS: AtomicU64 = AtomicU64::new(0);
        let mark = MARKS.fetch_add(1, Ordering::Relaxed);
        self.write(Message::text(json!({"signalType": "mark", "toUser": mark}).to_string()))?;
        self.flush()?;
        Ok(json!({
            "type": "error", "code": "unknown-command", "message": "Command not found: mark",
            "signalType": "mark", "toUser": mark,
        }))
    }

    /// Everything heard before the answer to that.
    fn heard_until(&self, mark: &Value) -> Result<Vec<Heard>, String> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                Heard::Text(text)
                    if serde_json::from_str::<Value>(&text).is_ok_and(|v| v == *mark) =>
                {
                    return Ok(all);
                }
                Heard::End => return Err(format!("disconnected, after hearing {all:?}")),
                heard => all.push(heard),
            }
        }
    }

    /// Everything heard up to the end of the connection.
    fn heard_until_end(&self) -> Result<Vec<Heard>, String> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                Heard::End => return Ok(all),
                heard => all.push(heard),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Both); // which ends the thread as well
    }
}

fn listen(reader: &mut WebSocket<TcpStream>, sender: &Sender<Heard>) {
    loop {
        let heard = match reader.read() {
            Ok(Message::Text(text)) => Heard::Text(text.to_string()),
            // The next `read` sends the pong.
            Ok(Message::Ping(_)) => Heard::Ping,
            Ok(Message::Pong(payload)) => Heard::Pong(payload.to_vec()),
            Ok(Message::Close(frame)) => Heard::Closed(frame.map(|frame| frame.code.into())),
            Ok(other) => Heard::Text(format!("no text frame, but {other:?}")),
            Err(_) => {
                let _ = sender.send(Heard::End);
                return;
            }
        };
        if sender.send(heard).is_err() {
            return;
        }
    }
}

// ---- both together ----

/// One case as it is played.
struct Play<'a> {
    door: &'a Door,
    number: u64,
    model: Model,
    clients: Vec<Option<Client>>,
    /// The next payload, different for each message.
    payload: u64,
}

impl Play<'_> {
    /// The case's names, which no other case has. The first two can be written as integers.
    fn name(&self, index: usize) -> String {
        let number = self.number;
        match index {
            0 => number.to_string(),
            1 => format!("-{number}"),
            2 => format!("\"é\\ {number}"),
            3 => format!("__proto__{number}"),
            4 => format!("{number:x>128}"),
            _ => format!("\u{1F600}{number}"),
        }
    }

    fn as_field(name: String, as_integer: bool) -> Value {
        match name.parse::<i64>() {
            Ok(number) if as_integer => json!(number),
            _ => json!(name),
        }
    }

    fn recipient(&self, client: usize, to: &To) -> Option<Value> {
        match to {
            To::Oneself => Some(json!(self.model.names[client].as_deref().unwrap_or("me"))),
            To::Somebody(index, integer) => Some(Self::as_field(self.name(*index), *integer)),
            To::Nobody => Some(json!(format!("nobody{}", self.number))),
            To::Missing => None,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.model.expected.iter_mut().for_each(Vec::clear);
        self.model.probes.fill(0);
        let count = self.clients.len();
        match step {
            Step::Act(client, actions, end) => self.act(client % count, actions, *end),
            Step::Crossfire(shots) => self.crossfire(shots),
            Step::Race => self.race(),
            Step::Exodus(who) => self.exodus(&who.iter().map(|client| client % count).collect()),
        }
    }

    fn act(&mut self, me: usize, actions: &[Action], end: Option<End>) -> Result<(), String> {
        let mut client = match self.clients[me].take() {
            Some(client) => client,
            None => Client::connect(self.door),
        };
        for action in actions {
            client.write(self.apply(me, action))?;
        }
        let mut heard = match end {
            None | Some(End::Vanish) => {
                let mark = client.ask_for_mark()?;
                client.heard_until(&mark)?
            }
            Some(how) => {
                if how == End::Close {
                    self.model.expect(me, Expected::Closed);
                    let frame = CloseFrame { code: 1000.into(), reason: "".into() };
                    client.write(Message::Close(Some(frame)))?;
                }
                client.flush()?;
                if how == End::HalfClose {
                    client.shutdown(Shutdown::Write);
                }
                client.heard_until_end()?
            }
        };
        self.compare_in_order(me, &mut heard)?;
        let name = self.model.names[me].clone();
        if let Some(end) = end {
            self.model.log_out(me);
            drop(client);
            // It has heard the end of it, and then so have its partners. Only one that vanished
            // has not, but its name comes free when its partners have.
            if let (Some(name), End::Vanish) = (name, end) {
                self.wait_until_free(&name)?;
            }
        } else {
            self.clients[me] = Some(client);
        }
        self.compare_everybody(Self::compare_in_order)
    }

    /// Tells the model what this action does, and returns the message that does it.
    fn apply(&mut self, me: usize, action: &Action) -> Message {
        match action {
            Action::Login(login) => {
                let mut request = json!({"msgType": "other", "signalType": "login", "toUser": ""});
                let field = match login {
                    Login::Named(index, integer) => {
                        Some(Self::as_field(self.name(*index), *integer))
                    }
                    Login::Invalid(0) => None,
                    Login::Invalid(1) => Some(Value::Null),
                    Login::Invalid(2) => Some(json!("")),
                    Login::Invalid(3) => Some(json!("x".repeat(129))),
                    Login::Invalid(4) => Some(json!(format!("{}é", "x".repeat(127)))),
                    Login::Invalid(5) => Some(json!("a\nb")),
                    Login::Invalid(6) => Some(json!(" a")),
                    Login::Invalid(7) => Some(json!("a\u{3000}")),
                    Login::Invalid(8) => Some(json!("a\u{202e}b")),
                    Login::Invalid(_) => Some(json!("\u{85}")),
                };
                if let Some(field) = field {
                    request["fromUser"] = field;
                }
                let name = name_in(&request["fromUser"]);
                let message = Message::text(request.to_string());
                self.model.login(me, &name, &request);
                message
            }
            Action::Relay { kind, from, to, binary } => {
                let mine = self.model.names[me].clone();
                let from = match from {
                    From::Oneself(integer) => {
                        Some(Self::as_field(mine.unwrap_or("me".into()), *integer))
                    }
                    From::Somebody(index) => Some(json!(self.name(*index))),
                    From::Missing => None,
                };
                let to = self.recipient(me, to);
                let text = self.signal(KINDS[*kind], from, to);
                self.model.relay(me, &text);
                if *binary { Message::binary(text.into_bytes()) } else { Message::text(text) }
            }
            Action::Unknown { named, typed, to } => {
                let mut message = json!({});
                if *named {
                    message["signalType"] = json!("Offer");
                }
                if *typed {
                    message["type"] = json!("kind");
                }
                if let Some(to) = self.recipient(me, to) {
                    message["toUser"] = to;
                }
                self.model.unknown(me, &message);
                Message::text(message.to_string())
            }
            Action::Broken(index) => {
                self.model.expect(me, Expected::InvalidJson);
                Message::text(BROKEN[*index])
            }
            Action::Ping(payload) => {
                self.model.expect(me, Expected::Pong(*payload));
                Message::Ping(vec![*payload].into())
            }
        }
    }

    /// A message that is no other, with spaces that only a copy of its bytes keeps.
    fn signal(&mut self, kind: &str, from: Option<Value>, to: Option<Value>) -> String {
        self.payload += 1;
        let field = |name: &str, value: Option<Value>| {
            value.map(|value| format!("\"{name}\" :{value}, ")).unwrap_or_default()
        };
        format!(
            " {{\"signalType\":\"{kind}\",\t{}{}\"sdp\":{{\"n\":{}.0}}}}",
            field("fromUser", from),
            field("toUser", to),
            self.payload
        )
    }

    fn crossfire(&mut self, shots: &[[usize; 3]]) -> Result<(), String> {
        let ready: Vec<usize> =
            (0..self.clients.len()).filter(|&client| self.model.names[client].is_some()).collect();
        if ready.is_empty() {
            return Ok(());
        }
        for [sender, recipient, kind] in shots {
            let (sender, recipient) = (ready[sender % ready.len()], ready[recipient % ready.len()]);
            let [from, to] = [sender, recipient].map(|client| self.model.names[client].clone());
            // All but leave: whatever their order, the same users are partners in the end.
            let text = self.signal(KINDS[*kind], from.map(Value::from), to.map(Value::from));
            self.model.relay(sender, &text);
            self.clients[sender].as_mut().unwrap().write(Message::text(text))?;
        }
        self.each_is_done(&ready)
    }

    fn race(&mut self) -> Result<(), String> {
        self.payload += 1;
        let name = format!("race{}-{}", self.payload, self.number);
        let request = json!({"signalType": "login", "fromUser": name});
        let racers: Vec<usize> =
            (0..self.clients.len()).filter(|&client| self.clients[client].is_some()).collect();
        for &racer in &racers {
            let client = self.clients[racer].as_mut().unwrap();
            client.write(Message::text(request.to_string()))?;
        }
        let mut heard = self.all_heard(&racers)?;
        let won = |heard: &Heard| matches!(heard, Heard::Text(t) if t.contains(r#""success":"1""#));
        let mut order: Vec<usize> = racers.clone();
        order.sort_by_key(|&racer| !heard[racer].iter().any(won));
        for racer in order {
            self.model.login(racer, &name, &request);
        }
        // A client that loses may still probe the winner.
        for racer in racers {
            self.compare_per_sender(racer, &mut heard[racer])?;
        }
        self.compare_everybody(Self::compare_in_order)
    }

    fn exodus(&mut self, who: &BTreeSet<usize>) -> Result<(), String> {
        let leavers: Vec<Client> = who.iter().filter_map(|&who| self.clients[who].take()).collect();
        for leaver in &leavers {
            leaver.shutdown(Shutdown::Write);
        }
        for leaver in &leavers {
            leaver.heard_until_end()?; // which may be the goodbye of another one, or not
        }
        for &who in who {
            self.model.log_out(who);
            self.model.expected[who].clear();
        }
        self.compare_everybody(Self::compare_per_sender)
    }

    /// After each of these has written something: sends it, and compares what everybody heard.
    fn each_is_done(&mut self, senders: &[usize]) -> Result<(), String> {
        let mut heard = self.all_heard(senders)?;
        for (client, heard) in heard.iter_mut().enumerate() {
            if self.clients[client].is_some() {
                self.compare_per_sender(client, heard)?;
            }
        }
        self.compare_everybody(Self::compare_in_order)
    }

    /// What each client hears until all that these have written is done.
    fn all_heard(&mut self, senders: &[usize]) -> Result<Vec<Vec<Heard>>, String> {
        let mut heard = vec![Vec::new(); self.clients.len()];
        // The first round shows that all is sent, the second that it has come.
        for _ in 0..2 {
            let mut marks = Vec::new();
            for &sender in senders {
                marks.push(self.clients[sender].as_mut().unwrap().ask_for_mark()?);
            }
            for (&sender, mark) in senders.iter().zip(&marks) {
                let more = self.clients[sender].as_ref().unwrap().heard_until(mark)?;
                heard[sender].extend(more);
            }
        }
        Ok(heard)
    }

    /// Compares what everybody has heard, who is connected, with what is still expected.
    fn compare_everybody(
        &mut self,
        compare: fn(&mut Self, usize, &mut Vec<Heard>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut marks = Vec::new();
        for client in &mut self.clients {
            marks.push(client.as_mut().map(Client::ask_for_mark).transpose()?);
        }
        for (number, mark) in marks.iter().enumerate() {
            if let (Some(client), Some(mark)) = (&self.clients[number], mark) {
                let mut heard = client.heard_until(mark)?;
                compare(self, number, &mut heard)?;
            }
        }
        Ok(())
    }

    /// What one client heard must be what is expected, in order. What is compared is over.
    fn compare_in_order(&mut self, client: usize, heard: &mut Vec<Heard>) -> Result<(), String> {
        self.allow_probes(client, heard)?;
        let expected = std::mem::take(&mut self.model.expected[client]);
        let same = expected.len() == heard.len()
            && expected.iter().zip(&*heard).all(|(expected, heard)| expected.is(heard));
        if same { Ok(()) } else { Err(difference(client, &expected, heard)) }
    }

    /// The same, but messages of different senders may come in any order.
    fn compare_per_sender(&mut self, client: usize, heard: &mut Vec<Heard>) -> Result<(), String> {
        self.allow_probes(client, heard)?;
        let expected = std::mem::take(&mut self.model.expected[client]);
        let mut rest = expected.clone();
        for heard_one in &*heard {
            let Some(position) = rest.iter().position(|expected| expected.is(heard_one)) else {
                return Err(difference(client, &expected, heard));
            };
            let sender = rest.remove(position).sender();
            if rest[..position].iter().any(|earlier| earlier.sender() == sender) {
                return Err(difference(client, &expected, heard));
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(difference(client, &expected, heard)) }
    }

    fn allow_probes(&mut self, client: usize, heard: &mut Vec<Heard>) -> Result<(), String> {
        let before = heard.len();
        heard.retain(|heard| !matches!(heard, Heard::Ping));
        match self.model.probes[client].checked_sub(before - heard.len()) {
            Some(left) => self.model.probes[client] = left,
            None => return Err(format!("client {client} was pinged for no reason")),
        }
        Ok(())
    }

    /// Waits until `name` can be had, by having it.
    fn wait_until_free(&mut self, name: &str) -> Result<(), String> {
        let mut heir = Client::connect(self.door);
        let deadline = Instant::now() + PATIENCE;
        let request = json!({"signalType": "login", "fromUser": name}).to_string();
        loop {
            heir.write(Message::text(request.clone()))?;
            heir.flush()?;
            match heir.next()? {
                Heard::Text(reply) if reply.contains(r#""success":"1""#) => break,
                // The server has not come to see the end of the connection yet.
                Heard::Text(reply) if reply.contains("name-taken") => {}
                other => return Err(format!("{name} is not free: {other:?}")),
            }
            if Instant::now() > deadline {
                return Err(format!("{name} never came free"));
            }
        }
        heir.shutdown(Shutdown::Write);
        heir.heard_until_end()?;
        Ok(())
    }
}

impl Expected {
    /// Whose message this is; none for the server's own replies.
    fn sender(&self) -> Option<String> {
        match self {
            Expected::Text(text) => {
                Some(name_in(&serde_json::from_str::<Value>(text).unwrap()["fromUser"]))
            }
            _ => None,
        }
    }
}

fn difference(client: usize, expected: &[Expected], heard: &[Heard]) -> String {
    format!("client {client}\n  should have heard {expected:?}\n  but has heard     {heard:?}")
}

#[test]
fn every_client_hears_what_the_contract_says_and_nothing_else() {
    let server = Server::start_with(&["--max-per-ip", "0", "--max-connections", "0"]);
    let door = server.door();
    let numbers = AtomicU64::new(1);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model.proptest-regressions");
    let config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        max_shrink_time: 20_000, // milliseconds; only a case that fails is shrunk
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case(), |case| {
        let mut play = Play {
            door: &door,
            number: numbers.fetch_add(1, Ordering::Relaxed),
            model: Model::new(case.clients),
            clients: (0..case.clients).map(|_| None).collect(),
            payload: 0,
        };
        for (number, step) in case.steps.iter().enumerate() {
            play.step(step).map_err(|error| {
                TestCaseError::fail(format!("step {number}, {step:?}: {error}"))
            })?;
        }
        Ok(())
    });
    drop(server); // and with it its log of thousands of clients, which would hide the case
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
