//! How hostile clients ([`hostile`](crate::hostile)) delay the messages of an honest pair.
//!
//! Each round measures forty pairs twice: alone, and beside the hostile clients. The pairs take turns,
//! so that together they send often enough to be measured, and none is over its message rate.
//!
//! With two cores, the server and the honest pairs run on one, and the hostile clients on the other, as
//! if they had machines of their own. So the figures show only the work that they cause in the server.

use std::thread;
use std::time::Duration;

use crate::client::{Payload, Relay};
use crate::common::{Link, Server, wait_until};
use crate::cores::Cores;
use crate::hostile;
use crate::process::{Helper, threads};
use crate::report::{Report, Row, Target};
use crate::stats::{median, microseconds, percentile, spread};

const PAIRS: usize = 40;
const ROUNDS: usize = 7;
/// Of each pair in each half of a round: within the burst that every connection has. Many beside the
/// last and largest mix, as it does different things to the server at first, and after a second, when
/// the first of its stalled recipients are disconnected.
const MESSAGES: usize = 20;
const MANY_MESSAGES: usize = 80;
/// Between two messages of whichever pair.
const PACE: Duration = Duration::from_millis(1);
/// The server's main thread, the one that waits for signals, and one for each port.
const OWN_THREADS: usize = 4;
/// Beside the first of [`hostile::MIXES`], the p99 may be this many times what it is alone.
const STALLED_TARGET: f64 = 1.2;
/// Beside the last, the p99 and the p99.9 may be this long, in µs.
const ALL_KINDS_TARGETS: [f64; 2] = [5_000.0, 20_000.0];

pub fn measure() -> Report {
    // All of the hostile clients have one address here; they get what eight addresses would.
    let options =
        ["--log", "info", "--max-connections", "4096", "--max-per-ip", "0", "--max-rate", "50"];
    let cores = Cores::allowed();
    cores.stay_on(0);
    let server = Server::start_with(&options);
    let address = server.address(Link::Plain).to_string();
    let honest = |messages: usize| {
        let mut pairs = Relay::Server(&server).pairs(PAIRS, Link::Plain, Payload::Offer);
        for pair in &mut pairs {
            pair.deliver(); // A thread's first message touches new memory.
        }
        let mut times = Vec::new();
        for _ in 0..messages {
            for pair in &mut pairs {
                times.push(pair.deliver());
                thread::sleep(PACE); // Leaves the core to whatever else the server has to do.
            }
        }
        times
    };
    honest(MESSAGES); // Unmeasured.
    let mut rows = Vec::new();
    for (number, (mix, ..)) in hostile::MIXES.into_iter().enumerate() {
        let last = number + 1 == hostile::MIXES.len();
        let messages = if last { MANY_MESSAGES } else { MESSAGES };
        let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            eprintln!("fairness: {mix}, round {round} of {ROUNDS}");
            let alone_now = honest(messages);
            cores.stay_on(1);
            let mut hostile = Helper::start_nice(hostile::ROLE, &[&address, mix]);
            assert_eq!(hostile.hear(), "ready");
            cores.stay_on(0);
            let beside_now = honest(messages);
            drop(hostile);
            wait_until("the hostile clients are gone", || threads(server.pid()) == OWN_THREADS);
            let p99 = |times: &[Duration]| microseconds(percentile(times, 99.0));
            ratios.push(p99(&beside_now) / p99(&alone_now));
            alone.extend(alone_now);
            beside.extend(beside_now);
        }
        let mut figures = Vec::new();
        for times in [&beside, &alone] {
            let percentiles = [median(times), percentile(times, 99.0), percentile(times, 99.9)];
            figures.extend(percentiles.map(microseconds));
        }
        figures.extend(spread(&ratios));
        rows.push(Row::new(format!("beside {mix}"), figures));
    }
    let all = &rows[hostile::MIXES.len() - 1];
    let targets = vec![
        Target::at_most(
            STALLED_TARGET,
            "p99 beside stalled recipients, to alone",
            rows[0].figures[6],
        ),
        Target::at_most(ALL_KINDS_TARGETS[0], "p99 beside 1,000 of all kinds, µs", all.figures[1]),
        Target::at_most(
            ALL_KINDS_TARGETS[1],
            "p99.9 beside 1,000 of all kinds, µs",
            all.figures[2],
        ),
    ];
    Report {
        title: "FAIRNESS: one-way latency between honest pairs, plain, offers; µs".into(),
        columns: &[
            "p50",
            "p99",
            "p99.9",
            "alone p50",
            "alone p99",
            "alone p99.9",
            "p99 ratio",
            "min",
            "max",
        ],
        targets,
        rows,
    }
}
