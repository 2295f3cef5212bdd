//! Sentence encoders of the BERT family, as sentence-transformers saves them, into GGUF files that llama.cpp runs.
//!
//! Carried over: BERT with absolute positions and GELU, lower-cased WordPiece, mean or first-token pooling (all-MiniLM,
//! bge-small and the like). Matrices are stored as asked, norms, biases and positions as 32-bit floats. Anything else is
//! refused by name.

use serde::Deserialize;

use super::dequant::Matrix;
use super::error::{ImportError, shown};
use super::limits::{MAX_BERT_LAYERS, MAX_BERT_WIDTH};
use super::pack::Storage;
use super::quantize::store;
use super::safetensors::{SafeTensors, Tensor};
use crate::gguf::{self, GgufError, GgufWriter, ModelFacts, OwnedValue, TensorType};

/// The files of a sentence encoder, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BertFiles {
    /// `config.json`.
    pub config: String,
    /// `model.safetensors`.
    pub weights: Vec<u8>,
    /// `vocab.txt`: one WordPiece token a line.
    pub vocabulary: String,
    /// [`Self::POOLING`], where there is one; without it the mean is taken.
    pub pooling: Option<String>,
    /// [`Self::TOKENIZER`], where there is one; without it texts are lower-cased.
    pub tokenizer: Option<String>,
}

impl BertFiles {
    /// Where sentence-transformers says how it pools.
    pub const POOLING: &str = "1_Pooling/config.json";
    /// Where it says whether it lower-cases.
    pub const TOKENIZER: &str = "tokenizer_config.json";
}

/// A sentence encoder was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BertError {
    /// A file of the encoder.
    #[error("{file}: {reason}")]
    File {
        /// Which one: `config.json`, `model.safetensors`, `vocab.txt`, ..., or `wheel`.
        file: &'static str,
        /// Field or tensor, why, and what to do.
        reason: String,
    },
    /// The model as converted is refused.
    #[error("as converted, {0}")]
    Result(#[from] GgufError),
}

impl BertError {
    pub(super) fn file(file: &'static str, reason: impl AsRef<str>) -> Self {
        Self::File { file, reason: shown(reason.as_ref()) }
    }
}

/// The reader of safetensors speaks of adapters; here the file is another.
impl From<ImportError> for BertError {
    fn from(error: ImportError) -> Self {
        let text = error.to_string();
        let reason = ["adapter_model.safetensors: ", "adapter weights: "].iter().find_map(|own| text.strip_prefix(own));
        Self::file(WEIGHTS, reason.unwrap_or(&text))
    }
}

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const VOCABULARY: &str = "vocab.txt";

/// The fields of `config.json` that matter.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    #[serde(default = "gelu")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    max_position_embeddings: u32,
    vocab_size: u32,
    #[serde(default = "two")]
    type_vocab_size: u32,
    #[serde(default = "epsilon")]
    layer_norm_eps: f32,
}

fn gelu() -> String {
    "gelu".into()
}

fn two() -> u32 {
    2
}

fn epsilon() -> f32 {
    1e-12
}

impl Config {
    fn parse(text: &str) -> Result<Self, BertError> {
        let config: Self = serde_json::from_str(text).map_err(|error| BertError::file(CONFIG, error.to_string()))?;
        let refuse = |field: &str, reason: String| Err(BertError::file(CONFIG, format!("'{field}' {reason}")));
        if config.model_type != "bert" {
            return refuse("model_type", format!("is '{}'; only 'bert' can be imported", config.model_type));
        }
        if config.hidden_act != "gelu" {
            return refuse("hidden_act", format!("is '{}'; llama.cpp's BERT computes 'gelu'", config.hidden_act));
        }
        if let Some(kind) = config.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            return refuse("position_embedding_type", format!("is '{kind}'; only 'absolute' can be imported"));
        }
        let sizes = [
            ("hidden_size", config.hidden_size, MAX_BERT_WIDTH),
            ("intermediate_size", config.intermediate_size, 8 * MAX_BERT_WIDTH),
            ("num_hidden_layers", config.num_hidden_layers, MAX_BERT_LAYERS),
            ("num_attention_heads", config.num_attention_heads, MAX_BERT_WIDTH),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 22),
            ("type_vocab_size", config.type_vocab_size, 1 << 10),
        ];
        for (field, size, most) in sizes {
            if size == 0 || size > most {
                return refuse(field, format!("is {size}, expected 1 to {most}"));
            }
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return refuse("num_attention_heads", format!("does not divide the width of {}", config.hidden_size));
        }
        if !config.layer_norm_eps.is_finite() || config.layer_norm_eps < 0.0 {
            return refuse("layer_norm_eps", format!("is {}", config.layer_norm_eps));
        }
        Ok(config)
    }
}

/// `enum llama_pooling_type` for what sentence-transformers says.
fn pooling(text: Option<&str>) -> Result<u32, BertError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Pooling {
        pooling_mode_cls_token: bool,
        pooling_mode_mean_tokens: bool,
        pooling_mode_max_tokens: bool,
        pooling_mode_mean_sqrt_len_tokens: bool,
    }
    let Some(text) = text else { return Ok(1) };
    let found: Pooling =
        serde_json::from_str(text).map_err(|error| BertError::file(BertFiles::POOLING, error.to_string()))?;
    match found {
        Pooling { pooling_mode_max_tokens: true, .. } | Pooling { pooling_mode_mean_sqrt_len_tokens: true, .. } => {
            Err(BertError::file(BertFiles::POOLING, "pools by maximum or root of length, which llama.cpp does not"))
        }
        Pooling { pooling_mode_cls_token: true, pooling_mode_mean_tokens: false, .. } => Ok(2),
        Pooling { pooling_mode_cls_token: false, pooling_mode_mean_tokens: true, .. } => Ok(1),
        _ => Err(BertError::file(BertFiles::POOLING, "names neither the mean nor the first token alone")),
    }
}

/// Whether texts are lower-cased.
fn lowercase(text: Option<&str>) -> Result<bool, BertError> {
    #[derive(Deserialize)]
    struct Tokenizer {
        do_lower_case: Option<bool>,
    }
    let Some(text) = text else { return Ok(true) };
    let found: Tokenizer =
        serde_json::from_str(text).map_err(|error| BertError::file(BertFiles::TOKENIZER, error.to_string()))?;
    Ok(found.do_lower_case.unwrap_or(true))
}

/// One tensor to carry over.
struct Wanted {
    /// In safetensors.
    from: String,
    /// In GGUF (`LLM_ARCH_BERT` in `src/llama-arch.cpp`).
    to: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    /// Stored as asked; others stay 32 bits wide.
    compact: bool,
}

/// The tensors of the architecture.
fn wanted(config: &Config) -> Vec<Wanted> {
    let (width, inner) = (u64::from(config.hidden_size), u64::from(config.intermediate_size));
    let one = |from: String, to: String, shape: &[u64], compact| Wanted { from, to, shape: shape.to_vec(), compact };
    let table = |from: &str, to: &str, rows: u32, compact| {
        one(format!("embeddings.{from}.weight"), format!("{to}.weight"), &[u64::from(rows), width], compact)
    };
    let mut all = vec![
        table("word_embeddings", "token_embd", config.vocab_size, true),
        table("position_embeddings", "position_embd", config.max_position_embeddings, false),
        table("token_type_embeddings", "token_types", config.type_vocab_size, false),
    ];
    let mut pair = |from: &str, to: &str, shape: &[u64]| {
        let linear = shape.len() == 2;
        all.push(one(format!("{from}.weight"), format!("{to}.weight"), shape, linear));
        all.push(one(format!("{from}.bias"), format!("{to}.bias"), &shape[..1], false));
    };
    pair("embeddings.LayerNorm", "token_embd_norm", &[width]);
    for layer in 0..config.num_hidden_layers {
        let rows: [(&str, &str, &[u64]); 8] = [
            ("attention.self.query", "attn_q", &[width, width]),
            ("attention.self.key", "attn_k", &[width, width]),
            ("attention.self.value", "attn_v", &[width, width]),
            ("attention.output.dense", "attn_output", &[width, width]),
            ("attention.output.LayerNorm", "attn_output_norm", &[width]),
            ("intermediate.dense", "ffn_up", &[inner, width]),
            ("output.dense", "ffn_down", &[width, inner]),
            ("output.LayerNorm", "layer_output_norm", &[width]),
        ];
        for (from, to, shape) in rows {
            pair(&format!("encoder.layer.{layer}.{from}"), &format!("blk.{layer}.{to}"), shape);
        }
    }
    all
}

/// Names and shapes that a configuration asks for.
#[cfg(test)]
pub(super) fn wanted_for_tests(config: &str) -> Vec<(String, Vec<u64>)> {
    let config = Config::parse(config).expect("a configuration");
    wanted(&config).into_iter().map(|wanted| (wanted.from, wanted.shape)).collect()
}

/// Tensors that sentence vectors do not need.
fn unused(name: &str) -> bool {
    name == "embeddings.position_ids" || name.starts_with("pooler.")
}

/// Converts a sentence encoder; gives the GGUF file and what it holds. Equal input gives equal bytes.
///
/// # Errors
/// [`BertError`] with file and field or tensor.
pub fn import_bert(files: &BertFiles, name: &str, storage: Storage) -> Result<(Vec<u8>, ModelFacts), BertError> {
    let config = Config::parse(&files.config)?;
    let (kind, file_type) = match storage {
        Storage::Q8_0 => (TensorType::Q8_0, 7_u32),
        Storage::Q4_0 => (TensorType::Q4_0, 2),
        Storage::F16 => (TensorType::F16, 1),
        Storage::F32 | Storage::Source => (TensorType::F32, 0),
    };
    let mut file = GgufWriter::new();
    file.set("general.architecture", "bert")?.set("general.type", "model")?.set("general.name", name)?;
    file.set("general.file_type", file_type)?.set("general.quantization_version", 2_u32)?;
    let lower = lowercase(files.tokenizer.as_deref())?;
    file.set("bert.block_count", config.num_hidden_layers)?
        .set("bert.context_length", config.max_position_embeddings)?
        .set("bert.embedding_length", config.hidden_size)?
        .set("bert.feed_forward_length", config.intermediate_size)?
        .set("bert.attention.head_count", config.num_attention_heads)?
        .set("bert.attention.layer_norm_epsilon", config.layer_norm_eps)?
        .set("bert.attention.causal", false)?
        .set("bert.pooling_type", pooling(files.pooling.as_deref())?)?
        .set("tokenizer.ggml.normalizer.lowercase", lower)?
        .set("tokenizer.ggml.token_type_count", config.type_vocab_size)?;
    set_vocabulary(&mut file, &files.vocabulary, config.vocab_size)?;

    let tensors = SafeTensors::read(&files.weights)?;
    let wanted = wanted(&config);
    let plain = |tensor: &Tensor<'_>| tensor.name.strip_prefix("bert.").unwrap_or(&tensor.name).to_owned();
    let known = |name: &str| unused(name) || wanted.iter().any(|wanted| wanted.from == name);
    if let Some(other) = tensors.tensors().iter().map(plain).find(|name| !known(name)) {
        return Err(BertError::file(WEIGHTS, format!("'{other}' is no part of a BERT encoder that can be imported")));
    }
    for Wanted { from, to, shape, compact } in &wanted {
        let Some(tensor) = tensors.get(from).or_else(|| tensors.get(&format!("bert.{from}"))) else {
            return Err(BertError::file(WEIGHTS, format!("'{from}' is missing")));
        };
        if tensor.shape != *shape {
            let reason = format!("'{from}' has shape {:?}, config.json makes it {shape:?}", tensor.shape);
            return Err(BertError::file(WEIGHTS, reason));
        }
        let rows = if shape.len() == 2 { shape[0] as usize } else { 1 };
        let numbers = tensor.numbers()?;
        let matrix = Matrix::from_shape_vec((rows, numbers.len() / rows), numbers)
            .map_err(|error| BertError::file(WEIGHTS, format!("'{from}': {error}")))?;
        let (stored, _) = store(&matrix, if *compact { kind } else { TensorType::F32 }, TensorType::F16);
        let dims: Vec<u64> = shape.iter().rev().copied().collect();
        file.tensor(to, stored.kind, &dims, stored.bytes)?;
    }
    let bytes = file.to_bytes();
    let facts = gguf::check_model(&bytes)?;
    Ok((bytes, facts))
}

/// The vocabulary as llama.cpp's WPM tokenizer reads it: words begin with U+2581, pieces within words do not.
fn set_vocabulary(file: &mut GgufWriter<'_>, vocabulary: &str, size: u32) -> Result<(), BertError> {
    const SPECIAL: [(&str, &str); 5] = [
        ("[PAD]", "tokenizer.ggml.padding_token_id"),
        ("[UNK]", "tokenizer.ggml.unknown_token_id"),
        ("[CLS]", "tokenizer.ggml.bos_token_id"),
        ("[SEP]", "tokenizer.ggml.seperator_token_id"),
        ("[MASK]", "tokenizer.ggml.mask_token_id"),
    ];
    let tokens: Vec<&str> = vocabulary.lines().collect();
    if tokens.len() != size as usize {
        let reason = format!("holds {} tokens, config.json says {size}", tokens.len());
        return Err(BertError::file(VOCABULARY, reason));
    }
    let special = |token: &str| SPECIAL.iter().any(|(text, _)| *text == token);
    let texts = tokens.iter().map(|token| match token.strip_prefix("##") {
        _ if special(token) => (*token).to_owned(),
        Some(within) if !within.is_empty() => within.to_owned(),
        _ => format!("\u{2581}{token}"),
    });
    file.set("tokenizer.ggml.model", "bert")?.set("tokenizer.ggml.tokens", OwnedValue::texts(texts))?;
    // LLAMA_TOKEN_TYPE_CONTROL and NORMAL.
    let types: Vec<i32> = tokens.iter().map(|token| if special(token) { 3 } else { 1 }).collect();
    file.set("tokenizer.ggml.token_type", types.as_slice())?;
    for (text, key) in SPECIAL {
        let Some(id) = tokens.iter().position(|token| *token == text) else {
            return Err(BertError::file(VOCABULARY, format!("has no {text}")));
        };
        // At most 2^22.
        file.set(key, id as u32)?;
        if text == "[CLS]" {
            file.set("tokenizer.ggml.cls_token_id", id as u32)?;
        }
    }
    Ok(())
}
