//! The matcher of one sequence: what may come next.

use std::sync::Arc;

use super::engine::{Program, Run};
use super::error::MatcherError;
use super::guided::{Guided, Template};
use super::mask::TokenMask;

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
}

impl Matcher {
    pub(super) fn network(program: &Arc<Program>) -> Self {
        Matcher { kind: Kind::Network(Box::new(Run::new(Arc::clone(program)))) }
    }

    pub(super) fn guided(template: &Template) -> Self {
        Matcher { kind: Kind::Guided(Box::new(template.start())) }
    }

    /// Whether `token` may come next. End tokens may exactly when [`Matcher::may_stop`]. Costs microseconds: no
    /// mask is computed.
    ///
    /// # Errors
    /// [`MatcherError`] if a limit is reached or the engine failed.
    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        match &mut self.kind {
            Kind::Network(run) => run.allows(token),
            Kind::Guided(guided) => guided.allows(token),
        }
    }

    /// The set of all tokens that may come next, end tokens included when [`Matcher::may_stop`]. Never empty.
    ///
    /// # Errors
    /// [`MatcherError`] if nothing may come next, a limit is reached or the engine failed.
    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        match &mut self.kind {
            Kind::Network(run) => run.mask(),
            Kind::Guided(guided) => guided.mask(),
        }
    }

    /// Appends `token` to the text.
    ///
    /// # Errors
    /// [`MatcherError::Refused`] if it is not allowed; the matcher is then unchanged. Other errors as in
    /// [`Matcher::mask`].
    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        match &mut self.kind {
            Kind::Network(run) => run.accept(token),
            Kind::Guided(guided) => guided.accept(token),
        }
    }

    /// Whether the text so far is complete. `false` after an error of the engine.
    pub fn may_stop(&mut self) -> bool {
        match &mut self.kind {
            Kind::Network(run) => run.may_stop(),
            Kind::Guided(guided) => guided.may_stop(),
        }
    }

    /// Whether the text is complete and nothing but an end token can follow.
    pub fn must_stop(&mut self) -> bool {
        match &mut self.kind {
            Kind::Network(run) => run.must_stop(),
            Kind::Guided(guided) => guided.must_stop(),
        }
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").finish_non_exhaustive()
    }
}
