//! Soft prompts: trained embeddings that stand in front of the prompt's (prompt tuning, P-tuning).
//!
//! `adapter.type` is `soft_prompt`; one tensor, `prompt_embeddings` of `[n_embd, tokens]` in F32 or F16, rows in the
//! order of positions. The numbers are inputs of the first layer: what a token's row of `token_embd` is, after any
//! scaling that the model applies to tokens only.

use half::f16;

use super::super::error::{GgufError, GgufErrorKind};
use super::super::header::Gguf;
use super::super::limits::MAX_SOFT_PROMPT_TOKENS;
use super::super::model::ModelFacts;
use super::super::tensor::TensorType;
use super::super::write::GgufWriter;
use super::pairs::check_numbers;
use super::{ADAPTER_TYPE, ARCHITECTURE, AdapterFacts, AdapterKind, GENERAL_TYPE};

use GgufErrorKind::{Malformed, Mismatch, Missing, TooLarge, Unsupported};

/// The one tensor.
const TENSOR: &str = "prompt_embeddings";

/// A soft prompt to write.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPrompt<'a> {
    /// The architecture of the base model.
    pub architecture: &'a str,
    /// `general.name`.
    pub name: Option<&'a str>,
    /// Width of the base model.
    pub n_embd: u32,
    /// Row after row.
    pub rows: &'a [f32],
    /// Store 16-bit numbers.
    pub halves: bool,
}

impl SoftPrompt<'_> {
    /// The file, open for further keys.
    ///
    /// # Errors
    /// The numbers are no whole rows, or there are none.
    pub fn to_gguf(&self) -> Result<GgufWriter<'static>, GgufError> {
        let width = self.n_embd as usize;
        if self.rows.is_empty() || width == 0 || !self.rows.len().is_multiple_of(width) {
            let reason = format!("{} numbers are no whole rows of {width}", self.rows.len());
            return Err(GgufError::new(Malformed, TENSOR, reason));
        }
        let mut file = GgufWriter::new();
        file.set(ARCHITECTURE, self.architecture)?.set(GENERAL_TYPE, "adapter")?.set(ADAPTER_TYPE, "soft_prompt")?;
        if let Some(name) = self.name {
            file.set("general.name", name)?;
        }
        let dims = [u64::from(self.n_embd), (self.rows.len() / width) as u64];
        let (kind, bytes): (_, Vec<u8>) = match self.halves {
            true => (TensorType::F16, self.rows.iter().flat_map(|n| f16::from_f32(*n).to_le_bytes()).collect()),
            false => (TensorType::F32, self.rows.iter().flat_map(|n| n.to_le_bytes()).collect()),
        };
        file.tensor(TENSOR, kind, &dims, bytes)?;
        Ok(file)
    }
}

/// Checks a soft prompt against its base model.
pub(super) fn check(gguf: &Gguf<'_>, base: &ModelFacts) -> Result<AdapterFacts, GgufError> {
    let Some(tensor) = gguf.tensor(TENSOR) else {
        return Err(GgufError::new(Missing, TENSOR, "is missing"));
    };
    if let Some(other) = gguf.tensors().iter().find(|tensor| tensor.name != TENSOR) {
        return Err(GgufError::new(Unsupported, other.name, format!("does not belong beside {TENSOR}")));
    }
    if ![TensorType::F32, TensorType::F16].contains(&tensor.kind) {
        let reason = format!("is stored as {}, expected F32 or F16", tensor.kind);
        return Err(GgufError::new(Unsupported, TENSOR, reason));
    }
    let (width, [found, tokens, 1, 1]) = (u64::from(base.n_embd), tensor.dims) else {
        return Err(GgufError::new(Malformed, TENSOR, format!("has shape {:?}, expected a matrix", tensor.dims)));
    };
    if found != width {
        let reason = format!("has rows of {found}, the model is {width} wide: another base model?");
        return Err(GgufError::new(Mismatch, TENSOR, reason));
    }
    let most = MAX_SOFT_PROMPT_TOKENS.min(u64::from(base.n_ctx_train));
    if tokens > most {
        return Err(GgufError::new(TooLarge, TENSOR, format!("has {tokens} rows, the limit is {most}")));
    }
    // Zeros are embeddings as any others: they take their positions.
    check_numbers(gguf, tensor)?;
    // At most the limit.
    AdapterFacts::common(gguf, AdapterKind::SoftPrompt { tokens: tokens as u32 }, base)
}

/// The rows of a checked soft prompt, one after the other.
///
/// # Errors
/// Not a soft prompt.
pub fn soft_prompt_rows(bytes: &[u8]) -> Result<Vec<f32>, GgufError> {
    let gguf = Gguf::read(bytes)?;
    let Some(tensor) = gguf.tensor(TENSOR) else {
        return Err(GgufError::new(Missing, TENSOR, "is missing"));
    };
    let data = gguf.tensor_bytes(tensor);
    match tensor.kind {
        TensorType::F32 => Ok(data.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()),
        TensorType::F16 => Ok(data.as_chunks::<2>().0.iter().map(|half| f16::from_le_bytes(*half).to_f32()).collect()),
        other => Err(GgufError::new(Unsupported, TENSOR, format!("is stored as {other}, expected F32 or F16"))),
    }
}
