//! LoRA and rsLoRA: the factors as they are, with the rows of B in GGUF order.

use super::dequant::Matrix;
use super::error::ImportError;
use super::modules::{Module, Role};
use super::names::Target;
use super::safetensors::Dtype;
use super::update::{Change, Context, Update, check_rank, check_sizes, rows};

/// The factors of a module.
pub(super) struct Pair {
    pub(super) target: Target,
    pub(super) source: Dtype,
    /// `[rank, inputs]`.
    pub(super) a: Matrix,
    /// `[outputs, rank]`, rows in GGUF order.
    pub(super) b: Matrix,
    /// The alpha that is divided by the rank.
    pub(super) alpha: f64,
}

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let Pair { target, source, a, b, alpha } = pair(context, module)?;
    let change = Change::Factors { a, b, alpha };
    Ok(Update { target, source, change, gain: None })
}

/// Reads the factors of a module.
pub(super) fn pair(context: &Context<'_>, module: &Module<'_>) -> Result<Pair, ImportError> {
    let target = context.names.find(&module.name)?;
    let embedded = module.get(Role::EmbeddingA).is_some() || module.get(Role::EmbeddingB).is_some();
    if embedded != target.embedding {
        let reason = format!("has the factors of {}", if embedded { "an embedding" } else { "a linear" });
        return Err(ImportError::tensor(&module.name, reason));
    }
    let (a, b) = match embedded {
        true => {
            (module.need(Role::EmbeddingA, "lora_embedding_A")?, module.need(Role::EmbeddingB, "lora_embedding_B")?)
        }
        false => (module.need(Role::A, "lora_A")?, module.need(Role::B, "lora_B")?),
    };
    let source = if a.dtype == b.dtype { a.dtype } else { Dtype::F32 };
    let (a, b) = (a.matrix()?, b.matrix()?);
    check_sizes(module, &target, &a, &b)?;
    let rank = a.nrows();
    check_rank(context.config, module, rank)?;
    Ok(Pair { alpha: context.config.effective_alpha(&module.name, rank), b: rows(b, &target), target, source, a })
}
