//! The ways to choose, by name.

use std::fmt;
use std::str::FromStr;

/// How adapters are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    /// Words alone (BM25).
    Keyword,
    /// Meaning alone (cosines of embeddings).
    Semantic,
    /// The tags that the request asks for or names; what fits equally well is ordered by [`Strategy::Hybrid`].
    Task,
    /// Words and meaning, weighed by how much text an adapter has.
    #[default]
    Hybrid,
    /// Coarse to fine along the adapters' paths: first the domain, then the specialty, then the adapter.
    Hierarchical,
    /// The best few together, each with its share.
    Mixture,
    /// A network trained on this library's example prompts; for adapters it does not know, [`Strategy::Hybrid`].
    Learned,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Keyword, Self::Semantic, Self::Task, Self::Hybrid, Self::Hierarchical, Self::Mixture, Self::Learned];

    /// The name in flags and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Semantic => "semantic",
            Self::Task => "task",
            Self::Hybrid => "hybrid",
            Self::Hierarchical => "hierarchical",
            Self::Mixture => "mixture",
            Self::Learned => "learned",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no strategy of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no strategy '{0}'; known are keyword, semantic, task, hybrid, hierarchical, mixture and learned")]
pub struct UnknownStrategy(String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.name() == text);
        found.ok_or_else(|| UnknownStrategy(text.chars().take(40).collect()))
    }
}
