//! Prompt tuning and P-tuning: one tensor of embeddings. PEFT saves what P-tuning's encoder makes, not the encoder.

use super::config::Config;
use super::error::ImportError;
use super::pack::Storage;
use super::safetensors::SafeTensors;
use super::{Imported, Options};
use crate::gguf::{self, ModelFacts, SoftPrompt};

/// The tensor that PEFT writes.
const TENSOR: &str = "prompt_embeddings";

/// Imports a soft prompt.
pub(super) fn import(
    tensors: &SafeTensors<'_>,
    config: &Config,
    base: &ModelFacts,
    options: &Options,
    mut notes: Vec<String>,
) -> Result<Imported, ImportError> {
    let Some(tensor) = tensors.get(TENSOR) else {
        return Err(ImportError::tensor(TENSOR, "is missing; save the adapter with a current PEFT"));
    };
    if let Some(other) = tensors.tensors().iter().find(|tensor| tensor.name != TENSOR) {
        return Err(ImportError::tensor(&other.name, format!("does not belong to {}", config.kind)));
    }
    let rows = tensor.matrix()?;
    let (tokens, width) = (rows.nrows() as u64, rows.ncols() as u64);
    if config.virtual_tokens.is_some_and(|said| said != tokens) {
        let reason = format!("has {tokens} rows, other than num_virtual_tokens: is the configuration its own?");
        return Err(ImportError::tensor(TENSOR, reason));
    }
    if width != u64::from(base.n_embd) {
        let reason = format!("has rows of {width}, the model is {} wide: another base model?", base.n_embd);
        return Err(ImportError::tensor(TENSOR, reason));
    }
    // Rows of a network's input are few; blocks would save nothing worth their error.
    let (halves, wider) = match (options.storage, tensor.dtype) {
        (Storage::F32, _) => (false, false),
        (Storage::Source, dtype) => (dtype == super::safetensors::Dtype::F16, false),
        (Storage::F16, _) => (true, false),
        (Storage::Q8_0 | Storage::Q4_0, _) => (true, true),
    };
    if wider {
        notes.push("soft prompts are stored as F16 at the least".to_owned());
    }
    let factor = graph_factor(base);
    if factor != 1.0 {
        notes.push(
            "rows are taken as transformers 5 feeds them; older ones multiplied prompts of this family by the square \
             root of the width"
                .to_owned(),
        );
    }
    let rows = rows.mapv_into(|number| number / factor);
    let numbers = rows.as_standard_layout();
    let numbers = numbers.as_slice().unwrap_or_default();
    let prompt = SoftPrompt {
        architecture: &base.architecture,
        name: options.name.as_deref(),
        n_embd: base.n_embd,
        rows: numbers,
        halves,
    };
    let mut file = prompt.to_gguf().map_err(ImportError::Result)?;
    file.set("smoa.import.kind", config.kind.name()).map_err(ImportError::Result)?;
    let bytes = file.to_bytes();
    let facts = gguf::check_adapter(&bytes, base).map_err(ImportError::Result)?;
    let back = gguf::soft_prompt_rows(&bytes).map_err(ImportError::Result)?;
    let square = |sum: f64, number: f64| sum + number * number;
    let lost = numbers.iter().zip(&back).map(|(one, other)| f64::from(one - other)).fold(0.0, square);
    let whole = numbers.iter().map(|number| f64::from(*number)).fold(0.0, square);
    Ok(Imported {
        gguf: bytes,
        facts,
        kind: config.kind,
        exact: true,
        relative_error: None,
        storage_error: if whole > 0.0 { (lost / whole).sqrt() as f32 } else { 0.0 },
        errors: Vec::new(),
        rank_min: 0,
        rank_max: 0,
        targets: Vec::new(),
        notes,
    })
}

/// What llama.cpp's graph multiplies every input by, rows of embeddings too. Gemma's embedding is the matrix times the
/// square root of the width; llama.cpp does that to the input of `gemma` and `gemma2` (`src/models/gemma.cpp`), and from
/// `gemma3` on to tokens alone. Prompts are trained beside embeddings that are scaled already.
fn graph_factor(base: &ModelFacts) -> f32 {
    match base.architecture.as_str() {
        "gemma" | "gemma2" => (base.n_embd as f32).sqrt(),
        _ => 1.0,
    }
}
