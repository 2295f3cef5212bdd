//! Adapters of adapters: named mixes, chains of stages, and compositions of compositions. Pure: names in, flat stages out.
//!
//! A composition is stored in the library as a GGUF file without tensors (`adapter.type` is `composition`), so that it has a
//! digest, a card, versions and tombstones as any adapter has. Its parts are names: a part that is replaced is replaced in
//! it too. When a request uses one, it is [resolved](resolve): parts that are compositions themselves give way to their own
//! parts with the weights multiplied, until only adapters are left. A composition that contains itself is refused.

mod file;
mod resolve;

pub use file::{from_gguf, to_gguf};
pub use resolve::{Lookup, Shares, answers, equally, resolve};

use serde::{Deserialize, Serialize};

/// Most adapters of a stage once it is flat.
pub const MAX_PARTS: usize = crate::adapter::AdapterSet::MAX;
/// Most stages once it is flat.
pub const MAX_STAGES: usize = 8;
/// Most compositions inside each other.
pub const MAX_DEPTH: usize = 16;
/// Longest marker, in bytes.
pub const MAX_MARKER: usize = 256;
/// Largest weight.
const MAX_WEIGHT: f32 = 8.0;

/// A part of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// An adapter or a composition of the library.
    pub name: String,
    /// Its weight, from 0 to 8.
    pub weight: f32,
}

/// A mix of adapters that answers in one pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The parts; none is the plain base.
    pub parts: Vec<Part>,
    /// What stands before the text that this stage is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The ready format of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The parts' weights are multiplied by how well each fits the request, as shares of 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_route: bool,
    /// The text at which, inside the same answer, the next stage takes over. Without it the next stage is given the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Stages, each of which answers the answer of the one before, or goes on in it after a marker; one stage is a plain mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composition {
    /// In order; at least one.
    pub stages: Vec<Stage>,
}

/// Why a composition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// It contains itself.
    #[error("a cycle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// Too deep, too many stages, too many parts.
    #[error("'{name}' has {found} {what}, at most {most} are possible")]
    TooMany {
        /// Which composition.
        name: String,
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Several stages where one pass is needed.
    #[error("'{0}' has several stages: it can be used alone with weight 1, or as a stage of its own, not inside a mix")]
    Staged(String),
    /// A weight out of bounds.
    #[error("the weight of '{name}' is {weight}, expected a number from 0 to {MAX_WEIGHT}")]
    Weight {
        /// Which part.
        name: String,
        /// Its weight, as text.
        weight: String,
    },
    /// A marker that is none.
    #[error("the marker '{0}' must have 1 to {MAX_MARKER} bytes and no NUL, and a stage after it")]
    Marker(String),
    /// A stage that goes on in an answer has something of its own that needs a beginning or an end.
    #[error("stage {stage} {what}")]
    Inside {
        /// Which, from 1.
        stage: usize,
        /// What it cannot have.
        what: &'static str,
    },
    /// No stage.
    #[error("a composition needs at least one stage")]
    Empty,
    /// A file that is none.
    #[error("is not a composition: {0}")]
    File(String),
    /// A part could not be looked up.
    #[error("{0}")]
    Lookup(String),
}

impl Composition {
    /// Checks sizes and weights of what is written here, not of what it names.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub fn check(&self, name: &str) -> Result<(), ComposeError> {
        let too_many = |what, found, most| ComposeError::TooMany { name: name.to_owned(), what, found, most };
        if self.stages.is_empty() {
            return Err(ComposeError::Empty);
        }
        if self.stages.len() > MAX_STAGES {
            return Err(too_many("stages", self.stages.len(), MAX_STAGES));
        }
        for stage in &self.stages {
            if stage.parts.len() > MAX_PARTS {
                return Err(too_many("parts in one stage", stage.parts.len(), MAX_PARTS));
            }
            if let Some(part) = stage.parts.iter().find(|part| !(0.0..=MAX_WEIGHT).contains(&part.weight)) {
                return Err(ComposeError::Weight { name: part.name.clone(), weight: part.weight.to_string() });
            }
        }
        let last = self.stages.len() - 1;
        for (at, stage) in self.stages.iter().enumerate() {
            let Some(marker) = &stage.until else { continue };
            if at == last || marker.is_empty() || marker.len() > MAX_MARKER || marker.contains('\0') {
                return Err(ComposeError::Marker(marker.escape_debug().take(40).collect()));
            }
        }
        Ok(())
    }

    /// The names that it mentions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().flat_map(|stage| stage.parts.iter().map(|part| part.name.as_str()))
    }
}

#[cfg(test)]
mod tests;
