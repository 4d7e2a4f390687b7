//! Choosing the core on which a measurement and its processes run.
//!
//! Waking a thread on another core takes longer than relaying a message. If the system chose the
//! cores, its choice would decide each comparison, differently in each run.

use std::process::{Command, id};

/// The cores this process may use. Dropping it allows all of them again.
pub struct Cores {
    /// None where there is no `taskset`, which comes with Linux.
    numbers: Vec<usize>,
    /// The same as `taskset` writes it: `0-3,6`.
    before: String,
}

impl Cores {
    pub fn allowed() -> Cores {
        // "pid 4711's current affinity list: 0-3,6"
        let answer = taskset(&["-cp", &id().to_string()]).unwrap_or_else(|| {
            eprintln!("no `taskset` here: the threads run where they like, expect much noise");
            String::new()
        });
        let before = answer.trim().rsplit(' ').next().unwrap_or_default().to_string();
        let mut numbers = Vec::new();
        for range in before.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            numbers.extend(first.parse().unwrap()..=last.parse::<usize>().unwrap());
        }
        Cores { numbers, before }
    }

    /// From now on this process stays on the `index`th of the cores, or on the last if there are not
    /// that many, and so does whatever it starts. What it has started before stays where it is.
    pub fn stay_on(&self, index: usize) {
        if let Some(core) = self.numbers.get(index).or(self.numbers.last()) {
            taskset(&["-acp", &core.to_string(), &id().to_string()])
                .expect("a core that was allowed a moment ago");
        }
    }

    /// Whether [`Cores::stay_on`] makes a difference.
    pub fn are_several(&self) -> bool {
        self.numbers.len() > 1
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            let _ = taskset(&["-acp", &self.before, &id().to_string()]);
        }
    }
}

fn taskset(arguments: &[&str]) -> Option<String> {
    let output = Command::new("taskset").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
