//! What an honest pair notices of a thousand hostile clients ([`hostile`](crate::hostile)).
//!
//! Each round measures the same pairs twice: alone, and beside the hostile ones. The pairs take
//! turns, so that together they send often enough to be measured, and none is over its message rate.
//!
//! Where there are two cores, server and honest pairs have one, and the hostile clients the other, as
//! they would be on machines of their own. So what is measured is what the server does for them.

use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::HOSTILE;
use crate::common::{Link, Server, wait_until};
use crate::cores::Cores;
use crate::latency::Pair;
use crate::stats::{median, microseconds, percentile};

const PAIRS: usize = 40;
const ROUNDS: usize = 5;
/// Of each pair in each half of a round: within the burst that every connection has.
const MESSAGES: usize = 40;
/// Between two messages of whichever pair: about 500 a second.
const PACE: Duration = Duration::from_millis(2);
/// The server's main thread, the one that waits for signals, and one for each port.
const OWN_THREADS: usize = 4;
/// The p99 beside the hostile clients may be this many times what it is alone.
const TARGET: f64 = 1.5;

/// The section's figures.
pub struct Fairness {
    alone: Vec<Duration>,
    beside: Vec<Duration>,
    /// Of each round: the p99 beside the hostile clients divided by that alone.
    ratios: Vec<f64>,
}

/// Measures on a server of its own.
pub fn measure() -> Fairness {
    // All of the hostile clients have one address here; they get what eight addresses would.
    let options =
        ["--log", "info", "--max-connections", "4096", "--max-per-ip", "0", "--max-rate", "50"];
    let cores = Cores::allowed().filter(|cores| cores.count() > 1);
    let stay_on = |core| cores.as_ref().map(|cores| cores.stay_on(core));
    stay_on(0);
    let server = Server::start_with(&options);
    let mut fairness = Fairness { alone: vec![], beside: vec![], ratios: vec![] };
    deliver(&server, "warm-up");
    for round in 1..=ROUNDS {
        let alone = deliver(&server, &format!("alone {round}"));
        stay_on(1);
        let mut hostile = start_hostile(&server);
        stay_on(0);
        let beside = deliver(&server, &format!("beside {round}"));
        hostile.kill().unwrap();
        hostile.wait().unwrap();
        wait_until("the hostile clients are gone", || threads(&server) == OWN_THREADS);
        let p99 = |times: &[Duration]| microseconds(percentile(times, 99));
        fairness.ratios.push(p99(&beside) / p99(&alone));
        fairness.alone.extend(alone);
        fairness.beside.extend(beside);
        eprintln!("fairness: round {round} of {ROUNDS} done");
    }
    fairness
}

/// Half a round, with pairs that are gone before the server would ping them.
fn deliver(server: &Server, name: &str) -> Vec<Duration> {
    let mut pairs: Vec<Pair> =
        (0..PAIRS).map(|pair| Pair::through_server(server, Link::Plain, name, pair)).collect();
    let mut times = Vec::new();
    for _ in 0..MESSAGES {
        for pair in &mut pairs {
            let start = Instant::now();
            times.extend(pair.deliver(1));
            thread::sleep(PACE.saturating_sub(start.elapsed()));
        }
    }
    times
}

fn start_hostile(server: &Server) -> Child {
    let program = env::current_exe().unwrap();
    let mut child = Command::new("nice")
        .args(["-n", "19"])
        .arg(program)
        .args([HOSTILE, &server.address(Link::Plain).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn threads(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.pid())).map_or(0, Iterator::count)
}

impl Fairness {
    fn ratio(&self) -> f64 {
        median(&self.ratios)
    }

    fn target_met(&self) -> bool {
        self.ratio() <= TARGET
    }

    pub fn to_json(&self) -> Value {
        let side = |times: &[Duration]| {
            json!({
                "p50_us": microseconds(median(times)),
                "p99_us": microseconds(percentile(times, 99)),
            })
        };
        json!({
            "alone": side(&self.alone),
            "beside": side(&self.beside),
            "ratio_of_p99": {
                "median": self.ratio(),
                "min": percentile(&self.ratios, 0),
                "max": percentile(&self.ratios, 100),
            },
            "target": TARGET,
            "target_met": self.target_met(),
        })
    }
}

impl fmt::Display for Fairness {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "One-way delivery between honest pairs, alone and beside 1,000 hostile clients;"
        )?;
        writeln!(
            f,
            "{} messages a line, in {ROUNDS} rounds; times in microseconds",
            self.alone.len()
        )?;
        writeln!(f)?;
        writeln!(f, "               p50     p99   p99.9")?;
        for (name, times) in [("alone", &self.alone), ("beside them", &self.beside)] {
            let [p50, p99] = [50, 99].map(|percent| microseconds(percentile(times, percent)));
            let p999 = {
                let mut sorted = times.to_vec();
                sorted.sort();
                microseconds(sorted[(sorted.len() - 1) * 999 / 1000])
            };
            writeln!(f, "{name:<12}{p50:>6.1}  {p99:>6.1}  {p999:>6.1}")?;
        }
        let (min, max) = (percentile(&self.ratios, 0), percentile(&self.ratios, 100));
        writeln!(f, "ratio of the p99: {:.2} ({min:.2}–{max:.2} in the rounds)", self.ratio())?;
        writeln!(f)?;
        let verdict = if self.target_met() { "met" } else { "missed" };
        write!(f, "target: at most {TARGET:.2} of alone: {verdict}")
    }
}
