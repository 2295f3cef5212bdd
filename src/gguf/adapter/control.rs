//! Control vectors as llama.cpp has them (`common_control_vector_load_one` in `common/common.cpp`, written by
//! `tools/cvector-generator`): `direction.N`, F32 of the model's width, is added after layer N; N from 1.
//!
//! Stricter than llama.cpp, which adds directions of one layer up, silently leaves out those of layers that the model
//! lacks, and does not look at the model that the file names.

use std::collections::BTreeSet;

use super::super::error::{GgufError, GgufErrorKind};
use super::super::header::Gguf;
use super::super::model::ModelFacts;
use super::super::tensor::TensorType;
use super::pairs::check_numbers;
use super::{AdapterFacts, AdapterKind};

use GgufErrorKind::{Malformed, Mismatch, Missing, Unsupported};

/// What `general.architecture` says in these files.
pub(super) const ARCHITECTURE: &str = "controlvector";
/// The architecture of the base model.
const HINT: &str = "controlvector.model_hint";

/// Checks a control vector against its base model.
pub(super) fn check(gguf: &Gguf<'_>, base: &ModelFacts) -> Result<AdapterFacts, GgufError> {
    if let Some(hint) = gguf.str(HINT)?
        && hint != base.architecture
    {
        let reason = format!("the control vector is for '{hint}', the model is '{}'", base.architecture);
        return Err(GgufError::new(Mismatch, HINT, reason));
    }
    let mut layers = BTreeSet::new();
    let mut all_zero = true;
    for tensor in gguf.tensors() {
        let Some(layer) = layer_of(tensor.name) else {
            return Err(GgufError::new(Unsupported, tensor.name, "is no direction.N of a layer N from 1"));
        };
        if layer >= base.n_layer {
            let reason = format!("is for layer {layer}; directions of this model go up to {}", base.n_layer - 1);
            return Err(GgufError::new(Mismatch, tensor.name, reason));
        }
        if tensor.kind != TensorType::F32 {
            let reason = format!("is stored as {}, expected F32", tensor.kind);
            return Err(GgufError::new(Unsupported, tensor.name, reason));
        }
        let width = u64::from(base.n_embd);
        if tensor.dims != [width, 1, 1, 1] {
            let reason = format!("has shape {:?}, the model is {width} wide: another base model?", tensor.dims);
            return Err(GgufError::new(Mismatch, tensor.name, reason));
        }
        if !layers.insert(layer) {
            return Err(GgufError::new(Malformed, tensor.name, "is the second direction of its layer"));
        }
        all_zero &= check_numbers(gguf, tensor)?;
    }
    if layers.is_empty() {
        return Err(GgufError::new(Missing, "tensor count", "is 0: the control vector has no directions"));
    }
    let kind = AdapterKind::ControlVector { layers: layers.into_iter().collect() };
    Ok(AdapterFacts { all_zero, ..AdapterFacts::common(gguf, kind, base)? })
}

/// The layer in `direction.N`, written as llama.cpp writes it.
fn layer_of(name: &str) -> Option<u32> {
    let text = name.strip_prefix("direction.")?;
    let layer: u32 = text.parse().ok()?;
    (layer > 0 && layer.to_string() == text).then_some(layer)
}

/// The directions of a checked control vector as `llama_set_adapter_cvec` takes them: `n_embd` numbers for each layer
/// from 1 to `n_layer - 1`, zeros for layers without one.
///
/// # Errors
/// Not GGUF, or not checked against this model.
pub fn control_directions(bytes: &[u8], base: &ModelFacts) -> Result<Vec<f32>, GgufError> {
    let gguf = Gguf::read(bytes)?;
    let width = base.n_embd as usize;
    let mut all = vec![0.0; width * (base.n_layer as usize).saturating_sub(1)];
    for tensor in gguf.tensors() {
        let layer = layer_of(tensor.name).and_then(|layer| usize::try_from(layer).ok());
        let place = layer.and_then(|layer| all.get_mut((layer - 1) * width..layer * width));
        let Some(place) = place.filter(|place| tensor.size == place.len() as u64 * 4) else {
            return Err(GgufError::new(Mismatch, tensor.name, "is no direction of this model"));
        };
        for (number, word) in place.iter_mut().zip(gguf.tensor_bytes(tensor).as_chunks::<4>().0) {
            *number = f32::from_le_bytes(*word);
        }
    }
    Ok(all)
}
