//! Ways to the end of a text for the engine behind schemas, which cannot tell how much is still needed.
//!
//! The schema itself tells ([`Track`]) what the rest of a text costs at least, after every token, and how it reads. The
//! engine is asked whether it takes that rest only when the limit comes near. A way is a witness, so its length is a
//! safe upper bound on the tokens needed.
//!
//! Where the text is no value of a schema (calls of tools have an envelope around it), or has left what is known, a way
//! is made of the last one, or found by [trial](super::trial).

use std::sync::{Arc, OnceLock};

use super::error::MatcherError;
use super::guided::{Guided, complete, engine};
use super::mask::TokenMask;
use super::path::{Path, Required};
use super::schema::{self, Ends, Track};
use super::vocabulary::Vocabulary;

/// While this many tokens are left beyond the last known way, ways are not looked for by trial: no single token of a
/// common schema opens more than that.
const AHEAD: usize = 384;
/// While this many tokens are left nothing is looked at: no rest of an answer takes more, and most end long before.
const FAR: usize = 2_048;
/// Tokens beyond what the schema tells, below which the engine is asked.
const SPARE: usize = 24;
/// Ways that the schema tells, of which the engine is asked about.
const ASKED: usize = 8;
/// Tokens at the beginning of a way that may be written already when it is mended.
const WRITTEN: usize = 4;
/// What may stand between the text and the rest of a way: the end of a key, a least value, the end of a container.
const BRIDGES: [&str; 9] = ["\"", "\"\"", ":\"\"", "\":\"\"", "1", ":1", "\":1", "]", "}"];
/// Tokens until the next search, where none has found a way.
const PAUSE: usize = 4;

/// The ends of a schema's values, worked out when they are first asked for.
#[derive(Debug)]
pub(super) struct Endings {
    plan: schema::Plan,
    vocabulary: Arc<Vocabulary>,
    ends: OnceLock<Arc<Ends>>,
}

impl Endings {
    pub fn new(plan: schema::Plan, vocabulary: Arc<Vocabulary>) -> Self {
        Endings { plan, vocabulary, ends: OnceLock::new() }
    }

    fn ends(&self) -> &Arc<Ends> {
        self.ends.get_or_init(|| {
            let vocabulary = Arc::clone(&self.vocabulary);
            let tokens = move |bytes: &[u8]| vocabulary.cut(bytes).map_or(bytes.len(), |tokens| tokens.len()) as u32;
            Arc::new(Ends::new(&self.plan, Box::new(tokens)))
        })
    }
}

/// What is known about the rest of one text.
pub(super) struct Plan {
    /// Keys that objects require.
    pub required: Arc<Required>,
    /// Where in the text it is.
    pub path: Path,
    endings: Option<Arc<Endings>>,
    /// The text among the values of the schema.
    track: Option<Track>,
    /// The text, as long as it is not tracked.
    text: Vec<u8>,
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
    pub fn new(required: Arc<Required>, endings: Option<Arc<Endings>>) -> Self {
        Plan {
            required,
            path: Path::default(),
            endings,
            track: None,
            text: Vec::new(),
            way: Vec::new(),
            holds: false,
            mended: false,
            after: None,
            pause: 0,
        }
    }

    /// Notes the bytes that were added.
    pub fn add(&mut self, bytes: &[u8]) {
        self.path.feed(bytes);
        match (&mut self.track, &self.endings) {
            (Some(track), _) => track.feed(bytes),
            (None, Some(_)) => self.text.extend_from_slice(bytes),
            (None, None) => {}
        }
    }

    /// The text among the values of its schema, if it has one.
    fn track(&mut self) -> Option<&Track> {
        let endings = self.endings.as_ref()?;
        let track = self.track.get_or_insert_with(|| {
            let mut track = Track::new(Arc::clone(endings.ends()));
            track.feed(&std::mem::take(&mut self.text));
            track
        });
        Some(track)
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
        let tokens = self.vocabulary.cut(bytes).ok_or(MatcherError::DeadEnd)?;
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
        let Some(tokens) = self.vocabulary.cut(bytes) else {
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
                let token = self.vocabulary.cut(text.as_bytes()).and_then(|tokens| tokens.first().copied());
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

    /// See [`Matcher::least_tokens`](super::Matcher::least_tokens).
    pub fn least_tokens(&mut self) -> Result<Option<usize>, MatcherError> {
        self.check()?;
        let Some(track) = self.plan.track().cloned() else { return Ok(None) };
        let mut least = None;
        for text in track.ways(ASKED) {
            let Some(way) = self.vocabulary.fewest(text.as_bytes()) else { continue };
            if self.leads(&way)? {
                least = Some(least.map_or(way.len(), |known: usize| known.min(way.len())));
            }
        }
        Ok(least)
    }

    /// See [`Matcher::allows_closing`](super::Matcher::allows_closing).
    pub fn allows_closing(&mut self, token: u32, budget: usize) -> Result<bool, MatcherError> {
        if !self.allows(token)? {
            return Ok(false);
        }
        if self.vocabulary.is_end(token) || budget > FAR {
            return Ok(true);
        }
        let room = budget.saturating_sub(1);
        let after = self.plan.track().map(|track| {
            let mut after = track.clone();
            after.feed(self.vocabulary.piece(token));
            after
        });
        if let Some((need, after)) = after.and_then(|after| Some((after.need()?, after))) {
            if need + SPARE <= room {
                return Ok(true);
            }
            if self.plan.holds && self.plan.way.first() == Some(&token) && self.plan.way.len() <= budget {
                return Ok(true);
            }
            if let Some(way) = self.told(&after, &[token])? {
                let fits = way.len() <= room;
                if fits {
                    self.plan.after = Some((token, way));
                }
                // Where nothing ends in time, the way is taken as far as it goes.
                return Ok(fits || !self.way()? || self.plan.way.first() == Some(&token));
            }
        } else if budget > self.plan.way.len() + AHEAD {
            return Ok(true);
        }
        if !self.way()? {
            // No way is known from here with or without the token; nothing is gained by refusing it.
            return Ok(true);
        }
        self.fit(room)?;
        if self.plan.way.first() == Some(&token) {
            return Ok(self.plan.way.len() <= budget);
        }
        if self.plan.way.len() > budget {
            // Nothing that is known ends in time: the way is taken as far as it goes.
            return Ok(false);
        }
        let way = self.plan.way.clone();
        if way.len() <= room && self.leads(&[&[token], way.as_slice()].concat())? {
            self.plan.after = Some((token, way));
            return Ok(true);
        }
        if let Some(way) = self.mend(&[token], &way)?.filter(|way| way.len() <= room) {
            self.plan.after = Some((token, way));
            return Ok(true);
        }
        let mut after = self.trial();
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
        let far = match self.plan.track().and_then(Track::need) {
            Some(need) => budget > need + SPARE,
            None => budget > self.plan.way.len() + AHEAD,
        };
        if far || !self.way()? {
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
        let track = self.plan.track().cloned();
        if complete(&mut self.matcher)? {
            self.plan.holds = true;
        } else if let Some(way) = track.map_or(Ok(None), |track| self.told(&track, &[]))? {
            (self.plan.way, self.plan.holds, self.plan.mended) = (way, true, false);
        } else if self.leads(&old)? {
            (self.plan.way, self.plan.holds) = (old, true);
        } else if let Some(way) = self.mend(&[], &old)? {
            (self.plan.way, self.plan.holds, self.plan.mended) = (way, true, true);
        } else if let Some(way) = self.trial().find()? {
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
            && let Some(way) = self.trial().find()?
        {
            self.plan.mended = false;
            if way.len() < self.plan.way.len() {
                self.plan.way = way;
            }
        }
        Ok(())
    }

    /// The first of the ways from `track` that the engine takes behind `before`.
    fn told(&mut self, track: &Track, before: &[u32]) -> Result<Option<Vec<u32>>, MatcherError> {
        for text in track.ways(ASKED) {
            let Some(way) = self.vocabulary.fewest(text.as_bytes()) else { continue };
            if self.leads(&[before, &way].concat())? {
                return Ok(Some(way));
            }
        }
        Ok(None)
    }

    /// A way that follows `before`, made of an older one: without what is written already, or behind a bridge. Most that
    /// is tried fails at its first token, which costs far less than a search.
    fn mend(&mut self, before: &[u32], way: &[u32]) -> Result<Option<Vec<u32>>, MatcherError> {
        for written in 1..WRITTEN.min(way.len()) {
            if self.leads(&[before, &way[written..]].concat())? {
                return Ok(Some(way[written..].to_vec()));
            }
        }
        let closes = |token: &u32| self.vocabulary.piece(*token).first().is_some_and(|byte| b",}]".contains(byte));
        let rest = way.iter().position(closes).map_or(&[][..], |at| &way[at..]);
        for bridge in BRIDGES {
            let Some(bridge) = self.vocabulary.cut(bridge.as_bytes()) else { continue };
            let candidate = [&bridge, rest].concat();
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
}
