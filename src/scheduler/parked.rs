//! Prefixes that had to leave the context, kept in RAM: the second tier of the prefix cache. The policy; who saves and
//! restores is [`super::batch`].
//!
//! A state is right for the tokens and the adapter sets it was computed under and for no others, so it is found by both, as
//! a prefix in a slot is ([`super::prefix::reusable`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::prefix::reusable;
use crate::adapter::Timeline;
use crate::engine::Token;
use crate::engine::saved::Saved;

/// Shorter prefixes are evaluated again sooner than they are copied.
pub const WORTH_PARKING: usize = 64;

/// What is parked now, and what became of it since the start; read by other threads.
#[derive(Debug, Default)]
pub struct ParkedCounters {
    prefixes: AtomicU64,
    bytes: AtomicU64,
    saves: AtomicU64,
    restores: AtomicU64,
    evictions: AtomicU64,
}

/// A reading of [`ParkedCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedStats {
    /// Prefixes in RAM.
    pub prefixes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Prefixes copied out of the context.
    pub saves: u64,
    /// Prefixes copied back into it.
    pub restores: u64,
    /// Prefixes forgotten to make room.
    pub evictions: u64,
}

impl ParkedCounters {
    /// The numbers as they are now.
    pub fn read(&self) -> ParkedStats {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        ParkedStats {
            prefixes: of(&self.prefixes),
            bytes: of(&self.bytes),
            saves: of(&self.saves),
            restores: of(&self.restores),
            evictions: of(&self.evictions),
        }
    }
}

/// The prefixes in RAM: the least recently used go first when their bytes exceed the budget.
pub struct Parked {
    most_bytes: u64,
    entries: Vec<Entry>,
    bytes: u64,
    clock: u64,
    counters: Arc<ParkedCounters>,
}

struct Entry {
    saved: Arc<Saved>,
    used: u64,
}

impl Parked {
    /// Room for so many bytes; with 0 nothing is ever kept.
    pub fn new(most_bytes: u64) -> Self {
        Self { most_bytes, entries: Vec::new(), bytes: 0, clock: 0, counters: Arc::default() }
    }

    /// Its numbers, for other threads.
    pub fn counters(&self) -> &Arc<ParkedCounters> {
        &self.counters
    }

    /// Whether a prefix should be copied here before it is forgotten: it is long enough, and nothing here holds all of it.
    pub fn wants(&self, tokens: &[Token], sets: &Timeline) -> bool {
        self.most_bytes > 0
            && tokens.len() >= WORTH_PARKING
            && !self.entries.iter().any(|e| covers(&e.saved, tokens, sets))
    }

    /// Keeps a prefix, in place of those that it holds all of. One that is larger than the budget is not kept.
    pub fn park(&mut self, saved: Saved) {
        self.counters.saves.fetch_add(1, Ordering::Relaxed);
        if size(&saved) > self.most_bytes {
            return;
        }
        self.entries.retain(|e| !covers(&saved, &e.saved.tokens, &e.saved.sets));
        self.clock += 1;
        self.entries.push(Entry { saved: Arc::new(saved), used: self.clock });
        self.bytes = self.entries.iter().map(|e| size(&e.saved)).sum();
        while self.bytes > self.most_bytes {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map(|(at, _)| at);
            let Some(oldest) = oldest else { break };
            self.bytes -= size(&self.entries.swap_remove(oldest).saved);
            self.counters.evictions.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.prefixes.store(self.entries.len() as u64, Ordering::Relaxed);
        self.counters.bytes.store(self.bytes, Ordering::Relaxed);
    }

    /// The prefix with the most positions that a request for `prompt` under `sets` can go on from, and how many these are,
    /// if at least `least`.
    pub fn find(&mut self, prompt: &[Token], sets: &Timeline, least: usize) -> Option<(Arc<Saved>, usize)> {
        let length = |e: &Entry| reusable(&e.saved.tokens, &e.saved.sets, prompt, sets);
        let best = self.entries.iter_mut().max_by_key(|e| (length(e), std::cmp::Reverse(e.saved.tokens.len())))?;
        let length = length(best);
        if length < least {
            return None;
        }
        self.clock += 1;
        best.used = self.clock;
        Some((best.saved.clone(), length))
    }

    /// Notes that a prefix was copied back.
    pub fn restored(&self) {
        self.counters.restores.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a state holds all of these tokens, under the same sets.
fn covers(saved: &Saved, tokens: &[Token], sets: &Timeline) -> bool {
    saved.tokens.starts_with(tokens) && saved.sets.agrees(sets) >= tokens.len()
}

fn size(saved: &Saved) -> u64 {
    (saved.state().len() + saved.tokens.len() * size_of::<Token>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterDigest, AdapterSet, Scale};

    fn set(n: u8, scale: f32) -> Timeline {
        let scale = Scale::new(scale).expect("in range");
        Timeline::always(AdapterSet::new(vec![(AdapterDigest::of(&[n]), scale)]).expect("valid"))
    }

    fn tokens(n: usize) -> Vec<Token> {
        (0..n as Token).collect()
    }

    fn saved(n: usize, sets: &Timeline) -> Saved {
        Saved::new(tokens(n), sets.clone(), vec![0; n * 10])
    }

    #[test]
    fn a_prefix_is_found_under_its_own_set_only() {
        let mut parked = Parked::new(1 << 20);
        parked.park(saved(100, &set(1, 1.0)));
        let found = |parked: &mut Parked, sets: &Timeline| parked.find(&tokens(200), sets, 1).map(|(_, n)| n);
        assert_eq!(found(&mut parked, &set(1, 1.0)), Some(100));
        for other in [set(1, 0.5), set(2, 1.0), Timeline::default()] {
            assert_eq!(found(&mut parked, &other), None, "{other:?}");
        }
        assert_eq!(parked.find(&tokens(100), &set(1, 1.0), 1).map(|(_, n)| n), Some(99), "the last is read again");
        assert!(parked.find(&tokens(200), &set(1, 1.0), 101).is_none(), "no more than the slot has");
    }

    #[test]
    fn what_is_held_is_not_wanted_again_and_longer_ones_take_the_place_of_their_beginnings() {
        let a = set(1, 1.0);
        let mut parked = Parked::new(1 << 20);
        assert!(parked.wants(&tokens(100), &a) && !parked.wants(&tokens(10), &a), "too short");
        parked.park(saved(100, &a));
        assert!(
            !parked.wants(&tokens(80), &a) && parked.wants(&tokens(120), &a) && parked.wants(&tokens(80), &set(2, 1.0))
        );
        parked.park(saved(120, &a));
        parked.park(saved(120, &set(2, 1.0)));
        assert_eq!(parked.counters().read().prefixes, 2);
    }

    #[test]
    fn the_least_recently_used_go_when_the_budget_is_full() {
        let sets: Vec<Timeline> = (0..4).map(|n| set(n, 1.0)).collect();
        let mut parked = Parked::new(2 * size(&saved(100, &sets[0])));
        parked.park(saved(100, &sets[0]));
        parked.park(saved(100, &sets[1]));
        assert!(parked.find(&tokens(101), &sets[0], 1).is_some());
        parked.park(saved(100, &sets[2]));
        let there: Vec<bool> = sets.iter().map(|s| parked.find(&tokens(101), s, 1).is_some()).collect();
        assert_eq!(there, [true, false, true, false]);
        parked.park(saved(1000, &sets[3]));
        let stats = parked.counters().read();
        assert!(parked.find(&tokens(101), &sets[3], 1).is_none(), "larger than the budget");
        assert_eq!((stats.prefixes, stats.evictions, stats.bytes), (2, 1, 2 * size(&saved(100, &sets[0]))));
        assert!(!Parked::new(0).wants(&tokens(100), &sets[0]), "off");
    }
}
