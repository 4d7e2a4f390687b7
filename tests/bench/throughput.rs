//! How many messages a second go through, with one of each pair on the way at any time, and what a
//! message costs the processor.
//!
//! Each pair has one message under way, so that both relays make the same system calls. If several
//! messages waited in a socket, the bare relay would copy them all at once, because it does not know
//! where a message ends.
//!
//! The relays run on one core, and the client on the other. The client is one thread that polls the
//! pairs without sleeping, and sends the next message of a pair when the last one has arrived. (If it
//! slept, the number of wake-ups across cores would depend on chance.) `found` is the share of polls
//! that find a message: near 100 % the client is the limit. `use` is the share of its core that the
//! relay uses; with few pairs the relay waits for the client.

use std::time::{Duration, Instant};

use crate::bare::Bare;
use crate::client::{NO_LIMITS, Pair, Payload, Relay};
use crate::common::{Link, Server};
use crate::cores::Cores;
use crate::process::cpu_time;
use crate::report::{Report, Row, Target};
use crate::stats::spread;

const PAIRS: [usize; 4] = [1, 16, 64, 200];
/// Each has new connections: new threads, stacks and buffers, as the system hands them out.
const ROUNDS: usize = 5;
/// Each side has two in a round, after one that is not measured.
const TURN: Duration = Duration::from_millis(150);
const WARM_UP: Duration = Duration::from_millis(30);
/// Of the bare relay's messages a second over plain connections, with any number of pairs.
const TARGET: f64 = 0.95;
/// TLS may cost this many times the processor time of plain, with so many pairs.
const TLS_TARGET: f64 = 1.3;
const TLS_PAIRS: usize = 32;

pub fn measure() -> Report {
    let cores = Cores::allowed();
    cores.stay_on(0);
    let (server, bare) = (Server::start_with(NO_LIMITS), Bare::start());
    let sides = [Relay::Server(&server), Relay::Bare(&bare)];
    cores.stay_on(1);
    let (mut rows, mut worst) = (Vec::new(), f64::INFINITY);
    for link in [Link::Plain, Link::Tls] {
        for payload in [Payload::Offer, Payload::Candidate] {
            for pairs in PAIRS {
                let name = format!("{link:?}, {payload:?}, {pairs} pairs");
                let both = sides.map(|side| (side, link, payload));
                let (row, [ratio, _]) = compare(name, both, pairs);
                rows.push(row);
                if link == Link::Plain {
                    worst = worst.min(ratio);
                }
            }
        }
    }
    let both = [Link::Tls, Link::Plain].map(|link| (sides[0], link, Payload::Offer));
    let (row, [_, cpu]) = compare("Tls to Plain, Offer, 32 pairs".into(), both, TLS_PAIRS);
    rows.push(row);
    Report {
        title: "THROUGHPUT, offers of 2 KiB and candidates of 300 bytes; messages a second, \
                relay's processor time in µs a message, use and found in %"
            .into(),
        columns: COLUMNS,
        rows,
        targets: vec![
            Target::at_least(TARGET, "throughput, plain, to bare, worst", worst),
            Target::at_most(TLS_TARGET, "processor time a message, TLS to plain", cpu),
        ],
    }
}

pub const COLUMNS: &[&str] = &[
    "msg/s",
    "bare",
    "ratio",
    "min",
    "max",
    "cpu",
    "bare cpu",
    "cpu ratio",
    "use",
    "bare use",
    "found",
    "bare found",
];

/// Lets two sides take turns. Returns the first one's ratio to the second, in messages a second and
/// in processor time a message.
pub fn compare(name: String, sides: [(Relay, Link, Payload); 2], pairs: usize) -> (Row, [f64; 2]) {
    eprintln!("throughput: {name}");
    let (mut turns, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..ROUNDS {
        let mut both = sides.map(|(relay, link, payload)| relay.pairs(pairs, link, payload));
        for side in [0, 1] {
            run(sides[side].0, &mut both[side], WARM_UP);
        }
        let mut rates = [0.0, 0.0];
        for side in [0, 1, 1, 0] {
            let turn = run(sides[side].0, &mut both[side], TURN);
            rates[side] += turn.messages / turn.seconds;
            turns[side].push(turn);
        }
        ratios.push(rates[0] / rates[1]);
    }
    let [ratio, min, max] = spread(&ratios);
    // The system counts processor time in steps of 10 ms: too coarse for a single turn.
    let quotient = |turns: &[Turn], of: fn(&Turn) -> (f64, f64)| {
        turns.iter().map(|turn| of(turn).0).sum::<f64>()
            / turns.iter().map(|turn| of(turn).1).sum::<f64>()
    };
    let [rate, cpu, share, found] = [
        |turn: &Turn| (turn.messages, turn.seconds),
        |turn: &Turn| (1e6 * turn.cpu, turn.messages),
        |turn: &Turn| (100.0 * turn.cpu, turn.seconds),
        |turn: &Turn| (100.0 * turn.messages, turn.looks),
    ]
    .map(|of| [0, 1].map(|side| quotient(&turns[side], of)));
    let mut figures = vec![rate[0], rate[1], ratio, min, max];
    figures.extend([cpu[0], cpu[1], cpu[0] / cpu[1]]);
    figures.extend([share, found].concat());
    (Row::new(name, figures), [ratio, cpu[0] / cpu[1]])
}

/// What one side did in one turn.
struct Turn {
    messages: f64,
    seconds: f64,
    /// The relay's processor time, in seconds.
    cpu: f64,
    /// How often the client looked for a message.
    looks: f64,
}

fn run(relay: Relay, pairs: &mut [Pair], time: Duration) -> Turn {
    for pair in &mut *pairs {
        pair.wait(false);
        pair.send();
    }
    let (cpu, start, mut messages, mut looks) = (cpu_time(relay.pid()), Instant::now(), 0, 0);
    while start.elapsed() < time {
        for pair in &mut *pairs {
            if pair.receive() {
                pair.send();
                messages += 1;
            }
        }
        looks += pairs.len();
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_time(relay.pid()) - cpu);
    for pair in &mut *pairs {
        pair.wait(true);
        assert!(pair.receive(), "a message is lost");
    }
    Turn { messages: messages as f64, seconds, cpu: cpu.as_secs_f64(), looks: looks as f64 }
}
