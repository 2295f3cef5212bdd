//! Bringing a text to its end in time: which tokens leave enough room for the rest.

use std::sync::Arc;

use super::super::error::MatcherError;
use super::super::mask::TokenMask;
use super::arena::{DEAD, StateId};
use super::need::NEVER;
use super::{Program, Run};

impl Run {
    /// See [`Matcher::least_bytes_to_finish`](super::super::Matcher::least_bytes_to_finish).
    pub fn least_bytes(&self) -> Option<usize> {
        let least = self.arena.need(self.state).least;
        (!self.finished && least != NEVER).then_some(least as usize)
    }

    /// See [`Matcher::allows_closing`](super::super::Matcher::allows_closing).
    pub fn allows_closing(&mut self, token: u32, budget: usize) -> Result<bool, MatcherError> {
        self.prepare()?;
        let program = Arc::clone(&self.program);
        if program.vocabulary.is_end(token) {
            return Ok(self.may_stop());
        }
        let (state, items) = self.after(token)?;
        let items = items.iter().map(|&item| self.arena.item_need(item).least);
        let least = items.fold(self.arena.need(state).least, u32::min);
        Ok(least != NEVER && (least as usize) < budget)
    }

    /// See [`Matcher::mask_closing`](super::super::Matcher::mask_closing).
    pub fn mask_closing(&mut self, budget: usize) -> Result<&TokenMask, MatcherError> {
        self.prepare()?;
        let program = Arc::clone(&self.program);
        if self.is_far(&program, budget) {
            return self.mask();
        }
        let room = u32::try_from(budget.saturating_sub(1)).unwrap_or(NEVER - 1).min(NEVER - 1);
        let (mut mask, nearest) = self.tokens_within(&program, room)?;
        if mask.is_empty() && !self.may_stop() {
            if nearest == NEVER {
                return self.mask();
            }
            // Too late for certain; the tokens that come nearest to the end may still make it.
            mask = self.tokens_within(&program, nearest)?.0;
        }
        if self.may_stop() {
            program.vocabulary.end_tokens().iter().for_each(|&end| mask.insert(end));
        }
        if mask.is_empty() {
            // Complete, but no token stops: only more text can follow.
            return self.mask();
        }
        self.closing = mask;
        Ok(&self.closing)
    }

    /// Whether any token leaves enough room, without looking at each.
    fn is_far(&self, program: &Program, budget: usize) -> bool {
        let most = self.arena.need(self.state).most;
        let rise = program.needs.rise();
        if most == NEVER || rise == NEVER {
            return false;
        }
        let longest = program.vocabulary.trie().longest().max(1);
        (most as usize).saturating_add(longest.saturating_mul(rise as usize)) < budget
    }

    /// The tokens after which at most `room` bytes are needed, and the least that any token leaves.
    fn tokens_within(&mut self, program: &Program, room: u32) -> Result<(TokenMask, u32), MatcherError> {
        let mut mask = TokenMask::empty(program.vocabulary.len());
        let mut nearest = NEVER;
        let trie = program.vocabulary.trie();
        let network = &program.network;
        let mut path: Vec<StateId> = vec![self.state; trie.longest() + 1];
        let mut index = 0;
        while index < trie.len() {
            let node = trie.node(index);
            let depth = usize::from(node.depth);
            let class = network.classes.of(node.byte);
            let state = self.arena.step(network, path[depth - 1], class).map_err(|stop| program.error(stop))?;
            if state == DEAD {
                index = node.end;
                continue;
            }
            path[depth] = state;
            let tokens = trie.tokens_at(index);
            if !tokens.is_empty() {
                let least = self.arena.need(state).least;
                nearest = nearest.min(least);
                if least <= room {
                    tokens.iter().for_each(|&token| mask.insert(token));
                }
            }
            index += 1;
        }
        for (set, item) in self.token_items()? {
            let least = self.arena.item_need(item).least;
            nearest = nearest.min(least);
            if least > room {
                continue;
            }
            match set.negated {
                false => mask.insert(set.id),
                true => trie.tokens().iter().filter(|&&token| token != set.id).for_each(|&token| mask.insert(token)),
            }
        }
        Ok((mask, nearest))
    }
}
