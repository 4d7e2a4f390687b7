//! How soon the server serves, how large it is, and how much there is to audit.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::client::{NO_LIMITS, log_in};
use crate::common::{Link, Server};
use crate::report::{Report, Row, Target};
use crate::stats::spread;

const STARTS: usize = 20;
/// MiB.
const SIZE_TARGET: f64 = 1.5;

pub fn measure() -> Report {
    eprintln!("start: {STARTS} times");
    let start = |_| {
        let start = Instant::now();
        let server = Server::start_with(NO_LIMITS);
        log_in(server.address(Link::Plain), Link::Plain).unwrap();
        1e3 * start.elapsed().as_secs_f64()
    };
    let times: Vec<f64> = (0..STARTS).map(start).collect();
    let size = fs::metadata(env!("CARGO_BIN_EXE_signal-server")).unwrap().len() as f64;
    let mib = size / 1024.0 / 1024.0;
    let only = |figure| vec![figure, f64::NAN, f64::NAN];
    Report {
        title: "START, with a certificate; size and dependencies".into(),
        columns: &["median", "min", "max"],
        rows: vec![
            Row::new("from the start to the first login, ms", spread(&times).to_vec()),
            Row::new("binary without symbols, MiB", only(mib)),
            Row::new("crates in it, without its own", only(crates())),
        ],
        targets: vec![Target::at_most(SIZE_TARGET, "binary, MiB", mib)],
    }
}

/// Crates of which the program consists on this system.
fn crates() -> f64 {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    names.len() as f64 - 1.0
}
