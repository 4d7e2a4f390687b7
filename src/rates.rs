//! How fast anyone may go: the message rate of one connection, and the pace of a crowd.

use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{ABUSE_BREAK, ABUSE_TIME, BURST_SECONDS, GATE_INTERVAL};

/// The message rate of one connection: the generic cell rate algorithm (ITU-T I.371). Each message
/// costs a bit of time, a second divided by the rate, and the bits add up to the time until which the
/// connection has used its rate. That may run ahead of the clock by [`BURST_SECONDS`] at most.
pub struct RateLimiter {
    /// What one message costs; nothing, if there is no limit.
    interval: Duration,
    /// Until when the rate is used.
    used_until: Instant,
    /// The first and the last refusal of a time without a break.
    refusals: Option<(Instant, Instant)>,
}

/// What [`RateLimiter::check`] says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handle it.
    Allowed,
    /// Refuse it.
    Refused,
    /// Refuse it, and disconnect the client, which has been at it for [`ABUSE_TIME`].
    Abusive,
}

impl RateLimiter {
    /// For `rate` messages a second, more than 0, with all of the burst to begin with. (At more than
    /// 10^9 a message costs nothing, so that [`usize::MAX`] is no limit.)
    pub fn new(rate: usize, now: Instant) -> RateLimiter {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        RateLimiter { interval: Duration::from_secs(1) / rate, used_until: now, refusals: None }
    }

    /// Whether one more message is within the rate.
    pub fn check(&mut self, now: Instant) -> Verdict {
        let used_until = self.used_until.max(now) + self.interval;
        if used_until <= now + Duration::from_secs(BURST_SECONDS) {
            self.used_until = used_until;
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

/// Lets threads go on no closer together than [`GATE_INTERVAL`]. A hundred that wake up in the same
/// moment would stand in a row for the processor, and an honest client's thread behind them: that was
/// seen to delay one message in a hundred by 2 ms, one in a thousand by 5. Nobody waits for it where
/// there is no crowd.
pub struct Gate {
    pause: Duration,
    /// When the last thread so far goes on, or went.
    latest: Mutex<Option<Instant>>,
}

impl Gate {
    /// A gate at which every thread waits for `pause` at least.
    pub fn new(pause: Duration) -> Gate {
        Gate { pause, latest: Mutex::new(None) }
    }

    /// Waits.
    pub fn wait(&self) {
        let now = Instant::now();
        let go_on = {
            let mut latest = self.latest.lock();
            let next = latest.map_or(now, |latest| latest + GATE_INTERVAL);
            *latest.insert(next.max(now + self.pause))
        };
        thread::sleep(go_on - now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(50, start);
        for _ in 0..200 {
            assert_eq!(limiter.check(start), Verdict::Allowed);
        }
        assert_eq!(limiter.check(start), Verdict::Refused);
        let later = start + Duration::from_millis(100);
        for _ in 0..5 {
            assert_eq!(limiter.check(later), Verdict::Allowed);
        }
        assert_eq!(limiter.check(later), Verdict::Refused);
        // After a quiet time the burst is there again, and not more than that.
        let much_later = later + Duration::from_secs(3600);
        for _ in 0..200 {
            assert_eq!(limiter.check(much_later), Verdict::Allowed);
        }
        assert_eq!(limiter.check(much_later), Verdict::Refused);
    }

    #[test]
    fn only_who_never_stops_is_abusive() {
        let mut now = Instant::now();
        let mut limiter = RateLimiter::new(1, now);
        let mut verdicts = |step: Duration, count: usize| -> Vec<Verdict> {
            (0..count)
                .map(|_| {
                    now += step;
                    limiter.check(now)
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
    fn who_was_refused_for_10_s_without_a_break_is_abusive() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(1, start);
        let second = |number| start + Duration::from_secs(number);
        (0..4).for_each(|_| assert_eq!(limiter.check(start), Verdict::Allowed));
        assert_eq!(limiter.check(start), Verdict::Refused);
        for number in 1..10 {
            assert_eq!(limiter.check(second(number)), Verdict::Allowed);
            assert_eq!(limiter.check(second(number)), Verdict::Refused);
        }
        assert_eq!(limiter.check(second(10)), Verdict::Allowed);
        assert_eq!(limiter.check(second(10)), Verdict::Abusive);
        // Up to a break of more than 2 s.
        assert_eq!(limiter.check(second(12)), Verdict::Allowed);
        assert_eq!(limiter.check(second(12)), Verdict::Allowed);
        assert_eq!(limiter.check(second(12)), Verdict::Abusive);
        (0..3).for_each(|_| assert_eq!(limiter.check(second(15)), Verdict::Allowed));
        assert_eq!(limiter.check(second(15)), Verdict::Refused);
    }

    #[test]
    fn a_crowd_goes_through_a_gate_one_after_the_other() {
        let gate = Gate::new(Duration::from_millis(20));
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| gate.wait());
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(20) + GATE_INTERVAL * 49);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(usize::MAX, now);
        assert!((0..100_000).all(|_| limiter.check(now) == Verdict::Allowed));
    }
}
