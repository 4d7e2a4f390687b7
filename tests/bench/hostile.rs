//! Hostile clients in a process of their own: ten kinds, up to a hundred of each.
//!
//! The process has the lowest priority, so that it does not take the cores from the server. The figures
//! then show the work that the clients cause in the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::client::{PING, TEXT, UPGRADE, client_frame, login_frame};

/// Connections of each kind.
const EACH: usize = 100;
/// Between two rounds over the connections of a kind.
const PAUSE: Duration = Duration::from_millis(10);
/// A client whose connection was closed comes again after half as many on average.
const ROUNDS_TO_RECONNECT: usize = 100;
/// So many rounds are over before the measurement begins. By then the recipients have stalled.
const ROUNDS_BEFORE: usize = 20;
/// From then on, each sender to a stalled recipient sends an offer of the usual size, once in as many
/// rounds: twice a second. Long messages would cost the server as much if their recipients read them.
const LATER_ROUNDS: usize = 50;

/// Started with this argument, this program is hostile clients.
pub const ROLE: &str = "--hostile";

/// Which of them there are: how many of each kind, of which kinds.
pub const MIXES: [(&str, usize, Range<usize>); 4] = [
    ("100 stalled recipients", EACH, 5..7),
    ("100 drippers", EACH, 1..2),
    ("a flooding client", 1, 7..8),
    ("1,000 of all kinds", EACH, 0..10),
];

/// Takes part until it is killed. Says `ready` on standard output when all are at it.
pub fn rage(arguments: &[String]) {
    let [address, mix] = arguments else { panic!("an address and a mix") };
    let address: SocketAddr = address.parse().expect("an address");
    let (_, each, of_kinds) = MIXES.into_iter().find(|(name, ..)| name == mix).expect("a mix");
    // What a connection says first, what it says again and again, whether it reads, and what it says
    // later instead, less often.
    let kinds: [Kind; 10] = [
        // Silence; half a request that drips; half a frame; garbage.
        Kind { first: |_| vec![], again: |_| vec![], reads: false, later: None },
        Kind {
            first: |_| b"GET / HTTP/1.1\r\nX: ".to_vec(),
            again: |_| vec![b'x'],
            reads: false,
            later: None,
        },
        Kind {
            first: |_| upgraded(&[0x81, 0xe4, 0, 0, 0, 0, b'{']),
            again: |_| vec![],
            reads: false,
            later: None,
        },
        Kind {
            first: |_| b"\x16\x03\x01".to_vec(),
            again: |_| vec![b'?'; 100],
            reads: true,
            later: None,
        },
        // A storm of logins under one name, by clients that answer no ping.
        Kind {
            first: |_| upgraded(&login_frame("popular")),
            again: |_| vec![],
            reads: false,
            later: None,
        },
        // Recipients that take no data, and who sends to them.
        Kind {
            first: |n| upgraded(&login_frame(&format!("stalled {n}"))),
            again: |_| vec![],
            reads: false,
            later: None,
        },
        Kind {
            first: |n| upgraded(&login_frame(&format!("sender {n}"))),
            again: |number| relay(number, 30_000),
            reads: true,
            later: Some(|number| relay(number, 3_000)),
        },
        // Floods: short messages, long ones, pings.
        Kind { first: |_| upgraded(&[]), again: short_messages, reads: true, later: None },
        Kind { first: |_| upgraded(&[]), again: long_message, reads: true, later: None },
        Kind { first: |_| upgraded(&[]), again: pings, reads: true, later: None },
    ];
    let (begun, all_begun) = mpsc::channel();
    for kind in kinds.into_iter().take(of_kinds.end).skip(of_kinds.start) {
        let begun = begun.clone();
        let mut clients: Vec<_> = (0..each).map(|number| kind.connect(address, number)).collect();
        let again: Vec<_> = (0..each).map(kind.again).collect();
        let later: Vec<_> = (0..each).map(kind.later.unwrap_or(kind.again)).collect();
        let pause = if kind.later.is_some() { LATER_ROUNDS } else { 1 };
        thread::spawn(move || {
            for round in 0.. {
                if round == ROUNDS_BEFORE {
                    begun.send(()).expect("the process is there");
                }
                for (number, client) in clients.iter_mut().enumerate() {
                    let bytes: &[u8] = match round {
                        ..ROUNDS_BEFORE => &again[number],
                        _ if (round + number).is_multiple_of(pause) => &later[number],
                        _ => &[],
                    };
                    if client.is_some() {
                        kind.go_on(client, bytes);
                    } else if (round + number).is_multiple_of(ROUNDS_TO_RECONNECT) {
                        *client = kind.connect(address, number);
                    }
                }
                thread::sleep(PAUSE);
            }
        });
    }
    drop(begun);
    assert_eq!(all_begun.iter().take(of_kinds.len()).count(), of_kinds.len());
    println!("ready");
    // Whoever started this closes our input, or kills us.
    let _ = std::io::stdin().read(&mut [0]);
}

#[derive(Clone, Copy)]
struct Kind {
    first: fn(usize) -> Vec<u8>,
    again: fn(usize) -> Vec<u8>,
    reads: bool,
    later: Option<fn(usize) -> Vec<u8>>,
}

impl Kind {
    fn connect(&self, address: SocketAddr, number: usize) -> Option<TcpStream> {
        let mut socket = TcpStream::connect(address).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.write_all(&(self.first)(number)).ok()?;
        Some(socket)
    }

    /// One more round.
    fn go_on(&self, client: &mut Option<TcpStream>, again: &[u8]) {
        let Some(socket) = client else {
            return;
        };
        let mut received = [0; 16 * 1024];
        let blocked = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        let ended = self.reads
            && match socket.read(&mut received) {
                Ok(count) => count == 0,
                Err(error) => !blocked(error),
            };
        // Half a frame may be left behind by a full buffer, and breaks the framing: as it may.
        let refused = !again.is_empty() && socket.write(again).is_err_and(|error| !blocked(error));
        if ended || refused {
            *client = None;
        }
    }
}

fn upgraded(then: &[u8]) -> Vec<u8> {
    [UPGRADE, then].concat()
}

fn relay(number: usize, length: usize) -> Vec<u8> {
    let (from, to) = (format!("sender {number}"), format!("stalled {number}"));
    let padding = "x".repeat(length);
    let message = json!({"signalType": "candidate", "fromUser": from, "toUser": to, "x": padding});
    client_frame(TEXT, message.to_string().as_bytes())
}

fn short_messages(_: usize) -> Vec<u8> {
    client_frame(TEXT, br#"{"signalType":"?"}"#).repeat(50)
}

fn long_message(_: usize) -> Vec<u8> {
    client_frame(TEXT, format!(r#"{{"signalType":"?","x":"{}"}}"#, "x".repeat(60_000)).as_bytes())
}

fn pings(_: usize) -> Vec<u8> {
    client_frame(PING, &[b'p'; 125]).repeat(50)
}
