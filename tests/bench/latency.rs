//! How long one message is on its way, from before alice's `send` until bob has all of it, with
//! nothing else going on.
//!
//! Alice and bob are one thread here: it sends on her socket, and then waits on his. So nothing is
//! measured but the way, no second wake-up on the client's side, and both ends read one clock.
//!
//! Waking a thread on another core takes longer than all the rest. Where the system happens to
//! place the threads of a connection would decide who looks better: left alone, the ratio of one
//! round was seen anywhere from 0.3 to 5. So the measurement places them, where it can:
//!
//! - *same core*: the client and both relays on one. With one message at a time only one thread of
//!   all can run at any moment, so this slows nobody down, and the relay's own work is the largest
//!   part of the figure. The target is set here.
//! - *two cores*: the client on one, both relays on another. Every message is two wake-ups across.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use native_tls::TlsConnector;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::bare::BareRelay;
use crate::common::{Link, OFFER, PATIENCE, Server, Stream};
use crate::cores::Cores;
use crate::stats::{median, microseconds, percentile};

/// Bytes of one offer, as JSON.
const OFFER_SIZE: usize = 2 * 1024;
/// Each round has new connections: new threads, stacks and buffers, as the system hands them out.
const ROUNDS: usize = 20;
/// Server and bare relay take turns within a round, so that both meet the same disturbances.
const TURNS: usize = 10;
const MESSAGES_A_TURN: usize = 100;
/// Unmeasured messages on a new connection.
const WARM_UP: usize = 50;
/// The server may take this many times as long as the bare relay (medians of the first row).
const TARGET: f64 = 1.2;

/// The section's figures.
pub struct Latency {
    rows: Vec<Row>,
}

/// Both sides over one kind of link.
struct Row {
    name: &'static str,
    server: Side,
    bare: Side,
    /// Of each round: the server's median divided by the bare relay's.
    ratios: Vec<f64>,
}

struct Side {
    p50: Duration,
    p99: Duration,
}

/// Starts both processes, and measures them over plain and TLS connections.
pub fn measure() -> Latency {
    let mut rows = Vec::new();
    let Some(cores) = Cores::allowed() else {
        eprintln!("no `taskset` here: the threads run where they like, expect much noise");
        let (server, bare) = start();
        rows.push(Row::measure("plain", &server, &bare, Link::Plain));
        rows.push(Row::measure("TLS", &server, &bare, Link::Tls));
        return Latency { rows };
    };
    cores.stay_on(0);
    let (server, bare) = start();
    rows.push(Row::measure("plain, same core", &server, &bare, Link::Plain));
    rows.push(Row::measure("TLS, same core", &server, &bare, Link::Tls));
    if cores.count() > 1 {
        cores.stay_on(1);
        rows.push(Row::measure("plain, two cores", &server, &bare, Link::Plain));
        rows.push(Row::measure("TLS, two cores", &server, &bare, Link::Tls));
    }
    Latency { rows }
}

fn start() -> (Server, BareRelay) {
    // Below this level every message would cost a line of log.
    (Server::start_with(&["--log", "info"]), BareRelay::start())
}

impl Row {
    fn measure(name: &'static str, server: &Server, bare: &BareRelay, link: Link) -> Row {
        let (mut server_times, mut bare_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let mut pairs =
                [Pair::through_server(server, link, name, round), Pair::through_bare(bare, link)];
            let mut times = [Vec::new(), Vec::new()];
            for pair in &mut pairs {
                pair.deliver(WARM_UP);
            }
            for turn in 0..TURNS {
                // Neither side is always the first.
                for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                    times[side].extend(pairs[side].deliver(MESSAGES_A_TURN));
                }
            }
            let [through_server, through_bare] = times;
            ratios
                .push(microseconds(median(&through_server)) / microseconds(median(&through_bare)));
            server_times.extend(through_server);
            bare_times.extend(through_bare);
        }
        eprintln!("latency, {name}: {ROUNDS} rounds done");
        Row { name, server: Side::of(&server_times), bare: Side::of(&bare_times), ratios }
    }

    fn ratio(&self) -> f64 {
        median(&self.ratios)
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "server": self.server.to_json(),
            "bare": self.bare.to_json(),
            "ratio": {
                "median": self.ratio(),
                "min": percentile(&self.ratios, 0),
                "max": percentile(&self.ratios, 100),
            },
        })
    }
}

/// Alice's and bob's connections, and the bytes that go in at hers and come out at his.
pub struct Pair {
    alice: Box<dyn Stream>,
    bob: Box<dyn Stream>,
    sent: Vec<u8>,
    expected: Vec<u8>,
    received: Vec<u8>,
}

impl Pair {
    /// Two users. After the logins the frames are written and read as they are, so that no
    /// WebSocket library is part of what is measured on the client's side.
    pub fn through_server(server: &Server, link: Link, row: &str, round: usize) -> Pair {
        // The former round's connections may still be closing, so the names are new.
        let [alice_name, bob_name] = ["alice", "bob"].map(|name| format!("{name} {row} {round}"));
        let mut alice = connect(server.address(link), link);
        let mut bob = connect(server.address(link), link);
        log_in(&mut alice, &alice_name);
        log_in(&mut bob, &bob_name);
        let offer = offer(&alice_name, &bob_name);
        Pair::new(alice, bob, text_frame(&offer, Some(MASK)), text_frame(&offer, None))
    }

    /// The same bytes, but nobody on the way looks at them.
    fn through_bare(bare: &BareRelay, link: Link) -> Pair {
        let bob = connect(bare.address(link), link); // first, as `bare` wants it
        let alice = connect(bare.address(link), link);
        let frame = text_frame(&offer("alice", "bob"), Some(MASK));
        Pair::new(alice, bob, frame.clone(), frame)
    }

    fn new(alice: Box<dyn Stream>, bob: Box<dyn Stream>, sent: Vec<u8>, expected: Vec<u8>) -> Pair {
        let received = vec![0; expected.len()];
        Pair { alice, bob, sent, expected, received }
    }

    /// Sends one message after the other, and returns each one's time on the way.
    pub fn deliver(&mut self, messages: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(messages);
        for _ in 0..messages {
            let start = Instant::now();
            self.alice.write_all(&self.sent).unwrap();
            self.bob.read_exact(&mut self.received).unwrap();
            times.push(start.elapsed());
            assert!(self.received == self.expected, "something else arrived");
        }
        times
    }
}

fn connect(address: SocketAddr, link: Link) -> Box<dyn Stream> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    match link {
        Link::Plain => Box::new(socket),
        Link::Tls => {
            let connector = TlsConnector::builder().danger_accept_invalid_certs(true).build();
            Box::new(connector.unwrap().connect("localhost", socket).unwrap())
        }
    }
}

fn log_in(stream: &mut dyn Stream, name: &str) {
    let (mut websocket, _) = tungstenite::client("ws://localhost/", stream).unwrap();
    let login = json!({"signalType": "login", "fromUser": name, "toUser": ""});
    websocket.send(Message::text(login.to_string())).unwrap();
    let reply = websocket.read().unwrap();
    let reply: Value = serde_json::from_str(reply.to_text().unwrap()).unwrap();
    assert_eq!(reply["success"], "1", "login as {name}");
}

/// A recorded offer, cut to [`OFFER_SIZE`].
fn offer(from: &str, to: &str) -> String {
    let mut message: Value = serde_json::from_str(OFFER).unwrap();
    message["fromUser"] = from.into();
    message["toUser"] = to.into();
    let mut sdp = message["sdp"]["sdp"].as_str().unwrap().to_string();
    // The SDP is ASCII. Every character of it is one byte of JSON, or two (`\r`, `\n`), so that it
    // may come out one byte short.
    while message.to_string().len() > OFFER_SIZE {
        sdp.pop();
        message["sdp"]["sdp"] = sdp.clone().into();
    }
    let text = message.to_string();
    format!("{text:OFFER_SIZE$}") // A blank after the object is JSON still.
}

/// Clients mask what they send; which bytes they take doesn't matter to anybody.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A text frame of 126 to 65,535 bytes (RFC 6455, section 5.2), masked as a client's or not.
fn text_frame(text: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    assert!(length >= 126, "shorter ones have another header");
    let mut frame = vec![0x81, 126];
    frame.extend(length.to_be_bytes());
    match mask {
        None => frame.extend(text.bytes()),
        Some(mask) => {
            frame[1] |= 0x80;
            frame.extend(mask);
            frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

impl Side {
    fn of(times: &[Duration]) -> Side {
        Side { p50: median(times), p99: percentile(times, 99) }
    }

    fn to_json(&self) -> Value {
        json!({ "p50_us": microseconds(self.p50), "p99_us": microseconds(self.p99) })
    }
}

impl Latency {
    pub fn to_json(&self) -> Value {
        json!({
            "offer_bytes": OFFER_SIZE,
            "rounds": ROUNDS,
            "messages_a_round": TURNS * MESSAGES_A_TURN,
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "target": TARGET,
            "target_met": self.target_met(),
        })
    }

    fn target_met(&self) -> bool {
        self.rows[0].ratio() <= TARGET
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let messages = ROUNDS * TURNS * MESSAGES_A_TURN;
        writeln!(
            f,
            "One-way delivery of an offer of {OFFER_SIZE} bytes, one at a time, one pair;"
        )?;
        writeln!(f, "{messages} messages a cell, in {ROUNDS} rounds; times in microseconds")?;
        writeln!(f)?;
        writeln!(f, "                     server          bare relay     ratio of the p50")?;
        writeln!(
            f,
            "                     p50     p99     p50     p99    median   min–max of rounds"
        )?;
        for row in &self.rows {
            write!(f, "{:<18}", row.name)?;
            for time in [row.server.p50, row.server.p99, row.bare.p50, row.bare.p99] {
                write!(f, "{:>6.1}  ", microseconds(time))?;
            }
            let (min, max) = (percentile(&row.ratios, 0), percentile(&row.ratios, 100));
            writeln!(f, "  {:.2}     {min:.2}–{max:.2}", row.ratio())?;
        }
        writeln!(f)?;
        let verdict = if self.target_met() { "met" } else { "missed" };
        write!(f, "target: {}, at most {TARGET:.2} of the bare relay: {verdict}", self.rows[0].name)
    }
}
