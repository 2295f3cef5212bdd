//! A way to the end of a text found by trial, where nothing better is known: on a copy of the matcher, what is forced is
//! taken, else what closes.

use llguidance::Matcher;

use super::error::MatcherError;
use super::guided::{Guided, complete, engine};
use super::mask::TokenMask;
use super::path::{Path, Required};
use super::unique::Follower;
use super::vocabulary::Vocabulary;

/// Tokens of a way, at most; doubled on each further attempt.
const STEPS: usize = 512;
/// Attempts to find a way, each with other choices.
const ATTEMPTS: u32 = 3;

impl Guided {
    /// A copy that looks for an end.
    pub(super) fn trial(&self) -> Trial<'_> {
        Trial {
            matcher: self.matcher.clone(),
            follower: self.follower.clone(),
            path: self.plan.path.clone(),
            required: &self.plan.required,
            vocabulary: &self.vocabulary,
        }
    }
}

/// A copy of a matcher that looks for an end.
#[derive(Clone)]
pub(super) struct Trial<'a> {
    matcher: Matcher,
    follower: Option<Follower>,
    path: Path,
    required: &'a Required,
    vocabulary: &'a Vocabulary,
}

impl Trial<'_> {
    /// Looks for a way.
    pub fn find(&self) -> Result<Option<Vec<u32>>, MatcherError> {
        for attempt in 0..ATTEMPTS {
            if let Some(way) = self.clone().walk(attempt)? {
                return Ok(Some(way));
            }
        }
        Ok(None)
    }

    /// Appends tokens; `false` if they are not allowed.
    pub fn take(&mut self, tokens: &[u32]) -> Result<bool, MatcherError> {
        let count = self.matcher.try_consume_tokens(tokens).map_err(|error| engine(&error))?;
        if count < tokens.len() {
            return Ok(false);
        }
        for &token in tokens {
            let piece = self.vocabulary.piece(token);
            self.path.feed(piece);
            if self.follower.as_mut().is_some_and(|follower| follower.feed(piece).is_err()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One attempt.
    fn walk(mut self, attempt: u32) -> Result<Option<Vec<u32>>, MatcherError> {
        let mut way = Vec::new();
        let mut chance = u64::from(attempt) + 1;
        while way.len() < STEPS << attempt {
            if complete(&mut self.matcher)? {
                return Ok(Some(way));
            }
            if self.matcher.is_stopped() {
                return Ok(None);
            }
            let Some(tokens) = self.step(attempt, &mut chance)? else {
                return Ok(None);
            };
            if !self.take(&tokens)? {
                return Ok(None);
            }
            way.extend(tokens);
        }
        Ok(None)
    }

    /// The next tokens of an attempt: what is forced, a required key, or what closes.
    fn step(&mut self, attempt: u32, chance: &mut u64) -> Result<Option<Vec<u32>>, MatcherError> {
        let forced = self.matcher.compute_ff_bytes();
        if let Some(tokens) = self.vocabulary.cut(&forced).filter(|tokens| !tokens.is_empty()) {
            return Ok(Some(tokens));
        }
        let set = self.matcher.compute_mask().map_err(|error| engine(&error))?;
        let mut mask = TokenMask::from_words(set.as_slice(), self.vocabulary.len());
        let closes = |byte: u8| self.vocabulary.byte_token(byte).is_some_and(|token| mask.allows(token));
        if !closes(b'}')
            && !closes(b']')
            && let Some(tokens) = self.key()?
        {
            return Ok(Some(tokens));
        }
        while let Some(token) = choose(&mask, self.vocabulary, attempt, chance) {
            let piece = self.vocabulary.piece(token);
            if self.follower.as_ref().is_none_or(|follower| follower.allows(piece)) {
                return Ok(Some(vec![token]));
            }
            mask.remove(token);
        }
        Ok(None)
    }

    /// A required key that can come here, or the rest of it.
    fn key(&mut self) -> Result<Option<Vec<u32>>, MatcherError> {
        for name in self.required.of(self.path.under()) {
            let spelled = serde_json::Value::from(name.as_str()).to_string() + ":";
            let rest = spelled.as_bytes()[1..].strip_prefix(self.path.begun());
            for text in [Some(spelled.as_bytes()), rest].into_iter().flatten() {
                let Some(tokens) = self.vocabulary.cut(text) else { continue };
                let count = self.matcher.validate_tokens(&tokens).map_err(|error| engine(&error))?;
                if count == tokens.len() && self.follower.as_ref().is_none_or(|follower| follower.allows(text)) {
                    return Ok(Some(tokens));
                }
            }
        }
        Ok(None)
    }
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
