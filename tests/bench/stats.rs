//! Medians and other percentiles.

use std::time::Duration;

/// The value that `percent` of all are not above; `values` in any order, at least one.
pub fn percentile<T: Copy + PartialOrd>(values: &[T], percent: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    sorted[((sorted.len() - 1) as f64 * percent / 100.0) as usize]
}

pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    percentile(values, 50.0)
}

/// The median of the rounds, and the smallest and the largest: how sure the median is.
pub fn spread(rounds: &[f64]) -> [f64; 3] {
    [50.0, 0.0, 100.0].map(|percent| percentile(rounds, percent))
}

pub fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
