//! Guesses in the steps of the batch: which sequences get rows for them, and how those that were wrong go.

use super::super::draft::ByModel;
use super::super::plan::{Plan, share};
use super::super::sequence::Running;
use super::second::Ask;
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
        let (mut wishes, mut without) = (vec![0; plan.rows.len()], Vec::new());
        for (at, (slot, n)) in plan.rows.iter().enumerate() {
            let s = &mut self.slots[*slot];
            let from = s.cached.len();
            let all = |r: &&mut Running| !r.in_prefill() && from + n == r.tokens.len();
            let Some(running) = s.running.as_mut().filter(all) else { continue };
            let most = running.most_guessed(limit, left.min(s.sets.run(from) - n));
            if most > 0 {
                wishes[at] = running.guess(&mut self.pool, s.sets.owner(), &*self.tokenizer, most);
                without.extend(running.by_model().filter(|_| wishes[at] == 0).map(|by| (at, *slot, most, by)));
            }
        }
        self.ask_second(&without, &mut wishes);
        for ((slot, _), given) in plan.rows.iter().zip(share(&wishes, left)) {
            if let Some(running) = &mut self.slots[*slot].running {
                running.cut_draft(given);
            }
        }
    }

    /// Has the second model guess for those of whom nothing else is known.
    fn ask_second(&mut self, without: &[(usize, usize, usize, ByModel)], wishes: &mut [usize]) {
        let Some(second) = self.second.as_mut().filter(|_| !without.is_empty()) else { return };
        let vocabulary = self.engine.facts().vocabulary;
        let ask = |(_, slot, most, by): &(usize, usize, usize, ByModel)| {
            let tokens = &self.slots[*slot].running.as_ref()?.tokens;
            Some(Ask { slot: *slot, tokens, most: by.most.min(*most), p_min: by.p_min, vocabulary })
        };
        let asks: Vec<Ask<'_>> = without.iter().filter_map(ask).filter(|ask| ask.most > 0).collect();
        let slots: Vec<usize> = asks.iter().map(|ask| ask.slot).collect();
        for (slot, guess) in slots.into_iter().zip(second.guess(&asks)) {
            let asked = without.iter().find(|(_, of, ..)| *of == slot);
            if let (Some((at, .., by)), Some(running)) = (asked, &mut self.slots[slot].running) {
                wishes[*at] = running.take_guess_of(*by, guess, &*self.tokenizer);
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
