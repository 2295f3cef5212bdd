//! Split models: `NAME-00001-of-00006.gguf` and its siblings, as `llama_model_loader` joins them
//! (`src/llama-model-loader.cpp`). Only the first part holds the metadata; the others hold tensors and `split.*` keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::limits::{MAPPED_ALIGNMENT, MAX_SHARDS};
use super::model::ModelFacts;
use super::tensor::{Shape, TensorInfo, TensorType};

use GgufErrorKind::{Invalid, Malformed, Mismatch, Missing, TooLarge, Unsupported, WrongKind};

const COUNT: &str = "split.count";
const INDEX: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// The place of a file in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which part this is, from 0.
    pub index: u16,
    /// How many parts there are, at least 2.
    pub count: u16,
    /// Tensors in all parts together.
    pub tensors: u32,
}

/// What a part after the first holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardFacts {
    /// Its place.
    pub split: Split,
    /// Shapes of its tensors by name.
    pub tensors: HashMap<String, Shape>,
    /// Elements in its tensors.
    pub parameter_count: u64,
    /// Bytes of its tensor data.
    pub weight_bytes: u64,
}

/// Checks a part of a split model after the first. Errors name a key or tensor; callers prefix the file.
pub fn check_shard(bytes: &[u8]) -> Result<ShardFacts, GgufError> {
    let gguf = Gguf::read(bytes)?;
    let Some(split) = read_split(&gguf)? else {
        return Err(GgufError::new(Missing, COUNT, "is missing: this is not part of a split model"));
    };
    if split.index == 0 {
        return Err(GgufError::new(WrongKind, INDEX, "is 0: this is the first part, expected a later one"));
    }
    let weights = check_weights(&gguf)?;
    Ok(ShardFacts {
        split,
        tensors: weights.tensors,
        parameter_count: weights.parameter_count,
        weight_bytes: weights.weight_bytes,
    })
}

/// Joins the parts of a split model: `rest` are the parts after the first in order, each with the name to use in
/// errors. Returns the facts of the whole, with the tensors of all parts.
///
/// Refuses, naming the part: a missing, extra or misplaced part, a tensor that two parts hold, and parts whose counts
/// or layer sizes tell that they are of another model.
pub fn check_shards(first: ModelFacts, rest: Vec<(String, ShardFacts)>) -> Result<ModelFacts, GgufError> {
    let Some(split) = first.split else {
        return match rest.first() {
            None => Ok(first),
            Some((name, _)) => Err(GgufError::new(Mismatch, name, "the first file is not a split model")),
        };
    };
    let mut whole = first;
    for (expected, (name, shard)) in (1..split.count).zip(&rest) {
        let found = shard.split;
        if found.count != split.count || found.tensors != split.tensors {
            let reason = format!(
                "is part of another model: it counts {} parts and {} tensors, the first part {} and {}",
                found.count, found.tensors, split.count, split.tensors
            );
            return Err(GgufError::new(Mismatch, name, reason));
        }
        if found.index != expected {
            let reason = format!(
                "is part {} of {}, expected part {}",
                found.index.saturating_add(1),
                found.count,
                expected.saturating_add(1)
            );
            return Err(GgufError::new(Mismatch, name, reason));
        }
    }
    let parts = rest.len().saturating_add(1);
    if parts != usize::from(split.count) {
        let reason = format!("{parts} parts given, the model has {}", split.count);
        return Err(GgufError::new(Mismatch, COUNT, reason));
    }
    for (name, shard) in rest {
        check_belongs(&whole, &name, &shard)?;
        for (tensor, shape) in shard.tensors {
            match whole.tensors.entry(tensor) {
                Entry::Vacant(entry) => {
                    entry.insert(shape);
                }
                Entry::Occupied(entry) => {
                    let reason = format!("holds tensor '{}', which another part holds as well", entry.key());
                    return Err(GgufError::new(Mismatch, name, reason));
                }
            }
        }
        whole.parameter_count = whole.parameter_count.saturating_add(shard.parameter_count);
        whole.weight_bytes = whole.weight_bytes.saturating_add(shard.weight_bytes);
    }
    if whole.tensors.len() != split.tensors as usize {
        let reason = format!("the parts hold {} tensors together, expected {}", whole.tensors.len(), split.tensors);
        return Err(GgufError::new(Mismatch, TENSORS, reason));
    }
    Ok(whole)
}

/// Tells by layer numbers and norm widths whether a part is of the same model.
fn check_belongs(first: &ModelFacts, name: &str, shard: &ShardFacts) -> Result<(), GgufError> {
    for (tensor, shape) in &shard.tensors {
        let Some((layer, part)) = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if layer.parse::<u32>().is_ok_and(|layer| layer >= first.n_layer) {
            let reason = format!("holds '{tensor}', but the model has {} layers: another model", first.n_layer);
            return Err(GgufError::new(Mismatch, name, reason));
        }
        if matches!(part, "attn_norm.weight" | "ffn_norm.weight") && shape[0] != u64::from(first.n_embd) {
            let reason = format!("'{tensor}' is {} wide, the model {}: another model", shape[0], first.n_embd);
            return Err(GgufError::new(Mismatch, name, reason));
        }
    }
    Ok(())
}

/// The file names of all parts of a split model, from the name (or path) of the first and the number of parts.
///
/// The first must end in `-00001-of-COUNT.gguf` with five digits each, as `llama_split_path` writes it; `None` if it
/// does not, or if the count is 0 or beyond [`MAX_SHARDS`].
pub fn shard_paths(first: &str, count: u16) -> Option<Vec<String>> {
    if count == 0 || count > MAX_SHARDS {
        return None;
    }
    let prefix = first.strip_suffix(&format!("-00001-of-{count:05}.gguf")).filter(|prefix| !prefix.is_empty())?;
    Some((1..=count).map(|number| format!("{prefix}-{number:05}-of-{count:05}.gguf")).collect())
}

/// The `split.*` keys. llama.cpp asserts their types. A model in one part gives `None`.
pub(super) fn read_split(gguf: &Gguf<'_>) -> Result<Option<Split>, GgufError> {
    let count = gguf.u16(COUNT)?.unwrap_or(0);
    let index = gguf.u16(INDEX)?;
    let tensors = gguf.i32(TENSORS)?;
    if count <= 1 {
        return Ok(None);
    }
    if count > MAX_SHARDS {
        return Err(GgufError::new(TooLarge, COUNT, format!("{count} parts, the limit is {MAX_SHARDS}")));
    }
    let Some(index) = index else {
        return Err(GgufError::new(Missing, INDEX, "is missing"));
    };
    if index >= count {
        return Err(GgufError::new(Invalid, INDEX, format!("is {index} of {count} parts")));
    }
    let Some(tensors) = tensors else {
        return Err(GgufError::new(Missing, TENSORS, "is missing"));
    };
    let Ok(tensors) = u32::try_from(tensors) else {
        return Err(GgufError::new(Invalid, TENSORS, format!("is {tensors}")));
    };
    Ok(Some(Split { index, count, tensors }))
}

/// Sums and shapes of the tensors of one file.
pub(super) struct Weights {
    pub(super) tensors: HashMap<String, Shape>,
    pub(super) parameter_count: u64,
    pub(super) weight_bytes: u64,
}

/// Checks the tensors of a model file for what ends llama.cpp later: types that no operation takes, and addresses
/// that its mapped buffers assert against.
pub(super) fn check_weights(gguf: &Gguf<'_>) -> Result<Weights, GgufError> {
    let mut weights =
        Weights { tensors: HashMap::with_capacity(gguf.tensors().len()), parameter_count: 0, weight_bytes: 0 };
    for tensor in gguf.tensors() {
        check_weight_type(tensor)?;
        // Lies within the file, so the sum is below 2^63.
        if !(gguf.data_offset + tensor.offset).is_multiple_of(MAPPED_ALIGNMENT) {
            let reason = format!("its data is not at a multiple of {MAPPED_ALIGNMENT} bytes, so it cannot be mapped");
            return Err(GgufError::new(Malformed, tensor.name, reason));
        }
        weights.tensors.insert(tensor.name.to_owned(), tensor.dims);
        weights.parameter_count = weights.parameter_count.saturating_add(tensor.elements());
        weights.weight_bytes = weights.weight_bytes.saturating_add(tensor.size);
    }
    Ok(weights)
}

/// Norms and biases are added and multiplied with 32-bit floats only; matrices need a type with a dot product.
fn check_weight_type(tensor: &TensorInfo<'_>) -> Result<(), GgufError> {
    let name = tensor.name;
    let vector = name.ends_with("_norm.weight")
        || name.ends_with("_norm.bias")
        || name == "rope_freqs.weight"
        || (tensor.is_vector() && name.ends_with(".bias"));
    if vector && tensor.kind != TensorType::F32 {
        let reason = format!("is stored as {}, but norms and biases must be F32", tensor.kind);
        return Err(GgufError::new(Unsupported, name, reason));
    }
    let numbers = matches!(tensor.kind.name(), "Q8_1" | "Q8_K" | "I8" | "I16" | "I64" | "F64");
    let table = tensor.kind == TensorType::I32 && !name.contains("tid2eid");
    if name.ends_with(".weight") && (numbers || table) {
        let reason = format!("llama.cpp cannot compute with {} weights", tensor.kind);
        return Err(GgufError::new(Unsupported, name, reason));
    }
    Ok(())
}
