//! What the server costs, and what its clients notice of each other.
//!
//! ```text
//! cargo bench                          measures everything, and prints a table for each section
//! cargo bench -- latency growth        only these sections
//! cargo bench -- --json FILE           also writes the same figures to FILE
//! ```
//!
//! The server is a process of its own, driven by this one. Figures of different machines, or of one
//! machine at different times, can't be compared. So most rows are a ratio of two programs that are
//! measured in turns: the server, and a *bare relay* ([`bare`]) that makes the same system calls on
//! the same threads, but has neither frames, JSON, names nor locks. A figure is the median of several
//! rounds; min and max are those of the rounds. Everything uses the loopback interface, and needs
//! Linux.
//!
//! Each section is a module and returns a [`report::Report`]. What they share is in [`client`],
//! [`process`], [`cores`] and [`stats`].

#[path = "../common/mod.rs"]
mod common;

mod report;
mod stats;
mod cores;
mod process;
mod client;
mod bare;
mod crowd;
mod hostile;
mod latency;
mod throughput;
mod growth;
mod footprint;
mod logins;
mod fairness;

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use report::Report;
use serde_json::{Map, Value};

type Section = fn() -> Report;
type Role = fn(&[String]);

/// In the order in which they run.
const SECTIONS: [(&str, Section); 6] = [
    ("latency", latency::measure),
    ("throughput", throughput::measure),
    ("growth", growth::measure),
    ("footprint", footprint::measure),
    ("logins", logins::measure),
    ("fairness", fairness::measure),
];

/// What this program is as a child process of itself, by its first argument.
const ROLES: [(&str, Role); 3] =
    [(bare::ROLE, bare::serve), (crowd::IDLE_ROLE, crowd::idle), (hostile::ROLE, hostile::rage)];

/// A process has 1024 files by default; the system often allows it more when it asks.
const RAISE_LIMIT: &str = r#"ulimit -n "$(ulimit -Hn)"; exec "$0" "$@" --limit-raised"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let role = |name: &String| ROLES.iter().find(|(role, _)| role == name);
    if let Some((_, play)) = arguments.first().and_then(role) {
        play(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    // `cargo bench` says --bench. `cargo test --benches` does not: it only wants to see it build.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("nothing measured: run it by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    if !arguments.iter().any(|argument| argument == "--limit-raised") {
        let mut shell = Command::new("sh");
        shell.args(["-c", RAISE_LIMIT]).arg(env::current_exe().unwrap()).args(arguments);
        eprintln!("cannot run `sh`: {}", shell.exec());
        return ExitCode::FAILURE;
    }
    let (mut wanted, mut json_file) = (Vec::new(), None);
    let ours = |argument: &&String| !["--bench", "--limit-raised"].contains(&argument.as_str());
    let wishes: Vec<_> = arguments.iter().filter(ours).collect();
    let mut rest = wishes.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--json" if !rest.as_slice().is_empty() => json_file = rest.next(),
            name if SECTIONS.iter().any(|(section, _)| *section == name) => wanted.push(name),
            _ => {
                let sections = SECTIONS.map(|(section, _)| section).join(", ");
                eprintln!("{argument:?} is neither --json FILE nor one of {sections}");
                return ExitCode::from(2);
            }
        }
    }

    let start = Instant::now();
    let mut reports = Vec::new();
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            let section_start = Instant::now();
            let report = measure();
            println!("{report}\n");
            eprintln!("{name} took {:.0} s", section_start.elapsed().as_secs_f64());
            reports.push((name.to_string(), report));
        }
    }
    println!("TARGETS\n");
    for target in reports.iter().flat_map(|(_, report)| &report.targets) {
        println!("{target}");
    }
    eprintln!("took {:.0} s", start.elapsed().as_secs_f64());

    if let Some(file) = json_file {
        let sections = reports.into_iter().map(|(name, report)| (name, report.to_json()));
        let json = Value::Object(sections.collect::<Map<_, _>>());
        if let Err(error) = fs::write(file, format!("{json:#}\n")) {
            eprintln!("cannot write {file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
