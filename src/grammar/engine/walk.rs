//! Masks: which tokens may come next.

use std::ops::Range;
use std::sync::Arc;

use super::super::error::MatcherError;
use super::super::mask::TokenMask;
use super::super::network::Repetition;
use super::super::trie::Trie;
use super::arena::{BOTTOM_SET, DEAD, Frame, Item, POP, SetId, StateId};
use super::local::{Local, LocalKey, Turns};
use super::{Program, Run};

/// With more parts than this a state is walked as a whole instead of part by part.
const PARTS: usize = 12;

/// One share of a state's mask: a local mask, and what lies below its exits.
struct Part {
    key: LocalKey,
    /// An item that stands for the key: the same top over the bottom.
    sample: Item,
    below: SetId,
}

impl Run {
    /// The mask of the current state.
    pub(super) fn compute_mask(&mut self) -> Result<TokenMask, MatcherError> {
        let program = Arc::clone(&self.program);
        let mut mask = TokenMask::empty(program.vocabulary.len());
        let parts = self.parts(&program);
        if parts.len() > PARTS {
            let trie = program.vocabulary.trie();
            self.walk(trie, 0..trie.len(), 0, self.state, &mut mask, None)?;
        } else {
            for part in parts {
                let local = self.local(&program, &part)?;
                mask.union(&local.mask);
                if !local.exits.is_empty() {
                    self.walk_exits(&program, &local, part.below, &mut mask)?;
                }
            }
        }
        for (set, _) in self.token_items()? {
            if set.negated {
                let trie = program.vocabulary.trie();
                let others = trie.tokens().iter().filter(|&&token| token != set.id);
                others.for_each(|&token| mask.insert(token));
            } else {
                mask.insert(set.id);
            }
        }
        if self.may_stop() {
            for &end in program.vocabulary.end_tokens() {
                mask.insert(end);
            }
        }
        Ok(mask)
    }

    /// Splits the current state. Stops early when there are more parts than are worth it.
    fn parts(&mut self, program: &Program) -> Vec<Part> {
        let mut parts = Vec::new();
        // One token completes at most as many turns as it has bytes.
        let horizon = program.vocabulary.trie().longest() as u32 + 1;
        for &(state, below) in self.arena.kernel(self.state).iter() {
            let mut plain = false;
            let mut turns = Vec::new();
            for frame in self.arena.frames(below) {
                match frame {
                    Frame::Bottom | Frame::Return { .. } => plain = true,
                    Frame::Repeat { repetition, count, below } => turns.push((repetition, count, below)),
                }
            }
            if parts.len() + turns.len() > PARTS || (plain && !turns.is_empty() && turns.len() > 4) {
                parts.clear();
                // Any number above the limit will do.
                parts.resize_with(PARTS + 1, || Part {
                    key: LocalKey { state, turns: None },
                    sample: (state, BOTTOM_SET),
                    below,
                });
                return parts;
            }
            if plain {
                let below = match turns.is_empty() {
                    true => below,
                    false => self.arena.without_repeats(below),
                };
                parts.push(Part { key: LocalKey { state, turns: None }, sample: (state, BOTTOM_SET), below });
            }
            for (repetition, count, below) in turns {
                let Repetition { min, max, .. } = program.network.repetitions[repetition as usize];
                let allowed = match max {
                    Repetition::OPEN => horizon,
                    max => (max - count).min(horizon),
                };
                let key = LocalKey {
                    state,
                    turns: Some(Turns { repetition, missing: min.saturating_sub(count).min(horizon), allowed }),
                };
                let sample = (state, self.arena.repeat_over_bottom(&program.network, repetition, count));
                parts.push(Part { key, sample, below });
            }
        }
        parts
    }

    /// The local mask of a part: remembered, or walked now.
    fn local(&mut self, program: &Program, part: &Part) -> Result<Arc<Local>, MatcherError> {
        if let Some(local) = program.locals.get(&part.key) {
            return Ok(local);
        }
        let trie = program.vocabulary.trie();
        let mut mask = TokenMask::empty(program.vocabulary.len());
        let mut ends = Vec::new();
        let from = self.arena.settle(&program.network, vec![part.sample], false).map_err(|stop| program.error(stop))?;
        self.walk(trie, 0..trie.len(), 0, from, &mut mask, Some(&mut ends))?;
        let local = Arc::new(Local { exits: exits(trie, &mask, &ends), mask });
        program.locals.put(part.key, &local);
        Ok(local)
    }

    /// Goes on below the exits of `local` with what lies under the item.
    fn walk_exits(
        &mut self,
        program: &Program,
        local: &Local,
        below: SetId,
        mask: &mut TokenMask,
    ) -> Result<(), MatcherError> {
        let from =
            self.arena.settle(&program.network, vec![(POP, below)], false).map_err(|stop| program.error(stop))?;
        let trie = program.vocabulary.trie();
        for group in local.exits.chunk_by(|a, b| a.0 == b.0) {
            let state = self.step(from, group[0].0)?;
            if state == DEAD {
                continue;
            }
            for &(_, index) in group {
                for &token in trie.tokens_at(index) {
                    mask.insert(token);
                }
                let node = trie.node(index);
                let children = index + 1..node.end;
                self.walk(trie, children, node.depth, state, mask, None)?;
            }
        }
        Ok(())
    }

    /// Adds every token among `nodes` that leads anywhere from `from`, the state at depth `above`. Notes in `ends`
    /// the nodes in whose state the text may end.
    fn walk(
        &mut self,
        trie: &Trie,
        nodes: Range<u32>,
        above: u16,
        from: StateId,
        mask: &mut TokenMask,
        mut ends: Option<&mut Vec<u32>>,
    ) -> Result<(), MatcherError> {
        let network = &self.program.network;
        let mut path = vec![from; trie.longest() + 1];
        let mut index = nodes.start;
        while index < nodes.end {
            let node = trie.node(index);
            let depth = usize::from(node.depth - above);
            let state = self
                .arena
                .step(network, path[depth - 1], network.classes.of(node.byte))
                .map_err(|stop| self.program.error(stop))?;
            if state == DEAD {
                index = node.end;
                continue;
            }
            path[depth] = state;
            for &token in trie.tokens_at(index) {
                mask.insert(token);
            }
            if let Some(ends) = &mut ends
                && self.arena.complete(state)
            {
                ends.push(index);
            }
            index += 1;
        }
        Ok(())
    }
}

/// The children of `ends` with tokens that `mask` does not have, sorted by byte.
fn exits(trie: &Trie, mask: &TokenMask, ends: &[u32]) -> Vec<(u8, u32)> {
    if ends.is_empty() {
        return Vec::new();
    }
    // missing[i]: how many of the first i tokens the mask lacks.
    let mut missing = Vec::with_capacity(trie.tokens().len() + 1);
    missing.push(0u32);
    let mut count = 0;
    for &token in trie.tokens() {
        count += u32::from(!mask.allows(token));
        missing.push(count);
    }
    let mut exits = Vec::new();
    for &end in ends {
        let mut child = end + 1;
        while child < trie.node(end).end {
            let node = trie.node(child);
            let below = trie.tokens_below(child);
            if missing[below.start] != missing[below.end] {
                exits.push((node.byte, child));
            }
            child = node.end;
        }
    }
    exits.sort_unstable();
    exits
}
