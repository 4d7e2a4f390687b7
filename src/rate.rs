//! Rate limits, for the messages of a connection and for the lines of the log.

use std::time::{Duration, Instant};

/// A rate with a burst, by the generic cell rate algorithm (ITU-T I.371): each event adds an interval
/// to `used_until`, the time until which the rate is used up. An event is allowed if `used_until` is
/// then at most `burst` in the future.
pub struct RateLimiter {
    interval: Duration,
    burst: Duration,
    used_until: Instant,
}

/// The interval for `rate` events a second, which must not be 0. [`usize::MAX`] means no limit: its
/// interval is rounded down to 0.
pub fn per_second(rate: usize) -> Duration {
    Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX)
}

impl RateLimiter {
    /// Allows one event in each `interval`, after a first burst of `burst / interval` events.
    pub fn new(interval: Duration, burst: Duration, now: Instant) -> RateLimiter {
        RateLimiter { interval, burst, used_until: now }
    }

    /// Charges one event, and returns how long the caller must wait until the rate allows it.
    pub fn charge(&mut self, now: Instant) -> Duration {
        self.used_until = self.used_until.max(now) + self.interval;
        (self.used_until - now).saturating_sub(self.burst)
    }

    /// Charges one event if the rate allows it now, and returns whether it does.
    pub fn try_charge(&mut self, now: Instant) -> bool {
        let used_until = self.used_until;
        let allowed = self.charge(now).is_zero();
        if !allowed {
            self.used_until = used_until;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_secs(4);

    #[test]
    fn a_burst_is_free_and_then_messages_are_slowed_to_the_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(per_second(50), BURST, start);
        for _ in 0..200 {
            assert_eq!(limiter.charge(start), Duration::ZERO);
        }
        assert_eq!(limiter.charge(start), per_second(50));
        // After a pause the burst is there again, and not more than that.
        let later = start + Duration::from_secs(3600);
        for _ in 0..200 {
            assert_eq!(limiter.charge(later), Duration::ZERO);
        }
        assert_eq!(limiter.charge(later), per_second(50));
    }

    #[test]
    fn a_flood_is_slowed_to_exactly_the_rate() {
        for rate in [1, 7, 50, 1000] {
            let start = Instant::now();
            let (mut now, mut count) = (start, 0);
            let mut limiter = RateLimiter::new(per_second(rate), BURST, start);
            while now < start + Duration::from_secs(100) {
                now += limiter.charge(now);
                count += 1;
            }
            let allowed = rate * (100 + 4);
            assert!((allowed - rate..=allowed + rate).contains(&count), "{count} at {rate}");
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(per_second(usize::MAX), BURST, now);
        assert!((0..100_000).all(|_| limiter.charge(now).is_zero()));
    }

    #[test]
    fn an_event_that_is_not_allowed_is_not_charged() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Duration::from_secs(1), Duration::from_secs(3), start);
        assert_eq!((0..10).filter(|_| limiter.try_charge(start)).count(), 3);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| limiter.try_charge(later)).count(), 1);
    }
}
