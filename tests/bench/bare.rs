//! The *bare relay*: a signaling server reduced to its system calls. It is the lower bound for any
//! server with this thread model.
//!
//! It has a blocking listener, and a thread for each connection that blocks in `recv` and writes what
//! it received to the other connection of a pair. Two connections that are accepted one after the
//! other are a pair. On a second port it also sends the replies to a login.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use native_tls::{Identity, TlsAcceptor, TlsStream};

use crate::client::{LOGIN_ANSWER, UPGRADE_ANSWER, server_frame};
use crate::common::{CERTIFICATE, Link};
use crate::process::Helper;

/// Started with this argument, this program is the bare relay.
pub const ROLE: &str = "--bare";

/// As the server's, so that both take a message with the same number of system calls.
const BUFFER: usize = 8 * 1024;

/// The bare relay as a process of its own.
pub struct Bare {
    helper: Helper,
    ports: [SocketAddr; 4],
}

impl Bare {
    pub fn start() -> Bare {
        let files = [&CERTIFICATE.cert, &CERTIFICATE.key].map(|path| path.to_str().unwrap());
        let mut helper = Helper::start(ROLE, &files);
        let ports = [(); 4].map(|()| helper.hear().parse().unwrap());
        Bare { helper, ports }
    }

    pub fn relay(&self, link: Link) -> SocketAddr {
        self.ports[link as usize]
    }

    /// Where it answers logins.
    pub fn desk(&self, link: Link) -> SocketAddr {
        self.ports[2 + link as usize]
    }

    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }
}

/// The process's whole life: says the addresses, and serves until its input ends.
pub fn serve(arguments: &[String]) {
    let [cert, key] = arguments else { panic!("a certificate and a key") };
    let identity = Identity::from_pkcs8(&fs::read(cert).unwrap(), &fs::read(key).unwrap()).unwrap();
    let acceptor = Arc::new(TlsAcceptor::new(identity).unwrap());
    let [plain, tls, plain_desk, tls_desk] = [(); 4].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        println!("{}", listener.local_addr().unwrap());
        listener
    });
    let for_desk = acceptor.clone();
    thread::spawn(move || {
        loop {
            relay_plain(accept(&plain), accept(&plain));
        }
    });
    thread::spawn(move || {
        loop {
            let accept = || acceptor.accept(accept(&tls)).unwrap();
            relay_tls(accept(), accept());
        }
    });
    thread::spawn(move || {
        loop {
            let socket = accept(&plain_desk);
            thread::spawn(move || answer(socket));
        }
    });
    thread::spawn(move || {
        loop {
            let (socket, acceptor) = (accept(&tls_desk), for_desk.clone());
            thread::spawn(move || answer(acceptor.accept(socket).unwrap()));
        }
    });
    let _ = io::stdin().read(&mut [0]);
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn relay_plain(first: TcpStream, second: TcpStream) {
    let (first, second) = (Arc::new(first), Arc::new(second));
    let (first_too, second_too) = (first.clone(), second.clone());
    thread::spawn(move || copy(&*first, &*second));
    thread::spawn(move || copy(&*second_too, &*first_too));
}

/// From the second to the first only: the two directions of one TLS stream share their state, and
/// the lock that would protect it is not what a bare relay should cost. (The client connects the
/// receiver first.)
fn relay_tls(receiver: TlsStream<TcpStream>, sender: TlsStream<TcpStream>) {
    thread::spawn(move || copy(sender, receiver));
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Answers an upgrade and a login without reading what they say, and waits for the end.
fn answer(mut stream: impl Read + Write) {
    let mut buffer = [0; BUFFER];
    for answer in [UPGRADE_ANSWER, &server_frame(LOGIN_ANSWER)] {
        if !matches!(stream.read(&mut buffer), Ok(1..)) || stream.write_all(answer).is_err() {
            return;
        }
    }
    let _ = stream.read(&mut buffer);
}
