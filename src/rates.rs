//! How fast anyone may go: the message rate of one connection, and the pace of a crowd.

use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{ABUSE_BREAK, ABUSE_TIME, BURST_SECONDS, GATE_INTERVAL};

/// The message rate of one connection, as a "leaky bucket": each message takes up a bit of time,
/// the bit being a second divided by the rate, and the times add up. Who is further ahead of the
/// clock than the burst allows has to wait. (The generic cell rate algorithm, ITU-T I.371.)
pub struct RateBucket {
    /// What one message takes; nothing, if there is no limit.
    interval: Duration,
    /// When all messages so far will have been paid for.
    paid_until: Instant,
    /// The first and the last refusal of a time without a break.
    refusals: Option<(Instant, Instant)>,
}

/// What the bucket says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handle it.
    Allowed,
    /// Refuse it.
    Refused,
    /// Refuse it, and disconnect the client, which has been at it for [`ABUSE_TIME`].
    Abusive,
}

impl RateBucket {
    /// A full bucket for `rate` messages a second.
    pub fn new(rate: usize, now: Instant) -> RateBucket {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        RateBucket { interval: Duration::from_secs(1) / rate, paid_until: now, refusals: None }
    }

    /// Takes out as much as `cost` messages, if that is left.
    pub fn take(&mut self, now: Instant, cost: usize) -> Verdict {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let paid_until = self.paid_until.max(now) + self.interval.saturating_mul(cost);
        let burst = Duration::from_secs(BURST_SECONDS.into());
        if paid_until <= now + burst {
            self.paid_until = paid_until;
            return Verdict::Allowed;
        }
        let first = match self.refusals {
            Some((first, last)) if now - last <= ABUSE_BREAK => first,
            _ => now,
        };
        self.refusals = Some((first, now));
        if now - first < ABUSE_TIME { Verdict::Refused } else { Verdict::Abusive }
    }
}

/// Lets one thread through at a time. A hundred that wake up in the same moment would stand in a row
/// for the processor, and an honest client's thread behind them: that was seen to delay one message
/// in a hundred by 2 ms, one in a thousand by 5. Nobody waits where there is no crowd.
#[derive(Default)]
pub struct Gate {
    last: Mutex<Option<Instant>>,
}

impl Gate {
    /// Waits for `pause`, and until it is this thread's turn.
    pub fn wait(&self, pause: Duration) {
        let now = Instant::now();
        let turn = {
            let mut last = self.last.lock();
            let turn = last.map_or(now, |last| last + GATE_INTERVAL).max(now + pause);
            *last = Some(turn);
            turn
        };
        thread::sleep(turn - now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = RateBucket::new(50, start);
        for _ in 0..200 {
            assert_eq!(bucket.take(start, 1), Verdict::Allowed);
        }
        assert_eq!(bucket.take(start, 1), Verdict::Refused);
        let later = start + Duration::from_millis(100);
        for _ in 0..5 {
            assert_eq!(bucket.take(later, 1), Verdict::Allowed);
        }
        assert_eq!(bucket.take(later, 1), Verdict::Refused);
        // After a quiet time the burst is there again, and not more than that.
        let much_later = later + Duration::from_secs(3600);
        for _ in 0..200 {
            assert_eq!(bucket.take(much_later, 1), Verdict::Allowed);
        }
        assert_eq!(bucket.take(much_later, 1), Verdict::Refused);
    }

    #[test]
    fn only_who_never_stops_is_abusive() {
        let mut now = Instant::now();
        let mut bucket = RateBucket::new(1, now);
        let mut verdicts = |step: Duration, count: usize| -> Vec<Verdict> {
            (0..count)
                .map(|_| {
                    now += step;
                    bucket.take(now, 1)
                })
                .collect()
        };
        // 20 a second for nearly 10 s, a break of 3 s, and again.
        let step = Duration::from_millis(50);
        assert!(!verdicts(step, 195).contains(&Verdict::Abusive));
        verdicts(Duration::from_secs(3), 1);
        assert!(!verdicts(step, 195).contains(&Verdict::Abusive));
        assert!(verdicts(step, 20).contains(&Verdict::Abusive));
    }

    #[test]
    fn a_long_message_takes_out_more() {
        let now = Instant::now();
        let mut bucket = RateBucket::new(50, now);
        for _ in 0..25 {
            assert_eq!(bucket.take(now, 8), Verdict::Allowed);
        }
        assert_eq!(bucket.take(now, 1), Verdict::Refused);
        assert_eq!(bucket.take(now, usize::MAX), Verdict::Refused);
    }

    #[test]
    fn a_crowd_goes_through_a_gate_one_after_the_other() {
        let gate = Gate::default();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| gate.wait(Duration::from_millis(20)));
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(20) + GATE_INTERVAL * 49);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let now = Instant::now();
        let mut bucket = RateBucket::new(usize::MAX, now);
        assert!((0..100_000).all(|_| bucket.take(now, 1) == Verdict::Allowed));
    }
}
