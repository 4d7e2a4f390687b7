//! The log: one line per event, to stderr. Floods of lines are rate-limited, and a line that cannot
//! be written is dropped.

use std::collections::HashMap;
use std::io::{self, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simple_logger::SimpleLogger;

use crate::limits::{LOG_BURST, LOG_INTERVAL};
use crate::rate::RateLimiter;

/// Logs this program's lines from `level` up. Does nothing if there is a logger already.
pub fn start(level: LevelFilter) {
    // Other crates are silenced: at debug and trace tungstenite logs whole messages.
    let logger =
        SimpleLogger::new().with_level(LevelFilter::Off).with_module_level("signal_server", level);
    // systemd sets this variable when it reads stderr; its journal records the time of each line.
    let logger = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => logger.without_timestamps(),
        None => logger.with_utc_timestamps(),
    };
    let logger = BestEffortLog { output: logger, pacing: Pacing::default() };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    // Logs only the location, because a panic's message can quote what a client sent. Writes without
    // the logger, which may itself have panicked.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(io::stderr(), "ERROR [signal_server] a thread panicked at {place}");
    }));
}

/// A log that may drop lines: when stderr can't be written to, where `SimpleLogger` would panic (a
/// full disk must not end calls), and when one place in the code logs too many lines.
struct BestEffortLog {
    output: SimpleLogger,
    pacing: Pacing,
}

/// A place in the code that logs: file and line.
type CallSite = (Option<&'static str>, Option<u32>);

/// For each place in the code that has logged: its rate, and how many of its lines were suppressed
/// since the last printed one. The number of places bounds the map, whatever clients do.
#[derive(Default)]
struct Pacing(Mutex<HashMap<CallSite, (RateLimiter, u64)>>);

impl Pacing {
    /// How many lines from the same place were suppressed since the last one that was printed;
    /// `None` if this one is suppressed too.
    fn admit(&self, record: &Record, now: Instant) -> Option<u64> {
        if record.level() > Level::Info {
            return Some(0); // An operator who asks for debug or trace wants all of it.
        }
        let unused = (RateLimiter::new(LOG_INTERVAL, LOG_INTERVAL * LOG_BURST, now), 0);
        let mut sites = self.0.lock();
        let (rate, suppressed) =
            sites.entry((record.file_static(), record.line())).or_insert(unused);
        if rate.try_charge(now) {
            return Some(mem::take(suppressed));
        }
        *suppressed += 1;
        None
    }
}

impl Log for BestEffortLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.output.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(suppressed) = self.pacing.admit(record, Instant::now()) else {
            return;
        };
        let print = || match suppressed {
            0 => self.output.log(record),
            count => self.output.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{} ({count} similar lines left out)", record.args()))
                    .build(),
            ),
        };
        // The logger has no state that a panic could leave half changed.
        let _ = panic::catch_unwind(AssertUnwindSafe(print));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` lines from one place are printed at `now`, and what the last one printed
    /// says was suppressed.
    fn printed(pacing: &Pacing, line: u32, level: Level, count: u64, now: Instant) -> (usize, u64) {
        let record =
            Record::builder().level(level).file_static(Some("here.rs")).line(Some(line)).build();
        let admitted: Vec<u64> = (0..count).filter_map(|_| pacing.admit(&record, now)).collect();
        (admitted.len(), admitted.iter().sum())
    }

    #[test]
    fn a_flood_of_one_kind_is_paced_and_counted() {
        let (pacing, start) = (Pacing::default(), Instant::now());
        let burst = LOG_BURST as usize;
        assert_eq!(printed(&pacing, 1, Level::Info, 1000, start), (burst, 0));
        assert_eq!(printed(&pacing, 1, Level::Info, 1000, start + LOG_INTERVAL / 2), (0, 0));
        let suppressed = 2000 - u64::from(LOG_BURST);
        assert_eq!(printed(&pacing, 1, Level::Info, 10, start + LOG_INTERVAL), (1, suppressed));
        assert_eq!(printed(&pacing, 1, Level::Info, 10, start + LOG_INTERVAL * 3), (2, 9));
        // A quiet place has its whole burst again, and no more than that.
        let later = start + LOG_INTERVAL * 10 * LOG_BURST;
        assert_eq!(printed(&pacing, 1, Level::Info, 1000, later), (burst, 8));
    }

    #[test]
    fn a_flood_of_one_kind_does_not_hide_another() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        printed(&pacing, 1, Level::Warn, 100_000, now);
        assert_eq!(printed(&pacing, 2, Level::Error, 1, now), (1, 0));
        assert_eq!(pacing.0.lock().len(), 2);
    }

    #[test]
    fn debug_lines_are_not_paced() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        assert_eq!(printed(&pacing, 1, Level::Debug, 1000, now), (1000, 0));
        assert_eq!(pacing.0.lock().len(), 0);
    }
}
