//! The matcher of one sequence: what may come next.

use std::sync::Arc;

use super::deferred::{Deferred, Trigger};
use super::engine::{Program, Run};
use super::error::MatcherError;
use super::guided::{Guided, Template};
use super::mask::TokenMask;
use super::vocabulary::Vocabulary;

/// Follows one sequence of tokens through a grammar.
///
/// Any error is final for the request: stop it with that error. [`MatcherError::Refused`] alone leaves the matcher
/// as it was, so that a caller that checks by `accept` can choose another token.
pub struct Matcher {
    kind: Kind,
}

enum Kind {
    Network(Box<Run>),
    Guided(Box<Guided>),
    Deferred(Box<Deferred>),
}

/// The same call for every engine.
macro_rules! each {
    ($matcher:expr, $inner:ident => $call:expr) => {
        match &mut $matcher.kind {
            Kind::Network($inner) => $call,
            Kind::Guided($inner) => $call,
            Kind::Deferred($inner) => $call,
        }
    };
}

impl Matcher {
    pub(super) fn network(program: &Arc<Program>) -> Self {
        Matcher { kind: Kind::Network(Box::new(Run::new(Arc::clone(program)))) }
    }

    pub(super) fn guided(template: &Template) -> Self {
        Matcher { kind: Kind::Guided(Box::new(template.start())) }
    }

    /// This matcher, to hold only after a marker, see [`Trigger`]. Can be nested: an answer after `</think>` in which a
    /// call may come after `<tool_call>`. `vocabulary` is the one it was compiled for.
    ///
    /// # Errors
    /// [`MatcherError::RefusedText`] if the marker is to be part of the grammar and cannot begin it.
    pub fn after(self, trigger: Trigger, vocabulary: &Arc<Vocabulary>) -> Result<Self, MatcherError> {
        let deferred = Deferred::new(Arc::clone(vocabulary), trigger, self)?;
        Ok(Matcher { kind: Kind::Deferred(Box::new(deferred)) })
    }

    /// Whether `token` may come next. End tokens may exactly when [`Matcher::may_stop`]. Costs microseconds: no
    /// mask is computed.
    ///
    /// # Errors
    /// [`MatcherError`] if a limit is reached or the engine failed.
    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        each!(self, matcher => matcher.allows(token))
    }

    /// The set of all tokens that may come next, end tokens included when [`Matcher::may_stop`]. Never empty.
    ///
    /// # Errors
    /// [`MatcherError`] if nothing may come next, a limit is reached or the engine failed.
    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        each!(self, matcher => matcher.mask())
    }

    /// How many of these tokens, from the first on, may come next one after the other. Changes nothing. End tokens end it. For a
    /// check that saves work, not for one that enforces: it may say fewer where a marker has a format begin to hold, and,
    /// of the tokens after the first, more where the engine's work limit forbids looking further.
    pub fn allows_run(&mut self, tokens: &[u32]) -> usize {
        each!(self, matcher => matcher.allows_run(tokens))
    }

    /// Appends `token` to the text.
    ///
    /// # Errors
    /// [`MatcherError::Refused`] if it is not allowed; the matcher is then unchanged. Other errors as in
    /// [`Matcher::mask`].
    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        each!(self, matcher => matcher.accept(token))
    }

    /// Whether the text so far is complete. `false` after an error of the engine.
    pub fn may_stop(&mut self) -> bool {
        each!(self, matcher => matcher.may_stop())
    }

    /// Whether the text is complete and nothing but an end token can follow.
    pub fn must_stop(&mut self) -> bool {
        each!(self, matcher => matcher.must_stop())
    }

    /// The bytes with which every continuation begins: empty where there is a choice, or where the text may stop.
    /// They can be taken without asking the model; `smoa`'s decode loop evaluates them in one step.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn forced_bytes(&mut self) -> Result<Vec<u8>, MatcherError> {
        each!(self, matcher => matcher.forced_bytes())
    }

    /// Appends text that comes without token borders, such as forced bytes that are tokenized anew. Token terminals of
    /// a grammar never match it.
    ///
    /// # Errors
    /// [`MatcherError::RefusedText`] if it is not allowed; the matcher is then unchanged. Other errors as in
    /// [`Matcher::mask`].
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<(), MatcherError> {
        each!(self, matcher => matcher.accept_bytes(bytes))
    }

    /// Whether the text is complete after `bytes`, and nothing can follow. `false` where the engine cannot tell ahead.
    pub(super) fn ends_with(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        match &mut self.kind {
            Kind::Network(run) => run.ends_with(bytes),
            Kind::Guided(_) => Ok(false),
            Kind::Deferred(deferred) => deferred.ends_with(bytes),
        }
    }

    /// Whether the format does not hold yet and any text may come: see [`Trigger`].
    pub fn is_free(&self) -> bool {
        match &self.kind {
            Kind::Network(_) | Kind::Guided(_) => false,
            Kind::Deferred(deferred) => deferred.is_free(),
        }
    }

    /// Whether an object ought to close and cannot, because a required key is not there yet.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn lacks_key(&mut self) -> Result<bool, MatcherError> {
        match &mut self.kind {
            Kind::Network(_) => Ok(false),
            Kind::Guided(guided) => guided.lacks_key(),
            Kind::Deferred(deferred) => deferred.lacks_key(),
        }
    }

    /// The token to take where the model wished to close an object with `wish` and [`Matcher::lacks_key`]: the first one
    /// of the key that is missing; the rest of the key is forced then. Without this a model that has said all it has to
    /// say would make up keys for as long as the schema lets it. `None` everywhere else.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn urge(&mut self, wish: u32) -> Result<Option<u32>, MatcherError> {
        match &mut self.kind {
            Kind::Network(_) => Ok(None),
            Kind::Guided(guided) => guided.urge(wish),
            Kind::Deferred(deferred) => deferred.urge(wish),
        }
    }

    pub(super) fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        each!(self, matcher => matcher.allows_bytes(bytes))
    }

    /// Bytes of the shortest text that completes this one. For GBNF and regular expressions exact, computed from the
    /// grammar (a token terminal counts as one byte; bytes without a token of their own are avoided, and if that
    /// cannot be the answer is `None`). `None` for schemas, whose engine cannot tell.
    pub fn least_bytes_to_finish(&mut self) -> Option<usize> {
        match &mut self.kind {
            Kind::Network(run) => run.least_bytes(),
            Kind::Guided(_) => None,
            Kind::Deferred(deferred) => deferred.least_bytes(),
        }
    }

    /// A number of tokens with which the text can certainly be completed, the end token not counted; `None` if no such
    /// number is known. An upper bound: for GBNF the least bytes, as every byte is a token; for schemas the length of
    /// the shortest way to the end that is known.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn tokens_to_finish(&mut self) -> Result<Option<usize>, MatcherError> {
        match &mut self.kind {
            Kind::Network(run) => Ok(run.least_bytes()),
            Kind::Guided(guided) => guided.tokens_to_finish(),
            Kind::Deferred(deferred) => deferred.tokens_to_finish(),
        }
    }

    /// Tokens of the shortest answer to a schema that is known, cut into as few as can be; `None` for other formats,
    /// and where none is known.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn least_tokens(&mut self) -> Result<Option<usize>, MatcherError> {
        match &mut self.kind {
            Kind::Network(_) | Kind::Deferred(_) => Ok(None),
            Kind::Guided(guided) => guided.least_tokens(),
        }
    }

    /// Whether `token` may come next when `budget` tokens are left, this one included: whether the text can still be
    /// completed after it. Costs microseconds while the end is far.
    ///
    /// # Errors
    /// As in [`Matcher::allows`].
    pub fn allows_closing(&mut self, token: u32, budget: usize) -> Result<bool, MatcherError> {
        each!(self, matcher => matcher.allows_closing(token, budget))
    }

    /// The tokens that may come next when `budget` tokens are left, this one included: those of [`Matcher::mask`]
    /// after which the text can still be completed in time. If there is none for certain, the tokens that come nearest
    /// to the end. For GBNF the set is exact by [`Matcher::tokens_to_finish`]; for schemas it holds, near the end,
    /// only tokens that close and the next one of the known way. Never empty.
    ///
    /// # Errors
    /// As in [`Matcher::mask`].
    pub fn mask_closing(&mut self, budget: usize) -> Result<&TokenMask, MatcherError> {
        each!(self, matcher => matcher.mask_closing(budget))
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").finish_non_exhaustive()
    }
}
