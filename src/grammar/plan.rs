//! Ways to the end of a text for the engine behind schemas, which cannot tell how much is still needed.
//!
//! A way is found by trial: on a copy of the matcher, what is forced is taken, else what closes. It is a witness, so its
//! length is a safe upper bound on the tokens needed; it need not be the shortest. Holding an old way against a new
//! state costs microseconds, so a new one is looked for only where the structure has changed.

use llguidance::Matcher;

use super::error::MatcherError;
use super::guided::{Guided, complete, engine};
use super::mask::TokenMask;
use super::vocabulary::Vocabulary;

/// While this many tokens are left beyond the last known way, ways are not looked for: no single token of a common
/// schema opens more than that.
const AHEAD: usize = 384;
/// Tokens of a way, at most; doubled on each further attempt.
const STEPS: usize = 512;
/// Attempts to find a way, each with other choices.
const ATTEMPTS: u32 = 3;

/// What is known about the rest of one text.
#[derive(Default)]
pub(super) struct Plan {
    /// The last known way to the end, without the end token.
    way: Vec<u32>,
    /// Whether `way` is one from the present state.
    holds: bool,
    /// A way that follows a token that was asked about.
    after: Option<(u32, Vec<u32>)>,
}

impl Plan {
    /// Notes that `token` was accepted.
    pub fn follow(&mut self, token: u32) {
        if let Some((asked, way)) = self.after.take()
            && asked == token
        {
            (self.way, self.holds) = (way, true);
        } else if self.holds && self.way.first() == Some(&token) {
            self.way.remove(0);
        } else {
            self.holds = false;
        }
    }

    /// Notes that the text has gone on in another way.
    pub fn forget(&mut self) {
        self.holds = false;
        self.after = None;
    }
}

impl Guided {
    /// See [`Matcher::forced_bytes`](super::Matcher::forced_bytes).
    pub fn forced_bytes(&mut self) -> Result<Vec<u8>, MatcherError> {
        self.check()?;
        // What the engine has no choice about may still repeat an item that must not be repeated.
        if self.matcher.is_stopped() || self.follower.is_some() {
            return Ok(Vec::new());
        }
        let forced = self.matcher.compute_ff_bytes();
        self.check()?;
        Ok(forced)
    }

    /// See [`Matcher::accept_bytes`](super::Matcher::accept_bytes).
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<(), MatcherError> {
        self.check()?;
        // How the bytes are cut is nothing to the engine.
        let tokens = cut(&self.vocabulary, bytes).ok_or(MatcherError::DeadEnd)?;
        if self.follower.as_ref().is_some_and(|follower| !follower.allows(bytes)) {
            return Err(MatcherError::RefusedText { at: 0 });
        }
        let mut taken = self.matcher.clone();
        let count = taken.try_consume_tokens(&tokens).map_err(|error| engine(&error))?;
        if count < tokens.len() {
            let at = tokens[..count].iter().map(|&token| self.vocabulary.piece(token).len()).sum();
            return Err(MatcherError::RefusedText { at });
        }
        self.matcher = taken;
        if let Some(follower) = &mut self.follower {
            follower.feed(bytes).map_err(|_| MatcherError::RefusedText { at: 0 })?;
        }
        self.mask = None;
        self.plan.forget();
        Ok(())
    }

    /// Whether the text may go on with `bytes`.
    pub fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        self.check()?;
        let Some(tokens) = cut(&self.vocabulary, bytes) else {
            return Ok(false);
        };
        if self.matcher.is_stopped() {
            return Ok(tokens.is_empty());
        }
        let follows = self.follower.as_ref().is_none_or(|follower| follower.allows(bytes));
        let count = self.matcher.validate_tokens(&tokens).map_err(|error| engine(&error))?;
        Ok(follows && count == tokens.len())
    }

    /// See [`Matcher::tokens_to_finish`](super::Matcher::tokens_to_finish).
    pub fn tokens_to_finish(&mut self) -> Result<Option<usize>, MatcherError> {
        self.check()?;
        Ok(self.way()?.then_some(self.plan.way.len()))
    }

    /// See [`Matcher::allows_closing`](super::Matcher::allows_closing).
    pub fn allows_closing(&mut self, token: u32, budget: usize) -> Result<bool, MatcherError> {
        if !self.allows(token)? {
            return Ok(false);
        }
        if self.vocabulary.is_end(token) || budget > self.plan.way.len() + AHEAD {
            return Ok(true);
        }
        if !self.way()? {
            // No way is known from here with or without the token; nothing is gained by refusing it.
            return Ok(true);
        }
        let room = budget.saturating_sub(1);
        if self.plan.way.first() == Some(&token) {
            return Ok(self.plan.way.len() <= budget);
        }
        if self.plan.way.len() <= room && self.leads(&[&[token], self.plan.way.clone().as_slice()].concat())? {
            let way = self.plan.way.clone();
            self.plan.after = Some((token, way));
            return Ok(true);
        }
        let mut after = self.matcher.clone();
        after.consume_token(token).map_err(|error| engine(&error))?;
        match find(&after, &self.vocabulary)? {
            Some(way) if way.len() <= room => {
                self.plan.after = Some((token, way));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// See [`Matcher::mask_closing`](super::Matcher::mask_closing).
    pub fn mask_closing(&mut self, budget: usize) -> Result<&TokenMask, MatcherError> {
        self.check()?;
        if budget > self.plan.way.len() + AHEAD || !self.way()? {
            return self.mask();
        }
        let mut closing = TokenMask::empty(self.vocabulary.len());
        if complete(&mut self.matcher)? {
            self.vocabulary.end_tokens().iter().for_each(|&end| closing.insert(end));
        }
        // All tokens cannot be asked about one by one; these are the ones that close.
        let closers = self.vocabulary.closers().to_vec();
        for token in closers {
            if self.allows_closing(token, budget)? {
                closing.insert(token);
            }
        }
        self.plan.after = None;
        if let Some(&next) = self.plan.way.first() {
            closing.insert(next);
        }
        if closing.is_empty() {
            return self.mask();
        }
        self.closing = closing;
        Ok(&self.closing)
    }

    /// Makes sure that the way holds; `false` if none is found.
    ///
    /// None where items must not be repeated: a way is found on a copy of the engine, which does not know of that.
    fn way(&mut self) -> Result<bool, MatcherError> {
        if self.follower.is_some() {
            return Ok(false);
        }
        if self.plan.holds {
            return Ok(true);
        }
        let old = std::mem::take(&mut self.plan.way);
        if complete(&mut self.matcher)? {
            self.plan.holds = true;
        } else if self.leads(&old)? {
            (self.plan.way, self.plan.holds) = (old, true);
        } else if let Some(way) = find(&self.matcher, &self.vocabulary)? {
            (self.plan.way, self.plan.holds) = (way, true);
        }
        Ok(self.plan.holds)
    }

    /// Whether `tokens` bring the text to its end.
    fn leads(&mut self, tokens: &[u32]) -> Result<bool, MatcherError> {
        let Some(&end) = self.vocabulary.end_tokens().first() else {
            return Ok(false);
        };
        if tokens.is_empty() || self.matcher.is_stopped() {
            return Ok(false);
        }
        let all = [tokens, &[end]].concat();
        let count = self.matcher.validate_tokens(&all).map_err(|error| engine(&error))?;
        Ok(count == all.len())
    }
}

/// Looks for a way to the end on copies of `matcher`.
fn find(matcher: &Matcher, vocabulary: &Vocabulary) -> Result<Option<Vec<u32>>, MatcherError> {
    for attempt in 0..ATTEMPTS {
        if let Some(way) = walk(matcher.clone(), vocabulary, attempt)? {
            return Ok(Some(way));
        }
    }
    Ok(None)
}

/// One attempt.
fn walk(mut matcher: Matcher, vocabulary: &Vocabulary, attempt: u32) -> Result<Option<Vec<u32>>, MatcherError> {
    let mut way = Vec::new();
    let mut chance = u64::from(attempt) + 1;
    while way.len() < STEPS << attempt {
        if complete(&mut matcher)? {
            return Ok(Some(way));
        }
        if matcher.is_stopped() {
            return Ok(None);
        }
        let forced = matcher.compute_ff_bytes();
        let tokens = match cut(vocabulary, &forced) {
            Some(tokens) if !tokens.is_empty() => tokens,
            _ => {
                let set = matcher.compute_mask().map_err(|error| engine(&error))?;
                let mask = TokenMask::from_words(set.as_slice(), vocabulary.len());
                let Some(token) = choose(&mask, vocabulary, attempt, &mut chance) else {
                    return Ok(None);
                };
                vec![token]
            }
        };
        let count = matcher.try_consume_tokens(&tokens).map_err(|error| engine(&error))?;
        if count < tokens.len() {
            return Ok(None);
        }
        way.extend(tokens);
    }
    Ok(None)
}

/// What closes most, as single bytes: containers, strings, then the next member and digits.
const ORDER: &[u8] = b"}]\",1023456789";

/// The next token of an attempt.
fn choose(mask: &TokenMask, vocabulary: &Vocabulary, attempt: u32, chance: &mut u64) -> Option<u32> {
    let allowed = |byte: u8| vocabulary.byte_token(byte).filter(|&token| mask.allows(token));
    let mut next = |bound: usize| {
        *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*chance >> 33) as usize % bound
    };
    // Later attempts leave the order now and then: patterns may want anything.
    if attempt == 0 || next(4) > 0 {
        // Inside a string only the quote closes; no JSON value and no key begins with one of these.
        let inside = b"x~AZ_".iter().any(|&byte| allowed(byte).is_some());
        let marks = if inside { &ORDER[2..3] } else { &ORDER[..3] };
        let closing = marks.iter().find_map(|&byte| allowed(byte));
        if closing.is_some() {
            return closing;
        }
        // Digits by turns, so that no number grows by the same one for ever.
        let shift = 4 + next(ORDER.len() - 4);
        let order = ORDER[3..4].iter().chain(&ORDER[shift..]).chain(&ORDER[4..shift]);
        let found = order.copied().find_map(allowed);
        if found.is_some() {
            return found;
        }
    }
    let printable: Vec<u32> = (b'!'..=b'~').filter_map(allowed).collect();
    match printable.len() {
        0 => mask.iter().find(|&token| vocabulary.is_text(token)),
        count => Some(printable[next(count)]),
    }
}

/// `bytes` cut into tokens, each as long as can be. `None` if no token begins one of the rests.
fn cut(vocabulary: &Vocabulary, bytes: &[u8]) -> Option<Vec<u32>> {
    let mut tokens = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let token = vocabulary.trie().prefixes(rest).last().copied()?;
        tokens.push(token);
        rest = &rest[vocabulary.piece(token).len()..];
    }
    Some(tokens)
}
