//! The documents, checked: their links and sizes, what they claim about the server, and what they
//! give a reader to copy.
//!
//! A test that lacks a program is reported as ignored. With `CI` set it fails instead.

#[path = "../common/mod.rs"]
mod common;

mod claims;
mod links;
mod proxies;
mod snippets;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use libtest_mimic::{Arguments, Trial};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path from the project's folder.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of each row of a document's tables.
pub fn rows(document: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let lines = text.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = |line: &str| line.split(" |").map(|cell| cell.trim().to_string()).collect();
    lines.map(cells).collect()
}

/// What stands between backticks.
pub fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn test(name: &'static str, run: fn()) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// A test that needs a program.
fn test_with(program: &str, name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    let must_run = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_left_out = !must_run && !proxies::is_there(program);
    if is_left_out {
        eprintln!("{name} is left out: {program} is not installed");
    }
    let trial = Trial::test(name, move || {
        run();
        Ok(())
    });
    trial.with_ignored_flag(is_left_out)
}

fn main() -> ExitCode {
    let trials = [links::trials(), claims::trials(), snippets::trials(), proxies::trials()];
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(8); // Those of the proxies mostly wait.
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
