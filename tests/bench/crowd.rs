//! Clients that are online and do nothing, in a process of their own; or come back after a restart.

use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client::{PONG, client_frame, log_in};
use crate::common::Link;
use crate::process::Helper;

/// Started with one of these arguments, this program is a crowd.
pub const IDLE_ROLE: &str = "--idle";
pub const RETURNING_ROLE: &str = "--returning";

/// Of a thread that comes back.
const STACK: usize = 128 * 1024;

/// Clients that are idle. Dropping this disconnects them.
pub struct Crowd(Helper);

impl Crowd {
    pub fn log_in(address: SocketAddr, link: Link, count: usize) -> Crowd {
        let arguments = [&address.to_string(), &format!("{link:?}"), &count.to_string()];
        let mut helper = Helper::start(IDLE_ROLE, &arguments.map(String::as_str));
        assert_eq!(helper.hear(), "online");
        Crowd(helper)
    }

    /// Lets each show a sign of life, so that none is pinged in the next 30 s. Fails if one is gone.
    pub fn stir(&mut self) {
        self.0.say("stir");
        assert_eq!(self.0.hear(), "stirred");
    }
}

/// The process of a [`Crowd`].
pub fn idle(arguments: &[String]) {
    let [address, link, count] = arguments else { panic!("an address, a link and a number") };
    let (address, count): (_, usize) = (address.parse().unwrap(), count.parse().unwrap());
    let link = if link == "Tls" { Link::Tls } else { Link::Plain };
    let mut clients: Vec<_> = (0..count).map(|_| log_in(address, link).unwrap().0).collect();
    println!("online");
    for _line in io::stdin().lines() {
        let pong = client_frame(PONG, b""); // RFC 6455, section 5.5.3: it needs no ping.
        clients.iter_mut().for_each(|client| client.write_all(&pong).unwrap());
        println!("stirred");
    }
}

/// Clients with a thread each. All log in; when the server has ended all of their connections, and a
/// line of input comes, all come back at once. Says when each of these is done; the last line is how
/// many attempts were refused, by a server that did not let them connect or log in.
pub fn returning(arguments: &[String]) {
    let [address, count] = arguments else { panic!("an address and a number") };
    let (address, count): (SocketAddr, usize) = (address.parse().unwrap(), count.parse().unwrap());
    let refused = AtomicUsize::new(0);
    let [online, gone, go, back] = &[(); 4].map(|()| Barrier::new(count + 1));
    let live = || {
        let (mut stream, _) = log_in(address, Link::Plain).unwrap();
        online.wait();
        stream.socket().set_read_timeout(None).unwrap();
        while !matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)) {}
        gone.wait();
        go.wait();
        let _again = loop {
            match log_in(address, Link::Plain) {
                Ok(again) => break again,
                Err(_) => _ = refused.fetch_add(1, Ordering::Relaxed),
            }
        };
        back.wait();
    };
    thread::scope(|scope| {
        for _ in 0..count {
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, live).unwrap();
        }
        online.wait();
        println!("online");
        gone.wait();
        println!("gone");
        io::stdin().read_line(&mut String::new()).unwrap();
        go.wait();
        back.wait();
    });
    println!("{}", refused.load(Ordering::Relaxed));
}
