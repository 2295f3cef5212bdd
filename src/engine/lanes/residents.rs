//! The adapters that are laid out and ready, bounded in number and bytes: the device tier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{LaneAdapter, NotForLanes, Sites};
use crate::adapter::{AdapterDigest, AdapterFile};

/// Ready adapters, shared by the threads that submit requests (which lay them out, away from the decode thread) and
/// the decode thread (which looks them up). The least recently used go first, pinned ones never; those in use stay with
/// whoever holds them, whatever the bounds say, and are found again as long as somebody does. An adapter larger than all
/// of the budget is laid out for the requests that hold it and drives nobody out.
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
    /// Laid out, not kept here, and perhaps held by a request.
    lent: HashMap<AdapterDigest, Weak<LaneAdapter>>,
    clock: u64,
    stats: ResidentStats,
}

#[derive(Debug)]
struct Entry {
    adapter: Result<Arc<LaneAdapter>, NotForLanes>,
    used: u64,
    pinned: bool,
}

/// Counters since the start, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentStats {
    /// Adapters found ready.
    pub hits: u64,
    /// Adapters laid out.
    pub loads: u64,
    /// Adapters forgotten to make room.
    pub evictions: u64,
    /// Adapters laid out that are larger than the budget.
    pub oversized: u64,
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
        self.ready_and(file, false)
    }

    /// As [`Residents::ready`], and keeps it from then on whatever else is used.
    ///
    /// # Errors
    /// As there.
    pub fn pin(&self, file: &Arc<AdapterFile>) -> Result<Arc<LaneAdapter>, NotForLanes> {
        self.ready_and(file, true)
    }

    fn ready_and(&self, file: &Arc<AdapterFile>, pin: bool) -> Result<Arc<LaneAdapter>, NotForLanes> {
        let found = self.lock().find(file.digest(), pin);
        if let Some(found) = found {
            return found;
        }
        // Outside the lock: others look theirs up meanwhile. Two threads with the same adapter do the work twice.
        let adapter = LaneAdapter::pack(file, &self.sites).map(Arc::new);
        let mut inner = self.lock();
        inner.stats.loads += 1;
        inner.keep(file.digest(), adapter.clone(), pin, (self.most, self.most_bytes));
        adapter
    }

    /// The adapter if it has been looked at: ready, or known not to be for lanes.
    pub fn get(&self, digest: AdapterDigest) -> Option<Result<Arc<LaneAdapter>, NotForLanes>> {
        self.lock().find(digest, false)
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
    fn find(&mut self, digest: AdapterDigest, pin: bool) -> Option<Result<Arc<LaneAdapter>, NotForLanes>> {
        self.clock += 1;
        let found = match self.ready.get_mut(&digest) {
            Some(entry) => {
                entry.used = self.clock;
                entry.pinned |= pin;
                entry.adapter.clone()
            }
            // Not kept, but somebody runs under it.
            None if !pin => Ok(self.lent.get(&digest).and_then(Weak::upgrade)?),
            None => return None,
        };
        self.stats.hits += 1;
        Some(found)
    }

    fn keep(
        &mut self,
        digest: AdapterDigest,
        adapter: Result<Arc<LaneAdapter>, NotForLanes>,
        pinned: bool,
        (most, most_bytes): (usize, usize),
    ) {
        self.clock += 1;
        let bytes = adapter.as_ref().map_or(0, |a| a.bytes());
        if bytes > most_bytes && !pinned {
            self.stats.oversized += 1;
            return self.lend(digest, &adapter);
        }
        self.lent.remove(&digest);
        self.ready.insert(digest, Entry { adapter, used: self.clock, pinned });
        let mut bytes = self.bytes();
        while self.ready.len() > most || bytes > most_bytes {
            let idle = self.ready.iter().filter(|(other, e)| **other != digest && !e.pinned);
            let Some(oldest) = idle.min_by_key(|(_, e)| e.used).map(|(digest, _)| *digest) else { return };
            if let Some(Entry { adapter, .. }) = self.ready.remove(&oldest) {
                bytes -= adapter.as_ref().map_or(0, |a| a.bytes());
                self.lend(oldest, &adapter);
            }
            self.stats.evictions += 1;
        }
    }

    /// Remembers an adapter for as long as somebody holds it.
    fn lend(&mut self, digest: AdapterDigest, adapter: &Result<Arc<LaneAdapter>, NotForLanes>) {
        self.lent.retain(|_, held| held.strong_count() > 0);
        if let Ok(adapter) = adapter {
            self.lent.insert(digest, Arc::downgrade(adapter));
        }
    }

    fn bytes(&self) -> usize {
        self.ready.values().filter_map(|e| e.adapter.as_ref().ok()).map(|a| a.bytes()).sum()
    }
}
