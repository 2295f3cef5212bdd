//! Uses of adapters, written off the path of requests: noted into a bounded queue, written in batches by a thread of
//! its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Access, Library, Options};
use crate::adapter::AdapterDigest;

/// Uses that may wait to be taken up; any more are not counted.
const QUEUE: usize = 4_096;
/// Time between two writings.
const EVERY: Duration = Duration::from_secs(5);
/// How long one writing waits for another writer; what it could not write stays for the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// One answer: its adapters, whether it came to its end, how long it took.
type Use = (Vec<AdapterDigest>, bool, Duration);

/// Writes uses of a library's adapters. Dropping it writes what is left, waiting for a tenth of a second at most while
/// another writer is at work.
#[derive(Debug)]
pub struct UseRecorder {
    dir: PathBuf,
    /// The thread, once there was a use.
    running: Mutex<Option<(SyncSender<Use>, JoinHandle<()>)>>,
}

impl UseRecorder {
    /// For the library in this folder. No thread runs and nothing is opened before the first use.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), running: Mutex::new(None) }
    }

    /// Notes one answer with these adapters. Never waits: when the queue is full, or the library cannot be written, the
    /// use is not counted.
    pub fn record(&self, digests: Vec<AdapterDigest>, success: bool, latency: Duration) {
        if digests.is_empty() {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (sender, uses) = sync_channel(QUEUE);
            let dir = self.dir.clone();
            let thread = std::thread::Builder::new().name("smoa-uses".to_owned()).spawn(move || write(&dir, &uses));
            *running = thread.ok().map(|thread| (sender, thread));
        }
        if let Some((sender, _)) = running.as_ref() {
            let _ = sender.try_send((digests, success, latency));
        }
    }
}

impl Drop for UseRecorder {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// The thread: takes up uses until nobody can send any more.
fn write(dir: &Path, uses: &Receiver<Use>) {
    let options = Options { busy_timeout: PATIENCE, ..Options::default() };
    // Read-only, or gone: nothing is counted.
    let Ok(library) = Library::open_with(dir, Access::Write, options) else { return };
    let mut due = Instant::now() + EVERY;
    loop {
        match uses.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok((digests, success, latency)) => library.record_uses(&digests, success, latency),
            Err(RecvTimeoutError::Timeout) => {
                // Busy, or the disk refused: the library keeps what is not written.
                let _ = library.flush_uses();
                due = Instant::now() + EVERY;
            }
            // The library writes what is left when it is dropped.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
