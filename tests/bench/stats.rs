//! Percentiles, and how they are written.

use std::time::Duration;

/// The value that `percent` of all are not above; `values` in any order, at least one.
pub fn percentile<T: Copy + PartialOrd>(values: &[T], percent: usize) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    sorted[(sorted.len() - 1) * percent / 100]
}

pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    percentile(values, 50)
}

pub fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
