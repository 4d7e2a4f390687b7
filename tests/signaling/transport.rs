//! RFC 6455 over the server's `Transport`: the rules of its sections 5 (frames) and 7 (closing),
//! with the bytes arriving in every possible portion.
//!
//! tungstenite parses the frames, and has tests of its own for that. These tests show that frames
//! survive the server's own stream under it: the read buffer, the `recv` without the lock, and TLS
//! records. The test makes the frames by hand. A [`Wire`] holds the bytes for the network, encrypted
//! with TLS, and sends them in portions. It sends a portion when the server has read the last one,
//! which Linux can tell (see [`wait_until_taken`]); on other systems two portions may arrive as one.
//!
//! `FRAMING_SEED` repeats the random cuts of an earlier run.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::{Door, Link, Local, PATIENCE, Server, wait_until};
use native_tls::{HandshakeError, Protocol, TlsConnector, TlsStream};
use serde_json::{Value, json};
use signal_server::limits::Timeouts;

crate::over_plain_and_tls! {
    every_length_and_every_form_of_it
    a_length_over_the_limit_closes_with_1009
    every_mask
    an_unmasked_frame_closes_with_1002
    fragments_with_control_frames_between
    fragments_out_of_order_close_with_1002
    control_frames_are_short_and_whole
    reserved_bits_and_opcodes_close_with_1002
    text_is_utf8_and_binary_frames_may_be_anything
    a_close_is_answered_with_its_own_code
    a_close_that_is_none_is_answered_with_1002_or_1007
    nothing_is_answered_after_a_close
    a_stopping_server_says_1001_and_takes_the_answer
    after_its_own_close_the_server_waits_for_the_answer
    a_link_that_ends_without_a_close_ends_the_connection
    a_conversation_cut_at_every_place
    a_request_with_frames_behind_it_cut_at_every_place
    a_conversation_byte_by_byte
    many_frames_at_once
    large_messages_cut_at_random
}

/// The server, with no limit on connections: many are made here, all from one address.
fn server() -> Server {
    Server::start_with(&["--max-per-ip", "0", "--max-connections", "0"])
}

// ---- frames by hand (RFC 6455, section 5.2) ----

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The last frame of a message.
const FIN: u8 = 0x80;

/// The mask of the RFC's own examples.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame. `first` is its first byte: flags and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let form = match payload.len() {
        0..=125 => 0,
        126..=0xffff => 2,
        _ => 8,
    };
    frame_with(first, form, MASK, payload)
}

/// The same, with its length in this many further bytes.
fn frame_with(first: u8, form: usize, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [header(first, form, payload.len() as u64), mask.to_vec(), masked.collect()].concat()
}

/// The part of a header that is before the mask.
fn header(first: u8, form: usize, length: u64) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    let mut header = vec![first];
    match form {
        0 => header.push(0x80 | length as u8),
        2 => header.push(0x80 | 126),
        _ => header.push(0x80 | 127),
    }
    header.extend_from_slice(&bytes[8 - form..]);
    header
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A frame from the server: its first byte, and the payload.
type Frame = (u8, Vec<u8>);

fn text(text: &str) -> Frame {
    (FIN | TEXT, text.into())
}

fn pong(payload: &[u8]) -> Frame {
    (FIN | PONG, payload.into())
}

/// A message from `name` to `name`, which comes back as it is, of `length` bytes.
fn to_oneself(name: &str, length: usize) -> String {
    let start = format!(r#"{{"signalType":"candidate","fromUser":"{name}","toUser":"{name}","é":"#);
    let filler = (b'a'..=b'z').cycle().map(char::from);
    let filler: String = filler.take(length.checked_sub(start.len() + 3).unwrap()).collect();
    format!("{start}\"{filler}\"}}")
}

// ---- the bytes on the network ----

/// A connection whose bytes on the network are in the test's hands.
struct Wire {
    tunnel: Tunnel,
    name: String,
}

enum Tunnel {
    Plain(Pipe),
    Tls(TlsStream<Pipe>),
}

/// A socket that keeps what is written to it until it is pushed. Until then there is nothing to
/// read, which makes TLS stop in the middle of its handshake.
struct Pipe {
    socket: TcpStream,
    kept: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.kept.is_empty() {
            self.socket.read(buffer)
        } else {
            Err(ErrorKind::WouldBlock.into())
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static TLS13: LazyLock<TlsConnector> = LazyLock::new(|| connector(None));
static TLS12: LazyLock<TlsConnector> = LazyLock::new(|| connector(Some(Protocol::Tlsv12)));

fn connector(newest: Option<Protocol>) -> TlsConnector {
    TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .disable_built_in_roots(true)
        .max_protocol_version(newest)
        .build()
        .unwrap()
}

impl Wire {
    /// Connects, with nothing sent yet, but TLS set up if that is the link.
    fn open(door: Door, link: Link) -> Wire {
        Wire::open_with(door, link, &TLS13)
    }

    fn open_with(door: Door, link: Link, connector: &TlsConnector) -> Wire {
        let pipe = Pipe::connect(door, link);
        let tunnel = match link {
            Link::Plain => Tunnel::Plain(pipe),
            Link::Tls => {
                let mut handshake = connector.connect("localhost", pipe);
                loop {
                    let mut step = match handshake {
                        Ok(stream) => break Tunnel::Tls(stream),
                        Err(HandshakeError::WouldBlock(step)) => step,
                        Err(HandshakeError::Failure(error)) => panic!("{error}"),
                    };
                    step.get_mut().push_kept();
                    handshake = step.handshake();
                }
            }
        };
        let mut wire = Wire { tunnel, name: String::new() };
        wire.pipe().push_kept();
        wire
    }

    /// Connects, and logs in as `name`.
    fn log_in(door: Door, link: Link, name: &str) -> Wire {
        Wire::log_in_with(door, link, &TLS13, name)
    }

    fn log_in_with(door: Door, link: Link, tls: &TlsConnector, name: &str) -> Wire {
        let mut wire = Wire::open_with(door, link, tls);
        wire.send(REQUEST.as_bytes());
        wire.upgraded();
        wire.send(&frame(FIN | TEXT, login(name).as_bytes()));
        wire.logged_in();
        wire.name = name.into();
        wire
    }

    fn pipe(&mut self) -> &mut Pipe {
        match &mut self.tunnel {
            Tunnel::Plain(pipe) => pipe,
            Tunnel::Tls(stream) => stream.get_mut(),
        }
    }

    /// What goes over the network for these bytes: a TLS record, if that is the link, or several
    /// if they don't fit in one.
    fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.tunnel {
            Tunnel::Plain(pipe) => pipe.write_all(bytes).unwrap(),
            Tunnel::Tls(stream) => stream.write_all(bytes).unwrap(),
        }
        std::mem::take(&mut self.pipe().kept)
    }

    /// Puts bytes on the network as they are.
    fn push(&mut self, sealed: &[u8]) {
        self.pipe().socket.write_all(sealed).unwrap();
    }

    fn send(&mut self, bytes: &[u8]) {
        let sealed = self.seal(bytes);
        self.push(&sealed);
    }

    /// Says that nothing more will come: TLS's goodbye, if that is the link, and TCP's.
    fn hang_up(&mut self) {
        if let Tunnel::Tls(stream) = &mut self.tunnel {
            stream.shutdown().unwrap();
        }
        self.pipe().push_kept();
        self.pipe().socket.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        match &mut self.tunnel {
            Tunnel::Plain(pipe) => pipe.read_exact(&mut bytes).unwrap(),
            Tunnel::Tls(stream) => stream.read_exact(&mut bytes).unwrap(),
        }
        bytes
    }

    /// The next frame, which must be a server's: whole, unmasked, with the shortest length.
    fn frame(&mut self) -> Frame {
        let head = self.read(2);
        assert_eq!(head[0] & 0xf0, FIN, "a fragment, or a reserved bit");
        let length = match head[1] {
            length @ 0..=125 => length.into(),
            126 => {
                let length = u16::from_be_bytes(self.read(2).try_into().unwrap()).into();
                assert!(length > 125);
                length
            }
            127 => {
                let length = u64::from_be_bytes(self.read(8).try_into().unwrap());
                assert!(length > 0xffff);
                length as usize
            }
            _ => panic!("the server's frame is masked"),
        };
        (head[0], self.read(length))
    }

    fn upgraded(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1));
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    }

    fn logged_in(&mut self) {
        let (first, reply) = self.frame();
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!((first, &reply["success"]), (FIN | TEXT, &json!("1")));
    }

    /// The code of an error reply that must come now.
    fn error_code(&mut self) -> String {
        let (first, reply) = self.frame();
        assert_eq!(first, FIN | TEXT);
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        reply["code"].as_str().unwrap().into()
    }

    /// Sends frames one by one, and compares what comes back for all of them.
    fn answers(&mut self, frames: &[Vec<u8>], expected: &[Frame]) {
        for frame in frames {
            self.send(frame);
        }
        for expected in expected {
            let heard = self.frame();
            assert!(heard == *expected, "{} instead of {}", show(&heard), show(expected));
        }
    }

    /// All is well: a message to oneself comes back next.
    fn goes_on(&mut self) {
        let message = to_oneself(&self.name, 100);
        self.answers(&[frame(FIN | TEXT, message.as_bytes())], &[text(&message)]);
    }

    /// The server must say nothing more, and end the connection in good order.
    fn ended(&mut self) {
        let mut rest = Vec::new();
        match &mut self.tunnel {
            Tunnel::Plain(pipe) => pipe.read_to_end(&mut rest),
            Tunnel::Tls(stream) => stream.read_to_end(&mut rest),
        }
        .unwrap_or_else(|error| panic!("the connection did not end in good order: {error}"));
        assert_eq!(rest, b"", "the server said more");
    }

    /// A close frame with this code must come, and the end.
    fn closed_with(&mut self, code: u16) {
        let (first, payload) = self.frame();
        assert_eq!((first, payload.get(..2)), (FIN | CLOSE, Some(&code.to_be_bytes()[..])));
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
        self.ended();
    }
}

impl Pipe {
    fn connect(door: Door, link: Link) -> Pipe {
        Pipe { socket: door.open_socket(link), kept: Vec::new() }
    }

    fn push_kept(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.socket.write_all(&kept).unwrap();
    }
}

fn show((first, payload): &Frame) -> String {
    format!("{first:#x} {:?}", String::from_utf8_lossy(&payload[..payload.len().min(300)]))
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn login(name: &str) -> String {
    json!({"signalType": "login", "fromUser": name}).to_string()
}

/// Waits until the server has received all that was sent on these connections, so that what is
/// sent next is a portion of its own: until no byte is left in the queues of the server's sockets.
/// (What one side of the loopback interface sends is in the other side's queue when the call
/// returns.) On other systems than Linux, returns at once.
fn wait_until_taken<'a>(sockets: impl Iterator<Item = &'a TcpStream>) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let ports = |socket: &TcpStream| {
        (socket.peer_addr().unwrap().port(), socket.local_addr().unwrap().port())
    };
    let servers: HashSet<(u16, u16)> = sockets.map(ports).collect();
    wait_until_now("the server takes what was sent", || {
        fs::read_to_string("/proc/net/tcp").unwrap().lines().skip(1).all(|line| {
            // number: local remote state sending:receiving … (proc_pid_net(5)), in hexadecimal
            let mut words = line.split_whitespace().skip(1);
            let mut port = || {
                let port = words.next().and_then(|address| address.split_once(':')).unwrap().1;
                u16::from_str_radix(port, 16).unwrap()
            };
            let ports = (port(), port());
            !servers.contains(&ports) || words.nth(1).unwrap().ends_with(":00000000")
        })
    });
}

/// As `wait_until`, but without a pause: here it is a matter of microseconds.
fn wait_until_now(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

// ---- frames ----

fn every_length_and_every_form_of_it(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    for length in [124, 125, 126, 127, 128, 65534, 65535, 65536] {
        let message = to_oneself("alice", length);
        for opcode in [TEXT, BINARY] {
            alice.answers(&[frame(FIN | opcode, message.as_bytes())], &[text(&message)]);
        }
    }
    // Senders must use the shortest form, but who reads a longer one loses nothing.
    for (length, form) in [(125, 2), (125, 8), (126, 8), (65535, 8)] {
        let message = to_oneself("alice", length);
        alice.answers(&[frame_with(FIN | TEXT, form, MASK, message.as_bytes())], &[text(&message)]);
        alice.answers(&[frame_with(FIN | PING, form, MASK, b"hello")], &[pong(b"hello")]);
    }
    for (opcode, form) in [(TEXT, 0), (BINARY, 0), (TEXT, 2), (TEXT, 8)] {
        alice.send(&frame_with(FIN | opcode, form, MASK, b""));
        assert_eq!(alice.error_code(), "invalid-json");
    }
    alice.goes_on();
}

fn a_length_over_the_limit_closes_with_1009(link: Link) {
    let server = server();
    for length in [65537, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX] {
        for opcode in [TEXT, BINARY, PING] {
            let mut client = Wire::log_in(server.door(), link, &format!("{opcode}-{length}"));
            // The header is enough to know, and no byte of the payload needs to come.
            client.send(&[header(FIN | opcode, 8, length), MASK.to_vec()].concat());
            client.closed_with(1009);
        }
    }
    // In fragments: the second one is too much.
    let mut client = Wire::log_in(server.door(), link, "alice");
    client.send(&frame(TEXT, &[b' '; 65536]));
    client.send(&frame(CONTINUATION, b""));
    client.send(&frame(CONTINUATION, b" "));
    client.closed_with(1009);
}

fn every_mask(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    let (mut frames, mut pongs) = (Vec::new(), Vec::new());
    for mask in [MASK, [0; 4], [0xff; 4], [1, 0, 0, 0], [0, 0, 0, 1], *b"{\"\"}"] {
        for length in 0..20 {
            let payload: Vec<u8> = (1..=length).collect();
            frames.push(frame_with(FIN | PING, 0, mask, &payload));
            pongs.push(pong(&payload));
        }
        let message = to_oneself("alice", 131);
        frames.push(frame_with(FIN | TEXT, 2, mask, message.as_bytes()));
        pongs.push(text(&message));
    }
    alice.answers(&frames, &pongs);
    alice.goes_on();
}

fn an_unmasked_frame_closes_with_1002(link: Link) {
    let server = server();
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        for payload in [&b""[..], &[3, 0xe8], b"{}"] {
            let mut client = Wire::log_in(server.door(), link, &format!("{opcode}-{payload:?}"));
            client.send(&[&[FIN | opcode, payload.len() as u8], payload].concat());
            client.closed_with(1002);
        }
    }
}

fn fragments_with_control_frames_between(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    let message = to_oneself("alice", 200);
    let bytes = message.as_bytes();
    for opcode in [TEXT, BINARY] {
        // Two fragments, at every place, inside of a character too.
        for cut in 0..=bytes.len() {
            let (first, rest) = bytes.split_at(cut);
            let ping = cut.to_string();
            let frames = [
                frame(opcode, first),
                frame(FIN | PONG, b"nobody asked"),
                frame(FIN | PING, ping.as_bytes()),
                frame(FIN | CONTINUATION, rest),
            ];
            alice.answers(&frames, &[pong(ping.as_bytes()), text(&message)]);
        }
        // As many as there are bytes, and empty ones at both ends.
        let mut frames = vec![frame(opcode, b"")];
        let mut expected = Vec::new();
        for byte in bytes {
            frames.push(frame(CONTINUATION, &[*byte]));
            frames.push(frame(FIN | PING, &[*byte]));
            expected.push(pong(&[*byte]));
        }
        frames.push(frame(FIN | CONTINUATION, b""));
        expected.push(text(&message));
        alice.answers(&frames, &expected);
    }
    // The largest message, in pieces of which none ends with a `recv` or a record.
    let message = to_oneself("alice", 65536);
    let mut pieces: Vec<_> =
        message.as_bytes().chunks(9973).map(|piece| frame(CONTINUATION, piece)).collect();
    pieces[0][0] = TEXT;
    pieces.last_mut().unwrap()[0] = FIN | CONTINUATION;
    alice.answers(&pieces, &[text(&message)]);
    alice.goes_on();
}

fn fragments_out_of_order_close_with_1002(link: Link) {
    let server = server();
    let broken = [
        vec![frame(FIN | CONTINUATION, b"x")],
        vec![frame(CONTINUATION, b"")],
        vec![frame(TEXT, b"{"), frame(TEXT, b"}")],
        vec![frame(TEXT, b"{"), frame(FIN | TEXT, b"}")],
        vec![frame(BINARY, b"{"), frame(FIN | TEXT, b"}")],
        vec![frame(TEXT, b""), frame(FIN | BINARY, b"")],
    ];
    for (number, frames) in broken.iter().enumerate() {
        let mut client = Wire::log_in(server.door(), link, &number.to_string());
        for frame in frames {
            client.send(frame);
        }
        client.closed_with(1002);
    }
    // A message that is over is over.
    let mut client = Wire::log_in(server.door(), link, "alice");
    client.send(&frame(TEXT, b"{"));
    client.send(&frame(FIN | CONTINUATION, b"}"));
    assert_eq!(client.error_code(), "unknown-command");
    client.send(&frame(FIN | CONTINUATION, b"}"));
    client.closed_with(1002);
}

fn control_frames_are_short_and_whole(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    for length in [0, 1, 124, 125] {
        let payload = vec![0xfe; length];
        let frames = [frame(FIN | PONG, &payload), frame(FIN | PING, &payload)];
        alice.answers(&frames, &[pong(&payload)]);
    }
    alice.goes_on();
    for opcode in [PING, PONG, CLOSE] {
        let long = frame(FIN | opcode, &close(1000, &[b' '; 124]));
        let fragment = frame(opcode, &close(1000, b""));
        for (kind, broken) in [("long", long), ("fragment", fragment)] {
            let mut client = Wire::log_in(server.door(), link, &format!("{kind}-{opcode}"));
            client.send(&broken);
            client.closed_with(1002);
        }
    }
}

fn reserved_bits_and_opcodes_close_with_1002(link: Link) {
    let server = server();
    let mut broken = Vec::new();
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            broken.push(vec![frame(FIN | bit | opcode, b"")]);
        }
        broken.push(vec![frame(TEXT, b"{"), frame(FIN | bit | CONTINUATION, b"}")]);
    }
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        broken.push(vec![frame(FIN | opcode, b"")]);
        broken.push(vec![frame(FIN | opcode, &[b' '; 300])]);
    }
    for (number, frames) in broken.iter().enumerate() {
        let mut client = Wire::log_in(server.door(), link, &number.to_string());
        for frame in frames {
            client.send(frame);
        }
        client.closed_with(1002);
    }
}

fn text_is_utf8_and_binary_frames_may_be_anything(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    for good in
        ["\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}", "\u{feff}"]
    {
        let message = to_oneself("alice", 150).replace("ab", good);
        alice.answers(&[frame(FIN | TEXT, message.as_bytes())], &[text(&message)]);
    }
    let broken: [&[u8]; 8] = [
        b"\x80",             // a continuation byte alone
        b"\xc3",             // a lead byte alone
        b"\xf0\x9f\x98",     // three bytes of four
        b"\xc0\xaf",         // overlong
        b"\xe0\x80\x80",     // overlong
        b"\xed\xa0\x80",     // half of a surrogate pair
        b"\xf4\x90\x80\x80", // beyond U+10FFFF
        b"\xff",             // never a byte of UTF-8
    ];
    for bytes in broken {
        let payload = [br#"{"x":""#, bytes, br#""}"#].concat();
        // In a binary frame that is one bad message, and the connection stays.
        alice.send(&frame(FIN | BINARY, &payload));
        assert_eq!(alice.error_code(), "invalid-json");

        let mut client = Wire::log_in(server.door(), link, &format!("{bytes:?}"));
        client.send(&frame(FIN | TEXT, &payload));
        client.closed_with(1007);
        // At the very end, too, and in two fragments, cut where it breaks.
        let mut client = Wire::log_in(server.door(), link, &format!("{bytes:?}, cut"));
        client.send(&frame(TEXT, &payload[..7]));
        client.send(&frame(FIN | CONTINUATION, &payload[7..6 + bytes.len()]));
        client.closed_with(1007);
    }
    alice.goes_on();
}

// ---- closing ----

fn a_close_is_answered_with_its_own_code(link: Link) {
    let server = server();
    let longest = close(1000, &[b'x'; 123]);
    let mut closes =
        vec![vec![], close(1000, b"bye"), close(1000, "ü\u{1F600}".as_bytes()), longest];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        closes.push(close(code, b""));
    }
    for (number, payload) in closes.iter().enumerate() {
        let mut client = Wire::log_in(server.door(), link, &number.to_string());
        client.answers(&[frame(FIN | CLOSE, payload)], &[(FIN | CLOSE, payload.clone())]);
        client.ended();
    }
    // In the middle of a message, which is then lost.
    let mut client = Wire::log_in(server.door(), link, "alice");
    client.send(&frame(TEXT, b"{"));
    client.answers(&[frame(FIN | CLOSE, b"")], &[(FIN | CLOSE, vec![])]);
    client.ended();
}

fn a_close_that_is_none_is_answered_with_1002_or_1007(link: Link) {
    let server = server();
    let mut broken = vec![(vec![3], 1002)];
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        broken.push((close(code, b""), 1002));
    }
    for reason in [&b"\xc3"[..], b"\xff", b"fine\xed\xa0\x80"] {
        broken.push((close(1000, reason), 1007));
    }
    for (number, (payload, code)) in broken.iter().enumerate() {
        println!("close with {payload:?}");
        let mut client = Wire::log_in(server.door(), link, &number.to_string());
        client.send(&frame(FIN | CLOSE, payload));
        client.closed_with(*code);
    }
}

fn nothing_is_answered_after_a_close(link: Link) {
    let server = server();
    let message = frame(FIN | TEXT, to_oneself("alice", 100).as_bytes());
    let goodbye = frame(FIN | CLOSE, &close(1000, b""));
    let ping = frame(FIN | PING, b"x");
    let garbage = vec![0xff; 100];
    for after in [&message, &ping, &goodbye, &garbage] {
        let mut client = Wire::log_in(server.door(), link, "alice");
        client.send(&[&ping[..], &goodbye, after, after].concat());
        assert_eq!(client.frame(), pong(b"x"));
        client.closed_with(1000);
        wait_until("the name is free", || {
            let mut next = Wire::open(server.door(), link);
            next.send(REQUEST.as_bytes());
            next.upgraded();
            next.send(&frame(FIN | TEXT, login("alice").as_bytes()));
            let reply: Value = serde_json::from_slice(&next.frame().1).unwrap();
            next.send(&goodbye);
            next.closed_with(1000);
            reply["success"] == "1"
        });
    }
}

fn a_stopping_server_says_1001_and_takes_the_answer(link: Link) {
    let mut server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    let mut halfway = Wire::log_in(server.door(), link, "bob");
    let sealed = halfway.seal(&frame(FIN | TEXT, b"{}"));
    halfway.push(&sealed[..sealed.len() - 1]);
    server.signal("TERM");
    for client in [&mut alice, &mut halfway] {
        let (first, payload) = client.frame();
        assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1001_u16.to_be_bytes()[..]));
    }
    alice.send(&frame(FIN | CLOSE, &close(1001, b"")));
    alice.ended();
    halfway.ended();
    drop((alice, halfway));
    assert!(server.wait().success());
}

/// Section 7.1.1: until the client has ended its side too, what it still sends is read and dropped.
/// Closing the socket would answer that with a reset, which may overtake our close frame.
fn after_its_own_close_the_server_waits_for_the_answer(link: Link) {
    let hour = Duration::from_secs(3600);
    let server = Local::start(Timeouts { drain: hour, ..Timeouts::default() });
    let mut client = Wire::log_in(server.door, link, "alice");
    client.send(&frame(FIN | 0x3, b""));
    let answer = client.seal(&frame(FIN | CLOSE, &close(1002, b"")));
    client.closed_with(1002);
    // A reset would come with the first of these, and fail the second.
    for portion in [&answer[..], &[b' '; 20_000]] {
        client.push(portion);
        wait_until_taken([&client.pipe().socket].into_iter());
    }
}

fn a_link_that_ends_without_a_close_ends_the_connection(link: Link) {
    let server = server();
    let mut watch = Wire::log_in(server.door(), link, "watch");
    let whole = frame(FIN | TEXT, to_oneself("alice", 100).as_bytes());
    for sent in [0, 1, 2, 5, 50, whole.len()] {
        let mut client = Wire::log_in(server.door(), link, "alice");
        client.send(&whole[..sent]);
        client.hang_up();
        if sent == whole.len() {
            assert_eq!(client.frame(), text(&to_oneself("alice", 100)));
        }
        client.ended();
    }
    // Going without a word is no offence.
    assert!(!server.log().contains("not RFC 6455"));
    watch.goes_on();
}

#[test]
fn a_tls_record_that_was_changed_on_the_way_ends_the_connection() {
    let hour = Duration::from_secs(3600);
    let server = Local::start(Timeouts { idle: hour, ..Timeouts::default() });
    let mut client = Wire::log_in(server.door, Link::Tls, "alice");
    let mut sealed = client.seal(&frame(FIN | TEXT, to_oneself("alice", 100).as_bytes()));
    *sealed.last_mut().unwrap() ^= 1;
    client.push(&sealed);
    // What came before the end is TLS's alert.
    client.pipe().socket.read_to_end(&mut Vec::new()).expect("the server closes the connection");
}

// ---- portions ----

/// A bit of everything that does not end a connection, and what comes back.
fn conversation(name: &str) -> (Vec<u8>, Vec<Frame>) {
    let [short, long, pieces] = [90, 130, 100].map(|length| to_oneself(name, length));
    let inside_a_character = pieces.find('é').unwrap() + 1;
    let (first, rest) = pieces.as_bytes().split_at(inside_a_character);
    let (second, third) = rest.split_at(20);
    let sent = [
        frame(FIN | TEXT, short.as_bytes()),
        frame(FIN | PING, b""),
        frame(FIN | PING, b"hello"),
        frame(TEXT, first),
        frame(FIN | PING, b"between"),
        frame(CONTINUATION, second),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"nobody asked"),
        frame(FIN | CONTINUATION, third),
        frame(FIN | BINARY, long.as_bytes()),
        frame(FIN | TEXT, b""),
        frame_with(FIN | TEXT, 8, [0; 4], short.as_bytes()),
    ];
    let error = r#"{"type":"error","message":"Invalid JSON: not an object","code":"invalid-json"}"#;
    let heard = vec![
        text(&short),
        pong(b""),
        pong(b"hello"),
        pong(b"between"),
        text(&pieces),
        text(&long),
        text(error),
        text(&short),
    ];
    (sent.concat(), heard)
}

/// How many connections are cut at the same time. (Waiting for one costs as much as for all.)
const AT_ONCE: usize = 64;

fn a_conversation_cut_at_every_place(link: Link) {
    cut_at_every_place(link, &TLS13);
}

#[test]
fn a_conversation_over_tls_1_2_cut_at_every_place() {
    cut_at_every_place(Link::Tls, &TLS12);
}

/// At each place: the server has the first part, then the client is sent a message by somebody else
/// and gets it, and then the rest comes.
fn cut_at_every_place(link: Link, tls: &TlsConnector) {
    let server = server();
    let mut neighbour = Wire::log_in(server.door(), link, "neighbour");
    let mut wires: Vec<Wire> = (0..AT_ONCE)
        .map(|number| Wire::log_in_with(server.door(), link, tls, &format!("user{number:02}")))
        .collect();
    let (mut place, mut last) = (1, usize::MAX);
    while place < last {
        let mut rests = Vec::new();
        for (number, wire) in wires.iter_mut().enumerate() {
            let (sent, heard) = conversation(&wire.name);
            let sealed = wire.seal(&sent);
            assert!(link == Link::Tls || sealed == sent);
            last = sealed.len();
            // Beyond the end, nothing is cut.
            let (first, rest) = sealed.split_at((place + number).min(last));
            wire.push(first);
            rests.push((rest.to_vec(), heard, place + number));
        }
        wait_until_taken(sockets(&mut wires));
        for wire in &wires {
            let hello = json!({
                "signalType": "candidate", "fromUser": "neighbour", "toUser": wire.name,
                "at": place,
            });
            neighbour.send(&frame(FIN | TEXT, hello.to_string().as_bytes()));
        }
        for (wire, (rest, heard, place)) in wires.iter_mut().zip(rests) {
            let mut heard = heard.into_iter().peekable();
            // What was whole in the first part is answered first.
            let greeting = loop {
                let frame = wire.frame();
                match heard.next_if_eq(&frame) {
                    Some(_) => {}
                    None => break frame,
                }
            };
            let greeting_text = String::from_utf8_lossy(&greeting.1);
            assert!(
                greeting_text.contains(r#""fromUser":"neighbour""#),
                "cut at {place}: {} before the rest came",
                show(&greeting)
            );
            wire.push(&rest);
            for heard in heard {
                let frame = wire.frame();
                assert!(
                    frame == heard,
                    "cut at {place}: {} instead of {}",
                    show(&frame),
                    show(&heard)
                );
            }
        }
        place += AT_ONCE;
    }
    println!("{} places", last - 1);
    wires.iter_mut().for_each(Wire::goes_on);
}

fn sockets(wires: &mut [Wire]) -> impl Iterator<Item = &TcpStream> {
    wires.iter_mut().map(|wire| &wire.pipe().socket)
}

/// Frames that arrive together with the request: the WebSocket gets them from the handshake, not
/// through `Transport::feed`.
fn a_request_with_frames_behind_it_cut_at_every_place(link: Link) {
    let server = server();
    let (mut place, mut last) = (1, usize::MAX);
    while place < last {
        let mut wires = Vec::new();
        let mut rests = Vec::new();
        for place in place..(place + AT_ONCE).min(last) {
            let mut wire = Wire::open(server.door(), link);
            wire.name = format!("user{place:03}");
            let request = [REQUEST.as_bytes(), &frame(FIN | TEXT, login(&wire.name).as_bytes())];
            let ping = frame(FIN | PING, b"x");
            // Over TLS in one record, or in two.
            let sealed = if place % 2 == 0 {
                wire.seal(&[request[0], request[1], &ping].concat())
            } else {
                [wire.seal(request[0]), wire.seal(&[request[1], &ping].concat())].concat()
            };
            last = last.min(sealed.len());
            let (first, rest) = sealed.split_at(place.min(sealed.len()));
            wire.push(first);
            rests.push(rest.to_vec());
            wires.push(wire);
        }
        wait_until_taken(sockets(&mut wires));
        for (wire, rest) in wires.iter_mut().zip(rests) {
            wire.push(&rest);
        }
        for wire in &mut wires {
            wire.upgraded();
            wire.logged_in();
            assert_eq!(wire.frame(), pong(b"x"));
            wire.goes_on();
        }
        place += AT_ONCE;
    }
}

/// Both of a client's flights: its hello, and what completes the handshake.
#[test]
fn a_tls_handshake_cut_at_every_place() {
    let server = server();
    for tls in [&*TLS13, &*TLS12] {
        let (mut place, mut last) = (1, usize::MAX);
        while place < last {
            let mut pipes = Vec::new();
            for _ in 0..AT_ONCE {
                pipes.push(Pipe::connect(server.door(), Link::Tls));
            }
            let mut handshakes: Vec<_> =
                pipes.into_iter().map(|pipe| tls.connect("localhost", pipe)).collect();
            let mut wires = Vec::new();
            // In TLS 1.3 the client's handshake is over before its second flight is sent: the call
            // after this loop sends that flight.
            while !handshakes.is_empty() {
                let mut waiting = Vec::new();
                for handshake in handshakes {
                    match handshake {
                        Ok(stream) => {
                            wires.push(Wire { tunnel: Tunnel::Tls(stream), name: "x".into() });
                        }
                        Err(HandshakeError::WouldBlock(step)) => waiting.push(step),
                        Err(HandshakeError::Failure(error)) => panic!("{error}"),
                    }
                }
                let flights = waiting.iter_mut().map(|step| step.get_mut());
                last = send_in_two(flights, place).unwrap_or(last);
                handshakes = waiting.into_iter().map(|step| step.handshake()).collect();
            }
            send_in_two(wires.iter_mut().map(Wire::pipe), place);
            for wire in &mut wires {
                wire.send(&[REQUEST.as_bytes(), &frame(FIN | PING, b"x")].concat());
                wire.upgraded();
                assert_eq!(wire.frame(), pong(b"x"));
            }
            place += AT_ONCE;
        }
        println!("{} places", last - 1);
    }
}

/// Sends what each of these has kept, in two portions: the first is cut at `place`, the next one
/// byte further on, and so on. Returns the length of the longest.
fn send_in_two<'a>(pipes: impl Iterator<Item = &'a mut Pipe>, place: usize) -> Option<usize> {
    let mut pipes: Vec<_> = pipes.collect();
    for (number, pipe) in pipes.iter_mut().enumerate() {
        let cut = (place + number).min(pipe.kept.len());
        let first: Vec<u8> = pipe.kept.drain(..cut).collect();
        pipe.socket.write_all(&first).unwrap();
    }
    let last =
        pipes.iter().enumerate().map(|(number, pipe)| place + number + pipe.kept.len()).max();
    wait_until_taken(pipes.iter().map(|pipe| &pipe.socket));
    for pipe in pipes {
        pipe.push_kept();
    }
    last
}

fn a_conversation_byte_by_byte(link: Link) {
    let server = server();
    let mut wires = vec![Wire::log_in(server.door(), link, "alice")];
    let sent = [
        frame(FIN | PING, b"x"),
        frame(TEXT, b"{"),
        frame_with(FIN | PING, 8, MASK, b"y"),
        frame_with(FIN | CONTINUATION, 2, MASK, b"}"),
    ];
    for byte in wires[0].seal(&sent.concat()) {
        wires[0].push(&[byte]);
        wait_until_taken(sockets(&mut wires));
    }
    wires[0].answers(&[], &[pong(b"x"), pong(b"y")]);
    assert_eq!(wires[0].error_code(), "unknown-command");

    // Each byte in a TLS record of its own, and all of these at once.
    let (sent, heard) = conversation("alice");
    let sealed: Vec<u8> = sent.iter().flat_map(|byte| wires[0].seal(&[*byte])).collect();
    wires[0].push(&sealed);
    wires[0].answers(&[], &heard);
    wires[0].goes_on();
}

fn many_frames_at_once(link: Link) {
    let server = server();
    let mut alice = Wire::log_in(server.door(), link, "alice");
    let (mut sent, mut heard) = (Vec::new(), Vec::new());
    for number in 0..300_usize {
        let message = to_oneself("alice", 80 + number);
        let ping = number.to_string();
        sent.extend(frame(FIN | TEXT, message.as_bytes()));
        sent.extend(frame(FIN | PING, ping.as_bytes()));
        heard.extend([text(&message), pong(ping.as_bytes())]);
    }
    assert!(sent.len() > 4 * 16 * 1024); // several `recv`s, and several TLS records
    alice.answers(&[sent], &heard);
    alice.goes_on();
}

fn large_messages_cut_at_random(link: Link) {
    let seed = env::var("FRAMING_SEED").ok().map_or_else(
        || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("FRAMING_SEED={seed}");
    let mut state = seed;
    // Knuth's generator; its low bits are poor.
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let server = server();
    let mut wires: Vec<Wire> =
        (0..10).map(|number| Wire::log_in(server.door(), link, &format!("user{number}"))).collect();
    for _ in 0..6 {
        let mut portions = Vec::new();
        let mut heard = Vec::new();
        for wire in &mut wires {
            let length = [65536, 65535, 8192, 8178, 16384, 300 + random(65_000)][random(6)];
            let message = to_oneself(&wire.name, length);
            let (first, rest) = message.as_bytes().split_at(random(length));
            let sent = [
                frame(BINARY, first),
                frame(FIN | PING, b"x"),
                frame(FIN | CONTINUATION, rest),
                frame(FIN | TEXT, message.as_bytes()),
            ];
            let mut sealed = wire.seal(&sent.concat());
            let mut cuts: Vec<usize> = (0..random(5)).map(|_| random(sealed.len())).collect();
            // One more at a place where a `recv` or a record ends, or nearly so.
            let edge = [8192, 16384, 16384 + 22, 65536][random(4)] + random(31);
            cuts.push(edge.saturating_sub(15).min(sealed.len()));
            cuts.sort_unstable();
            let mut pieces: Vec<_> = cuts.iter().rev().map(|&cut| sealed.split_off(cut)).collect();
            pieces.push(sealed);
            portions.push(pieces); // the last one first
            heard.push([pong(b"x"), text(&message), text(&message)]);
        }
        while !portions.iter().all(Vec::is_empty) {
            for (wire, pieces) in wires.iter_mut().zip(&mut portions) {
                wire.push(&pieces.pop().unwrap_or_default());
            }
            wait_until_taken(sockets(&mut wires));
        }
        for (wire, heard) in wires.iter_mut().zip(&heard) {
            wire.answers(&[], heard);
        }
    }
    wires.iter_mut().for_each(Wire::goes_on);
}
