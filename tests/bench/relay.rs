//! How much a signaling server costs over a mere copying of bytes.
//!
//! ```text
//! cargo bench                          prints a table
//! cargo bench -- --json FILE           and writes the same figures to FILE
//! ```
//!
//! Two processes are measured by the same client on the same machine, in turns: the server, and a
//! *bare relay* ([`bare`]) that has the server's thread model but neither frames, JSON, names nor
//! locks. What counts is the ratio of the two, since figures of different machines, or of one
//! machine at different times, can't be compared. Everything stays on the loopback interface.
//!
//! Each section is a module: [`latency`], [`fairness`]. [`stats`] has the arithmetic.

#[path = "../common/mod.rs"]
mod common;

mod bare;
mod cores;
mod fairness;
mod hostile;
mod latency;
mod stats;

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;

/// Started with this argument, the benchmark is the bare relay, so that it is a process of its own.
const BARE_RELAY: &str = "--bare-relay";
/// And with this one, it is the hostile clients.
const HOSTILE: &str = "--hostile";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, cert, key] = &arguments[..]
        && first == BARE_RELAY
    {
        bare::serve(cert, key);
        return ExitCode::SUCCESS;
    }
    if let [first, address] = &arguments[..]
        && first == HOSTILE
    {
        hostile::rage(address);
        return ExitCode::SUCCESS;
    }
    // `cargo bench` says --bench. `cargo test --benches` does not: it only wants to see it build.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("nothing measured: run it by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    let json_file = arguments.iter().position(|argument| argument == "--json");
    let json_file = match json_file.map(|position| arguments.get(position + 1)) {
        Some(None) => {
            eprintln!("--json needs a FILE");
            return ExitCode::from(2);
        }
        Some(Some(file)) => Some(file),
        None => None,
    };

    let start = Instant::now();
    let latency = latency::measure();
    println!("{latency}\n");
    let fairness = fairness::measure();
    println!("{fairness}");
    eprintln!("took {:.0} s", start.elapsed().as_secs_f64());

    if let Some(file) = json_file {
        let text = serde_json::to_string_pretty(&json!({
            "latency": latency.to_json(),
            "fairness": fairness.to_json(),
        }))
        .unwrap();
        if let Err(error) = fs::write(file, text + "\n") {
            eprintln!("cannot write {file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
