//! The whole check of a base model, and the facts that the rest of the program needs of it.

use std::collections::HashMap;

use super::arch::{self, ModelKind};
use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::hparams::check_sizes;
use super::limits::MAX_TEMPLATE_BYTES;
use super::overrides::Override;
use super::shard::{Split, check_weights, read_split};
use super::tensor::{Shape, TensorType};
use super::vocab::{TokenizerFacts, check_tokenizer};

use GgufErrorKind::{Malformed, Missing, TooLarge, Unsupported, WrongKind};

const ARCHITECTURE: &str = "general.architecture";
const TYPE: &str = "general.type";
const TEMPLATE: &str = "tokenizer.chat_template";

/// What a model file holds. For a split model: its first part, until [`check_shards`](super::check_shards) joins the
/// others to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// The architecture, one that this build of llama.cpp knows: `llama`, `qwen2`, ...
    pub architecture: String,
    /// What the network is for. Only some kinds generate text, see [`ModelFacts::require_generation`].
    pub kind: ModelKind,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// How the weights are stored: `Q4_1`, `Q4_K_M`, ...
    pub file_type: String,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Longest context the model was trained for, in tokens.
    pub n_ctx_train: u32,
    /// Width of the network.
    pub n_embd: u32,
    /// Layers.
    pub n_layer: u32,
    /// Query heads (the most that any layer has).
    pub n_head: u32,
    /// Key heads (the most that any layer has).
    pub n_head_kv: u32,
    /// Experts per layer; 0 for a dense model.
    pub expert_count: u32,
    /// Experts that a token uses (the most in any layer).
    pub expert_used_count: u32,
    /// How outputs are pooled into a vector (`enum llama_pooling_type`), if the file says so.
    pub pooling_type: Option<u32>,
    /// Elements in all tensors.
    pub parameter_count: u64,
    /// Bytes of tensor data.
    pub weight_bytes: u64,
    /// The tokenizer.
    pub tokenizer: TokenizerFacts,
    /// The default chat template, in Jinja; at most [`MAX_TEMPLATE_BYTES`] long, not parsed.
    pub chat_template: Option<String>,
    /// The place of this file in a split model.
    pub split: Option<Split>,
    /// Shapes of the tensors by name, to check adapters against.
    pub tensors: HashMap<String, Shape>,
}

impl ModelFacts {
    /// Refuses models that cannot generate text token after token, naming what they are.
    pub fn require_generation(&self) -> Result<(), GgufError> {
        if self.kind.generates() {
            return Ok(());
        }
        let reason = format!("is {}; it cannot generate text", self.kind.describe());
        Err(GgufError::new(WrongKind, ARCHITECTURE, reason))
    }
}

/// Reads and checks a model file, or the first part of a split model. Reads the header only, never the weights.
///
/// Refuses what llama.cpp refuses, and what it would abort on later: at creating a context, at the first token, at
/// some text of a user. Files of another kind are refused by name: a LoRA adapter, a later part of a split model, a
/// multimodal projector. Models that cannot generate text are accepted; see [`ModelFacts::require_generation`].
pub fn check_model(bytes: &[u8]) -> Result<ModelFacts, GgufError> {
    check_model_with(bytes, &[])
}

/// The same with metadata put in place of the file's.
pub fn check_model_with(bytes: &[u8], overrides: &[Override]) -> Result<ModelFacts, GgufError> {
    let mut gguf = Gguf::read(bytes)?;
    gguf.apply(overrides)?;
    let gguf = gguf;
    check_file_kind(&gguf)?;
    let split = read_split(&gguf)?;
    if let Some(Split { index, count, .. }) = split
        && index != 0
    {
        let part = index.saturating_add(1);
        let reason = format!("is part {part} of {count} of a split model; pass the first part");
        return Err(GgufError::new(WrongKind, "split.no", reason));
    }
    let Some(name) = gguf.str(ARCHITECTURE)? else {
        return Err(GgufError::new(Missing, ARCHITECTURE, "is missing"));
    };
    let Some(architecture) = arch::find(name) else {
        let reason = match name {
            "controlvector" => "is a control vector, not a model".to_owned(),
            _ => format!("this build of llama.cpp does not know architecture '{name}'"),
        };
        return Err(GgufError::new(Unsupported, ARCHITECTURE, reason));
    };
    if architecture.kind == ModelKind::Projector {
        let reason = format!("is {}, not a language model", architecture.kind.describe());
        return Err(GgufError::new(WrongKind, ARCHITECTURE, reason));
    }
    let sizes = check_sizes(&gguf, architecture)?;
    let weights = check_weights(&gguf)?;
    // The first part of a split model may hold metadata alone.
    if split.is_none() && weights.tensors.is_empty() {
        let reason = "is 0: the file holds no weights, perhaps only a vocabulary";
        return Err(GgufError::new(Missing, "tensor count", reason));
    }
    if split.is_none() && (sizes.n_layer as usize) > weights.tensors.len() {
        let reason = format!("is {}, but the file holds {} tensors", sizes.n_layer, weights.tensors.len());
        return Err(GgufError::new(GgufErrorKind::Invalid, format!("{name}.block_count"), reason));
    }
    let tokenizer = check_tokenizer(&gguf)?;
    let pooled = sizes.pooling_type.is_some_and(|kind| kind != 0) || !sizes.causal;
    Ok(ModelFacts {
        architecture: name.to_owned(),
        kind: match architecture.kind {
            ModelKind::Decoder if pooled => ModelKind::Embedding,
            kind => kind,
        },
        name: gguf.str("general.name")?.map(str::to_owned),
        file_type: file_type(&gguf)?,
        n_vocab: tokenizer.n_vocab,
        n_ctx_train: sizes.n_ctx_train,
        n_embd: sizes.n_embd,
        n_layer: sizes.n_layer,
        n_head: sizes.n_head,
        n_head_kv: sizes.n_head_kv,
        expert_count: sizes.expert_count,
        expert_used_count: sizes.expert_used_count,
        pooling_type: sizes.pooling_type,
        parameter_count: weights.parameter_count,
        weight_bytes: weights.weight_bytes,
        chat_template: chat_template(&gguf)?,
        tokenizer,
        split,
        tensors: weights.tensors,
    })
}

/// Refuses sound files that are not models, saying what they are.
fn check_file_kind(gguf: &Gguf<'_>) -> Result<(), GgufError> {
    let lora = gguf.get("adapter.type").is_some()
        || gguf.get("adapter.lora.alpha").is_some()
        || gguf
            .tensors()
            .first()
            .is_some_and(|tensor| tensor.name.ends_with(".lora_a") || tensor.name.ends_with(".lora_b"));
    let reason = match gguf.str(TYPE)? {
        _ if lora => "is a LoRA adapter; pass it with --lora",
        Some("adapter") => "is an adapter, not a model",
        Some("mmproj") => "is a multimodal projector (mmproj), not a language model",
        Some("imatrix") => "is an importance matrix, not a model",
        _ => return Ok(()),
    };
    Err(GgufError::new(WrongKind, TYPE, reason))
}

/// The chat template, if there is one.
fn chat_template(gguf: &Gguf<'_>) -> Result<Option<String>, GgufError> {
    match gguf.str(TEMPLATE)? {
        Some(template) if template.len() > MAX_TEMPLATE_BYTES => {
            let reason = format!("{} bytes, the limit is {MAX_TEMPLATE_BYTES}", template.len());
            Err(GgufError::new(TooLarge, TEMPLATE, reason))
        }
        Some(template) if template.contains('\0') => Err(GgufError::new(Malformed, TEMPLATE, "holds a NUL character")),
        template => Ok(template.map(str::to_owned)),
    }
}

/// `general.file_type` in words (`enum llama_ftype` in `include/llama.h`), or else the type that most tensors have.
fn file_type(gguf: &Gguf<'_>) -> Result<String, GgufError> {
    let name = match gguf.u32("general.file_type")? {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(19) => "IQ2_XXS",
        Some(20) => "IQ2_XS",
        Some(21) => "Q2_K_S",
        Some(22) => "IQ3_XS",
        Some(23) => "IQ3_XXS",
        Some(24) => "IQ1_S",
        Some(25) => "IQ4_NL",
        Some(26) => "IQ3_S",
        Some(27) => "IQ3_M",
        Some(28) => "IQ2_S",
        Some(29) => "IQ2_M",
        Some(30) => "IQ4_XS",
        Some(31) => "IQ1_M",
        Some(32) => "BF16",
        Some(36) => "TQ1_0",
        Some(37) => "TQ2_0",
        Some(38) => "MXFP4",
        Some(39) => "NVFP4",
        Some(40) => "Q1_0",
        Some(41) => "Q2_0",
        _ => most_common_type(gguf).map_or("unknown", TensorType::name),
    };
    Ok(name.to_owned())
}

/// The type that most tensors have; the one with the lowest number among equals.
fn most_common_type(gguf: &Gguf<'_>) -> Option<TensorType> {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for tensor in gguf.tensors() {
        *counts.entry(tensor.kind.id()).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(id, count)| (**count, std::cmp::Reverse(**id)))?;
    TensorType::from_id(*most.0)
}
