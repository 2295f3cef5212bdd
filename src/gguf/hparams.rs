//! The sizes of a network: the keys `ARCHITECTURE.*`, checked as `llama_model_base::load_hparams` asserts them
//! (`src/llama-model.cpp`), and where a graph divides by them or rotates by them.

use super::arch::{Architecture, Heads, ModelKind};
use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::limits::{MAX_EMBEDDING, MAX_EXPERTS, MAX_LAYERS};
use super::value::{Value, ValueType};

use GgufErrorKind::{Invalid, Missing, TooLarge, Unsupported};

/// The sizes that callers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) n_ctx_train: u32,
    pub(super) n_embd: u32,
    pub(super) n_layer: u32,
    /// Largest number of query heads of any layer.
    pub(super) n_head: u32,
    /// Largest number of key heads of any layer.
    pub(super) n_head_kv: u32,
    pub(super) expert_count: u32,
    /// Largest number of experts that any layer uses for a token.
    pub(super) expert_used_count: u32,
    pub(super) pooling_type: Option<u32>,
    /// False when the model says that its attention looks both ways.
    pub(super) causal: bool,
}

/// Reads and checks the sizes of a network.
pub(super) fn check_sizes(gguf: &Gguf<'_>, architecture: &'static Architecture) -> Result<Sizes, GgufError> {
    let keys = Keys { gguf, architecture };
    let n_ctx_train = keys.required("context_length", 1, i32::MAX as u32)?;
    let n_embd = keys.required("embedding_length", 1, MAX_EMBEDDING)?;
    let n_layer = keys.required("block_count", 1, MAX_LAYERS)?;
    let n_nextn = keys.u32("nextn_predict_layers")?.unwrap_or(0);
    if n_nextn > n_layer {
        return Err(keys.invalid(
            "nextn_predict_layers",
            format!("{n_nextn} prediction layers, but only {n_layer} layers in all"),
        ));
    }
    let (expert_count, expert_used_count) = check_experts(&keys, n_layer)?;
    let (n_head, n_head_kv) = check_heads(&keys, n_embd, n_layer)?;
    check_numbers(&keys)?;
    Ok(Sizes {
        n_ctx_train,
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        expert_count,
        expert_used_count,
        pooling_type: keys.u32("pooling_type")?,
        causal: gguf.bool(&keys.name("attention.causal"))?.unwrap_or(true),
    })
}

/// The keys of one architecture.
struct Keys<'g, 'a> {
    gguf: &'g Gguf<'a>,
    architecture: &'static Architecture,
}

impl Keys<'_, '_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    fn invalid(&self, key: &str, reason: impl AsRef<str>) -> GgufError {
        GgufError::new(Invalid, self.name(key), reason)
    }

    fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.gguf.u32(&self.name(key))
    }

    /// A number within a range; absent is an error.
    fn required(&self, key: &str, least: u32, most: u32) -> Result<u32, GgufError> {
        let Some(number) = self.u32(key)? else {
            return Err(GgufError::new(Missing, self.name(key), "is missing"));
        };
        if number < least {
            return Err(self.invalid(key, format!("is {number}, expected at least {least}")));
        }
        if number > most {
            let reason = format!("is {number}, the limit is {most}");
            return Err(GgufError::new(TooLarge, self.name(key), reason));
        }
        Ok(number)
    }

    /// A number per layer: stored as one for all, or as an array with one for each.
    fn per_layer(&self, key: &str, n_layer: u32) -> Result<Option<Vec<u32>>, GgufError> {
        let name = self.name(key);
        if !matches!(self.gguf.get(&name), Some(Value::Array(_))) {
            return Ok(self.gguf.u32(&name)?.map(|number| vec![number; n_layer as usize]));
        }
        let kinds = [ValueType::U32, ValueType::I32, ValueType::Bool];
        let array = self.gguf.array(&name, &kinds)?;
        let Some(array) = array.filter(|array| array.len() == n_layer as usize) else {
            return Err(self.invalid(key, format!("expected one number for each of the {n_layer} layers")));
        };
        Ok(Some(array.words().collect()))
    }

    fn is_array(&self, key: &str) -> bool {
        matches!(self.gguf.get(&self.name(key)), Some(Value::Array(_)))
    }
}

/// Experts of a mixture: how many there are, and how many a token uses at most.
fn check_experts(keys: &Keys<'_, '_>, n_layer: u32) -> Result<(u32, u32), GgufError> {
    let count = keys.u32("expert_count")?.unwrap_or(0);
    let used = keys.per_layer("expert_used_count", n_layer)?.unwrap_or_default();
    let used = used.into_iter().max().unwrap_or(0);
    let groups = keys.u32("expert_group_count")?.unwrap_or(0);
    let groups_used = keys.u32("expert_group_used_count")?.unwrap_or(0);
    // llama.cpp reads a single expert of these two as none.
    if matches!(keys.architecture.name, "hunyuan-dense" | "hunyuan_vl") && count <= 1 {
        return Ok((0, 0));
    }
    if count > MAX_EXPERTS {
        let reason = format!("is {count}, the limit is {MAX_EXPERTS}");
        return Err(GgufError::new(TooLarge, keys.name("expert_count"), reason));
    }
    if used > count {
        return Err(keys.invalid("expert_used_count", format!("uses {used} experts of {count}")));
    }
    if count == 0 {
        if groups != 0 {
            return Err(keys.invalid("expert_group_count", format!("{groups} groups of no experts")));
        }
        return Ok((0, 0));
    }
    if used == 0 {
        return Err(keys.invalid("expert_used_count", format!("uses none of the {count} experts")));
    }
    if groups >= count {
        return Err(keys.invalid("expert_group_count", format!("{groups} groups of {count} experts")));
    }
    if groups > 1 && !count.is_multiple_of(groups) {
        return Err(keys.invalid("expert_group_count", format!("{count} experts do not divide into {groups} groups")));
    }
    if groups > 1 && (groups_used == 0 || groups_used >= groups) {
        return Err(keys.invalid("expert_group_used_count", format!("uses {groups_used} groups of {groups}")));
    }
    Ok((count, used))
}

/// Attention heads, their widths and their rotation. Returns the largest numbers of query and key heads.
fn check_heads(keys: &Keys<'_, '_>, n_embd: u32, n_layer: u32) -> Result<(u32, u32), GgufError> {
    let attention_free = matches!(keys.architecture.kind, ModelKind::Recurrent | ModelKind::Audio);
    let Some(heads) = keys.per_layer("attention.head_count", n_layer)? else {
        if attention_free {
            return Ok((0, 0));
        }
        return Err(GgufError::new(Missing, keys.name("attention.head_count"), "is missing"));
    };
    let most = heads.iter().copied().max().unwrap_or(0);
    if most == 0 {
        if attention_free {
            return Ok((0, 0));
        }
        return Err(keys.invalid("attention.head_count", "is 0, expected at least 1"));
    }
    let key_heads = keys.per_layer("attention.head_count_kv", n_layer)?;
    let key_heads = key_heads.unwrap_or_else(|| heads.clone());
    let most_keys = key_heads.iter().copied().max().unwrap_or(0);
    if most_keys == 0 && !keys.is_array("attention.head_count_kv") {
        return Err(keys.invalid("attention.head_count_kv", "is 0, expected at least 1"));
    }
    for (layer, (queries, keys_of_layer)) in heads.iter().zip(&key_heads).enumerate() {
        if *queries > 0 && *keys_of_layer > 0 && !queries.is_multiple_of(*keys_of_layer) {
            let reason = format!("layer {layer}: {queries} heads do not divide among {keys_of_layer} key heads");
            return Err(keys.invalid("attention.head_count_kv", reason));
        }
    }
    // As in llama.cpp, the widths follow from layer 0 unless they are given; without heads there they stay unused.
    let first = heads.first().copied().unwrap_or(0);
    if first > 0 {
        check_head_widths(keys, n_embd, first)?;
    }
    Ok((most, most_keys))
}

/// Widths of the heads of layer 0.
fn check_head_widths(keys: &Keys<'_, '_>, n_embd: u32, n_head: u32) -> Result<(), GgufError> {
    let width = |key: &str| -> Result<u32, GgufError> {
        match keys.u32(key)? {
            Some(0) => Err(keys.invalid(key, "is 0, expected at least 1")),
            Some(width) => Ok(width),
            None if !n_embd.is_multiple_of(n_head) => Err(keys.invalid(
                "attention.head_count",
                format!("an embedding of {n_embd} does not divide into {n_head} heads"),
            )),
            None => Ok(n_embd / n_head),
        }
    };
    let key_width = width("attention.key_length")?;
    let value_width = width("attention.value_length")?;
    let stored = keys.u32("rope.dimension_count")?;
    let rotated = stored.unwrap_or(key_width);
    if rotated > key_width {
        return Err(keys
            .invalid("rope.dimension_count", format!("rotates {rotated} dimensions of heads that have {key_width}")));
    }
    let heads = keys.architecture.heads;
    if !rotated.is_multiple_of(2) && (stored.is_some() || heads == Heads::Rotary) {
        return Err(keys.invalid("rope.dimension_count", format!("{rotated} is odd; dimensions rotate in pairs")));
    }
    if let Some(rotated) = keys.u32("rope.dimension_count_swa")?
        && !rotated.is_multiple_of(2)
    {
        return Err(keys.invalid("rope.dimension_count_swa", format!("{rotated} is odd; dimensions rotate in pairs")));
    }
    // Layers with a sliding window may have widths of their own, and then layer 0 is judged by those.
    let window = ["attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"];
    if window.iter().any(|key| keys.gguf.get(&keys.name(key)).is_some()) {
        return Ok(());
    }
    if heads >= Heads::Equal && key_width != value_width {
        return Err(keys.invalid(
            "attention.value_length",
            format!("is {value_width}, but this architecture needs the key length, {key_width}"),
        ));
    }
    if heads == Heads::Rotary && rotated != key_width {
        return Err(keys.invalid(
            "rope.dimension_count",
            format!("is {rotated}, but this architecture rotates whole heads of {key_width}"),
        ));
    }
    Ok(())
}

/// Numbers that llama.cpp asserts or divides by.
fn check_numbers(keys: &Keys<'_, '_>) -> Result<(), GgufError> {
    let scaling = keys.name("rope.scaling.type");
    if let Some(kind) = keys.gguf.str(&scaling)?
        && !matches!(kind, "none" | "linear" | "yarn" | "longrope")
    {
        let reason = format!("this build of llama.cpp does not know '{kind}'");
        return Err(GgufError::new(Unsupported, scaling, reason));
    }
    let not_negative = [
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "attention.group_norm_epsilon",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.factor",
        "rope.scale_linear",
    ];
    for key in not_negative {
        if let Some(number) = keys.gguf.f32(&keys.name(key))?
            && !(number.is_finite() && number >= 0.0)
        {
            return Err(keys.invalid(key, format!("is {number}, expected a number of at least 0")));
        }
    }
    let divisors: &[&str] = match keys.architecture.name {
        "mamba" | "mamba2" => &["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank"],
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => &["wkv.head_size"],
        "minimax-m3" => &["attention.indexer.block_size"],
        _ => &["full_attention_interval"],
    };
    for key in divisors {
        if keys.u32(key)? == Some(0) {
            return Err(keys.invalid(key, "is 0, expected at least 1"));
        }
    }
    Ok(())
}
