//! The linears of a base model, numbered.

use std::collections::HashMap;

use crate::gguf::ModelFacts;

/// The matrices of the base that an adapter can change, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    names: Vec<String>,
    /// Inputs and outputs of each.
    shapes: Vec<(usize, usize)>,
    by_name: HashMap<String, usize>,
}

impl Sites {
    /// The plain matrices of a model: no norms, no biases, no embedding tables, no stacks of experts.
    pub fn of(base: &ModelFacts) -> Self {
        let mut found: Vec<(&String, (usize, usize))> = base
            .tensors
            .iter()
            .filter(|(name, shape)| is_linear(name) && shape[0] > 1 && shape[1] > 1 && shape[2..] == [1, 1])
            .filter_map(|(name, shape)| {
                Some((name, (usize::try_from(shape[0]).ok()?, usize::try_from(shape[1]).ok()?)))
            })
            .collect();
        found.sort_unstable();
        let by_name = found.iter().enumerate().map(|(i, (name, _))| ((*name).clone(), i)).collect();
        Self {
            shapes: found.iter().map(|(_, shape)| *shape).collect(),
            names: found.into_iter().map(|(name, _)| name.clone()).collect(),
            by_name,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Their names with inputs and outputs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.names.iter().zip(&self.shapes).map(|(name, (n_in, n_out))| (name.as_str(), *n_in, *n_out))
    }

    /// The number of a tensor.
    pub fn find(&self, tensor: &str) -> Option<usize> {
        self.by_name.get(tensor).copied()
    }

    /// Inputs and outputs of a site.
    pub fn shape(&self, site: usize) -> (usize, usize) {
        self.shapes[site]
    }
}

/// Tables that are looked up, not multiplied with, and weights that llama.cpp reads without asking for adapters.
fn is_linear(name: &str) -> bool {
    const OTHERS: [&str; 8] = ["embd", "token_types", "_norm", "norm.", "conv", "rope_", "tid2eid", "ssm_"];
    name.ends_with(".weight") && !OTHERS.iter().any(|other| name.contains(other))
}
