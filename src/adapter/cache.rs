//! Which opened adapters stay open: least recently used first out, bounded in bytes, pinned ones kept. The policy alone;
//! it holds no bytes and looks at no clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Keys with sizes in the order of their last use.
#[derive(Clone, Debug)]
pub struct ByteLru<K> {
    capacity: u64,
    used: u64,
    turn: u64,
    entries: HashMap<K, Item>,
    /// The keys by the turn of their last use, the pinned ones aside.
    order: BTreeMap<u64, K>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    bytes: u64,
    turn: u64,
    pinned: bool,
}

impl<K: Clone + Eq + Hash> ByteLru<K> {
    /// An empty cache of so many bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, turn: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    /// Notes a use. False if the key is not there.
    pub fn touch(&mut self, key: &K) -> bool {
        self.turn += 1;
        let Some(item) = self.entries.get_mut(key) else { return false };
        if !item.pinned && self.order.remove(&item.turn).is_some() {
            self.order.insert(self.turn, key.clone());
        }
        item.turn = self.turn;
        true
    }

    /// Adds a key of so many bytes as the last used, or gives it another size. The keys that must go for it, oldest
    /// first; the key itself, and no other, when it is larger than what the pinned ones leave.
    #[must_use = "whoever holds the bytes must let go of these"]
    pub fn insert(&mut self, key: K, bytes: u64) -> Vec<K> {
        self.turn += 1;
        let pinned = self.remove(&key).is_some_and(|item| item.pinned);
        let item = Item { bytes, turn: self.turn, pinned };
        if !pinned {
            if bytes > self.capacity.saturating_sub(self.pinned_bytes()) {
                return vec![key];
            }
            self.order.insert(self.turn, key.clone());
        }
        self.used = self.used.saturating_add(bytes);
        self.entries.insert(key, item);
        self.shrink()
    }

    /// Keeps a key whatever else comes, until it is unpinned. False if it is not there. Pinned keys count: they may fill
    /// the cache, and may exceed it.
    pub fn pin(&mut self, key: &K) -> bool {
        let Some(item) = self.entries.get_mut(key) else { return false };
        item.pinned = true;
        self.order.remove(&item.turn);
        true
    }

    /// Adds a key that is pinned at once, so that it fits whatever the capacity. The keys that must go for it.
    #[must_use = "whoever holds the bytes must let go of these"]
    pub fn insert_pinned(&mut self, key: K, bytes: u64) -> Vec<K> {
        self.turn += 1;
        self.remove(&key);
        self.used = self.used.saturating_add(bytes);
        self.entries.insert(key, Item { bytes, turn: self.turn, pinned: true });
        self.shrink()
    }

    /// Lets a pinned key go like the others. The keys that must go now.
    #[must_use = "whoever holds the bytes must let go of these"]
    pub fn unpin(&mut self, key: &K) -> Vec<K> {
        if let Some(item) = self.entries.get_mut(key).filter(|item| item.pinned) {
            item.pinned = false;
            self.order.insert(item.turn, key.clone());
        }
        self.shrink()
    }

    /// Forgets a key. False if it was not there.
    pub fn forget(&mut self, key: &K) -> bool {
        self.remove(key).is_some()
    }

    /// Bytes of all keys.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn pinned_bytes(&self) -> u64 {
        self.entries.values().filter(|item| item.pinned).fold(0, |sum: u64, item| sum.saturating_add(item.bytes))
    }

    fn remove(&mut self, key: &K) -> Option<Item> {
        let item = self.entries.remove(key)?;
        self.order.remove(&item.turn);
        self.used = self.used.saturating_sub(item.bytes);
        Some(item)
    }

    fn shrink(&mut self) -> Vec<K> {
        let mut gone = Vec::new();
        while self.used > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
            gone.push(oldest);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bare `[]` is of no certain type where another crate compares its own with `char`.
    const NOBODY: [char; 0] = [];

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = ByteLru::new(10);
        assert_eq!(lru.insert('a', 4), NOBODY);
        assert_eq!(lru.insert('b', 4), NOBODY);
        assert!(lru.touch(&'a'));
        assert_eq!(lru.insert('c', 4), ['b']);
        assert_eq!(lru.insert('d', 10), ['a', 'c']);
        assert_eq!((lru.used(), lru.len(), lru.touch(&'a')), (10, 1, false));
    }

    #[test]
    fn what_cannot_fit_is_not_kept_and_drives_nothing_out() {
        let mut lru = ByteLru::new(10);
        assert_eq!(lru.insert('a', 4), NOBODY);
        assert_eq!(lru.insert('b', 11), ['b']);
        assert!(lru.pin(&'a'));
        assert_eq!(lru.insert('c', 7), ['c']);
        assert_eq!(lru.insert('d', 6), NOBODY);
        assert_eq!(ByteLru::new(0).insert('a', 1), ['a'], "no cache at all");
    }

    #[test]
    fn pinned_ones_stay_and_may_exceed() {
        let mut lru = ByteLru::new(10);
        assert_eq!(lru.insert_pinned('a', 8), NOBODY);
        assert_eq!(lru.insert('b', 2), NOBODY);
        assert_eq!(lru.insert_pinned('c', 8), ['b']);
        assert_eq!(lru.used(), 16);
        assert_eq!(lru.unpin(&'a'), ['a']);
        assert_eq!(lru.unpin(&'z'), NOBODY);
        assert_eq!((lru.used(), lru.len()), (8, 1));
    }

    /// The plain way: a list in the order of use.
    #[derive(Default)]
    struct Model(Vec<(u8, u64, bool)>);

    impl Model {
        fn used(&self) -> u64 {
            self.0.iter().map(|(_, bytes, _)| bytes).sum()
        }

        fn shrink(&mut self, capacity: u64) -> Vec<u8> {
            let mut gone = Vec::new();
            while self.used() > capacity {
                let Some(at) = self.0.iter().position(|(_, _, pinned)| !pinned) else { break };
                gone.push(self.0.remove(at).0);
            }
            gone
        }

        fn take(&mut self, key: u8) -> Option<(u8, u64, bool)> {
            let at = self.0.iter().position(|(there, _, _)| *there == key)?;
            Some(self.0.remove(at))
        }
    }

    proptest! {
        #[test]
        fn any_trace_does_what_a_list_does(
            capacity in 0_u64..40,
            trace in prop::collection::vec((0_u8..6, 0_u8..8, 0_u64..20), 0..80),
        ) {
            let (mut lru, mut model) = (ByteLru::new(capacity), Model::default());
            for (act, key, bytes) in trace {
                match act {
                    0 => {
                        let found = model.take(key).map(|item| model.0.push(item)).is_some();
                        prop_assert_eq!(lru.touch(&key), found);
                    }
                    1 => {
                        let pinned = model.take(key).is_some_and(|(_, _, pinned)| pinned);
                        let held: u64 = model.0.iter().filter(|item| item.2).map(|item| item.1).sum();
                        let expected = if !pinned && bytes > capacity.saturating_sub(held) {
                            vec![key]
                        } else {
                            model.0.push((key, bytes, pinned));
                            model.shrink(capacity)
                        };
                        prop_assert_eq!(lru.insert(key, bytes), expected);
                    }
                    2 => {
                        model.take(key);
                        model.0.push((key, bytes, true));
                        prop_assert_eq!(lru.insert_pinned(key, bytes), model.shrink(capacity));
                    }
                    3 => {
                        let there = model.0.iter_mut().find(|item| item.0 == key).map(|item| item.2 = true).is_some();
                        prop_assert_eq!(lru.pin(&key), there);
                    }
                    4 => {
                        if let Some(item) = model.0.iter_mut().find(|item| item.0 == key) {
                            item.2 = false;
                        }
                        prop_assert_eq!(lru.unpin(&key), model.shrink(capacity));
                    }
                    _ => prop_assert_eq!(lru.forget(&key), model.take(key).is_some()),
                }
                prop_assert_eq!((lru.used(), lru.len()), (model.used(), model.0.len()));
                let held: u64 = model.0.iter().filter(|item| item.2).map(|item| item.1).sum();
                prop_assert!(lru.used() <= capacity.max(held));
            }
        }
    }
}
