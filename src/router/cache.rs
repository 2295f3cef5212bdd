//! Decisions remembered for a while: bounded, with a time to live, and worthless as soon as the library changes.
//!
//! It knows no clock: the time comes with each call. Keys are digests of everything that a decision depends on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Route;

/// BLAKE3 of all that a decision depends on apart from the library.
pub type Key = [u8; 32];

/// What the cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Answered from memory.
    pub hits: u64,
    /// Not found.
    pub misses: u64,
    /// Found, but too old or of another state of the library.
    pub stale: u64,
    /// Thrown out to make room.
    pub evicted: u64,
}

/// Routes by key.
#[derive(Debug)]
pub struct DecisionCache {
    capacity: usize,
    ttl: Duration,
    entries: HashMap<Key, Entry>,
    stats: CacheStats,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Route>,
    state: u64,
    made: Duration,
    used: u64,
}

impl DecisionCache {
    /// Decisions live so long.
    pub const TTL: Duration = Duration::from_secs(300);
    /// At most so many are kept.
    pub const CAPACITY: usize = 4096;

    /// An empty cache.
    pub fn new(capacity: usize, ttl: Duration) -> Self {
        Self { capacity, ttl, entries: HashMap::new(), stats: CacheStats::default() }
    }

    /// The decision made for `key` in the library's state `state`, if it is not too old. `now` is the time since any
    /// fixed moment.
    pub fn get(&mut self, key: &Key, state: u64, now: Duration) -> Option<Arc<Route>> {
        let tick = self.stats.hits + self.stats.misses + self.stats.stale;
        let Some(entry) = self.entries.get_mut(key) else {
            self.stats.misses += 1;
            return None;
        };
        if entry.state != state || now.saturating_sub(entry.made) >= self.ttl {
            self.entries.remove(key);
            self.stats.stale += 1;
            return None;
        }
        entry.used = tick;
        self.stats.hits += 1;
        Some(entry.route.clone())
    }

    /// Remembers a decision. When the cache is full, the least recently used eighth goes.
    pub fn put(&mut self, key: Key, state: u64, now: Duration, route: Arc<Route>) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            let mut ages: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
            let rank = (self.capacity / 8).min(ages.len().saturating_sub(1));
            let oldest = *ages.select_nth_unstable(rank).1;
            let before = self.entries.len();
            self.entries.retain(|_, entry| entry.used > oldest);
            self.stats.evicted += (before - self.entries.len()) as u64;
        }
        let used = self.stats.hits + self.stats.misses + self.stats.stale;
        self.entries.insert(key, Entry { route, state, made: now, used });
    }

    /// Decisions kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it did so far.
    pub fn stats(&self) -> CacheStats {
        self.stats
    }
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self::new(Self::CAPACITY, Self::TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Strategy;
    use super::*;

    fn key(n: u64) -> Key {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    fn route() -> Arc<Route> {
        Arc::new(Route::base(Strategy::Hybrid, "nothing fits"))
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_decision_lives_for_its_time_and_in_its_state() {
        let mut cache = DecisionCache::default();
        cache.put(key(1), 7, at(10), route());
        assert!(cache.get(&key(1), 7, at(309)).is_some());
        assert!(cache.get(&key(1), 7, at(310)).is_none(), "five minutes are over");
        cache.put(key(1), 7, at(400), route());
        assert!(cache.get(&key(1), 8, at(401)).is_none(), "the library has changed");
        assert!(cache.get(&key(1), 7, at(401)).is_none(), "and what is stale is gone");
        assert_eq!(cache.stats(), CacheStats { hits: 1, misses: 1, stale: 2, evicted: 0 });
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let mut cache = DecisionCache::new(64, at(300));
        for n in 0..1000 {
            cache.put(key(n), 1, at(1), route());
            assert!(n == 0 || cache.get(&key(0), 1, at(1)).is_some(), "asked for each time, so kept: {n}");
            assert!(cache.len() <= 64);
        }
        assert!(cache.stats().evicted > 900);
        let mut none = DecisionCache::new(0, at(300));
        none.put(key(1), 1, at(1), route());
        assert!(none.is_empty());
    }
}
