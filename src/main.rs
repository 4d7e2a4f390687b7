//! The wiring: arguments, log, ports, signals, then [`server::run`].

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use log::{LevelFilter, Log, Metadata, Record, error};
use signal_server::limits::Timeouts;
use signal_server::operator::config::{Command, Config, ConfigError, HELP};
use signal_server::operator::{listen, users_file};
use signal_server::{server, systemd};
use simple_logger::SimpleLogger;

/// The exit code for a command line that is not understood, as shells and their users know it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = Command::parse(std::env::args_os().skip(1), |name| std::env::var_os(name));
    match command {
        Ok(Command::Run(config)) => run(&config),
        Ok(Command::Check(config)) => {
            start_log(config.log);
            print(server::check(&config))
        }
        Ok(Command::PrintLimits(config)) => print(Ok(config.limits.report(&Timeouts::default()))),
        Ok(Command::User(file, action)) => print(users_file::carry_out(&file, &action)),
        Ok(Command::Help) => print(Ok(HELP.into())),
        Ok(Command::Version) => {
            print(Ok(concat!("signal-server ", env!("CARGO_PKG_VERSION"), "\n").into()))
        }
        Err(ConfigError::Usage(problem)) => {
            eprintln!("signal-server: {problem}\nTry: signal-server --help");
            ExitCode::from(USAGE)
        }
        Err(ConfigError::File(problem)) => print(Err(problem)),
    }
}

/// Prints a command's outcome: what was asked for to stdout, what went wrong to stderr.
fn print(outcome: Result<String, String>) -> ExitCode {
    match outcome.map(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(_)) => {} // There is nobody to tell.
        Err(problem) => eprintln!("signal-server: {problem}"),
    }
    ExitCode::FAILURE
}

fn run(config: &Config) -> ExitCode {
    start_log(config.log);
    let (stop, stopped) = mpsc::channel();
    let served = stop_on_signals(stop)
        .map_err(|error| format!("cannot watch for signals: {error}"))
        .and_then(|()| listen::bind(config))
        .and_then(|listeners| server::run(listeners, config, Timeouts::default(), &stopped));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Our own lines only: at its more talkative levels tungstenite logs whole messages, and an SDP
/// must never be in a log.
fn start_log(level: LevelFilter) {
    let logger =
        SimpleLogger::new().with_level(LevelFilter::Off).with_module_level("signal_server", level);
    let logger = match systemd::journal_has_stderr() {
        true => logger.without_timestamps(),
        false => logger.with_utc_timestamps(),
    };
    log::set_max_level(level);
    if let Err(problem) = log::set_boxed_logger(Box::new(Expendable(logger))) {
        eprintln!("signal-server: no log: {problem}");
    }
    // Where it was, and no more: a panic's message can quote what a client sent. Not through the
    // logger, whose own panic could be what this is about.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(io::stderr(), "ERROR [signal_server] a thread panicked at {place}");
    }));
}

/// A log whose lines may get lost. `SimpleLogger` panics when stderr can't be written to, and a full
/// disk must not end calls.
struct Expendable(SimpleLogger);

impl Log for Expendable {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        // The logger has no state that a panic could leave half changed.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {}
}

/// The first SIGINT or SIGTERM stops the server in good order, the second at once.
#[cfg(unix)]
fn stop_on_signals(stop: Sender<()>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 || stop.send(()).is_err() {
                std::process::exit(1);
            }
        }
    })?;
    Ok(())
}

/// Elsewhere Ctrl+C ends the process at once. The sender is kept, since dropping it means "stop".
#[cfg(not(unix))]
fn stop_on_signals(stop: Sender<()>) -> std::io::Result<()> {
    std::mem::forget(stop);
    Ok(())
}
