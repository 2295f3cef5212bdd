//! JSON Schemas, enforced by the crate `llguidance`.
//!
//! `compile` makes the engine's grammar; here it runs.
//!
//! Once a matcher of `llguidance` has failed it stays failed, and so does ours.

mod compile;
mod direct;

use std::sync::{Arc, OnceLock};

use llguidance::api::{GrammarInit, StopReason};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::compiled::MatchResult;
use super::error::{MatcherError, one_line};
use super::mask::TokenMask;
use super::path::Required;
use super::plan::{Endings, Plan};
use super::unique::{Follower, UniqueArrays};
use super::vocabulary::Vocabulary;
pub(super) use compile::{from_calls, from_schema};
use compile::{on_a_large_stack, parser};

/// After this many tokens or bytes without a mask, one is worked out for its side effect.
///
/// The engine's work limit is renewed only by a mask. Without this a long text checked token by token would use the
/// limit of one step for all of it, and then every token would be refused.
const RENEW: usize = 4;

/// A compiled schema.
pub(super) struct Template {
    vocabulary: Arc<Vocabulary>,
    grammar: GrammarInit,
    /// Never advanced; every sequence gets a copy with caches of its own.
    matcher: Matcher,
    /// The same over single bytes, for [`Template::matches`].
    bytes: OnceLock<Matcher>,
    /// Bytes of the rewritten schema.
    size: usize,
    references: usize,
    /// Arrays whose items must differ, if there are any.
    unique: Option<Arc<UniqueArrays>>,
    /// Keys that objects require.
    required: Arc<Required>,
    /// How its values end; none around calls of tools.
    endings: Option<Arc<Endings>>,
}

impl Template {
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    pub fn start(&self) -> Guided {
        Guided {
            vocabulary: Arc::clone(&self.vocabulary),
            matcher: self.matcher.deep_clone(),
            follower: self.unique.clone().map(Follower::new),
            mask: None,
            unmasked: 0,
            finished: false,
            plan: Plan::new(Arc::clone(&self.required), self.endings.clone()),
            closing: TokenMask::default(),
            urged: Vec::new(),
        }
    }

    /// See [`Compiled::matches`](super::Compiled::matches).
    pub fn matches(&self, text: &[u8]) -> Result<MatchResult, MatcherError> {
        let matcher = match self.bytes.get() {
            Some(matcher) => matcher,
            None => {
                let factory = byte_factory()?;
                let matcher = on_a_large_stack(self.references, || parser(factory, &self.grammar));
                let matcher = matcher.map_err(|error| engine(&error))?;
                self.bytes.get_or_init(|| matcher)
            }
        };
        let result = match_bytes(matcher.deep_clone(), text, RENEW)
            // The work limit was for too many bytes at once.
            .or_else(|_| match_bytes(matcher.deep_clone(), text, 1))?;
        if let Some(arrays) = &self.unique {
            let taken = if let MatchResult::Rejected { at } = result { at } else { text.len() };
            let mut follower = Follower::new(Arc::clone(arrays));
            for (at, byte) in text[..taken].iter().enumerate() {
                if follower.feed(&[*byte]).is_err() {
                    return Ok(MatchResult::Rejected { at });
                }
            }
        }
        Ok(result)
    }

    /// Bytes held, roughly: the engine does not tell. Its automata take some hundred times the text.
    pub fn bytes(&self) -> usize {
        (256 << 10) + self.size * 200
    }
}

/// Follows `text` from its beginning, `step` bytes at a time.
fn match_bytes(mut matcher: Matcher, text: &[u8], step: usize) -> Result<MatchResult, MatcherError> {
    // Byte 0xFF is in no text, and is no token of the byte vocabulary.
    let plain = text.split(|&byte| byte == 0xFF).next().unwrap_or_default();
    let tokens: Vec<u32> = plain.iter().map(|&byte| u32::from(byte)).collect();
    let mut taken = 0;
    for part in tokens.chunks(step) {
        let count = matcher.try_consume_tokens(part).map_err(|error| engine(&error))?;
        taken += count;
        if matcher.is_stopped() {
            break;
        }
        // Also tells a refusal by the work limit from one by the schema.
        matcher.compute_mask().map_err(|error| engine(&error))?;
        if count < part.len() {
            break;
        }
    }
    if taken < text.len() {
        return Ok(MatchResult::Rejected { at: taken });
    }
    Ok(match complete(&mut matcher)? {
        true => MatchResult::Complete,
        false => MatchResult::Prefix,
    })
}

/// One sequence.
pub(super) struct Guided {
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) matcher: Matcher,
    pub(super) follower: Option<Follower>,
    /// The mask here, if it is known.
    pub(super) mask: Option<TokenMask>,
    /// Tokens accepted since the last mask.
    unmasked: usize,
    /// An end token was accepted.
    finished: bool,
    /// How the text can be brought to its end, see `plan`.
    pub(super) plan: Plan,
    /// The last closing mask.
    pub(super) closing: TokenMask,
    /// Text that is to come next although there is a choice, see `plan`.
    pub(super) urged: Vec<u8>,
}

impl Guided {
    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        self.check()?;
        if self.vocabulary.is_end(token) {
            return complete(&mut self.matcher);
        }
        if !self.vocabulary.is_text(token) || self.matcher.is_stopped() {
            return Ok(false);
        }
        let piece = self.vocabulary.piece(token);
        let follows = self.follower.as_ref().is_none_or(|follower| follower.allows(piece));
        Ok(follows && self.matcher.validate_tokens(&[token]).map_err(|error| engine(&error))? == 1)
    }

    /// See [`Matcher::allows_run`](super::Matcher::allows_run). Looks at no more tokens than the engine's work limit is
    /// for, which is renewed with the next mask.
    pub fn allows_run(&mut self, tokens: &[u32]) -> usize {
        let text = |token: &u32| self.vocabulary.is_text(*token) && !self.vocabulary.is_end(*token);
        let until = tokens.iter().position(|token| !text(token)).unwrap_or(tokens.len());
        let looked = until.min(RENEW.saturating_sub(self.unmasked).max(1));
        if self.check().is_err() || self.matcher.is_stopped() {
            return 0;
        }
        let mut follower = self.follower.clone();
        let vocabulary = &self.vocabulary;
        let mut fed = |token: &u32| follower.as_mut().is_none_or(|f| f.feed(vocabulary.piece(*token)).is_ok());
        let follow = tokens[..looked].iter().take_while(|token| fed(token)).count();
        match self.matcher.validate_tokens(&tokens[..follow]) {
            Ok(all) if all == looked => until,
            Ok(some) => some,
            Err(_) => 0,
        }
    }

    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        // Asked first, because a token that the engine itself refuses leaves it failed.
        if !self.allows(token)? {
            return Err(MatcherError::Refused { token });
        }
        if self.vocabulary.is_end(token) {
            self.finished = true;
            return Ok(());
        }
        self.mask = None;
        self.matcher.consume_token(token).map_err(|error| engine(&error))?;
        self.plan.follow(token);
        let vocabulary = Arc::clone(&self.vocabulary);
        self.plan.add(vocabulary.piece(token));
        self.follow_urge(vocabulary.piece(token));
        if let Some(follower) = &mut self.follower {
            follower.feed(self.vocabulary.piece(token)).map_err(|_| MatcherError::Refused { token })?;
        }
        self.unmasked += 1;
        if self.unmasked >= RENEW && !self.matcher.is_stopped() {
            self.mask = Some(self.compute_mask()?);
        }
        Ok(())
    }

    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        self.check()?;
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.compute_mask()?,
        };
        if mask.is_empty() {
            return Err(MatcherError::DeadEnd);
        }
        Ok(self.mask.insert(mask))
    }

    fn compute_mask(&mut self) -> Result<TokenMask, MatcherError> {
        let complete = complete(&mut self.matcher)?;
        let tokens = self.vocabulary.len();
        let mut mask = match self.matcher.is_stopped() {
            true => TokenMask::empty(tokens),
            false => {
                let set = self.matcher.compute_mask().map_err(|error| engine(&error))?;
                TokenMask::from_words(set.as_slice(), tokens)
            }
        };
        if let Some(follower) = &self.follower {
            let piece = |token: &u32| self.vocabulary.piece(*token);
            let concerned = follower.concerned(&mask, self.vocabulary.concerned());
            let refused: Vec<u32> = concerned.filter(|token| !follower.allows(piece(token))).collect();
            refused.into_iter().for_each(|token| mask.remove(token));
        }
        for &end in self.vocabulary.end_tokens() {
            match complete {
                true => mask.insert(end),
                false => mask.remove(end),
            }
        }
        self.unmasked = 0;
        Ok(mask)
    }

    pub fn may_stop(&mut self) -> bool {
        self.check().is_ok() && complete(&mut self.matcher).unwrap_or(false)
    }

    pub fn must_stop(&mut self) -> bool {
        self.may_stop() && self.matcher.is_stopped()
    }

    pub(super) fn check(&self) -> Result<(), MatcherError> {
        if self.finished {
            return Err(MatcherError::Finished);
        }
        match self.matcher.get_error() {
            Some(message) => Err(MatcherError::Engine { message: one_line(&message) }),
            None => Ok(()),
        }
    }
}

/// Whether the text so far is a whole value.
pub(super) fn complete(matcher: &mut Matcher) -> Result<bool, MatcherError> {
    match matcher.stop_reason() {
        // It stops by itself only where the text is complete and nothing can follow.
        StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence => Ok(true),
        _ => matcher.is_accepting().map_err(|error| engine(&error)),
    }
}

pub(super) fn engine(error: &impl std::fmt::Display) -> MatcherError {
    MatcherError::Engine { message: one_line(&error.to_string()) }
}

/// A parser factory over `environment`. `slices`: sets of tokens whose masks are worked out ahead.
pub(super) fn factory(environment: &TokEnv, slices: &[String]) -> Result<ParserFactory, String> {
    let mut factory = ParserFactory::new(environment, InferenceCapabilities::default(), slices)
        .map_err(|error| one_line(&error.to_string()))?;
    factory.quiet();
    // Messages for users, not dumps of the parser.
    factory.limits_mut().verbose_errors = false;
    // A thousand optional keys are some four thousand items.
    factory.limits_mut().max_items_in_row = 10_000;
    // Some 70 ms for one mask, where the default of 14 ms fails patterns that count words and characters at once.
    factory.limits_mut().step_lexer_fuel = 1_000_000;
    Ok(factory)
}

/// The factory for texts without tokens: every byte is one, 256 ends.
fn byte_factory() -> Result<&'static ParserFactory, MatcherError> {
    static FACTORY: OnceLock<Result<ParserFactory, String>> = OnceLock::new();
    FACTORY
        .get_or_init(|| {
            let words: Vec<Vec<u8>> = (0..=256u32)
                .map(|id| u8::try_from(id).ok().filter(|&byte| byte != 0xFF))
                .map(|byte| byte.into_iter().collect())
                .collect();
            let trie = TokTrie::from(&TokRxInfo::new(257, 256), &words);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            factory(&environment, &[])
        })
        .as_ref()
        .map_err(|message| MatcherError::Engine { message: message.clone() })
}
