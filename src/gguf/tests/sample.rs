//! Sound tiny files to start from, and tools to damage them.

use super::super::{GgufWriter, ModelFacts, OwnedValue, TensorType, check_model};

/// Width of the sample networks.
pub(super) const EMBD: u64 = 8;
/// Tokens of the sample vocabulary.
pub(super) const TOKENS: [&str; 8] = ["<s>", "</s>", "a", "b", "c", "d", "ab", "abc"];

/// Adds a tensor of ones in F32.
pub(super) fn ones(file: &mut GgufWriter<'_>, name: &str, dims: &[u64]) {
    let count: u64 = dims.iter().product();
    let data = 1.0_f32.to_le_bytes().repeat(count as usize);
    file.tensor(name, TensorType::F32, dims, data).expect("sample tensor");
}

/// Sets a key.
pub(super) fn set(file: &mut GgufWriter<'_>, key: &str, value: impl Into<OwnedValue>) {
    file.set(key, value).expect("sample key");
}

/// The keys of a sound one-layer network with a byte-pair vocabulary.
pub(super) fn keys() -> GgufWriter<'static> {
    let mut file = GgufWriter::new();
    set(&mut file, "general.architecture", "llama");
    set(&mut file, "general.name", "Tiny");
    set(&mut file, "llama.context_length", 64_u32);
    set(&mut file, "llama.embedding_length", EMBD as u32);
    set(&mut file, "llama.block_count", 1_u32);
    set(&mut file, "llama.attention.head_count", 2_u32);
    set(&mut file, "llama.attention.head_count_kv", 1_u32);
    set(&mut file, "llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    set(&mut file, "llama.rope.dimension_count", 4_u32);
    set(&mut file, "tokenizer.ggml.model", "gpt2");
    set(&mut file, "tokenizer.ggml.tokens", &TOKENS[..]);
    set(&mut file, "tokenizer.ggml.token_type", &[3_i32, 3, 1, 1, 1, 1, 1, 1][..]);
    set(&mut file, "tokenizer.ggml.merges", &["a b", "ab c"][..]);
    set(&mut file, "tokenizer.ggml.bos_token_id", 0_u32);
    set(&mut file, "tokenizer.ggml.eos_token_id", 1_u32);
    file
}

/// A sound model.
pub(crate) fn model() -> GgufWriter<'static> {
    let mut file = keys();
    ones(&mut file, "token_embd.weight", &[EMBD, 8]);
    ones(&mut file, "output_norm.weight", &[EMBD]);
    ones(&mut file, "output.weight", &[EMBD, 8]);
    ones(&mut file, "blk.0.attn_norm.weight", &[EMBD]);
    ones(&mut file, "blk.0.attn_q.weight", &[EMBD, EMBD]);
    ones(&mut file, "blk.0.attn_k.weight", &[EMBD, 4]);
    ones(&mut file, "blk.0.attn_v.weight", &[EMBD, 4]);
    ones(&mut file, "blk.0.attn_output.weight", &[EMBD, EMBD]);
    ones(&mut file, "blk.0.ffn_norm.weight", &[EMBD]);
    ones(&mut file, "blk.0.ffn_gate.weight", &[EMBD, 16]);
    ones(&mut file, "blk.0.ffn_up.weight", &[EMBD, 16]);
    ones(&mut file, "blk.0.ffn_down.weight", &[16, EMBD]);
    file
}

/// The model with one key changed.
pub(super) fn model_with(key: &str, value: impl Into<OwnedValue>) -> Vec<u8> {
    let mut file = model();
    set(&mut file, key, value);
    file.to_bytes()
}

/// The model without a key.
pub(super) fn model_without(key: &str) -> Vec<u8> {
    model().remove(key).to_bytes()
}

/// A sound model that stacks four experts.
pub(super) fn moe_model() -> GgufWriter<'static> {
    let mut file = model();
    set(&mut file, "llama.expert_count", 4_u32);
    set(&mut file, "llama.expert_used_count", 2_u32);
    ones(&mut file, "blk.0.ffn_gate_exps.weight", &[EMBD, 16, 4]);
    file
}

/// The texts of a sound sentencepiece vocabulary: three special tokens, all bytes, some pieces.
pub(super) fn spm_tokens() -> Vec<String> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["\u{2581}a", "b", "\u{2581}ab"].map(str::to_owned);
    special.into_iter().chain(bytes).chain(pieces).collect()
}

/// A sound model with a sentencepiece vocabulary.
pub(super) fn spm_model(tokens: &[String]) -> GgufWriter<'static> {
    let types: Vec<i32> = tokens.iter().map(|token| if token.starts_with("<0x") { 6 } else { 1 }).collect();
    let mut file = model();
    set(&mut file, "tokenizer.ggml.model", "llama");
    set(&mut file, "tokenizer.ggml.tokens", OwnedValue::texts(tokens));
    set(&mut file, "tokenizer.ggml.token_type", &types[..]);
    set(&mut file, "tokenizer.ggml.scores", &vec![0.0_f32; tokens.len()][..]);
    set(&mut file, "tokenizer.ggml.bos_token_id", 1_u32);
    set(&mut file, "tokenizer.ggml.eos_token_id", 2_u32);
    file.remove("tokenizer.ggml.merges");
    file
}

/// The facts of a sound file.
#[track_caller]
pub(crate) fn facts(file: &GgufWriter<'_>) -> ModelFacts {
    check_model(&file.to_bytes()).expect("a sound model")
}

/// The keys of a sound adapter.
pub(super) fn adapter_keys() -> GgufWriter<'static> {
    let mut file = GgufWriter::new();
    set(&mut file, "general.type", "adapter");
    set(&mut file, "general.architecture", "llama");
    set(&mut file, "adapter.type", "lora");
    set(&mut file, "adapter.lora.alpha", 4.0_f32);
    file
}

/// A sound adapter of rank 2 for the sample model.
pub(super) fn adapter() -> GgufWriter<'static> {
    let mut file = adapter_keys();
    ones(&mut file, "blk.0.attn_q.weight.lora_a", &[EMBD, 2]);
    ones(&mut file, "blk.0.attn_q.weight.lora_b", &[2, EMBD]);
    file
}

/// The adapter with one key changed.
pub(super) fn adapter_with(key: &str, value: impl Into<OwnedValue>) -> Vec<u8> {
    let mut file = adapter();
    set(&mut file, key, value);
    file.to_bytes()
}

/// A sound model of less than 2 KiB, for the corpus. It lacks most tensors, which is llama.cpp's to notice.
pub(super) fn small_model() -> GgufWriter<'static> {
    let mut file = keys();
    ones(&mut file, "token_embd.weight", &[EMBD, 8]);
    ones(&mut file, "blk.0.attn_norm.weight", &[EMBD]);
    file
}

/// Overwrites bytes at a position.
pub(super) fn patch(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Where the text of a key or tensor name ends: its type or dimensions follow.
pub(super) fn after(bytes: &[u8], name: &str) -> usize {
    let found = bytes.windows(name.len()).position(|window| window == name.as_bytes());
    found.expect("the name is there") + name.len()
}

/// Overwrites a part of a value or tensor row, counted from the end of its name.
pub(super) fn patch_after(bytes: Vec<u8>, name: &str, skip: usize, new: &[u8]) -> Vec<u8> {
    let at = after(&bytes, name) + skip;
    patch(bytes, at, new)
}

/// Byte of the header where the tensor count is.
pub(super) const TENSOR_COUNT: usize = 8;
/// Byte of the header where the key count is.
pub(super) const KEY_COUNT: usize = 16;
/// Bytes from a tensor's name to its first dimension.
pub(super) const DIMS: usize = 4;
/// Bytes from the name of a tensor of two dimensions to its type.
pub(super) const TYPE_2D: usize = 20;
/// Bytes from the name of a tensor of two dimensions to its offset.
pub(super) const OFFSET_2D: usize = 24;
