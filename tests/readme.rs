//! What the README gives an operator to copy, as it stands there: the systemd unit, and the
//! configurations of reverse proxies. Each is tried with the real program.
//!
//! Where a program is missing its trials are reported as ignored; with `CI` set they fail instead.

mod common;

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The README's one code block in this language.
fn block(language: &str) -> String {
    let readme = readme();
    let start = format!("\n```{language}\n");
    let mut blocks = readme.split(&start).skip(1);
    let block = blocks.next().unwrap().split("\n```\n").next().unwrap();
    assert!(blocks.next().is_none(), "which {language} block?");
    format!("{block}\n")
}

/// Puts something else into a block, where it must be.
fn put(block: &str, old: &str, new: &str) -> String {
    assert!(block.contains(old), "no {old:?} in:\n{block}");
    block.replace(old, new)
}

fn analyze(arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("systemd-analyze").args(arguments).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said.into()) }
}

fn the_unit_is_understood_and_scores_as_the_readme_says() -> Result<(), Failed> {
    let unit =
        put(&block("ini"), "/usr/local/bin/signal-server", env!("CARGO_BIN_EXE_signal-server"));
    let path = common::scratch("unit").join("signal-server.service");
    fs::write(&path, unit)?;
    let path = path.to_str().unwrap();
    // It only warns of a word that it does not know.
    assert_eq!(analyze(&["verify", path])?, "");
    let said = analyze(&["security", "--offline=true", "--no-pager", path])?;
    let number_after = |text: &str, words: &str| -> f32 {
        text.split(words).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    let score = number_after(&said, "signal-server.service: ");
    let promised = number_after(&readme(), "gives this unit ");
    // Another version of systemd may count a little differently.
    assert!(score < promised + 0.3, "it is {score}, the README says {promised}:\n{said}");
    Ok(())
}

fn the_unit_has_room_for_the_default_limits() -> Result<(), Failed> {
    let unit = block("ini");
    let number = |key: &str| -> usize {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim_end_matches('M').parse().unwrap()
    };
    let limits = signal_server::limits::Limits::default();
    let own = signal_server::limits::OWN_DESCRIPTORS;
    assert_eq!(number("LimitNOFILE="), limits.max_connections + own);
    assert_eq!(number("TasksMax="), limits.max_connections + own);
    assert!(number("MemoryMax=") << 20 >= limits.worst_case().unwrap().total);
    Ok(())
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    found.is_ok()
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let must_run = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let mut trials = vec![Trial::test(
        "the_unit_has_room_for_the_default_limits",
        the_unit_has_room_for_the_default_limits,
    )];
    let mut add = |program: &str, name: String, trial: fn() -> Result<(), Failed>| {
        let left_out = !must_run && !is_there(program);
        if left_out {
            eprintln!("{name} is left out; to install what it needs: apt install {program}");
        }
        trials.push(Trial::test(name, trial).with_ignored_flag(left_out));
    };
    add(
        "systemd-analyze",
        "the_unit_is_understood_and_scores_as_the_readme_says".into(),
        the_unit_is_understood_and_scores_as_the_readme_says,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
