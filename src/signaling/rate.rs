//! The message rate of one connection.

use std::time::{Duration, Instant};

use crate::limits::{BURST_SECONDS, PACING_DELAY};

/// Slows a client down to its message rate, by the generic cell rate algorithm (ITU-T I.371): each
/// message uses up a share of time, a second divided by the rate, and the shares add up to the time
/// until which the rate is used up. That time may be up to [`BURST_SECONDS`] in the future.
pub struct RateLimiter {
    /// The share of one message.
    interval: Duration,
    used_until: Instant,
}

impl RateLimiter {
    /// For `rate` messages a second, more than 0, starting with a full burst. [`usize::MAX`] is no
    /// limit: a share is rounded down to 0 then.
    pub fn new(rate: usize, now: Instant) -> RateLimiter {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        RateLimiter { interval: Duration::from_secs(1) / rate, used_until: now }
    }

    /// Charges one message, and returns how long the client must not be read from. A client over its
    /// rate waits for several messages' time at once, so that a flood wakes its thread less often.
    pub fn charge(&mut self, now: Instant) -> Duration {
        self.used_until = self.used_until.max(now) + self.interval;
        let excess = (self.used_until - now).saturating_sub(Duration::from_secs(BURST_SECONDS));
        if excess.is_zero() { excess } else { excess.max(PACING_DELAY) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_messages_are_slowed_to_the_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(50, start);
        for _ in 0..200 {
            assert_eq!(limiter.charge(start), Duration::ZERO);
        }
        assert_eq!(limiter.charge(start), PACING_DELAY);
        // After a pause the burst is there again, and not more than that.
        let later = start + Duration::from_secs(3600);
        for _ in 0..200 {
            assert_eq!(limiter.charge(later), Duration::ZERO);
        }
        assert_eq!(limiter.charge(later), PACING_DELAY);
    }

    #[test]
    fn a_flood_is_slowed_to_exactly_the_rate() {
        for rate in [1, 7, 50, 1000] {
            let start = Instant::now();
            let (mut now, mut count) = (start, 0);
            let mut limiter = RateLimiter::new(rate, start);
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
        let mut limiter = RateLimiter::new(usize::MAX, now);
        assert!((0..100_000).all(|_| limiter.charge(now).is_zero()));
    }
}
