//! A soak test: honest pairs and every kind of hostile client at once, plain and TLS, from several
//! addresses. Afterwards no message is missing, and no thread, descriptor or connection is left.
//!
//! It lasts for `SOAK_SECONDS`; without that, 30 s if `CI` is set, else 3 s.

mod common;
#[path = "hostile/scene.rs"]
mod scene;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Link, Server, client_over, message, secure, wait_until};
use scene::{KEPT, Pair, Usage, ask, connect_from, frame, throw, upgrade};
use serde_json::json;
use signal_server::limits::Limits;
use tungstenite::Message;

/// Small enough for the bound on memory to mean something, and for the limits to be reached.
const LIMITS: Limits = Limits {
    max_connections: 96,
    max_per_ip: 24,
    max_message: 64 * 1024,
    max_rate: 200,
    max_calls: 8,
    peerjs: false,
};

fn duration() -> Duration {
    let chosen = std::env::var("SOAK_SECONDS").ok().map(|text| text.parse().unwrap());
    let default = if std::env::var_os("CI").is_some() { 30 } else { 3 };
    Duration::from_secs(chosen.unwrap_or(default))
}

/// One short visit by a hostile client: `number` makes visits differ. Whether it is let in, and how
/// far it gets, is the server's business. `None` is for an end that came early.
type Visit = fn(&Visitor, usize) -> Option<()>;

struct Visitor {
    from: String,
    to: SocketAddr,
    link: Link,
}

impl Visitor {
    fn connect(&self) -> Option<Client> {
        client_over(connect_from(&self.from, self.to), self.link).ok()
    }

    /// As one of a few names, which others want too.
    fn login(&self, number: usize) -> Option<(Client, String)> {
        let name = format!("hostile {}", number % 7);
        let mut client = self.connect()?;
        let login = json!({"signalType": "login", "fromUser": name}).to_string();
        client.websocket.send(Message::text(login)).ok()?;
        Some((client, name))
    }
}

const VISITS: [Visit; 10] = [
    // Broken frames.
    |visitor, number| {
        let (mut client, _) = visitor.login(number)?;
        let eib = [&[0x81, 0x80 | 127], &(1_u64 << 60).to_be_bytes()[..], &[0; 4]].concat();
        let broken = [&[0xc1, 0x80, 0, 0, 0, 0][..], &eib, &[0x81, 1, b'x'], &frame(0x81, b"\xff")];
        throw(&mut client, broken[number % 4]);
        while client.websocket.read().is_ok() {}
        Some(())
    },
    // Half of something, then gone.
    |visitor, number| {
        let (mut client, _) = visitor.login(number)?;
        throw(&mut client, &frame(0x81, &[b' '; 60_000])[..30_000]);
        client.socket.shutdown(Shutdown::Both).ok()
    },
    // Garbage before there is a WebSocket.
    |visitor, number| {
        let mut socket = connect_from(&visitor.from, visitor.to);
        socket.write_all(&vec![number as u8; number % 20_000]).ok()?;
        socket.shutdown(Shutdown::Both).ok()
    },
    // Ordinary requests.
    |visitor, _| {
        let mut stream = secure(connect_from(&visitor.from, visitor.to), visitor.link).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        common::read_to_end(&mut stream);
        Some(())
    },
    // A flood of messages and pings, over the rate.
    |visitor, number| {
        let (mut client, name) = visitor.login(number)?;
        let text = message("candidate", &name, &name, json!("x".repeat(number % 5000)));
        let both = [frame(0x81, text.to_string().as_bytes()), frame(0x89, b"ping")].concat();
        throw(&mut client, &both.repeat(100)).then_some(())?;
        (0..100).try_for_each(|_| client.websocket.read().ok().map(drop))
    },
    // One that reads nothing of what it makes the server send.
    |visitor, number| {
        let (mut client, name) = visitor.login(number)?;
        client.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let text = message("offer", &name, &name, json!("x".repeat(60_000))).to_string();
        (0..200).try_for_each(|_| client.websocket.send(Message::text(text.as_str())).ok())
    },
    // Calls to everybody, in the middle of which it vanishes.
    |visitor, number| {
        let (mut client, name) = visitor.login(number)?;
        for other in 0..7 {
            let to = format!("hostile {other}");
            let text = message("offer", &name, &to, json!(number)).to_string();
            client.websocket.send(Message::text(text)).ok()?;
        }
        client.socket.shutdown(Shutdown::Both).ok()
    },
    // From name to name.
    |visitor, number| {
        let (mut client, _) = visitor.login(number)?;
        (0..7).try_for_each(|next| {
            let login = json!({"signalType": "login", "fromUser": format!("hostile {next}")});
            client.websocket.send(Message::text(login.to_string())).ok()?;
            client.websocket.read().ok().map(drop)
        })
    },
    // Deep, long and forged messages.
    |visitor, number| {
        let (mut client, _) = visitor.login(number)?;
        let forged = message("leave", "honest 0a", "honest 0b", json!(1)).to_string();
        for text in ["[".repeat(60_000), forged, format!("{{\"type\":\"{}\"}}", "n".repeat(60_000))]
        {
            client.websocket.send(Message::text(text)).ok()?;
            client.websocket.read().ok()?;
        }
        client.websocket.close(None).ok()
    },
    // Upgrades and nothing more, in a bunch.
    |visitor, _| {
        let bunch: Vec<_> = (0..10)
            .map_while(|_| {
                let mut stream =
                    secure(connect_from(&visitor.from, visitor.to), visitor.link).ok()?;
                stream.write_all(upgrade("X-Forwarded-For: 1.2.3.4\r\n").as_bytes()).ok()?;
                Some(stream)
            })
            .collect();
        drop(bunch);
        Some(())
    },
];

#[test]
fn honest_pairs_outlast_every_kind_of_hostile_client() {
    let worst = LIMITS.worst_case().unwrap() / 1024;
    let options = [
        ["--max-connections", &LIMITS.max_connections.to_string()],
        ["--max-per-ip", &LIMITS.max_per_ip.to_string()],
        ["--max-message", &LIMITS.max_message.to_string()],
        ["--max-rate", &LIMITS.max_rate.to_string()],
        ["--max-calls", &LIMITS.max_calls.to_string()],
        ["--log", "info"],
    ];
    let server = Server::start_with(&options.concat());
    let links = [Link::Plain, Link::Tls];
    let mut pairs: Vec<Pair> = (0..4)
        .map(|number| {
            let names = [&*format!("honest {number}a"), &*format!("honest {number}b")];
            Pair::start(&server, links[number % 2], "127.0.0.1", names)
        })
        .collect();
    pairs.iter().for_each(Pair::goes_on);
    let before = Usage::of(server.pid());

    let end = Instant::now() + duration();
    let visits = AtomicUsize::new(0);
    let whole = [const { AtomicUsize::new(0) }; VISITS.len()];
    thread::scope(|scope| {
        for (kind, visit) in VISITS.iter().enumerate() {
            for link in links {
                let to = server.address(link);
                let visitor = Visitor { from: format!("127.6.{}.1", kind % 3), to, link };
                let (visits, whole) = (&visits, &whole[kind]);
                scope.spawn(move || {
                    while Instant::now() < end {
                        if visit(&visitor, visits.fetch_add(1, Ordering::Relaxed)).is_some() {
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        }
        while Instant::now() < end {
            pairs.iter().for_each(Pair::goes_on);
        }
    });
    println!("{visits:?} hostile visits; of each kind that went to their ends: {whole:?}");

    before.comes_back(server.pid(), KEPT);
    pairs.iter().for_each(Pair::goes_on);
    pairs.iter_mut().for_each(Pair::stop);
    let peak = Usage::of(server.pid()).peak;
    assert!(peak <= worst, "{peak} KiB were held, more than the {worst} of --print-limits");
    // All names can be had again, and one connection can have them all, one after the other.
    let mut last =
        client_over(connect_from("127.0.0.3", server.address(Link::Tls)), Link::Tls).unwrap();
    for name in (0..7).map(|n| format!("hostile {n}")).chain((0..4).map(|n| format!("honest {n}a")))
    {
        wait_until(&format!("{name:?} is free"), || last.log_in(&name)["success"] == "1");
    }
    let mut stream =
        secure(connect_from("127.0.0.4", server.address(Link::Tls)), Link::Tls).unwrap();
    assert!(
        ask(&mut *stream, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200")
    );
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
