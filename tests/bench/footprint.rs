//! The memory of clients who are idle, after a login and after a call, and what the server does when
//! nobody does anything.
//!
//! A connection also takes memory of the kernel: stacks, page tables, sockets. The column `machine` adds
//! the growth of the system's own counts of these, without the clients' ends of the connections. One
//! end takes half of what a connection between two idle sockets takes, which is measured first.
//! (MemAvailable is less exact by megabytes.)

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::client::NO_LIMITS;
use crate::common::{Link, Server, program};
use crate::crowd::Crowd;
use crate::growth::most;
use crate::process::{kernel_memory, memory, switches};
use crate::report::{Report, Row, Target};

const CLIENTS: [usize; 2] = [1_000, 5_000];
/// Connections to measure what a socket takes.
const SOCKETS: usize = 2_000;
const IDLE_TIME: Duration = Duration::from_secs(3);
/// Resident memory of a client after one call, in KiB, plain and TLS.
const TARGETS: [f64; 2] = [25.0, 42.0];
/// Resident memory without any, in KiB.
const BASE_TARGET: f64 = 5.0 * 1024.0;

pub fn measure() -> Report {
    eprintln!("footprint: sockets");
    let socket = socket_memory();
    let (plain, plain_anonymous) = without_a_certificate();
    let mut rows =
        vec![Row::new("nobody, no certificate", vec![plain, plain_anonymous, f64::NAN, f64::NAN])];
    let mut targets = vec![Target::at_most(BASE_TARGET, "resident, no certificate, KiB", plain)];
    for link in [Link::Plain, Link::Tls] {
        let server = Server::start_with(NO_LIMITS);
        if link == Link::Plain {
            let rss = memory(server.pid(), "Rss");
            let anonymous = memory(server.pid(), "Anonymous");
            rows.push(Row::new("nobody", vec![rss, anonymous, f64::NAN, wake_ups(&server)]));
            targets.push(Target::at_most(BASE_TARGET, "resident without clients, KiB", rss));
        }
        let (mut crowds, mut online) = (Vec::new(), 0);
        let of_server = || ["Rss", "Anonymous"].map(|name| memory(server.pid(), name));
        let (before, kernel_before) = (of_server(), kernel_memory());
        for count in CLIENTS.into_iter().filter(|count| *count <= most()) {
            eprintln!("footprint: {link:?}, {count} clients");
            crowds.push(Crowd::log_in(server.address(link), link, count - online));
            online = count;
            let clients = count as f64;
            let now = of_server();
            let each = [0, 1].map(|kind| (now[kind] - before[kind]) / clients);
            let kernel = (kernel_memory() - kernel_before) / clients - socket;
            let name = format!("{link:?}, each of {count}");
            rows.push(Row::new(name, vec![each[0], each[1], each[0] + kernel, wake_ups(&server)]));
        }
        crowds.iter_mut().for_each(Crowd::call);
        let now = of_server();
        let each = [0, 1].map(|kind| (now[kind] - before[kind]) / online as f64);
        let name = format!("{link:?}, each of {online} after a call");
        let kernel = (kernel_memory() - kernel_before) / online as f64 - socket;
        rows.push(Row::new(name, vec![each[0], each[1], each[0] + kernel, f64::NAN]));
        let what = format!("resident for each of {online} after a call, {link:?}, KiB");
        targets.push(Target::at_most(TARGETS[link as usize], what, each[0]));
    }
    Report {
        title: "FOOTPRINT of idle clients, KiB; and context switches of the whole server a second"
            .into(),
        columns: &["Rss", "Anonymous", "machine", "switches"],
        rows,
        targets,
    }
}

/// The resident and the anonymous memory of a server that only serves `ws://`, with nobody there.
fn without_a_certificate() -> (f64, f64) {
    let ports = ["--listen", "127.0.0.1:0", "--tls-listen", "off"];
    let mut server = program().args(ports).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("open http://")), "it does not listen");
    let found = ["Rss", "Anonymous"].map(|name| memory(server.id(), name));
    server.kill().unwrap();
    server.wait().unwrap();
    found.into()
}

/// What the system keeps for one end of a connection, in KiB.
fn socket_memory() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        [client, listener.accept().unwrap().0]
    };
    let before = kernel_memory();
    let sockets: Vec<_> = (0..SOCKETS).map(|_| connect()).collect();
    (kernel_memory() - before) / 2.0 / sockets.len() as f64
}

/// How often the server's threads ran in a second, with nothing to do. (The next ping is later.)
fn wake_ups(server: &Server) -> f64 {
    let before = switches(server.pid());
    thread::sleep(IDLE_TIME);
    (switches(server.pid()) - before) as f64 / IDLE_TIME.as_secs_f64()
}
