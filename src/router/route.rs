//! What goes into a decision and what comes out.

use crate::adapter::AdapterDigest;

use super::Strategy;
use super::index::{CLOSE, Candidate};

/// What the index (and, for some strategies, the head) says of one adapter for one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Which adapter.
    pub digest: AdapterDigest,
    /// The best cosine over its vectors, from -1 to 1.
    pub semantic: f32,
    /// The cosine with the centroid of its example prompts; with its name where it has none.
    pub centroid: f32,
    /// The cosine with its name and description.
    pub name: f32,
    /// The share of the request's words that its text holds, from 0 to 1.
    pub keyword: f32,
    /// How many vectors it has: 1 where only its name and description are known.
    pub vectors: usize,
    /// Natural logarithm of the probability that a trained head gives it; `None` where the head does not know it.
    pub learned: Option<f32>,
    /// The cosines with its nearest example prompts, best first; -1 where it has no more.
    pub close: [f32; CLOSE],
}

impl Evidence {
    /// What the index says, with the log probability that a head gives.
    pub fn of(candidate: Candidate, learned: Option<f32>) -> Self {
        let Candidate { digest, semantic, centroid, name_similarity: name, keyword, vectors, close } = candidate;
        Self { digest, semantic, centroid, name, keyword, vectors, learned, close }
    }

    /// The mean cosine of its nearest example prompts.
    pub fn nearest(&self) -> f32 {
        let known = self.close.iter().filter(|cosine| **cosine > -1.0);
        known.clone().sum::<f32>() / known.count().max(1) as f32
    }
}

/// What the catalogue says of an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// `domain/specialty/task`, or nothing.
    pub path: String,
    /// Free tags, domains, skills and tasks.
    pub tags: Vec<String>,
    /// The format its answers have unless the request says otherwise.
    pub format: Option<String>,
}

/// Looks adapters up. A library behind it may change; a decision asks for each adapter at most once.
pub trait Catalogue {
    /// What is known of an adapter; `None` if it is not there any more, which takes it out of the decision.
    fn facts(&self, digest: AdapterDigest) -> Option<Facts>;
}

/// How to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The way to choose.
    pub strategy: Strategy,
    /// Most adapters in the route, 1 to [`AdapterSet::MAX`](crate::adapter::AdapterSet::MAX).
    pub top_k: usize,
    /// Least confidence with which an adapter is chosen; below it, the plain base answers. `None`: an adapter is chosen
    /// where it is likelier right than that no adapter is for the request.
    pub threshold: Option<f32>,
    /// Tags that the request asks for (its metadata `tag`, `domain`, `skill`, `task`), for [`Strategy::Task`].
    pub wanted: Vec<String>,
}

impl Policy {
    /// A strategy with what it takes by itself: one adapter, for a mixture three.
    pub fn of(strategy: Strategy) -> Self {
        let top_k = if strategy == Strategy::Mixture { 3 } else { 1 };
        Self { strategy, top_k, threshold: None, wanted: Vec::new() }
    }
}

/// An adapter of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Which one.
    pub digest: AdapterDigest,
    /// Its name when the decision was made.
    pub name: String,
    /// Its weight: 1 when it is alone, its share when several are mixed.
    pub weight: f32,
}

/// An adapter that was looked at, with what spoke for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Its name.
    pub name: String,
    /// What the strategy made of the evidence.
    pub score: f32,
    /// Its share among the candidates; the shares of all candidates sum to at most 1.
    pub share: f32,
    /// What it was made of.
    pub evidence: Evidence,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// How it was made.
    pub strategy: Strategy,
    /// What to apply, best first. Empty: the plain base answers.
    pub adapters: Vec<Chosen>,
    /// The probability that the best candidate is the right one, from 0 to 1.
    pub confidence: f32,
    /// The probability that any adapter is for the request, from 0 to 1.
    pub scope: f32,
    /// The best adapter's own format.
    pub format: Option<String>,
    /// In one sentence, why.
    pub reason: String,
    /// The best candidates, best first, whether chosen or not; at most [`Route::CANDIDATES`].
    pub candidates: Vec<Ranked>,
}

impl Route {
    /// Candidates that a route tells of.
    pub const CANDIDATES: usize = 8;

    /// The plain base, for a reason.
    pub fn base(strategy: Strategy, reason: impl Into<String>) -> Self {
        Self {
            strategy,
            adapters: Vec::new(),
            confidence: 0.0,
            scope: 0.0,
            format: None,
            reason: reason.into(),
            candidates: Vec::new(),
        }
    }
}
