//! The one error of the import: which part of the folder, why, and the way out. One line, safe to print.

use crate::gguf::{GgufError, escape};

/// Characters of a text of the file that an error repeats.
const MAX_SHOWN: usize = 200;

/// An adapter was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// A field of the configuration cannot be honoured.
    #[error("adapter_config.json: '{field}' {reason}")]
    Config {
        /// The field.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration is not what it should be as a whole.
    #[error("adapter_config.json: {reason}")]
    NotConfig {
        /// Why, and what to do.
        reason: String,
    },
    /// A tensor of the adapter cannot be carried over.
    #[error("adapter_model.safetensors: '{tensor}' {reason}")]
    Tensor {
        /// The tensor or module, as the file names it.
        tensor: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The weights file as a whole is damaged or too large.
    #[error("adapter_model.safetensors: {reason}")]
    Weights {
        /// Why, and what to do.
        reason: String,
    },
    /// The weights are a pickle or an archive around one. Reading those can run code, so they never are.
    #[error(
        "adapter weights: {found} is refused unread, since reading a pickle can run code; \
         save the adapter with safetensors (save_pretrained does so by default)"
    )]
    Pickle {
        /// What was found: `a zip archive (PyTorch checkpoint)`, `a pickle`.
        found: &'static str,
    },
    /// The base model lacks what the conversion needs.
    #[error("base model: '{tensor}' {reason}")]
    Base {
        /// The tensor or key of the base model.
        tensor: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The conversion lost more than was allowed.
    #[error(
        "{kind} as LoRA of rank {rank} misses {:.1}% of the change (worst: '{tensor}' with {:.1}%), the limit is \
         {:.1}%; choose a higher rank or accept the error",
        error * 100.0, worst * 100.0, limit * 100.0
    )]
    TooInexact {
        /// What was converted.
        kind: &'static str,
        /// The largest rank it was converted to.
        rank: u32,
        /// The relative error over all matrices.
        error: f32,
        /// The matrix with the largest error.
        tensor: String,
        /// Its error.
        worst: f32,
        /// The limit.
        limit: f32,
    },
    /// A line of a file of examples.
    #[error("examples, line {line}: {reason}")]
    Example {
        /// The line, from 1.
        line: usize,
        /// Why, and what to do.
        reason: String,
    },
    /// The GGUF adapter that was given is refused.
    #[error(transparent)]
    Gguf(GgufError),
    /// The adapter as converted does not fit the base model.
    #[error("as converted, {0}")]
    Result(GgufError),
}

impl ImportError {
    /// An error about a field of the configuration.
    pub(super) fn config(field: &str, reason: impl AsRef<str>) -> Self {
        Self::Config { field: shown(field), reason: shown(reason.as_ref()) }
    }

    /// An error about a tensor of the adapter.
    pub(super) fn tensor(tensor: &str, reason: impl AsRef<str>) -> Self {
        Self::Tensor { tensor: shown(tensor), reason: shown(reason.as_ref()) }
    }

    /// An error about the weights file.
    pub(super) fn weights(reason: impl AsRef<str>) -> Self {
        Self::Weights { reason: shown(reason.as_ref()) }
    }

    /// An error about the base model.
    pub(super) fn base(tensor: &str, reason: impl AsRef<str>) -> Self {
        Self::Base { tensor: shown(tensor), reason: shown(reason.as_ref()) }
    }
}

/// A text of a file made printable on one line, long ones cut.
pub(super) fn shown(text: &str) -> String {
    escape(text, MAX_SHOWN * 2)
}
