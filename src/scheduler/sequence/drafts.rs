//! One request's drafts: what is guessed, what of it is of use, and what came true.

use super::super::draft::ByModel;
use super::super::draft::pool::Pool;
use super::Running;
use crate::adapter::{AdapterSet, Timeline};
use crate::engine::{Token, Tokenizer};

impl Running {
    /// How many tokens a step that evaluates all tokens there are may guess, when it has `rows` for that. `context`: as for
    /// [`Running::advance`], and whether it can shift.
    pub(in super::super) fn most_guessed(&self, (context, can_shift): (usize, bool), rows: usize) -> usize {
        let drafts = self.job.drafts;
        if drafts.ways.is_none() {
            return 0;
        }
        // The last token of all is chosen and never evaluated.
        let budget = self.budget(context, can_shift).unwrap_or(usize::MAX).saturating_sub(1);
        let room = context.saturating_sub(self.tokens.len());
        rows.min(budget).min(room).min(drafts.most.unwrap_or(usize::MAX))
    }

    /// Guesses what comes next, at most `most` tokens; how many there are of use. `owner`: whose prefixes are its own.
    pub(in super::super) fn guess(
        &mut self,
        pool: &mut Pool,
        owner: u64,
        tokenizer: &dyn Tokenizer,
        most: usize,
    ) -> usize {
        let guess = self.drafter.propose(&self.job.drafts.ways, pool, owner, &self.tokens, most);
        self.take_guess(guess, self.job.drafts.least, tokenizer)
    }

    /// What a second model is to guess by, where it is.
    pub(in super::super) fn by_model(&self) -> Option<ByModel> {
        self.job.drafts.ways.model
    }

    /// Takes a guess of a second model.
    pub(in super::super) fn take_guess_of(
        &mut self,
        by: ByModel,
        guess: Vec<Token>,
        tokenizer: &dyn Tokenizer,
    ) -> usize {
        self.take_guess(guess, self.job.drafts.least.max(by.least), tokenizer)
    }

    fn take_guess(&mut self, mut guess: Vec<Token>, least: usize, tokenizer: &dyn Tokenizer) -> usize {
        guess.truncate(self.useful(&guess, tokenizer));
        if guess.len() >= least {
            (self.draft, self.drafted_at) = (guess, self.tokens.len());
        }
        self.draft.len()
    }

    /// How many of these tokens can be of use: up to where the answer ends, its adapters change, or its format forbids one.
    fn useful(&mut self, guess: &[Token], tokenizer: &dyn Tokenizer) -> usize {
        let mut useful = guess.iter().position(|token| tokenizer.is_end(*token)).unwrap_or(guess.len());
        if !self.borders.is_done() {
            let (mut borders, vocabulary) = (self.borders.clone(), tokenizer.vocabulary());
            let crosses = |token: &Token| borders.cross(0, vocabulary.piece(*token)).is_some();
            useful = guess[..useful].iter().position(crosses).unwrap_or(useful);
        }
        match &mut self.job.matcher {
            Some(matcher) => matcher.allows_run(&guess[..useful]),
            None => useful,
        }
    }

    /// The guesses that the step evaluates.
    pub(in super::super) fn draft(&self) -> &[Token] {
        &self.draft
    }

    /// Keeps so many of the guesses.
    pub(in super::super) fn cut_draft(&mut self, length: usize) {
        self.draft.truncate(length);
    }

    /// Guesses that came true so far.
    fn right(&self) -> usize {
        let come = self.tokens.get(self.drafted_at..).unwrap_or_default();
        self.draft.iter().zip(come).take_while(|(guessed, token)| guessed == token).count()
    }

    /// How many of the guesses came true so far and were evaluated under the set that applies to them, which was `set`.
    pub(in super::super) fn kept(&self, sets: &Timeline, set: &AdapterSet) -> usize {
        (0..self.right()).take_while(|at| sets.at(self.drafted_at + at) == set).count()
    }

    /// Closes the draft of a step; its length and how much of it was right.
    pub(in super::super) fn end_draft(&mut self, pool: &mut Pool) -> (usize, usize) {
        let (length, right) = (self.draft.len(), self.right());
        self.drafter.judge(pool, length, right);
        self.drafted = self.drafts();
        self.draft.clear();
        (length, right)
    }

    /// Drafts, their tokens, and those that were right.
    pub(super) fn drafts(&self) -> (usize, usize, usize) {
        let (drafts, tokens, right) = self.drafted;
        let here = usize::from(!self.draft.is_empty());
        (drafts + here, tokens + self.draft.len(), right + self.right())
    }
}
