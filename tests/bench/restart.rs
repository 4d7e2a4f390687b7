//! An operator restarts the server, and all of its clients come back in the moment in which the new
//! one is there. They take their turns on the same cores as the server.

use std::time::Instant;

use crate::client::NO_LIMITS;
use crate::common::{Link, Server};
use crate::crowd::RETURNING_ROLE;
use crate::growth::most;
use crate::process::Helper;
use crate::report::{Report, Row, Target};
use crate::stats::{median, percentile};

const CLIENTS: usize = 2_000;
const ROUNDS: usize = 3;
/// Seconds until the last of them is logged in again.
const TARGET: f64 = 2.0;

pub fn measure() -> Report {
    let clients = CLIENTS.min(most());
    let (mut stops, mut returns, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("restart: {clients} clients, round {round} of {ROUNDS}");
        let server = Server::start_with(NO_LIMITS);
        let address = server.address(Link::Plain).to_string();
        let tls_address = server.address(Link::Tls).to_string();
        let mut crowd = Helper::start(RETURNING_ROLE, &[&address, &clients.to_string()]);
        crowd.hear();
        let stop = Instant::now();
        assert!(server.stop().success());
        stops.push(stop.elapsed().as_secs_f64());
        crowd.hear();
        let options = [NO_LIMITS, &["--listen", &address, "--tls-listen", &tls_address]].concat();
        let _server = Server::start_with(&options);
        let start = Instant::now();
        crowd.say("go");
        refusals.push(crowd.hear().parse::<f64>().unwrap());
        returns.push(start.elapsed().as_secs_f64());
    }
    let figures =
        |values: &[f64]| vec![median(values), percentile(values, 0.0), percentile(values, 100.0)];
    let (back, refused) = (median(&returns), percentile(&refusals, 100.0));
    Report {
        title: format!("RESTART with {clients} clients, plain; seconds"),
        columns: &["median", "min", "max"],
        rows: vec![
            Row::new("until the old server has ended", figures(&stops)),
            Row::new("until all are back at the new one", figures(&returns)),
            Row::new("attempts that were refused", figures(&refusals)),
        ],
        targets: vec![
            Target::at_most(TARGET, format!("{clients} clients back after a restart, s"), back),
            Target::at_most(0.0, "of these refused, in the worst round", refused),
        ],
    }
}
