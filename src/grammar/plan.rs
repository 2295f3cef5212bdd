//! Ways to the end of a text for the engine behind schemas, which cannot tell how much is still needed.
//!
//! A way is found by trial: on a copy of the matcher, what is forced is taken, else what closes. It is a witness, so its
//! length is a safe upper bound on the tokens needed; it need not be the shortest. Holding an old way against a new
//! state costs microseconds, so a new one is looked for only where the structure has changed.

use std::sync::Arc;

use llguidance::Matcher;

use super::error::MatcherError;
use super::guided::{Guided, complete, engine};
use super::mask::TokenMask;
use super::path::{Path, Required};
use super::unique::Follower;
use super::vocabulary::Vocabulary;

/// While this many tokens are left beyond the last known way, ways are not looked for: no single token of a common
/// schema opens more than that.
const AHEAD: usize = 384;
/// Tokens of a way, at most; doubled on each further attempt.
const STEPS: usize = 512;
/// Attempts to find a way, each with other choices.
const ATTEMPTS: u32 = 3;
/// Tokens at the beginning of a way that may be written already when it is mended.
const WRITTEN: usize = 4;
/// What may stand between the text and the rest of a way: the end of a key, a least value, the end of a container.
const BRIDGES: [&str; 9] = ["\"", "\"\"", ":\"\"", "\":\"\"", "1", ":1", "\":1", "]", "}"];
/// Tokens until the next search, where none has found a way.
const PAUSE: usize = 4;

/// What is known about the rest of one text.
pub(super) struct Plan {
    /// Keys that objects require.
    required: Arc<Required>,
    /// Where in the text it is.
    path: Path,
    /// The last known way to the end, without the end token.
    way: Vec<u32>,
    /// Whether `way` is one from the present state.
    holds: bool,
    /// Whether it was made of an older one: it may be longer than one that is looked for.
    mended: bool,
    /// A way that follows a token that was asked about.
    after: Option<(u32, Vec<u32>)>,
    /// Tokens to take before a way is looked for again.
    pause: usize,
}

impl Plan {
    pub fn new(required: Arc<Required>) -> Self {
        Plan { required, path: Path::default(), way: Vec::new(), holds: false, mended: false, after: None, pause: 0 }
    }

    /// Notes the bytes that were added.
    pub fn add(&mut self, bytes: &[u8]) {
        self.path.feed(bytes);
    }

    /// Notes that `token` was accepted.
    pub fn follow(&mut self, token: u32) {
        self.pause = self.pause.saturating_sub(1);
        if let Some((asked, way)) = self.after.take()
            && asked == token
        {
            (self.way, self.holds, self.mended) = (way, true, true);
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
        if !self.urged.is_empty() {
            return Ok(self.urged.clone());
        }
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
        self.follow_urge(bytes);
        self.plan.add(bytes);
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

    /// See [`Matcher::lacks_key`](super::Matcher::lacks_key).
    pub fn lacks_key(&mut self) -> Result<bool, MatcherError> {
        let bytes = [b'}', b',', b'x', b']', b'"'].map(|byte| self.vocabulary.byte_token(byte));
        let mask = self.mask()?;
        let [close, comma, letter, bracket, quote] = bytes.map(|token| token.is_some_and(|token| mask.allows(token)));
        Ok(comma && !close && !letter && !bracket && !quote)
    }

    /// See [`Matcher::urge`](super::Matcher::urge).
    pub fn urge(&mut self, wish: u32) -> Result<Option<u32>, MatcherError> {
        let closes = self.vocabulary.piece(wish).trim_ascii_start().starts_with(b"}");
        if !(closes || self.vocabulary.is_end(wish)) || !self.lacks_key()? {
            return Ok(None);
        }
        let required = Arc::clone(&self.plan.required);
        let under = self.plan.path.under().map(<[u8]>::to_vec);
        for name in required.of(under.as_deref()) {
            let text = format!(", {}: ", serde_json::Value::from(name.as_str()));
            if self.allows_bytes(text.as_bytes())? {
                let token = cut(&self.vocabulary, text.as_bytes()).and_then(|tokens| tokens.first().copied());
                self.urged = text.into_bytes();
                return Ok(token);
            }
        }
        Ok(None)
    }

    /// Takes what was written off the text that is urged.
    pub fn follow_urge(&mut self, bytes: &[u8]) {
        match self.urged.strip_prefix(bytes) {
            Some(rest) => self.urged = rest.to_vec(),
            None => self.urged.clear(),
        }
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
        self.fit(room)?;
        if self.plan.way.first() == Some(&token) {
            return Ok(self.plan.way.len() <= budget);
        }
        if self.plan.way.len() > budget {
            // Nothing that is known ends in time: the way is taken as far as it goes.
            return Ok(false);
        }
        if self.plan.way.len() <= room && self.leads(&[&[token], self.plan.way.clone().as_slice()].concat())? {
            let way = self.plan.way.clone();
            self.plan.after = Some((token, way));
            return Ok(true);
        }
        if let Some(way) = self.mend(&[token], &self.plan.way.clone())?.filter(|way| way.len() <= room) {
            self.plan.after = Some((token, way));
            return Ok(true);
        }
        let mut after = self.end();
        if !after.take(&[token])? {
            return Ok(false);
        }
        match after.find()? {
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
        self.fit(budget.saturating_sub(1))?;
        let mut closing = TokenMask::empty(self.vocabulary.len());
        if complete(&mut self.matcher)? {
            self.vocabulary.end_tokens().iter().for_each(|&end| closing.insert(end));
        }
        // All tokens cannot be asked about one by one; these are the ones that close.
        let closers = if self.plan.way.len() > budget { Vec::new() } else { self.vocabulary.closers().to_vec() };
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
    fn way(&mut self) -> Result<bool, MatcherError> {
        if self.plan.holds {
            return Ok(true);
        }
        if self.plan.pause > 0 {
            return Ok(false);
        }
        let old = std::mem::take(&mut self.plan.way);
        if complete(&mut self.matcher)? {
            self.plan.holds = true;
        } else if self.leads(&old)? {
            (self.plan.way, self.plan.holds) = (old, true);
        } else if let Some(way) = self.mend(&[], &old)? {
            (self.plan.way, self.plan.holds, self.plan.mended) = (way, true, true);
        } else if let Some(way) = self.end().find()? {
            (self.plan.way, self.plan.holds, self.plan.mended) = (way, true, false);
        } else {
            self.plan.pause = PAUSE;
        }
        Ok(self.plan.holds)
    }

    /// Looks for a way in place of a mended one for which there is no `room`.
    fn fit(&mut self, room: usize) -> Result<(), MatcherError> {
        if self.plan.mended
            && self.plan.way.len() >= room
            && let Some(way) = self.end().find()?
        {
            self.plan.mended = false;
            if way.len() < self.plan.way.len() {
                self.plan.way = way;
            }
        }
        Ok(())
    }

    /// A way that follows `before`, made of an older one: without what is written already, or behind a bridge. Most that
    /// is tried fails at its first token, which costs far less than a search.
    fn mend(&mut self, before: &[u32], way: &[u32]) -> Result<Option<Vec<u32>>, MatcherError> {
        let closes = |token: &u32| self.vocabulary.piece(*token).first().is_some_and(|byte| b",}]".contains(byte));
        let rest = way.iter().position(closes).map_or(&[][..], |at| &way[at..]);
        let cuts = (1..=WRITTEN.min(way.len())).map(|written| way[written..].to_vec());
        let bridges = BRIDGES
            .iter()
            .filter_map(|bridge| Some([cut(&self.vocabulary, bridge.as_bytes())?, rest.to_vec()].concat()));
        let candidates: Vec<Vec<u32>> = cuts.chain(bridges).filter(|candidate| !candidate.is_empty()).collect();
        for candidate in candidates {
            if self.leads(&[before, &candidate].concat())? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// Whether `tokens` bring the text to its end.
    fn leads(&mut self, tokens: &[u32]) -> Result<bool, MatcherError> {
        let Some(&end) = self.vocabulary.end_tokens().first() else {
            return Ok(false);
        };
        if tokens.is_empty() || self.matcher.is_stopped() {
            return Ok(false);
        }
        if let Some(follower) = &self.follower {
            let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.vocabulary.piece(token)).copied().collect();
            if !follower.allows(&bytes) {
                return Ok(false);
            }
        }
        let all = [tokens, &[end]].concat();
        let count = self.matcher.validate_tokens(&all).map_err(|error| engine(&error))?;
        Ok(count == all.len())
    }

    fn end(&self) -> End<'_> {
        End {
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
struct End<'a> {
    matcher: Matcher,
    follower: Option<Follower>,
    path: Path,
    required: &'a Required,
    vocabulary: &'a Vocabulary,
}

impl End<'_> {
    /// Looks for a way.
    fn find(&self) -> Result<Option<Vec<u32>>, MatcherError> {
        for attempt in 0..ATTEMPTS {
            if let Some(way) = self.clone().walk(attempt)? {
                return Ok(Some(way));
            }
        }
        Ok(None)
    }

    /// Appends tokens; `false` if they are not allowed.
    fn take(&mut self, tokens: &[u32]) -> Result<bool, MatcherError> {
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
        if let Some(tokens) = cut(self.vocabulary, &forced).filter(|tokens| !tokens.is_empty()) {
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
                let Some(tokens) = cut(self.vocabulary, text) else { continue };
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
