//! A map over the threads of the machine, in order. For conversions, where one item takes milliseconds to seconds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The results of `job` for every item, in their order; the first error by position among those met.
pub(super) fn map<I: Sync, O: Send, E: Send>(
    items: &[I],
    threads: usize,
    job: impl Fn(&I) -> Result<O, E> + Sync,
) -> Result<Vec<O>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(position) else { break };
            let result = job(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            // A thread that panicked inside `push` is not to be expected; its results are whole all the same.
            done.lock().unwrap_or_else(|poison| poison.into_inner()).push((position, result));
        }
    };
    let threads = threads.clamp(1, items.len().max(1));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(|poison| poison.into_inner());
    done.sort_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}
