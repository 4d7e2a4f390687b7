//! The client in measurements. It writes and reads frames that were made beforehand, so that no
//! WebSocket library is part of the figures.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::id;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use native_tls::{TlsConnector, TlsStream};
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::common::{CANDIDATE, Link, OFFER, PATIENCE, Server};

pub const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// What the server says to that (RFC 6455, section 1.3), and to a login: for whoever imitates it.
pub const UPGRADE_ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
pub const LOGIN_ANSWER: &str = r#"{"signalType":"login","fromUser":"12345 678","success":"1"}"#;

/// Made once: making it reads all of the system's certificates.
static CONNECTOR: LazyLock<TlsConnector> =
    LazyLock::new(|| TlsConnector::builder().danger_accept_invalid_certs(true).build().unwrap());

/// Options of a server whose own limits are not what is measured.
pub const NO_LIMITS: &[&str] =
    &["--log", "info", "--max-rate", "0", "--max-connections", "0", "--max-per-ip", "0"];

/// Plain or TLS.
pub trait Connection: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Connection for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// A connection that is logged in, under a name that nobody else has; or why not.
pub fn log_in(address: SocketAddr, link: Link) -> Result<(Box<dyn Connection>, String), String> {
    let name = name();
    let mut stream = connect(address, link)?;
    (|| {
        stream.write_all(UPGRADE)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            read_more(&mut stream, &mut answer)?;
        }
        stream.write_all(&login_frame(&name))?;
        answer.clear();
        while !answer.ends_with(b"}") {
            read_more(&mut stream, &mut answer)?;
        }
        let answer = String::from_utf8_lossy(&answer);
        if answer.contains(r#""success":"1""#) {
            Ok(())
        } else {
            Err(std::io::Error::other(answer))
        }
    })()
    .map_err(|error| format!("cannot log in: {error}"))?;
    Ok((stream, name))
}

fn connect(address: SocketAddr, link: Link) -> Result<Box<dyn Connection>, String> {
    let socket = TcpStream::connect(address).map_err(|error| format!("cannot connect: {error}"))?;
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(match link {
        Link::Plain => Box::new(socket),
        Link::Tls => Box::new(CONNECTOR.connect("localhost", socket).map_err(|e| e.to_string())?),
    })
}

fn read_more(stream: &mut impl Read, received: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = [0; 1024];
    match stream.read(&mut chunk)? {
        0 => return Err(std::io::Error::other("closed by the server")),
        count => received.extend_from_slice(&chunk[..count]),
    }
    Ok(())
}

/// A name that nobody had before, on any server.
fn name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{} {}", id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn login_frame(name: &str) -> Vec<u8> {
    client_frame(TEXT, json!({"signalType": "login", "fromUser": name}).to_string().as_bytes())
}

/// What a call consists of, mostly.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// 2 KiB.
    Offer,
    /// 6 KiB, with audio and video.
    VideoOffer,
    /// 300 bytes.
    Candidate,
}

impl Payload {
    /// A recorded message, cut or padded to its size, as JSON.
    pub fn message(self, from: &str, to: &str) -> String {
        let (text, size) = match self {
            Payload::Offer => (OFFER, 2 * 1024),
            Payload::VideoOffer => (OFFER, 6 * 1024),
            Payload::Candidate => (CANDIDATE, 300),
        };
        let mut message: Value = serde_json::from_str(text).unwrap();
        message["fromUser"] = from.into();
        message["toUser"] = to.into();
        // An SDP is ASCII. Every character of it is one byte of JSON, or two (`\r`, `\n`), so that
        // half of the excess is never too much to cut, and it may come out one byte short.
        while let excess @ 1.. = message.to_string().len().saturating_sub(size) {
            let sdp = message["sdp"]["sdp"].as_str().unwrap();
            message["sdp"]["sdp"] = sdp[..sdp.len() - excess.div_ceil(2)].into();
        }
        format!("{:size$}", message.to_string()) // A blank after the object is JSON still.
    }
}

/// One of the two that are compared.
#[derive(Clone, Copy)]
pub enum Relay<'a> {
    Server(&'a Server),
    Bare(&'a Bare),
}

impl Relay<'_> {
    pub fn pairs(self, count: usize, link: Link, payload: Payload) -> Vec<Pair> {
        (0..count).map(|_| self.pair(link, payload)).collect()
    }

    fn pair(self, link: Link, payload: Payload) -> Pair {
        match self {
            Relay::Server(server) => {
                let [(alice, from), (bob, to)] =
                    [(); 2].map(|()| log_in(server.address(link), link).unwrap());
                let message = payload.message(&from, &to);
                let sent = client_frame(TEXT, message.as_bytes());
                Pair::new(alice, bob, sent, server_frame(&message))
            }
            // The same bytes, but nobody on the way looks at them.
            Relay::Bare(bare) => {
                // Bob first, as `bare` wants it.
                let [bob, alice] = [(); 2].map(|()| connect(bare.relay(link), link).unwrap());
                let sent = client_frame(TEXT, payload.message(&name(), &name()).as_bytes());
                let mut pair = Pair::new(alice, bob, sent.clone(), sent);
                // `bare` takes every two connections for mates, in the order in which it accepts them.
                // So it must have accepted these two before there are others: were its backlog full,
                // the order could become another.
                pair.deliver();
                pair
            }
        }
    }

    pub fn pid(self) -> u32 {
        match self {
            Relay::Server(server) => server.pid(),
            Relay::Bare(bare) => bare.pid(),
        }
    }
}

/// Alice's and bob's connections, and the bytes that go in at hers and come out at his.
pub struct Pair {
    alice: Box<dyn Connection>,
    bob: Box<dyn Connection>,
    sent: Vec<u8>,
    expected: Vec<u8>,
    received: Vec<u8>,
    /// How much of it there is.
    count: usize,
}

impl Pair {
    fn new(
        alice: Box<dyn Connection>,
        bob: Box<dyn Connection>,
        sent: Vec<u8>,
        expected: Vec<u8>,
    ) -> Pair {
        let received = vec![0; expected.len()];
        Pair { alice, bob, sent, expected, received, count: 0 }
    }

    /// Whether [`Pair::receive`] waits; at first, it does.
    pub fn wait(&self, wait: bool) {
        self.bob.socket().set_nonblocking(!wait).unwrap();
    }

    pub fn send(&mut self) {
        self.alice.write_all(&self.sent).unwrap();
    }

    /// Whether all of the message has arrived.
    pub fn receive(&mut self) -> bool {
        while self.count < self.received.len() {
            match self.bob.read(&mut self.received[self.count..]) {
                Ok(0) => panic!("closed by the relay"),
                Ok(count) => self.count += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
        self.count = 0;
        true
    }

    /// One message's time on the way, from before alice's `send` until bob has all of it.
    ///
    /// They are one thread here: it sends on her socket, and then waits on his. So nothing is
    /// measured but the way, no second wake-up on the client's side, and both ends read one clock.
    pub fn deliver(&mut self) -> Duration {
        let start = Instant::now();
        self.send();
        assert!(self.receive(), "nothing arrived");
        let time = start.elapsed();
        assert!(self.received == self.expected, "something else arrived");
        time
    }
}

/// The first byte of a frame that is a whole message (RFC 6455, section 5.2).
pub const TEXT: u8 = 0x81;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// Clients mask what they send; which bytes they take doesn't matter to anybody.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key);
    header(first, 0x80, payload.len()).into_iter().chain(MASK).chain(masked).collect()
}

pub fn server_frame(text: &str) -> Vec<u8> {
    header(TEXT, 0, text.len()).into_iter().chain(text.bytes()).collect()
}

/// Of a frame of at most 65,535 bytes; `mask` is the bit that says that it is masked.
fn header(first: u8, mask: u8, length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short @ ..126) => vec![first, mask | short],
        _ => {
            let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
            vec![first, mask | 126, high, low]
        }
    }
}
