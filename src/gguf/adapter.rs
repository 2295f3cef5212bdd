//! The check of a LoRA adapter against its base model, as `llama_adapter_lora_init_impl` in `src/llama-adapter.cpp`
//! loads it and as `build_lora_mm`, `build_lora_mm_id` and `build_inp_embd` in `src/llama-graph.cpp` use it.

use std::collections::BTreeMap;

use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::limits::{MAX_INVOCATION_TOKENS, MAX_RANK};
use super::model::ModelFacts;
use super::scan::{SCANNED, Scan, scan};
use super::tensor::{Shape, TensorInfo, TensorType};
use super::value::ValueType;

use GgufErrorKind::{Invalid, Malformed, Mismatch, Missing, TooLarge, Unsupported, WrongKind};

const GENERAL_TYPE: &str = "general.type";
const ARCHITECTURE: &str = "general.architecture";
const ADAPTER_TYPE: &str = "adapter.type";
const ALPHA: &str = "adapter.lora.alpha";
const INVOCATION: &str = "adapter.alora.invocation_tokens";

/// Tensors of base models that llama.cpp reads without asking for adapters: an adapter on them would be ignored.
const UNADAPTED: [&str; 7] = [
    "position_embd",
    "token_types",
    "per_layer_token_embd",
    "ssm_conv1d",
    "shortconv.conv",
    "rope_freqs",
    "ffn_gate_tid2eid",
];

/// What an adapter file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFacts {
    /// The architecture, equal to that of the base model.
    pub architecture: String,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// `adapter.lora.task_name`, if the file has one.
    pub task_name: Option<String>,
    /// `adapter.lora.prompt_prefix`, if the file has one.
    pub prompt_prefix: Option<String>,
    /// LoRA alpha, finite and above 0. The strength of a pair is alpha / rank.
    pub alpha: f32,
    /// Smallest rank of any pair.
    pub rank_min: u32,
    /// Largest rank of any pair.
    pub rank_max: u32,
    /// The kinds of linears adapted, sorted, each once: `attn_q`, `ffn_down`, `output`, ...
    pub targets: Vec<String>,
    /// The pairs, sorted by the name of the base tensor.
    pub pairs: Vec<LoraPair>,
    /// Elements in all A and B.
    pub parameter_count: u64,
    /// Bytes of tensor data.
    pub weight_bytes: u64,
    /// Every pair has an A or a B of zeros: the adapter changes nothing. Worth a warning.
    pub all_zero: bool,
    /// The invocation sequence of an activated LoRA (aLoRA), all within the vocabulary; empty for a plain LoRA.
    pub invocation_tokens: Vec<u32>,
}

/// One adapted tensor: `W + (alpha / rank) * B * A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraPair {
    /// The base tensor: `blk.3.attn_q.weight`.
    pub tensor: String,
    /// The kind of linear: `attn_q`.
    pub target: String,
    /// The layer, for tensors of a layer.
    pub layer: Option<u32>,
    /// The rank.
    pub rank: u32,
    /// Experts that the base tensor stacks, 1 for a plain matrix.
    pub experts: u32,
    /// The base tensor is the token embedding: A is then indexed by token, `[rank, n_vocab]`, and B is
    /// `[rank, n_embd]`. Otherwise A is `[n_in, rank]` and B is `[rank, n_out]`.
    pub embedding: bool,
    /// How A is stored.
    pub a: TensorType,
    /// How B is stored.
    pub b: TensorType,
}

/// Reads and checks an adapter against the facts of its base model. Reads all weights once.
///
/// Stricter than llama.cpp, which skips norms, reads a mistyped alpha with an assertion, and leaves the sizes of
/// stacked experts and of embedding pairs to the first decode. What is accepted is applied in full.
pub fn check_adapter(bytes: &[u8], base: &ModelFacts) -> Result<AdapterFacts, GgufError> {
    let gguf = Gguf::read(bytes)?;
    check_kind(&gguf)?;
    let Some(architecture) = gguf.str(ARCHITECTURE)? else {
        return Err(GgufError::new(Missing, ARCHITECTURE, "is missing"));
    };
    if architecture != base.architecture {
        let reason = format!("the adapter is for '{architecture}', the model is '{}'", base.architecture);
        return Err(GgufError::new(Mismatch, ARCHITECTURE, reason));
    }
    let alpha = check_alpha(&gguf)?;
    let invocation_tokens = check_invocation(&gguf, base)?;

    let mut pairs = Vec::new();
    let mut all_zero = true;
    for (tensor, halves) in pair_up(&gguf, base)? {
        let (a, b) = match halves {
            (Some(a), Some(b)) => (a, b),
            (Some(a), None) => return Err(GgufError::new(Malformed, a.name, "has no matching .lora_b")),
            (None, Some(b)) => return Err(GgufError::new(Malformed, b.name, "has no matching .lora_a")),
            (None, None) => continue,
        };
        pairs.push(check_pair(tensor, a, b, base)?);
        let zero = [a, b].map(|half| check_numbers(&gguf, half));
        let [a_zero, b_zero] = zero;
        all_zero &= a_zero? | b_zero?;
    }
    if pairs.is_empty() {
        return Err(GgufError::new(Missing, "tensor count", "is 0: the adapter holds no LoRA tensors"));
    }
    let mut targets: Vec<String> = pairs.iter().map(|pair| pair.target.clone()).collect();
    targets.sort_unstable();
    targets.dedup();
    let ranks = || pairs.iter().map(|pair| pair.rank);
    let tensors = gguf.tensors().iter();
    Ok(AdapterFacts {
        architecture: architecture.to_owned(),
        name: gguf.str("general.name")?.map(str::to_owned),
        task_name: gguf.str("adapter.lora.task_name")?.map(str::to_owned),
        prompt_prefix: gguf.str("adapter.lora.prompt_prefix")?.map(str::to_owned),
        alpha,
        rank_min: ranks().min().unwrap_or(0),
        rank_max: ranks().max().unwrap_or(0),
        targets,
        parameter_count: tensors.clone().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements())),
        weight_bytes: tensors.fold(0, |sum: u64, tensor| sum.saturating_add(tensor.size)),
        pairs,
        all_zero,
        invocation_tokens,
    })
}

/// Refuses files that are not LoRA adapters, saying what they are where it can be told.
fn check_kind(gguf: &Gguf<'_>) -> Result<(), GgufError> {
    let model = gguf.get("tokenizer.ggml.tokens").is_some() || gguf.tensor("token_embd.weight").is_some();
    match gguf.str(GENERAL_TYPE)? {
        Some("adapter") => {}
        other if model || other == Some("model") => {
            return Err(GgufError::new(WrongKind, GENERAL_TYPE, "is a model, not an adapter; pass it with -m"));
        }
        None => return Err(GgufError::new(Missing, GENERAL_TYPE, "is missing, expected 'adapter'")),
        Some(other) => {
            let reason = format!("is '{other}', expected 'adapter'");
            return Err(GgufError::new(WrongKind, GENERAL_TYPE, reason));
        }
    }
    match gguf.str(ADAPTER_TYPE)? {
        Some("lora") => Ok(()),
        None => Err(GgufError::new(Missing, ADAPTER_TYPE, "is missing, expected 'lora'")),
        Some(other) => {
            let reason = format!("is '{other}'; only 'lora' is supported");
            Err(GgufError::new(Unsupported, ADAPTER_TYPE, reason))
        }
    }
}

fn check_alpha(gguf: &Gguf<'_>) -> Result<f32, GgufError> {
    match gguf.f32(ALPHA)? {
        Some(alpha) if alpha.is_finite() && alpha > 0.0 => Ok(alpha),
        Some(alpha) => {
            let reason = format!("is {alpha}, expected a finite number above 0");
            Err(GgufError::new(Invalid, ALPHA, reason))
        }
        None => Err(GgufError::new(Missing, ALPHA, "is missing")),
    }
}

fn check_invocation(gguf: &Gguf<'_>, base: &ModelFacts) -> Result<Vec<u32>, GgufError> {
    let Some(tokens) = gguf.array(INVOCATION, &[ValueType::U32])? else {
        return Ok(Vec::new());
    };
    if tokens.is_empty() {
        return Err(GgufError::new(Invalid, INVOCATION, "is empty"));
    }
    if tokens.len() > MAX_INVOCATION_TOKENS {
        let reason = format!("{} tokens, the limit is {MAX_INVOCATION_TOKENS}", tokens.len());
        return Err(GgufError::new(TooLarge, INVOCATION, reason));
    }
    if let Some(token) = tokens.words().find(|token| *token >= base.n_vocab) {
        let reason = format!("token {token} of a vocabulary of {}", base.n_vocab);
        return Err(GgufError::new(Mismatch, INVOCATION, reason));
    }
    Ok(tokens.words().collect())
}

/// The A and B of each base tensor. One may be missing still.
type Pairs<'g, 'a> = BTreeMap<&'a str, (Option<&'g TensorInfo<'a>>, Option<&'g TensorInfo<'a>>)>;

/// Sorts the tensors into pairs by the name of the base tensor. Anything else than A and B is refused.
fn pair_up<'g, 'a>(gguf: &'g Gguf<'a>, base: &ModelFacts) -> Result<Pairs<'g, 'a>, GgufError> {
    let mut pairs = Pairs::new();
    for tensor in gguf.tensors() {
        let (target, half) = if let Some(target) = tensor.name.strip_suffix(".lora_a") {
            (target, &mut pairs.entry(target).or_default().0)
        } else if let Some(target) = tensor.name.strip_suffix(".lora_b") {
            (target, &mut pairs.entry(target).or_default().1)
        } else {
            let reason = if is_norm_or_bias(tensor.name) {
                "is a whole norm or bias; llama.cpp would skip it, and the adapter would only half apply"
            } else if base.tensors.contains_key(tensor.name) {
                "is a whole tensor; only .lora_a and .lora_b can be applied"
            } else {
                "has an unknown suffix, expected .lora_a or .lora_b"
            };
            return Err(GgufError::new(Unsupported, tensor.name, reason));
        };
        // llama.cpp removes the suffix wherever it stands, and would join two names.
        if target.contains(".lora_") {
            return Err(GgufError::new(Malformed, tensor.name, "holds .lora_ twice"));
        }
        *half = Some(tensor);
    }
    Ok(pairs)
}

fn is_norm_or_bias(tensor: &str) -> bool {
    tensor.ends_with("_norm.weight") || tensor.ends_with("_norm.bias") || tensor.ends_with(".bias")
}

/// Checks one pair: the base tensor exists and can be adapted, and all sizes fit.
fn check_pair(tensor: &str, a: &TensorInfo<'_>, b: &TensorInfo<'_>, base: &ModelFacts) -> Result<LoraPair, GgufError> {
    let Some(shape) = base.tensors.get(tensor) else {
        let reason = format!("the model has no tensor '{tensor}' (it has {} layers)", base.n_layer);
        return Err(GgufError::new(Mismatch, a.name, reason));
    };
    let (layer, target) = split_name(tensor);
    if is_norm_or_bias(tensor) || shape[1..] == [1, 1, 1] {
        return Err(GgufError::new(Unsupported, a.name, "norms and biases cannot be adapted"));
    }
    let embedding = tensor == "token_embd.weight";
    // llama.cpp exchanges A and B by the end of the name, but uses them so for this one tensor only.
    let adapted = |target: &&str| !UNADAPTED.contains(target) && (embedding || !target.ends_with("token_embd"));
    let Some(target) = target.filter(adapted) else {
        let reason = format!("llama.cpp applies no adapter to '{tensor}'");
        return Err(GgufError::new(Unsupported, a.name, reason));
    };
    for half in [a, b] {
        if !SCANNED.contains(&half.kind) {
            let names: Vec<_> = SCANNED.iter().map(|kind| kind.name()).collect();
            let reason = format!("is stored as {}, expected one of {}", half.kind, names.join(", "));
            return Err(GgufError::new(Unsupported, half.name, reason));
        }
    }
    if embedding && !base.tensors.contains_key("output.weight") {
        // The output layer is the same tensor by name, and multiplies with the exchanged A: an assertion.
        let reason = "the model shares its embedding with its output layer, and llama.cpp cannot adapt that";
        return Err(GgufError::new(Unsupported, a.name, reason));
    }
    // A and B are exchanged for the embedding: A holds a row per token.
    let (a_wide, a_rank) = if embedding { (a.dims[1], a.dims[0]) } else { (a.dims[0], a.dims[1]) };
    let (wide, high) = if embedding { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
    let rank = b.dims[0];
    check_size(a, &a.dims, wide, a_wide, shape)?;
    check_size(b, &b.dims, high, b.dims[1], shape)?;
    if a_rank != rank {
        let reason = format!("has rank {a_rank}, its .lora_b has rank {rank}");
        return Err(GgufError::new(Malformed, a.name, reason));
    }
    if rank > MAX_RANK {
        let reason = format!("has rank {rank}, the limit is {MAX_RANK}");
        return Err(GgufError::new(TooLarge, a.name, reason));
    }
    let experts = shape[2];
    for half in [a, b] {
        if half.dims[2] != experts || half.dims[3] != 1 || shape[3] != 1 {
            let reason = format!("stacks {} experts, the model has {experts} here", half.dims[2]);
            return Err(GgufError::new(Mismatch, half.name, reason));
        }
    }
    Ok(LoraPair {
        tensor: tensor.to_owned(),
        target: target.to_owned(),
        layer,
        // At most MAX_RANK.
        rank: rank as u32,
        experts: u32::try_from(experts).unwrap_or(u32::MAX),
        embedding,
        a: a.kind,
        b: b.kind,
    })
}

fn check_size(half: &TensorInfo<'_>, dims: &Shape, expected: u64, found: u64, base: &Shape) -> Result<(), GgufError> {
    if expected == found {
        return Ok(());
    }
    let reason = format!("has shape {dims:?}, which does not fit the model's {base:?}: another base model?");
    Err(GgufError::new(Mismatch, half.name, reason))
}

/// The layer and the kind of linear in a tensor's name: `blk.3.attn_q.weight` gives 3 and `attn_q`. No kind for names
/// that do not end in `.weight`, which llama.cpp adapts nowhere.
fn split_name(tensor: &str) -> (Option<u32>, Option<&str>) {
    let in_layer = tensor.find("blk.").and_then(|start| {
        let (layer, rest) = tensor.get(start..)?.strip_prefix("blk.")?.split_once('.')?;
        Some((layer.parse().ok()?, rest))
    });
    let (layer, rest) = match in_layer {
        Some((layer, rest)) => (Some(layer), rest),
        None => (None, tensor),
    };
    (layer, rest.strip_suffix(".weight"))
}

/// Refuses NaN and infinity; tells whether all numbers are zero.
fn check_numbers(gguf: &Gguf<'_>, half: &TensorInfo<'_>) -> Result<bool, GgufError> {
    match scan(half.kind, gguf.tensor_bytes(half)) {
        Some(Scan { finite: true, zero }) => Ok(zero),
        _ => Err(GgufError::new(Invalid, half.name, "holds NaN or infinite weights")),
    }
}
