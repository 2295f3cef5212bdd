//! A server's library looks after itself: `--optimize-every HOURS`. On a thread of its own, at the lowest priority; a merge is
//! judged by ordinary requests, one at a time, so that the engine's thread has no other work than answering.
//!
//! What was found is one line of `derived/optimize.jsonl` in the library, done or not; what was done is in the journal too.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::adapter::improve::{self, Rules};
use super::adapter::probe::Prober;
use crate::error::{Code, Failure};
use crate::library::{Access, Library};
use crate::pipeline::Pipeline;
use crate::shelf::library_failure;

/// Lines that the file keeps.
const LINES: usize = 500;
/// The file among what is derived.
const FILE: &str = "optimize.jsonl";

/// Optimizes now and then until it is dropped.
pub struct Optimizing {
    stop: Arc<Stop>,
    /// What answers now: it changes where the server has slept, and is gone while it sleeps.
    pipeline: Arc<Mutex<Weak<Pipeline>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn asked(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was asked for within this time.
    fn within(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Optimizing {
    /// Begins; the first time is after `every`.
    ///
    /// # Errors
    /// No thread.
    pub fn start(every: Duration, rules: Rules, library: PathBuf, pipeline: &Arc<Pipeline>) -> Result<Self, Failure> {
        let stop = Arc::<Stop>::default();
        let pipeline = Arc::new(Mutex::new(Arc::downgrade(pipeline)));
        let (mine, current) = (stop.clone(), pipeline.clone());
        let work = move || {
            #[cfg(target_os = "linux")]
            // Of this thread alone; where it is refused, the system shares as usual.
            let _ = rustix::process::nice(19);
            while !mine.within(every) {
                let now = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                turn(&rules, &library, &now, &mine);
            }
        };
        let thread = std::thread::Builder::new().name("optimize".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Failure::new(Code::Other, format!("--optimize-every: {e}")))?;
        Ok(Self { stop, pipeline, thread: Some(thread) })
    }

    /// Another pipeline answers from now on.
    pub fn renew(&self, pipeline: &Arc<Pipeline>) {
        *self.pipeline.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(pipeline);
    }
}

impl Drop for Optimizing {
    fn drop(&mut self) {
        *self.stop.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn turn(rules: &Rules, folder: &Path, pipeline: &Weak<Pipeline>, stop: &Stop) {
    // Without a library there is nothing to do yet; nor while the server sleeps.
    let (Some(pipeline), true) = (pipeline.upgrade(), folder.join("FORMAT").is_file()) else { return };
    match once(rules, folder, &pipeline, stop) {
        Ok(text) => tracing::info!(%text, "optimized"),
        // Another writer, or the disk: next time.
        Err(e) => tracing::warn!(error = %e.message, "not optimized"),
    }
}

fn once(rules: &Rules, folder: &Path, pipeline: &Pipeline, stop: &Stop) -> Result<String, Failure> {
    let access = if rules.apply { Access::Write } else { Access::Read };
    let library = Library::open(folder, access).map_err(|e| library_failure(&e))?;
    let base = pipeline.base();
    let alike = improve::alike(rules, &library, base, |text| tracing::info!(%text, "optimizing"))?;
    let tried = match alike.groups.is_empty() {
        true => Vec::new(),
        false => improve::merges(rules, &library, base, &alike, &Prober::new(pipeline)?.gently(), || stop.asked())?,
    };
    let pruned = if stop.asked() { improve::Pruned::default() } else { improve::removals(rules, &library)? };
    let mut found = improve::to_json(rules.apply, &tried, &pruned);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    found["time"] = json!(now);
    let text = found.to_string();
    let file = library.derived().join(FILE);
    keep(&file, &text).map_err(|e| Failure::new(Code::Other, format!("'{}': {e}", file.display())))?;
    Ok(text)
}

/// Adds a line, whole or not at all; the oldest go.
fn keep(file: &Path, line: &str) -> std::io::Result<()> {
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = before.lines().chain([line]).collect();
    let kept = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension("part");
    std::fs::write(&part, kept.join("\n") + "\n")?;
    std::fs::rename(&part, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go() {
        let home = tempfile::tempdir().expect("a folder");
        let file = home.path().join("derived").join(FILE);
        for n in 0..LINES + 3 {
            keep(&file, &format!("line {n}")).expect("kept");
        }
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!((text.lines().count(), text.lines().next()), (LINES, Some("line 3")));
    }

    #[test]
    fn a_stop_does_not_wait() {
        let stop = Stop::default();
        assert!(!stop.within(Duration::from_millis(1)));
        *stop.asked.lock().expect("whole") = true;
        assert!(stop.within(Duration::from_secs(3600)) && stop.asked());
    }
}
