//! The state of one sequence, taken out of an engine: what it holds, and which engines can take it back. Pure.
//!
//! A state is a saving, never an answer: whoever has none, or one that does not fit, evaluates the tokens again.

mod file;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Token;
use crate::adapter::{HeldBytes, Timeline};

pub use file::{FORMAT, SavedError};

/// What the bytes of a state depend on beside the tokens and the adapters. Two engines with equal stamps can exchange
/// states.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The model: a digest of its content.
    pub model: String,
    /// The engine's build, such as the version of llama.cpp.
    pub build: String,
    /// Number formats of the key-value cache, and how it lays out values.
    pub cache: String,
    /// How positions are turned into rotations.
    pub positions: String,
}

impl Stamp {
    /// What differs between a saved stamp (`self`) and an engine's own, as one line; `None` when they are equal.
    pub fn differs(&self, own: &Stamp) -> Option<String> {
        let fields = [
            ("model", &self.model, &own.model),
            ("build", &self.build, &own.build),
            ("cache", &self.cache, &own.cache),
            ("positions", &self.positions, &own.positions),
        ];
        let differing = fields.iter().filter(|(_, saved, own)| saved != own);
        let lines: Vec<String> = differing
            .map(|(name, saved, own)| format!("its {name} is '{}', this engine's '{own}'", saved.escape_debug()))
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// A short name for what is stamped so: 16 hexadecimal digits.
    pub fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("smoa state stamp 1");
        for text in [&self.model, &self.build, &self.cache, &self.positions] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().as_str()[..16].to_owned()
    }
}

/// A sequence as it was saved.
pub struct Saved {
    /// The tokens evaluated in it, in order; never empty.
    pub tokens: Vec<Token>,
    /// The adapter sets they were evaluated under.
    pub sets: Timeline,
    /// Where the state's bytes are, in `held`.
    range: Range<usize>,
    held: Box<dyn HeldBytes>,
}

impl Saved {
    /// A state as an engine gave it.
    pub fn new(tokens: Vec<Token>, sets: Timeline, state: Vec<u8>) -> Self {
        Self { tokens, sets, range: 0..state.len(), held: Box::new(state) }
    }

    /// The engine's own bytes.
    pub fn state(&self) -> &[u8] {
        self.held.bytes().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Saved({} tokens, {} bytes)", self.tokens.len(), self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn stamp() -> Stamp {
        let text = |text: &str| text.to_owned();
        Stamp { model: text("m"), build: text("b"), cache: text("k f16"), positions: text("own") }
    }

    #[test]
    fn stamps_name_what_differs() {
        assert_eq!(stamp().differs(&stamp()), None);
        assert_eq!(stamp().key(), stamp().key());
        for name in ["model", "build", "cache", "positions"] {
            let mut other = stamp();
            match name {
                "model" => other.model.push('x'),
                "build" => other.build.push('x'),
                "cache" => other.cache.push('x'),
                _ => other.positions.push('x'),
            }
            let line = other.differs(&stamp()).expect("they differ");
            assert!(line.starts_with(&format!("its {name} is ")) && !line.contains(';'), "{line}");
            assert_ne!(other.key(), stamp().key(), "{name}");
        }
    }
}
