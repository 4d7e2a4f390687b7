//! Whether a relay gets slower when many others are online: two servers take turns, one with 10
//! clients who do nothing, and one with more and more of them.
//!
//! No keepalive ping falls into a turn: each idle client has sent something just before it.

use crate::client::{NO_LIMITS, Payload, Relay};
use crate::common::{Link, Server};
use crate::cores::Cores;
use crate::crowd::Crowd;
use crate::process::{open_files, threads};
use crate::report::{Report, Target};
use crate::throughput::{COLUMNS, compare};

const FEW: usize = 10;
const MANY: [usize; 3] = [1_000, 8_000, 10_000];
const PAIRS: usize = 16;
/// Of the messages a second that the server with few online relays.
const TARGET: f64 = 0.95;

pub fn measure() -> Report {
    let cores = Cores::allowed();
    cores.stay_on(0);
    let [few, many] = [(); 2].map(|()| Server::start_with(NO_LIMITS));
    cores.stay_on(1);
    let _few = Crowd::log_in(few.address(Link::Plain), Link::Plain, FEW);
    let (mut crowds, mut rows, mut targets, mut online) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for count in MANY {
        if count > most() {
            eprintln!("growth: {count} need a higher `ulimit -Hn`, left out");
            continue;
        }
        crowds.push(Crowd::log_in(many.address(Link::Plain), Link::Plain, count - online));
        online = count;
        crowds.iter_mut().for_each(Crowd::stir);
        let sides =
            [&many, &few].map(|server| (Relay::Server(server), Link::Plain, Payload::Offer));
        let (row, [ratio, _]) = compare(format!("{count} online, to {FEW}"), sides, PAIRS);
        rows.push(row);
        targets.push(Target::at_least(
            TARGET,
            format!("throughput with {count} online, to {FEW}"),
            ratio,
        ));
    }
    crowds.iter_mut().for_each(Crowd::stir);
    let held = threads(many.pid()).min(online) as f64;
    targets.push(Target::at_least(10_000.0, "online at once, still there at the end", held));
    Report {
        title: format!("GROWTH: plain, offers, {PAIRS} pairs; columns as above, `bare` is {FEW}"),
        columns: COLUMNS,
        rows,
        targets,
    }
}

/// How many clients a process can have, with some files for itself.
pub fn most() -> usize {
    open_files().saturating_sub(500)
}
