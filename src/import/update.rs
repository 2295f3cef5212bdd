//! What a module adds to its matrix, whichever kind of adapter it is from.

use super::config::Config;
use super::dequant::{BaseWeights, Matrix};
use super::error::ImportError;
use super::modules::Module;
use super::names::{Names, Target};
use super::permute;
use super::safetensors::Dtype;
use crate::gguf::ModelFacts;

/// What all modules of an import share.
pub(super) struct Context<'c> {
    pub(super) config: &'c Config,
    pub(super) base: &'c ModelFacts,
    pub(super) weights: Option<&'c dyn BaseWeights>,
    pub(super) names: &'c Names<'c>,
    /// Convert to pairs what is no pair.
    pub(super) as_lora: bool,
}

impl Context<'_> {
    /// Where a module went. Refuses embeddings and experts, which only LoRA has in a form that llama.cpp applies.
    pub(super) fn linear(&self, module: &Module<'_>) -> Result<Target, ImportError> {
        let target = self.names.find(&module.name)?;
        self.refuse_expert(module, &target)?;
        if target.embedding {
            let reason = format!("is {} on an embedding, which is not imported; train without it", self.config.kind);
            return Err(ImportError::tensor(&module.name, reason));
        }
        Ok(target)
    }

    /// Refuses experts of a mixture.
    pub(super) fn refuse_expert(&self, module: &Module<'_>, target: &Target) -> Result<(), ImportError> {
        if target.expert.is_none() {
            return Ok(());
        }
        let reason =
            format!("is {} on an expert of a mixture; only LoRA and rsLoRA are imported there", self.config.kind);
        Err(ImportError::tensor(&module.name, reason))
    }

    /// The dequantized matrix of the base model, with its rows in GGUF order.
    pub(super) fn base_matrix(&self, target: &Target) -> Result<Matrix, ImportError> {
        let Some(weights) = self.weights else {
            let reason = format!("is needed to import {}, and its weights were not given", self.config.kind);
            return Err(ImportError::base(&target.tensor, reason));
        };
        target.check_whole()?;
        let matrix = weights.dequantized(&target.tensor)?;
        if matrix.dim() != (target.outputs, target.inputs) {
            let reason = format!("has {:?} rows and columns in the weights, other than in the header", matrix.dim());
            return Err(ImportError::base(&target.tensor, reason));
        }
        Ok(matrix)
    }

    /// Whether the base model has a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.base.tensors.contains_key(tensor)
    }
}

/// What a module adds to its matrix.
pub(super) struct Update {
    /// Where.
    pub(super) target: Target,
    /// The number format of the source, for [`Storage::Source`](super::Storage::Source).
    pub(super) source: Dtype,
    /// How much.
    pub(super) change: Change,
    /// What its outputs are multiplied by.
    pub(super) gain: Option<Gain>,
}

/// What the outputs of a linear are multiplied by.
#[derive(Clone, Debug)]
pub(super) struct Gain {
    /// The factors less 1, in the order of GGUF rows.
    pub(super) less_one: Vec<f32>,
    /// Where they come from.
    pub(super) side: Side,
}

/// Which vector of an adapter gains come from. One of each may meet in one linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The outputs of the linear.
    Outputs,
    /// The inputs of the linear after it.
    NextInputs,
}

/// The change of a matrix, rows in GGUF order.
pub(super) enum Change {
    /// `(alpha / rank) * b * a`: `b` of `[outputs, rank]`, `a` of `[rank, inputs]`.
    Factors { a: Matrix, b: Matrix, alpha: f64 },
    /// The whole difference, `[outputs, inputs]`.
    Whole(Matrix),
    /// None beside a gain.
    Nothing,
}

/// Checks the sizes of two factors against the matrix they add to.
pub(super) fn check_sizes(module: &Module<'_>, target: &Target, a: &Matrix, b: &Matrix) -> Result<(), ImportError> {
    let refuse = |reason: String| Err(ImportError::tensor(&module.name, reason));
    if a.nrows() != b.ncols() {
        return refuse(format!("has rank {} in A and {} in B", a.nrows(), b.ncols()));
    }
    if (b.nrows(), a.ncols()) == (target.outputs, target.inputs) {
        return Ok(());
    }
    let found = (b.nrows(), a.ncols());
    if target.tensor == "output.weight" || target.embedding {
        let (ours, theirs) = if target.embedding { (target.inputs, found.1) } else { (target.outputs, found.0) };
        if ours != theirs {
            return refuse(format!(
                "is for a vocabulary of {theirs} tokens, the model has {ours}: tokens were added in training; merge \
                 the adapter into its enlarged base model"
            ));
        }
    }
    refuse(format!(
        "changes a matrix of {} rows and {} columns, '{}' has {} and {}: another base model?",
        found.0, found.1, target.tensor, target.outputs, target.inputs
    ))
}

/// Refuses a rank other than the configuration gives the module.
pub(super) fn check_rank(config: &Config, module: &Module<'_>, rank: usize) -> Result<(), ImportError> {
    match config.rank(&module.name) {
        Some(expected) if expected != rank as f64 => {
            let reason = format!("has rank {rank}, adapter_config.json says {expected}: is the configuration its own?");
            Err(ImportError::tensor(&module.name, reason))
        }
        _ => Ok(()),
    }
}

/// Puts rows into GGUF order, where they differ.
pub(super) fn rows(matrix: Matrix, target: &Target) -> Matrix {
    match target.head {
        Some(head) => permute::rows(&matrix, head),
        None => matrix,
    }
}
