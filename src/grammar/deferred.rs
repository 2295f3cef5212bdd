//! A matcher that waits for its cue: text is free until a marker such as `</think>` or `<tool_call>`, then a grammar
//! holds.
//!
//! The marker is a byte string. It is found wherever it stands, across tokens and inside them, and also where the
//! model has a control token of that spelling.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::error::MatcherError;
use super::marker::Marker;
use super::mask::TokenMask;
use super::matcher::Matcher;
use super::vocabulary::Vocabulary;

/// When a grammar begins to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// The marker.
    pub marker: Vec<u8>,
    /// Whether other text may stand before the marker.
    pub free: bool,
    /// Whether the marker must come: the answer cannot end without it.
    pub must: bool,
    /// Whether the marker is part of what the grammar describes. Otherwise the grammar holds from the byte after it.
    pub inside: bool,
    /// Tokens that may stand before the marker; after so many it must come at once.
    pub budget: Option<usize>,
    /// What is written before the marker when it has to come at once.
    pub message: Vec<u8>,
    /// Lets another thread have the marker come at once.
    pub hurry: Option<Hurry>,
}

/// A wish, from any thread, that free text ends. Clones are the same wish.
#[derive(Debug, Clone, Default)]
pub struct Hurry(Arc<AtomicU8>);

impl Hurry {
    const WAITING: u8 = 0;
    const ASKED: u8 = 1;
    const OVER: u8 = 2;

    /// Asks for the end: the marker comes after the token under way. Whether there was free text to end.
    pub fn ask(&self) -> bool {
        let asked = self.0.compare_exchange(Self::WAITING, Self::ASKED, Ordering::Relaxed, Ordering::Relaxed);
        asked != Err(Self::OVER)
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ASKED
    }

    fn over(&self) {
        self.0.store(Self::OVER, Ordering::Relaxed);
    }
}

impl PartialEq for Hurry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hurry {}

impl std::hash::Hash for Hurry {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Trigger {
    /// For reasoning models: thinking is free, the answer after `marker` is not, and there must be one.
    pub fn answer_after(marker: impl Into<Vec<u8>>) -> Self {
        Trigger { marker: marker.into(), free: true, must: true, ..Trigger::default() }
    }
}

/// A matcher with its trigger.
pub(super) struct Deferred {
    vocabulary: Arc<Vocabulary>,
    trigger: Trigger,
    /// What must come: the trigger's marker, perhaps after its message.
    marker: Marker,
    /// Whether a token is the marker; looked up when first needed, since it takes a search of all tokens.
    one_token: OnceCell<bool>,
    /// Bytes of the marker that the text ends with.
    matched: usize,
    /// The marker is complete: the inner matcher decides.
    begun: bool,
    /// Tokens accepted while waiting.
    waited: usize,
    /// Free text has ended: the marker must come at once. Changes between tokens only, so that what was allowed is
    /// accepted.
    spent: bool,
    /// An end token was accepted while waiting.
    finished: bool,
    inner: Box<Matcher>,
    mask: TokenMask,
    /// Per matched length, the tokens that complete the marker; worked out when first needed.
    completing: Vec<Option<Vec<u32>>>,
}

/// Where some bytes lead while waiting.
enum Led {
    /// Not where the marker must come at once.
    Astray,
    /// Still waiting, with this much of the marker.
    Waiting(usize),
    /// The marker is complete after this many of the bytes.
    Begun(usize),
}

impl Deferred {
    /// Waits for `trigger`, then for `inner`.
    ///
    /// # Errors
    /// The grammar does not begin with a marker that is part of it.
    pub fn new(vocabulary: Arc<Vocabulary>, trigger: Trigger, mut inner: Matcher) -> Result<Self, MatcherError> {
        if trigger.inside {
            inner.accept_bytes(&trigger.marker)?;
        }
        let marker = Marker::new(trigger.marker.as_slice());
        let begun = marker.bytes().is_empty();
        let completing = vec![None; marker.bytes().len()];
        let mut new = Deferred {
            vocabulary,
            trigger,
            marker,
            one_token: OnceCell::new(),
            matched: 0,
            begun,
            waited: 0,
            spent: false,
            finished: false,
            inner: Box::new(inner),
            mask: TokenMask::default(),
            completing,
        };
        new.look();
        Ok(new)
    }

    /// Between two tokens: whether free text has come to its end.
    fn look(&mut self) {
        let hurry = self.trigger.hurry.as_ref();
        if self.begun || self.finished {
            return hurry.into_iter().for_each(Hurry::over);
        }
        let asked = hurry.is_some_and(Hurry::is_asked);
        if self.spent || !asked && self.trigger.budget.is_none_or(|budget| self.waited < budget) {
            return;
        }
        self.spent = true;
        // Where part of the marker is there, the rest of it follows; else the message goes first.
        if self.matched == 0 && !self.trigger.message.is_empty() {
            let mut marker = std::mem::take(&mut self.trigger.message);
            marker.extend_from_slice(&self.trigger.marker);
            self.completing = vec![None; marker.len()];
            self.marker = Marker::new(marker);
            self.one_token = OnceCell::new();
        }
    }

    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        if self.begun {
            return self.inner.allows(token);
        }
        self.check()?;
        if self.vocabulary.is_end(token) {
            return Ok(!self.must());
        }
        if token as usize >= self.vocabulary.len() {
            return Ok(false);
        }
        let vocabulary = Arc::clone(&self.vocabulary);
        let bytes = vocabulary.piece(token);
        match self.lead(self.matched, bytes) {
            Led::Astray => Ok(false),
            // A token that prints nothing brings the marker no nearer.
            Led::Waiting(_) => Ok(self.free() || !bytes.is_empty()),
            Led::Begun(at) => self.inner.allows_bytes(&bytes[at..]),
        }
    }

    /// See [`Matcher::allows_run`]. Ends at the token that completes the marker.
    pub fn allows_run(&mut self, tokens: &[u32]) -> usize {
        if self.begun {
            return self.inner.allows_run(tokens);
        }
        let vocabulary = Arc::clone(&self.vocabulary);
        // What the budget leaves; past it the marker has to come.
        let left = match (self.free(), self.trigger.budget) {
            (true, Some(budget)) => budget.saturating_sub(self.waited),
            _ => tokens.len(),
        };
        let mut matched = self.matched;
        for (at, &token) in tokens.iter().enumerate().take(left) {
            if self.finished || vocabulary.is_end(token) || token as usize >= vocabulary.len() {
                return at;
            }
            let bytes = vocabulary.piece(token);
            match self.lead(matched, bytes) {
                Led::Astray => return at,
                Led::Waiting(_) if !self.free() && bytes.is_empty() => return at,
                Led::Waiting(now) => matched = now,
                Led::Begun(from) => return at + usize::from(self.inner.allows_bytes(&bytes[from..]).unwrap_or(false)),
            }
        }
        left.min(tokens.len())
    }

    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        if self.begun {
            return self.inner.accept(token);
        }
        if !self.allows(token)? {
            return Err(MatcherError::Refused { token });
        }
        if self.vocabulary.is_end(token) {
            self.finished = true;
            self.look();
            return Ok(());
        }
        let vocabulary = Arc::clone(&self.vocabulary);
        self.waited += 1;
        self.accept_bytes(vocabulary.piece(token))
    }

    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<(), MatcherError> {
        if self.begun {
            return self.inner.accept_bytes(bytes);
        }
        self.check()?;
        match self.lead(self.matched, bytes) {
            Led::Astray => Err(MatcherError::RefusedText { at: 0 }),
            Led::Waiting(matched) => {
                self.matched = matched;
                self.look();
                Ok(())
            }
            Led::Begun(at) => {
                if at < bytes.len() {
                    self.inner.accept_bytes(&bytes[at..])?;
                }
                self.begun = true;
                self.look();
                Ok(())
            }
        }
    }

    pub fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        if self.begun {
            return self.inner.allows_bytes(bytes);
        }
        self.check()?;
        match self.lead(self.matched, bytes) {
            Led::Astray => Ok(false),
            Led::Waiting(_) => Ok(true),
            Led::Begun(at) => self.inner.allows_bytes(&bytes[at..]),
        }
    }

    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        if self.begun {
            return self.inner.mask();
        }
        self.check()?;
        let tokens = self.vocabulary.len() as u32;
        let mut mask = TokenMask::empty(tokens as usize);
        if self.free() {
            mask = TokenMask::all(tokens as usize);
            for token in self.completing(self.matched) {
                if !self.allows(token)? {
                    mask.remove(token);
                }
            }
            if self.must() {
                self.vocabulary.end_tokens().iter().for_each(|&end| mask.remove(end));
            }
        } else {
            for token in 0..tokens {
                if self.allows(token)? {
                    mask.insert(token);
                }
            }
        }
        self.give(mask)
    }

    /// Whether text is free here.
    pub fn is_free(&self) -> bool {
        match self.begun {
            true => self.inner.is_free(),
            false => self.free(),
        }
    }

    /// See [`Matcher::ends_with`].
    pub fn ends_with(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        match self.begun {
            true => self.inner.ends_with(bytes),
            false => Ok(false),
        }
    }

    pub fn may_stop(&mut self) -> bool {
        match self.begun {
            true => self.inner.may_stop(),
            false => !self.must() && !self.finished,
        }
    }

    pub fn must_stop(&mut self) -> bool {
        self.begun && self.inner.must_stop()
    }

    pub fn forced_bytes(&mut self) -> Result<Vec<u8>, MatcherError> {
        if self.begun {
            return self.inner.forced_bytes();
        }
        self.check()?;
        if self.free() || !self.must() {
            return Ok(Vec::new());
        }
        let mut forced = self.marker.bytes()[self.matched..].to_vec();
        forced.extend(self.inner.forced_bytes()?);
        Ok(forced)
    }

    pub fn lacks_key(&mut self) -> Result<bool, MatcherError> {
        if self.begun { self.inner.lacks_key() } else { Ok(false) }
    }

    pub fn urge(&mut self, wish: u32) -> Result<Option<u32>, MatcherError> {
        if self.begun { self.inner.urge(wish) } else { Ok(None) }
    }

    pub fn least_bytes(&mut self) -> Option<usize> {
        match self.begun {
            true => self.inner.least_bytes_to_finish(),
            false if self.finished => None,
            false if !self.must() => Some(0),
            false => Some(self.marker.bytes().len() - self.matched + self.inner.least_bytes_to_finish()?),
        }
    }

    pub fn tokens_to_finish(&mut self) -> Result<Option<usize>, MatcherError> {
        if self.begun {
            return self.inner.tokens_to_finish();
        }
        self.check()?;
        if !self.must() {
            return Ok(Some(0));
        }
        let front = self.front(self.matched);
        Ok(self.inner.tokens_to_finish()?.map(|inner| inner + front))
    }

    pub fn allows_closing(&mut self, token: u32, budget: usize) -> Result<bool, MatcherError> {
        if self.begun {
            return self.inner.allows_closing(token, budget);
        }
        if !self.allows(token)? {
            return Ok(false);
        }
        if !self.must() || self.vocabulary.is_end(token) {
            return Ok(true);
        }
        let inner = self.inner.tokens_to_finish()?;
        Ok(inner.is_none_or(|inner| self.closes(token, budget, inner)))
    }

    /// Whether the text can still be completed after an allowed token, where `inner` tokens are enough after the marker.
    fn closes(&self, token: u32, budget: usize, inner: usize) -> bool {
        let bytes = self.vocabulary.piece(token);
        match self.lead(self.matched, bytes) {
            Led::Astray => false,
            Led::Waiting(matched) => self.front(matched) + inner < budget,
            // What stands after the marker may open more; only the marker itself is certain.
            Led::Begun(at) => at == bytes.len() && inner < budget || budget > inner + self.marker.bytes().len() + 64,
        }
    }

    pub fn mask_closing(&mut self, budget: usize) -> Result<&TokenMask, MatcherError> {
        if self.begun {
            return self.inner.mask_closing(budget);
        }
        let far = self.marker.bytes().len() + 64;
        match self.tokens_to_finish()? {
            Some(needed) if self.must() && budget <= needed + far => {}
            _ => return self.mask(),
        }
        let mut mask = TokenMask::empty(self.vocabulary.len());
        let inner = self.inner.tokens_to_finish()?;
        for token in 0..self.vocabulary.len() as u32 {
            let closes = |inner| self.vocabulary.is_end(token) || self.closes(token, budget, inner);
            if inner.is_none_or(closes) && self.allows(token)? {
                mask.insert(token);
            }
        }
        if mask.is_empty() {
            // Too late for certain: the marker, and on.
            for token in 0..self.vocabulary.len() as u32 {
                let on = match self.lead(self.matched, self.vocabulary.piece(token)) {
                    Led::Astray => false,
                    Led::Waiting(matched) => matched > self.matched,
                    Led::Begun(_) => true,
                };
                if on && self.allows(token)? {
                    mask.insert(token);
                }
            }
        }
        self.give(mask)
    }

    fn give(&mut self, mask: TokenMask) -> Result<&TokenMask, MatcherError> {
        if mask.is_empty() {
            return Err(MatcherError::DeadEnd);
        }
        self.mask = mask;
        Ok(&self.mask)
    }

    /// Whether other text may stand here.
    fn free(&self) -> bool {
        self.trigger.free && !self.spent
    }

    /// Whether the marker must come.
    fn must(&self) -> bool {
        self.trigger.must || self.spent
    }

    fn check(&self) -> Result<(), MatcherError> {
        if self.finished { Err(MatcherError::Finished) } else { Ok(()) }
    }

    /// Tokens that are enough for the rest of the marker.
    fn front(&self, matched: usize) -> usize {
        // A message may still have to go first; it is empty once it is part of the marker.
        let message = if matched == 0 { self.trigger.message.len() } else { 0 };
        let one_token = || *self.one_token.get_or_init(|| self.vocabulary.find(self.marker.bytes()).is_some());
        match matched == 0 && one_token() {
            true => 1 + message,
            false => self.marker.bytes().len() - matched + message,
        }
    }

    fn lead(&self, matched: usize, bytes: &[u8]) -> Led {
        if self.free() {
            return match self.marker.find(matched, bytes) {
                Ok(taken) => Led::Begun(taken),
                Err(matched) => Led::Waiting(matched),
            };
        }
        // Nothing else may stand here: the rest of the marker begins with these bytes, or they begin with it.
        let rest = &self.marker.bytes()[matched..];
        match bytes.iter().zip(rest).all(|(byte, wanted)| byte == wanted) {
            false => Led::Astray,
            true if bytes.len() >= rest.len() => Led::Begun(rest.len()),
            true => Led::Waiting(matched + bytes.len()),
        }
    }

    /// The tokens that complete the marker when `matched` bytes of it are there.
    fn completing(&mut self, matched: usize) -> Vec<u32> {
        if let Some(Some(tokens)) = self.completing.get(matched) {
            return tokens.clone();
        }
        let completes = |token: &u32| matches!(self.lead(matched, self.vocabulary.piece(*token)), Led::Begun(_));
        let tokens: Vec<u32> = (0..self.vocabulary.len() as u32).filter(completes).collect();
        if let Some(slot) = self.completing.get_mut(matched) {
            *slot = Some(tokens.clone());
        }
        tokens
    }
}
