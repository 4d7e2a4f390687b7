//! The call page, and apps that use PeerJS, in a real browser. The tests are in `browser/*.test.mjs`, and Node runs them with
//! Playwright and the system's Chromium; here each of these files becomes a trial.
//!
//! Where Node, its packages or Chromium are missing, the trials are reported as ignored; with `CI` set
//! they fail instead. `CHROME` names another Chromium, `SCREENSHOTS` another folder for the pictures.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

/// The files of tests. Each starts a browser of its own.
const FILES: [&str; 7] = ["calls", "faults", "comfort", "looks", "peerjs", "network", "words"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each call keeps a core busy with coding video.
    arguments.test_threads.get_or_insert(2);
    let must_run = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let missing = missing();
    let left_out = missing.is_some() && !must_run;
    if let Some(missing) = missing {
        eprintln!("the browser tests are left out; {missing}");
    }
    let trials = FILES.map(|file| Trial::test(file, move || run(file)).with_ignored_flag(left_out));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// What is not installed, and how to install it.
fn missing() -> Option<&'static str> {
    let packages = "require('playwright-core'); require('axe-core'); require.resolve('peerjs')";
    let probe = node().args(["--eval", packages]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return Some("to install what they need: npm ci --prefix tests/browser");
    }
    (!chromium().is_file()).then_some("to install Chromium: apt-get install chromium")
}

fn chromium() -> PathBuf {
    env::var_os("CHROME").map_or("/usr/bin/chromium".into(), PathBuf::from)
}

fn node() -> Command {
    let mut command = Command::new("node");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    command.current_dir(folder).stderr(Stdio::null());
    command.env("SIGNAL_SERVER", env!("CARGO_BIN_EXE_signal-server"));
    command
}

/// Runs one file of tests.
fn run(file: &str) -> Result<(), Failed> {
    let output = node().args(["--test", &format!("{file}.test.mjs")]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned().into())
}
