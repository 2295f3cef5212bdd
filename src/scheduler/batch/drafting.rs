//! Guesses in the steps of the batch: which sequences get rows for them, and how those that were wrong go.

use super::super::plan::{Plan, share};
use super::{Batch, Party};
use crate::engine::Engine;

impl<E: Engine> Batch<E> {
    /// Fills what the plan leaves of the step with guesses of sequences that generate and have their own rows in it. Only
    /// where what was guessed wrong can be removed again.
    pub(super) fn draft(&mut self, plan: &Plan<Party>, budget: usize) {
        let facts = self.engine.facts();
        let limit = (facts.sequence_context, facts.shift);
        let left = budget.saturating_sub(plan.rows.iter().map(|(_, n)| n).sum());
        if !facts.prefix_reuse || left == 0 {
            return;
        }
        let mut wishes = Vec::new();
        for (slot, n) in &plan.rows {
            let s = &mut self.slots[*slot];
            let from = s.cached.len();
            let Some(running) = s.running.as_mut().filter(|r| !r.in_prefill() && from + n == r.tokens.len()) else {
                wishes.push(0);
                continue;
            };
            let most = left.min(s.sets.run(from) - n);
            wishes.push(running.guess(&mut self.pool, s.sets.owner(), &*self.tokenizer, limit, most));
        }
        for ((slot, _), given) in plan.rows.iter().zip(share(&wishes, left)) {
            if let Some(running) = &mut self.slots[*slot].running {
                running.cut_draft(given);
            }
        }
    }

    /// Takes the guesses out of a step; false when there are none.
    pub(super) fn cut_drafts(&mut self, plan: &Plan<Party>) -> bool {
        let mut any = false;
        for (slot, _) in &plan.rows {
            if let Some(running) = &mut self.slots[*slot].running {
                any |= !running.draft().is_empty();
                running.cut_draft(0);
            }
        }
        any
    }

    /// Removes what a sequence holds from a position on.
    pub(super) fn forget_from(&mut self, slot: usize, from: usize) {
        if from == self.slots[slot].cached.len() {
            return;
        }
        match self.engine.truncate(slot, from) {
            true => self.slots[slot].cached.truncate(from),
            false => self.clear(slot),
        }
    }
}
