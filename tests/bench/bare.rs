//! The bare relay: what is left of a signaling server when everything but the copying is taken out.
//!
//! The thread model is the server's: a blocking listener, a thread for each connection that blocks
//! in `recv`, and writes what it got to the other connection itself. Every two connections in turn
//! are mates. It is a lower bound for any server of this shape, and nothing to use.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use native_tls::{Identity, TlsAcceptor, TlsStream};

use crate::common::{CERTIFICATE, Link};

/// As the server's, so that both take a message with the same number of system calls.
const BUFFER: usize = 8 * 1024;

/// The bare relay as a child process. Dropping it ends it: its standard input closes.
pub struct BareRelay {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl BareRelay {
    pub fn start() -> BareRelay {
        let mut child = Command::new(env::current_exe().unwrap())
            .arg(crate::BARE_RELAY)
            .args([&CERTIFICATE.cert, &CERTIFICATE.key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || lines.next().unwrap().unwrap().parse().unwrap();
        BareRelay { plain: address(), tls: address(), child }
    }

    pub fn address(&self, link: Link) -> SocketAddr {
        match link {
            Link::Plain => self.plain,
            Link::Tls => self.tls,
        }
    }
}

impl Drop for BareRelay {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The child's whole life: prints the two addresses, and relays until standard input ends.
pub fn serve(cert: &str, key: &str) {
    let identity = Identity::from_pkcs8(&fs::read(cert).unwrap(), &fs::read(key).unwrap()).unwrap();
    let acceptor = TlsAcceptor::new(identity).unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}\n{}", plain.local_addr().unwrap(), tls.local_addr().unwrap());
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
    // The parent never writes; this ends when it closes the pipe, or when it dies.
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
