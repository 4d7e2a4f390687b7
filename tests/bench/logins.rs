//! How many clients a second can connect, upgrade, log in and disconnect. The bare relay, for
//! comparison, accepts, starts a thread, and writes the same replies without parsing anything.
//!
//! Several clients do this at once. They run on one core, and the servers on the other.

use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use crate::bare::Bare;
use crate::client::{NO_LIMITS, log_in};
use crate::common::{Link, Server};
use crate::cores::Cores;
use crate::process::cpu_time;
use crate::report::{Report, Row};
use crate::stats::{median, spread};

const ROUNDS: usize = 5;
const CLIENTS: usize = 8;
/// Logins of each client in each turn, plain and TLS.
const LOGINS: [usize; 2] = [250, 50];

pub fn measure() -> Report {
    let cores = Cores::allowed();
    cores.stay_on(0);
    let (server, bare) = (Server::start_with(NO_LIMITS), Bare::start());
    cores.stay_on(1);
    let mut rows = Vec::new();
    for link in [Link::Plain, Link::Tls] {
        eprintln!("logins: {link:?}");
        let sides = [(server.address(link), server.pid()), (bare.desk(link), bare.pid())];
        let count = LOGINS[link as usize];
        let (mut rates, mut cpu) = ([Vec::new(), Vec::new()], [0.0, 0.0]);
        for round in 0..=ROUNDS {
            for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (address, pid) = sides[side];
                let before = cpu_time(pid);
                let rate = run(address, link, count);
                if round > 0 {
                    rates[side].push(rate);
                    cpu[side] += (cpu_time(pid) - before).as_secs_f64();
                }
            }
        }
        let cpu = cpu.map(|seconds| 1e6 * seconds / (ROUNDS * CLIENTS * count) as f64);
        let ratios: Vec<f64> = rates[0].iter().zip(&rates[1]).map(|(a, b)| a / b).collect();
        let mut figures = vec![median(&rates[0]), median(&rates[1])];
        figures.extend(spread(&ratios));
        figures.extend([cpu[0], cpu[1], cpu[0] / cpu[1]]);
        rows.push(Row::new(format!("{link:?}"), figures));
    }
    Report {
        title: "LOGINS a second, each on a new connection; processor time in µs a login".into(),
        columns: &["logins/s", "bare", "ratio", "min", "max", "cpu", "bare cpu", "cpu ratio"],
        rows,
        targets: vec![],
    }
}

/// Logins a second.
fn run(address: SocketAddr, link: Link, count: usize) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..count).for_each(|_| drop(log_in(address, link).unwrap())));
        }
    });
    (CLIENTS * count) as f64 / start.elapsed().as_secs_f64()
}
