//! How long one message is on its way while the relay has little to do.
//!
//! The pairs send in turn, 10,000 messages a second together, each when the last one has arrived. This
//! is about a third of what one core can relay over plain connections, so that nothing queues.
//!
//! Waking a thread on another core takes longer than all the rest, so the measurement places the
//! threads, where it can:
//!
//! - *same core*: the client and both relays run on one core. With one message at a time only one
//!   thread can run at any moment, so sharing the core slows none of them, and the relay's own work
//!   is the largest part of the figure. The target is for this row.
//! - *two cores*: the client runs on one core, both relays on another. Each message needs two wake-ups
//!   across cores.

use std::time::{Duration, Instant};

use crate::bare::Bare;
use crate::client::{NO_LIMITS, Pair, Payload, Relay};
use crate::common::{Link, Server};
use crate::cores::Cores;
use crate::report::{Report, Row, Target};
use crate::stats::{median, microseconds, percentile, spread};

/// From one message to the next, unless it takes longer.
const PACE: Duration = Duration::from_micros(100);
/// Pairs, and rounds with them. Each round has new connections: new threads, stacks and buffers, as
/// the system hands them out.
const ROUNDS: [(usize, usize); 4] = [(1, 10), (16, 3), (64, 3), (200, 3)];
/// Server and bare relay take turns within a round, so that both meet the same disturbances.
const TURNS: usize = 10;
const MESSAGES_A_TURN: usize = 100;
/// Unmeasured messages of each new pair.
const WARM_UP: usize = 20;
/// The server may take this many times as long as the bare relay: plain, one pair, the p50.
const TARGET: f64 = 1.05;

pub fn measure() -> Report {
    let cores = Cores::allowed();
    cores.stay_on(0);
    let (server, bare) = (Server::start_with(NO_LIMITS), Bare::start());
    let mut rows = Vec::new();
    for link in [Link::Plain, Link::Tls] {
        for (pairs, rounds) in ROUNDS {
            rows.push(row("same core", &server, &bare, link, pairs, rounds));
        }
        if cores.are_several() {
            cores.stay_on(1);
            rows.push(row("two cores", &server, &bare, link, 1, ROUNDS[0].1));
            cores.stay_on(0);
        }
    }
    let ratio = rows[0].figures[6];
    Report {
        title: "LATENCY of an offer of 2 KiB, one way, at 10,000 messages a second in all; µs"
            .into(),
        columns: &[
            "p50",
            "p99",
            "p99.9",
            "bare p50",
            "bare p99",
            "bare p99.9",
            "p50 ratio",
            "min",
            "max",
        ],
        targets: vec![Target::at_most(TARGET, "latency, p50 of 1 pair, plain, to bare", ratio)],
        rows,
    }
}

fn row(place: &str, server: &Server, bare: &Bare, link: Link, pairs: usize, rounds: usize) -> Row {
    let name = format!("{link:?}, {place}, {pairs} pairs");
    eprintln!("latency: {name}");
    let (mut all, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..rounds {
        let mut both = [Relay::Server(server), Relay::Bare(bare)]
            .map(|relay| relay.pairs(pairs, link, Payload::Offer));
        let mut times = [Vec::new(), Vec::new()];
        for side in &mut both {
            deliver(side, WARM_UP * pairs, Duration::ZERO);
        }
        for turn in 0..TURNS {
            // Neither side is always the first.
            for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                times[side].extend(deliver(&mut both[side], MESSAGES_A_TURN.max(pairs), PACE));
            }
        }
        ratios.push(microseconds(median(&times[0])) / microseconds(median(&times[1])));
        for side in [0, 1] {
            all[side].append(&mut times[side]);
        }
    }
    let mut figures = Vec::new();
    for times in all {
        figures.extend([50.0, 99.0, 99.9].map(|percent| microseconds(percentile(&times, percent))));
    }
    figures.extend(spread(&ratios));
    Row::new(name, figures)
}

/// Sends one message after the other, each from the next pair, and returns each one's time.
fn deliver(pairs: &mut [Pair], messages: usize, pace: Duration) -> Vec<Duration> {
    let (start, count) = (Instant::now(), pairs.len());
    let deliver = |number: usize| {
        // To sleep would add the time that a processor takes to wake up.
        while start.elapsed() < pace * number as u32 {
            std::hint::spin_loop();
        }
        pairs[number % count].deliver()
    };
    (0..messages).map(deliver).collect()
}
