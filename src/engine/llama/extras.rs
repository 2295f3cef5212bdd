//! What adapters bring that is not a change of a linear: rows of soft prompts, and control vectors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::engine::EngineError;
use crate::gguf::{AdapterKind, ModelFacts, control_directions, soft_prompt_rows};

/// Soft prompts and control vectors of loaded adapters.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// `[rows][n_embd]`.
    soft: HashMap<AdapterDigest, Vec<f32>>,
    /// `[n_layer - 1][n_embd]`, from layer 1.
    control: HashMap<AdapterDigest, Vec<f32>>,
    /// The first and the last layer after which control vectors act; all when not given.
    layers: Option<(u32, u32)>,
}

impl Extras {
    /// `layers`: the first and the last layer after which control vectors act.
    pub(super) fn new(layers: Option<(u32, u32)>) -> Self {
        Self { layers, ..Self::default() }
    }

    /// Reads what a file of these kinds holds; false for other kinds.
    pub(super) fn load(&mut self, file: &AdapterFile, base: &ModelFacts) -> Result<bool, EngineError> {
        let refused = |reason: String| EngineError::Adapter { name: file.label(), reason };
        match file.facts().kind {
            AdapterKind::SoftPrompt { .. } => {
                if let Entry::Vacant(place) = self.soft.entry(file.digest()) {
                    place.insert(soft_prompt_rows(file.bytes()).map_err(|e| refused(e.to_string()))?);
                }
            }
            AdapterKind::ControlVector { .. } => {
                if let Entry::Vacant(place) = self.control.entry(file.digest()) {
                    let mut directions = control_directions(file.bytes(), base).map_err(|e| refused(e.to_string()))?;
                    for (at, direction) in directions.chunks_mut((base.n_embd as usize).max(1)).enumerate() {
                        // They begin with layer 1.
                        let layer = at as u32 + 1;
                        if self.layers.is_some_and(|(first, last)| !(first..=last).contains(&layer)) {
                            direction.fill(0.0);
                        }
                    }
                    place.insert(directions);
                }
            }
            // Text only: the pipeline has put it into the prompt.
            AdapterKind::PrefixState { .. } => (),
            AdapterKind::Lora | AdapterKind::Alora | AdapterKind::Gain => return Ok(false),
        }
        Ok(true)
    }

    /// Forgets what is not in use.
    pub(super) fn keep(&mut self, in_use: impl Fn(&AdapterDigest) -> bool) {
        self.soft.retain(|digest, _| in_use(digest));
        self.control.retain(|digest, _| in_use(digest));
    }

    /// Whether the adapter is one of these.
    pub(super) fn has(&self, digest: &AdapterDigest) -> bool {
        self.soft.contains_key(digest) || self.control.contains_key(digest)
    }

    /// Whether a set steers the model with a control vector, which llama.cpp applies to whole batches.
    pub(super) fn steers(&self, set: &AdapterSet) -> bool {
        set.members().iter().any(|(digest, _)| self.control.contains_key(digest))
    }

    /// The weighted sum of a set's control vectors; empty without one.
    pub(super) fn direction(&self, set: &AdapterSet) -> Vec<f32> {
        let mut sum: Vec<f32> = Vec::new();
        for (digest, scale) in set.members() {
            let Some(one) = self.control.get(digest) else { continue };
            sum.resize(one.len(), 0.0);
            sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += scale.get() * one);
        }
        sum
    }

    /// Row `index` of the soft prompts of a set, scaled; `None` beyond the last.
    pub(super) fn row(&self, set: &AdapterSet, mut index: usize, width: usize) -> Option<Vec<f32>> {
        for (digest, scale) in set.members() {
            let Some(rows) = self.soft.get(digest) else { continue };
            let n = rows.len() / width.max(1);
            if index < n {
                let row = &rows[index * width..][..width];
                return Some(row.iter().map(|v| v * scale.get()).collect());
            }
            index -= n;
        }
        None
    }
}
