//! The wiring: arguments, log, files, ports, signals, then [`server::run`].

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use log::{info, warn};
use signal_server::limits::{MAPPINGS, SIGNALS_STACK, Timeouts};
use signal_server::operator::config::{Command, Config};
use signal_server::operator::files::OperatorFiles;
use signal_server::operator::users::new_user;
use signal_server::operator::{listen, logging};
use signal_server::signaling::server;
use signal_server::threads;

/// The exit code for a command line that can't be understood, as shells use it.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let done = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => run(&config),
        Ok(Command::Check(config)) => check(&config),
        Ok(Command::NewUser { name, url }) => print_new_user(&name, &url),
        Ok(Command::Print(text)) => print(text),
        Err(problem) => {
            let _ = writeln!(io::stderr(), "signal-server: {problem}\nTry: signal-server --help");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "signal-server: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<(), String> {
    logging::start(config.log);
    let (stop, stopped) = mpsc::channel();
    stop_on_signals(stop).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let files = OperatorFiles::load(config)?;
    log_limits(config);
    let listeners = listen::bind(config, files.certificate.clone())?;
    server::run(listeners, files, config, Timeouts::default(), &stopped)
}

/// Reads all that a start reads, and logs what a start would log. Opens no port, because a running
/// server may use it.
fn check(config: &Config) -> Result<(), String> {
    logging::start(config.log);
    let files = OperatorFiles::load(config)?;
    log_limits(config);
    match files.certificate {
        Some(certificate) if !certificate.get().is_valid_now => {
            Err("the certificate is not valid now, so browsers refuse it".into())
        }
        _ => Ok(()),
    }
}

fn log_limits(config: &Config) {
    let connections = config.limits.max_connections;
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count"); // Linux has such a limit.
    let mappings = mappings.ok().and_then(|text| text.trim().parse().ok());
    if mappings.is_some_and(|most| connections.saturating_mul(MAPPINGS) > most) {
        warn!(
            "{connections} connections may need more memory mappings than vm.max_map_count allows, and \
             without them this program aborts: raise that limit to {MAPPINGS} a connection, or lower \
             --max-connections"
        );
    }
    match config.limits.worst_case() {
        Some(memory) => {
            let mib = memory.div_ceil(1024 * 1024);
            info!("at most {connections} connections, and {mib} MiB of memory in the worst case");
        }
        None => info!("a limit is off, so memory has no bound"),
    }
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("cannot print: {error}"))
}

/// Prints the line for the users file to stdout, so that `>>` can append it, and the token to stderr.
fn print_new_user(name: &str, url: &str) -> Result<(), String> {
    let (line, secret) = new_user(name, url)?;
    print(&line)?;
    io::stderr().write_all(secret.as_bytes()).map_err(|error| format!("cannot print: {error}"))
}

/// The first SIGINT or SIGTERM shuts the server down; the second one ends the process at once.
#[cfg(unix)]
fn stop_on_signals(stop: Sender<()>) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    threads::spawn("signals", SIGNALS_STACK, move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 || stop.send(()).is_err() {
                std::process::exit(1);
            }
        }
    })?;
    Ok(())
}

/// On other systems, Ctrl+C ends the process at once. The sender is leaked, because dropping it would
/// stop the server.
#[cfg(not(unix))]
fn stop_on_signals(stop: Sender<()>) -> io::Result<()> {
    std::mem::forget(stop);
    Ok(())
}
