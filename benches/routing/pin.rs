//! One processor for what is timed.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Keeps this thread on the last processor, or lets it have all again, where the system has `taskset`.
pub fn pinned(one: bool) {
    // Afterwards only those are counted that are allowed.
    static LAST: OnceLock<usize> = OnceLock::new();
    let last = LAST.get_or_init(|| std::thread::available_parallelism().map_or(0, |n| n.get() - 1));
    let processors = if one { last.to_string() } else { format!("0-{last}") };
    let process = std::process::id().to_string();
    let mut set = Command::new("taskset");
    let _ = set.args(["-p", "-c", &processors, &process]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
