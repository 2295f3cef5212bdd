//! A grammar ready for use with one vocabulary.

use std::sync::Arc;

use super::deferred::Trigger;
use super::engine::Program;
use super::error::MatcherError;
use super::guided::Template;
use super::matcher::Matcher;
use super::report::SchemaReport;

/// What a whole text is to a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchResult {
    /// The text is a sentence of the grammar.
    Complete,
    /// The text is the beginning of a sentence.
    Prefix,
    /// No sentence begins like this.
    Rejected {
        /// Index of the first byte that cannot be.
        at: usize,
    },
}

/// A compiled grammar. Shared between requests; each takes its own [`Matcher`].
pub struct Compiled {
    kind: Kind,
    schema: Option<SchemaReport>,
}

enum Kind {
    Network(Arc<Program>),
    Guided(Box<Template>),
}

impl Compiled {
    pub(super) fn network(program: Arc<Program>) -> Self {
        Compiled { kind: Kind::Network(program), schema: None }
    }

    pub(super) fn guided(template: Template, schema: Option<SchemaReport>) -> Self {
        Compiled { kind: Kind::Guided(Box::new(template)), schema }
    }

    /// What a JSON Schema demands beyond what the [`Matcher`] enforces, and where the matcher is stricter than the
    /// schema. `None` for other grammars.
    pub fn schema(&self) -> Option<&SchemaReport> {
        self.schema.as_ref()
    }

    /// A matcher at the beginning of the text.
    pub fn matcher(&self) -> Matcher {
        match &self.kind {
            Kind::Network(program) => Matcher::network(program),
            Kind::Guided(template) => Matcher::guided(template),
        }
    }

    /// A matcher that begins to hold after a marker, see [`Trigger`].
    ///
    /// # Errors
    /// As [`Matcher::after`].
    pub fn matcher_after(&self, trigger: &Trigger) -> Result<Matcher, MatcherError> {
        let vocabulary = match &self.kind {
            Kind::Network(program) => program.vocabulary(),
            Kind::Guided(template) => template.vocabulary(),
        };
        self.matcher().after(trigger.clone(), vocabulary)
    }

    /// Holds a whole text against the grammar, byte by byte, without tokens.
    ///
    /// A token terminal `<[id]>` matches the bytes of that token; `!<[id]>` matches the bytes of any other token.
    ///
    /// # Errors
    /// [`MatcherError`] if the work or memory limit is reached, as in a [`Matcher`].
    pub fn matches(&self, text: &[u8]) -> Result<MatchResult, MatcherError> {
        match &self.kind {
            Kind::Network(program) => program.matches(text),
            Kind::Guided(template) => template.matches(text),
        }
    }

    /// Bytes held, for the cache: an estimate from above where exact counting would cost more than it tells.
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Network(program) => program.bytes(),
            Kind::Guided(template) => template.bytes(),
        }
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Network(_) => "network",
            Kind::Guided(_) => "guided",
        };
        f.debug_struct("Compiled").field("kind", &kind).finish_non_exhaustive()
    }
}
