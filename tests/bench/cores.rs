//! Deciding which core a measurement runs on, with the processes it starts.

use std::process::{Command, id};

/// The cores this process may use. Dropping it allows all of them again.
pub struct Cores {
    numbers: Vec<usize>,
    /// The same as `taskset` writes it: `0-3,6`.
    before: String,
}

impl Cores {
    /// `None` where there is no `taskset`, which comes with Linux.
    pub fn allowed() -> Option<Cores> {
        // "pid 4711's current affinity list: 0-3,6"
        let answer = taskset(&["-cp", &id().to_string()])?;
        let before = answer.trim().rsplit(' ').next()?.to_string();
        let mut numbers = Vec::new();
        for range in before.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            numbers.extend(first.parse().ok()?..=last.parse::<usize>().ok()?);
        }
        Some(Cores { numbers, before })
    }

    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// From now on the main thread stays on the `index`th of the cores, and so does whatever it
    /// starts. What it has started before stays where it is.
    pub fn stay_on(&self, index: usize) {
        taskset(&["-cp", &self.numbers[index].to_string(), &id().to_string()])
            .expect("a core that was allowed a moment ago");
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        let _ = taskset(&["-cp", &self.before, &id().to_string()]);
    }
}

/// On Linux the main thread has the number of its process, and `taskset` changes that thread alone;
/// threads and processes that it starts inherit the change.
fn taskset(arguments: &[&str]) -> Option<String> {
    let output = Command::new("taskset").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
