//! The adapters that are laid out and ready, bounded in number and bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{LaneAdapter, NotForLanes, Sites};
use crate::adapter::{AdapterDigest, AdapterFile};

/// Ready adapters, shared by the threads that submit requests (which lay them out, away from the decode thread) and
/// the decode thread (which looks them up). The least recently used go first; those in use stay with whoever holds
/// them, whatever the bounds say.
#[derive(Debug)]
pub struct Residents {
    sites: Sites,
    most: usize,
    most_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ready: HashMap<AdapterDigest, Entry>,
    clock: u64,
    stats: ResidentStats,
}

#[derive(Debug)]
struct Entry {
    adapter: Result<Arc<LaneAdapter>, NotForLanes>,
    used: u64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentStats {
    /// Adapters found ready.
    pub hits: u64,
    /// Adapters laid out.
    pub loads: u64,
    /// Adapters forgotten to make room.
    pub evictions: u64,
    /// Adapters resident now.
    pub resident: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Residents {
    /// Room for `most` adapters and `most_bytes` bytes of them.
    pub fn new(sites: Sites, most: usize, most_bytes: usize) -> Self {
        Self { sites, most: most.max(1), most_bytes, inner: Mutex::default() }
    }

    /// The linears they are laid out for.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The adapter, laid out now unless it is ready.
    ///
    /// # Errors
    /// It cannot share a batch; llama.cpp's own path takes it.
    pub fn ready(&self, file: &Arc<AdapterFile>) -> Result<Arc<LaneAdapter>, NotForLanes> {
        if let Some(found) = self.get(file.digest()) {
            return found;
        }
        // Outside the lock: others look theirs up meanwhile. Two threads with the same adapter do the work twice.
        let adapter = LaneAdapter::pack(file, &self.sites).map(Arc::new);
        let mut inner = self.lock();
        inner.stats.loads += 1;
        inner.clock += 1;
        let used = inner.clock;
        inner.ready.insert(file.digest(), Entry { adapter: adapter.clone(), used });
        inner.make_room(self.most, self.most_bytes, file.digest());
        adapter
    }

    /// The adapter if it has been looked at: ready, or known not to be for lanes.
    pub fn get(&self, digest: AdapterDigest) -> Option<Result<Arc<LaneAdapter>, NotForLanes>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let used = inner.clock;
        let entry = inner.ready.get_mut(&digest)?;
        entry.used = used;
        let adapter = entry.adapter.clone();
        inner.stats.hits += 1;
        Some(adapter)
    }

    /// Counters.
    pub fn stats(&self) -> ResidentStats {
        let inner = self.lock();
        ResidentStats { resident: inner.ready.len(), bytes: inner.bytes(), ..inner.stats }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn bytes(&self) -> usize {
        self.ready.values().filter_map(|e| e.adapter.as_ref().ok()).map(|a| a.bytes()).sum()
    }

    fn make_room(&mut self, most: usize, most_bytes: usize, new: AdapterDigest) {
        let mut bytes = self.bytes();
        while self.ready.len() > most || bytes > most_bytes {
            let idle = self.ready.iter().filter(|(digest, _)| **digest != new);
            let Some(oldest) = idle.min_by_key(|(_, e)| e.used).map(|(digest, _)| *digest) else { return };
            if let Some(Entry { adapter: Ok(adapter), .. }) = self.ready.remove(&oldest) {
                bytes -= adapter.bytes();
            }
            self.stats.evictions += 1;
        }
    }
}
