//! A server under attack, and an honest pair on it that must not notice.
//!
//! A test creates a [`Scene`] and starts hostile clients. Dropping the scene checks that the honest pair
//! still talks, and that threads, descriptors and memory are back where they were. Rust drops locals in
//! reverse order, so that the clients of the test are gone by then.

#![allow(dead_code)] // Each test file uses its own part of this.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tungstenite::{Error, Message};

use crate::common::{
    self, Client, Link, PATIENCE, Server, Stream, client_over, message, secure, wait_until,
};

/// Where hostile clients come from. The honest ones are at 127.0.0.1.
pub const HOSTILE: &str = "127.6.6.6";

/// Memory that an attack may leave behind, in KiB: what the allocator keeps for the next clients, and
/// code that had not run before. (100 TLS clients at once were seen to leave 7 MiB, and the next 100
/// nothing more.)
pub const KEPT: usize = 12 * 1024;

/// A server, and a pair that talks on it all the time.
pub struct Scene {
    pub server: Server,
    pub link: Link,
    pair: Pair,
    pub before: Usage,
}

impl Scene {
    pub fn set(link: Link) -> Scene {
        Scene::with(link, &[])
    }

    /// With options for the server.
    pub fn with(link: Link, options: &[&str]) -> Scene {
        // A flood of messages must not be one of log lines too, except where the log is the test.
        Scene::around(Server::start_with(&[&["--log", "info"], options].concat()), link)
    }

    /// With a server that is there.
    pub fn around(server: Server, link: Link) -> Scene {
        let pair = Pair::start(&server, link, HONEST, ["honest 1", "honest 2"]);
        pair.goes_on();
        let before = Usage::of(server.pid());
        Scene { server, link, pair, before }
    }

    /// Waits until the honest pair has exchanged messages that were sent after this call.
    pub fn goes_on(&self) {
        self.pair.goes_on();
    }

    /// A hostile connection, with nothing sent on it, not even TLS.
    pub fn socket(&self) -> TcpStream {
        connect_from(HOSTILE, self.server.address(self.link))
    }

    /// A hostile connection with TLS set up, if that is the link.
    pub fn open(&self) -> Box<dyn Stream> {
        secure(self.socket(), self.link).unwrap()
    }

    /// A hostile WebSocket client.
    pub fn connect(&self) -> Client {
        client_over(self.socket(), self.link).unwrap()
    }

    /// A hostile WebSocket client that is logged in.
    pub fn login(&self, name: &str) -> Client {
        let mut client = self.connect();
        assert_eq!(client.log_in(name)["success"], "1", "login as {name}");
        client
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.pair.goes_on();
        self.before.comes_back(self.server.pid(), KEPT);
        self.pair.goes_on();
        self.pair.stop();
    }
}

const HONEST: &str = "127.0.0.1";

/// Two users who send each other messages until they are stopped, each message answered before the
/// next. Whatever else one of them receives ends their thread, and [`Pair::goes_on`] tells.
pub struct Pair {
    rounds: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    /// Their pause between two rounds keeps both below the default message rate.
    const PAUSE: Duration = Duration::from_millis(25);

    pub fn start(server: &Server, link: Link, from: &str, names: [&str; 2]) -> Pair {
        let [alice, bob] = names.map(String::from);
        let mut clients = [&alice, &bob].map(|name| {
            let mut client = client_over(connect_from(from, server.address(link)), link).unwrap();
            assert_eq!(client.log_in(name)["success"], "1", "login as {name}");
            client
        });
        let (rounds, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, stop) = (rounds.clone(), stopped.clone());
        let thread = thread::spawn(move || {
            let [first, second] = &mut clients;
            while !stop.load(Ordering::SeqCst) {
                let round = done.load(Ordering::SeqCst);
                let offer = message("offer", &alice, &bob, json!(round));
                first.send_json(&offer);
                assert_eq!(second.receive_json(), offer);
                let answer = message("answer", &bob, &alice, json!(round));
                second.send_json(&answer);
                assert_eq!(first.receive_json(), answer);
                done.store(round + 1, Ordering::SeqCst);
                thread::sleep(Pair::PAUSE);
            }
        });
        Pair { rounds, stopped, thread: Some(thread) }
    }

    /// Waits for a round that began after this call.
    pub fn goes_on(&self) {
        let start = self.rounds.load(Ordering::SeqCst);
        wait_until("the honest pair exchanges messages", || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the honest pair was disturbed");
            self.rounds.load(Ordering::SeqCst) >= start + 2
        });
    }

    /// Lets them finish their round.
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().expect("the honest pair was disturbed");
    }
}

/// What a process takes from its system.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub threads: usize,
    pub descriptors: usize,
    /// Resident now, in KiB.
    pub memory: usize,
    /// Resident at most until now, in KiB.
    pub peak: usize,
}

impl Usage {
    pub fn of(pid: u32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Usage {
            threads: number("Threads:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            memory: number("VmRSS:"),
            peak: number("VmHWM:"),
        }
    }

    /// Waits until the process is back to this, and at most `kept` KiB above it.
    pub fn comes_back(&self, pid: u32, kept: usize) {
        let mut now = Usage::of(pid);
        wait_until("threads and descriptors are given back", || {
            now = Usage::of(pid);
            (now.threads, now.descriptors) == (self.threads, self.descriptors)
        });
        let bound = self.memory + kept;
        assert!(now.memory <= bound, "{} KiB are held, more than {bound}", now.memory);
    }
}

/// The program with the options of every test, started by `shell`, which can refer to it as `"$@"`.
pub fn program_under(shell: &str, options: &[&str]) -> Command {
    let mut command = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_signal-server");
    command.args(["-c", shell, "bash", program]).args(common::options()).args(options);
    command.stderr(Stdio::piped());
    command
}

/// A TCP connection that comes from the address `from`, any of 127.0.0.0/8.
pub fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Sends a request head, or whatever it is, and returns the head of the response.
pub fn ask(stream: &mut (impl Read + Write + ?Sized), request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// The head of a request for a WebSocket, with further headers, each with its line's end.
pub fn upgrade(headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: signal.example:8080\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Waits until the server closes a connection. What it still says does not matter.
pub fn wait_until_closed(stream: &mut (impl Read + ?Sized)) {
    let mut dropped = [0; 1024];
    loop {
        match stream.read(&mut dropped) {
            Ok(0) => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is still open"),
            Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A masked frame; `first` is FIN, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | short as u8],
        medium @ 126..65536 => [&[0x80 | 126], &(medium as u16).to_be_bytes()[..]].concat(),
        long => [&[0x80 | 127], &(long as u64).to_be_bytes()[..]].concat(),
    };
    [&[first], &length[..], &[0; 4], payload].concat()
}

/// Writes raw bytes to a client's stream, past its WebSocket. False if they could not be written.
pub fn throw(client: &mut Client, bytes: &[u8]) -> bool {
    client.websocket.get_mut().write_all(bytes).is_ok()
}

/// Reads until the connection is over, however it ends.
pub fn wait_for_the_end(client: &mut Client) {
    loop {
        match client.websocket.read() {
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the connection is still open")
            }
            Err(_) => return,
        }
    }
}

/// The next message of each of these clients, in any order. Meanwhile all of them answer pings.
pub fn receive_from_all(clients: &mut [Client]) -> Vec<Value> {
    let mut received = vec![None; clients.len()];
    for client in clients.iter() {
        client.socket.set_nonblocking(true).unwrap();
    }
    wait_until("every client has heard something", || {
        for (client, received) in clients.iter_mut().zip(&mut received) {
            match client.websocket.read() {
                Ok(Message::Text(text)) if received.is_none() => {
                    *received = Some(serde_json::from_str(&text).unwrap());
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("instead of one message: {other:?}"),
            }
        }
        received.iter().all(Option::is_some)
    });
    for client in clients.iter() {
        client.socket.set_nonblocking(false).unwrap();
    }
    received.into_iter().flatten().collect()
}
