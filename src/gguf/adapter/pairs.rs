//! Low-rank pairs, with gains of outputs or without: the check against the base model, as `llama_adapter_lora_init_impl` in `src/llama-adapter.cpp`
//! loads it and as `build_lora_mm`, `build_lora_mm_id` and `build_inp_embd` in `src/llama-graph.cpp` use it.

use std::collections::BTreeMap;

use super::super::error::{GgufError, GgufErrorKind};
use super::super::header::Gguf;
use super::super::limits::{MAX_INVOCATION_TOKENS, MAX_RANK};
use super::super::model::ModelFacts;
use super::super::scan::{SCANNED, Scan, scan};
use super::super::tensor::{Shape, TensorInfo, TensorType};
use super::super::value::ValueType;
use super::{AdapterFacts, AdapterKind};

use GgufErrorKind::{Invalid, Malformed, Mismatch, Missing, TooLarge, Unsupported};

/// The end of a gain's name.
const GAIN: &str = ".gain";
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

/// The gain of one adapted tensor: what its outputs are multiplied by, less 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GainVector {
    /// The base tensor: `blk.3.attn_k.weight`.
    pub tensor: String,
    /// The kind of linear: `attn_k`.
    pub target: String,
    /// The layer, for tensors of a layer.
    pub layer: Option<u32>,
    /// Outputs of the linear: numbers in the vector.
    pub outputs: u32,
}

/// Checks a file of low-rank pairs; with gains when `gained`.
pub(super) fn check(gguf: &Gguf<'_>, base: &ModelFacts, gained: bool) -> Result<AdapterFacts, GgufError> {
    let invocation_tokens = check_invocation(gguf, base)?;
    let kind = match (gained, invocation_tokens.is_empty()) {
        (false, true) => AdapterKind::Lora,
        (false, false) => AdapterKind::Alora,
        (true, true) => AdapterKind::Gain,
        (true, false) => {
            return Err(GgufError::new(Unsupported, INVOCATION, "together with gains is not supported"));
        }
    };
    let (mut pairs, mut gains) = (Vec::new(), Vec::new());
    let mut all_zero = true;
    for (tensor, Parts { a, b, gain }) in parts(gguf, base, gained)? {
        match (a, b) {
            (Some(a), Some(b)) => {
                pairs.push(check_pair(tensor, a, b, base)?);
                let [a_zero, b_zero] = [a, b].map(|half| check_numbers(gguf, half));
                all_zero &= a_zero? | b_zero?;
            }
            (Some(a), None) => return Err(GgufError::new(Malformed, a.name, "has no matching .lora_b")),
            (None, Some(b)) => return Err(GgufError::new(Malformed, b.name, "has no matching .lora_a")),
            (None, None) => {}
        }
        if let Some(gain) = gain {
            gains.push(check_gain(tensor, gain, base)?);
            all_zero &= check_numbers(gguf, gain)?;
        }
    }
    if pairs.is_empty() && gains.is_empty() {
        return Err(GgufError::new(Missing, "tensor count", "is 0: the adapter holds no LoRA tensors"));
    }
    if gained && gains.is_empty() {
        let reason = "is 'lora_gain', but no tensor is a .gain; a plain LoRA is of type 'lora'";
        return Err(GgufError::new(Malformed, super::ADAPTER_TYPE, reason));
    }
    // Without pairs nothing is divided by it.
    let alpha = if pairs.is_empty() && gguf.get(ALPHA).is_none() { 1.0 } else { check_alpha(gguf)? };
    let of_pairs = pairs.iter().map(|pair| pair.target.clone());
    let mut targets: Vec<String> = of_pairs.chain(gains.iter().map(|gain| gain.target.clone())).collect();
    targets.sort_unstable();
    targets.dedup();
    let ranks = || pairs.iter().map(|pair| pair.rank);
    Ok(AdapterFacts {
        alpha,
        rank_min: ranks().min().unwrap_or(0),
        rank_max: ranks().max().unwrap_or(0),
        targets,
        pairs,
        gains,
        all_zero,
        invocation_tokens,
        ..AdapterFacts::common(gguf, kind, base)?
    })
}

/// The gains of a checked adapter: the base tensor, and the bytes of one little-endian F32 for each output (`g - 1`),
/// in the order of the file. Empty for files without.
///
/// # Errors
/// Not GGUF; checked files are.
pub fn gains(bytes: &[u8]) -> Result<Vec<(&str, &[u8])>, GgufError> {
    let gguf = Gguf::read(bytes)?;
    let gain = |tensor: &TensorInfo<'_>| tensor.name.ends_with(GAIN);
    let found = gguf.tensors().iter().filter(|tensor| gain(tensor));
    Ok(found.map(|tensor| (tensor.name.strip_suffix(GAIN).unwrap_or_default(), gguf.tensor_bytes(tensor))).collect())
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

/// What a file has for one base tensor. Halves of a pair may be missing still.
#[derive(Default)]
struct Parts<'g, 'a> {
    a: Option<&'g TensorInfo<'a>>,
    b: Option<&'g TensorInfo<'a>>,
    gain: Option<&'g TensorInfo<'a>>,
}

/// Sorts the tensors by the name of the base tensor. Anything else than A, B and, when `gained`, gains is refused.
fn parts<'g, 'a>(
    gguf: &'g Gguf<'a>,
    base: &ModelFacts,
    gained: bool,
) -> Result<BTreeMap<&'a str, Parts<'g, 'a>>, GgufError> {
    let mut parts: BTreeMap<&'a str, Parts<'g, 'a>> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let (target, part) = if let Some(target) = tensor.name.strip_suffix(".lora_a") {
            (target, &mut parts.entry(target).or_default().a)
        } else if let Some(target) = tensor.name.strip_suffix(".lora_b") {
            (target, &mut parts.entry(target).or_default().b)
        } else if let Some(target) = tensor.name.strip_suffix(GAIN).filter(|_| gained) {
            (target, &mut parts.entry(target).or_default().gain)
        } else {
            let reason = if tensor.name.ends_with(GAIN) {
                "is a gain; those belong to adapters of type 'lora_gain'"
            } else if is_norm_or_bias(tensor.name) {
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
        *part = Some(tensor);
    }
    Ok(parts)
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

/// Checks one gain: a number for every output of one plain matrix.
fn check_gain(tensor: &str, gain: &TensorInfo<'_>, base: &ModelFacts) -> Result<GainVector, GgufError> {
    let Some(shape) = base.tensors.get(tensor) else {
        let reason = format!("the model has no tensor '{tensor}' (it has {} layers)", base.n_layer);
        return Err(GgufError::new(Mismatch, gain.name, reason));
    };
    let (layer, target) = split_name(tensor);
    let [_, outputs, experts, more] = *shape;
    let plain = experts == 1 && more == 1 && outputs > 1 && !is_norm_or_bias(tensor);
    let adapted = |target: &&str| !UNADAPTED.contains(target) && !target.ends_with("token_embd");
    let Some(target) = target.filter(|target| plain && adapted(target)) else {
        let reason = format!("'{tensor}' is no plain linear; only those have gains");
        return Err(GgufError::new(Unsupported, gain.name, reason));
    };
    if gain.kind != TensorType::F32 {
        return Err(GgufError::new(Unsupported, gain.name, format!("is stored as {}, expected F32", gain.kind)));
    }
    if gain.dims != [outputs, 1, 1, 1] {
        let reason = format!("has shape {:?}, the model has {outputs} outputs here: another base model?", gain.dims);
        return Err(GgufError::new(Mismatch, gain.name, reason));
    }
    let outputs = u32::try_from(outputs).unwrap_or(u32::MAX);
    Ok(GainVector { tensor: tensor.to_owned(), target: target.to_owned(), layer, outputs })
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
pub(super) fn check_numbers(gguf: &Gguf<'_>, half: &TensorInfo<'_>) -> Result<bool, GgufError> {
    match scan(half.kind, gguf.tensor_bytes(half)) {
        Some(Scan { finite: true, zero }) => Ok(zero),
        _ => Err(GgufError::new(Invalid, half.name, "holds NaN or infinite weights")),
    }
}
