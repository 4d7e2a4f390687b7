//! Processes: starting this program in another role, and what Linux says that a process costs.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// This program as a child process, in one of the roles that `costs.rs` lists. It talks in lines.
/// Dropping it ends it.
pub struct Helper {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    pub fn start(role: &str, arguments: &[&str]) -> Helper {
        Helper::spawn(Command::new(env::current_exe().unwrap()).arg(role).args(arguments))
    }

    /// Whose processor time counts less than everybody else's.
    pub fn start_nice(role: &str, arguments: &[&str]) -> Helper {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(env::current_exe().unwrap());
        Helper::spawn(command.arg(role).args(arguments))
    }

    fn spawn(command: &mut Command) -> Helper {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Helper { child, input, output }
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> String {
        self.output.next().expect("the helper has failed, see above").unwrap()
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has had, threads that have ended included, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the program's name in parentheses; user and system time are the 14th and
    // 15th, in hundredths of a second on every Linux.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// How often the threads of a process went to sleep or were interrupted.
pub fn switches(pid: u32) -> usize {
    let of_each = each_thread(pid, "status").map(|status| {
        let lines = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        lines.map(|(_, count)| count.trim().parse::<usize>().unwrap()).sum::<usize>()
    });
    of_each.sum()
}

pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

fn each_thread(pid: u32, file: &'static str) -> impl Iterator<Item = String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(move |task| fs::read_to_string(task.ok()?.path().join(file)).ok())
}

/// A process's memory in KiB, by a name that `/proc/PID/smaps_rollup` has for it: `Rss` is VmRSS
/// and `Anonymous` is RssAnon in `status`, which may be behind by up to 256 KiB for each thread.
pub fn memory(pid: u32, name: &str) -> f64 {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), name)
}

/// What the system keeps for its own work, in KiB: threads, page tables, sockets and the like.
pub fn kernel_memory() -> f64 {
    let counts = ["KernelStack", "PageTables", "SUnreclaim"];
    counts.map(|name| kibibytes("/proc/meminfo", name)).iter().sum()
}

/// Files that this process, and each that it starts, may have open.
pub fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// From a file of lines such as `Rss:  1760 kB`.
fn kibibytes(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let value = |line: &str| {
        line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()
    };
    text.lines().find_map(value).unwrap()
}
