//! Clients that are online and do nothing, in a process of their own.

use std::io;
use std::net::SocketAddr;

use crate::client::{Connection, PING, PONG, Payload, TEXT, client_frame, log_in, server_frame};
use crate::common::Link;
use crate::process::Helper;

/// Started with this argument, this program is a crowd.
pub const IDLE_ROLE: &str = "--idle";

/// Clients that are idle. Dropping this disconnects them.
pub struct Crowd(Helper);

impl Crowd {
    pub fn log_in(address: SocketAddr, link: Link, count: usize) -> Crowd {
        let arguments = [&address.to_string(), &format!("{link:?}"), &count.to_string()];
        let mut helper = Helper::start(IDLE_ROLE, &arguments.map(String::as_str));
        assert_eq!(helper.hear(), "online");
        Crowd(helper)
    }

    /// Lets all call each other, in pairs: an offer and an answer of 6 KiB each.
    pub fn call(&mut self) {
        self.0.say("call");
        assert_eq!(self.0.hear(), "called");
    }

    /// Lets each send a pong, so that none is pinged in the next 30 s. Fails if one is gone.
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
    let mut clients: Vec<_> = (0..count).map(|_| log_in(address, link).unwrap()).collect();
    println!("online");
    for line in io::stdin().lines() {
        if line.unwrap() == "call" {
            for pair in clients.chunks_exact_mut(2) {
                let [(alice, from), (bob, to)] = pair else { unreachable!("a pair") };
                send(&mut **alice, &mut **bob, &Payload::VideoOffer.message(from, to));
                send(&mut **bob, &mut **alice, &Payload::VideoOffer.message(to, from));
            }
            println!("called");
            continue;
        }
        let pong = client_frame(PONG, b""); // RFC 6455, section 5.5.3: it needs no ping.
        clients.iter_mut().for_each(|(client, _)| client.write_all(&pong).unwrap());
        println!("stirred");
    }
}

fn send(from: &mut dyn Connection, to: &mut dyn Connection, message: &str) {
    from.write_all(&client_frame(TEXT, message.as_bytes())).unwrap();
    let expected = server_frame(message);
    let mut received = vec![0; 2];
    to.read_exact(&mut received).unwrap();
    // On a slow day the server has pinged this client already.
    while received == [PING, 0] {
        to.read_exact(&mut received).unwrap();
    }
    received.resize(expected.len(), 0);
    to.read_exact(&mut received[2..]).unwrap();
    assert_eq!(received, expected);
}
