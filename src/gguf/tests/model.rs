//! M16, M17 and M21, and what else a model must hold beside its tokenizer.

use super::super::{Gguf, GgufErrorKind::*, GgufWriter, ModelKind, OwnedValue, TensorType, check_model};
use super::sample::{adapter, facts, keys, model, model_with, model_without, moe_model, ones, set};
use super::{Refusal, assert_refused};

#[test]
fn the_sample_model_is_described() {
    let facts = facts(&model());
    assert_eq!(facts.architecture, "llama");
    assert_eq!(facts.kind, ModelKind::Decoder);
    assert_eq!(facts.name.as_deref(), Some("Tiny"));
    assert_eq!(facts.file_type, "F32");
    assert_eq!((facts.n_vocab, facts.n_ctx_train, facts.n_embd, facts.n_layer), (8, 64, 8, 1));
    assert_eq!((facts.n_head, facts.n_head_kv, facts.expert_count), (2, 1, 0));
    assert_eq!((facts.parameter_count, facts.weight_bytes), (728, 4 * 728));
    assert_eq!(facts.tensors.get("blk.0.attn_k.weight"), Some(&[8, 4, 1, 1]));
    assert_eq!((facts.tokenizer.bos, facts.tokenizer.eos), (Some(0), Some(1)));
    assert_eq!(facts.split, None);
    facts.require_generation().expect("generates");
}

#[test]
fn m16_sizes_that_cannot_work() {
    let llama = |key: &str| format!("llama.{key}");
    let cases: [(&str, OwnedValue, &str, &str); 17] = [
        ("context_length", 0_u32.into(), "context_length", "is 0"),
        ("embedding_length", 0_u32.into(), "embedding_length", "is 0"),
        ("block_count", 0_u32.into(), "block_count", "is 0"),
        ("block_count", 100_u32.into(), "block_count", "holds 12 tensors"),
        ("attention.head_count", 0_u32.into(), "attention.head_count", "is 0"),
        ("attention.head_count_kv", 0_u32.into(), "attention.head_count_kv", "is 0"),
        ("attention.head_count", 3_u32.into(), "attention.head_count", "8 does not divide into 3 heads"),
        ("attention.head_count", [2_u32, 2][..].into(), "attention.head_count", "each of the 1 layers"),
        ("attention.key_length", 0_u32.into(), "attention.key_length", "is 0"),
        ("attention.value_length", 6_u32.into(), "attention.value_length", "needs the key length, 4"),
        ("rope.dimension_count", 3_u32.into(), "rope.dimension_count", "odd"),
        ("rope.dimension_count", 2_u32.into(), "rope.dimension_count", "whole heads of 4"),
        ("rope.dimension_count", 8_u32.into(), "rope.dimension_count", "heads that have 4"),
        ("nextn_predict_layers", 2_u32.into(), "nextn_predict_layers", "only 1 layers"),
        ("attention.layer_norm_rms_epsilon", f32::NAN.into(), "attention.layer_norm_rms_epsilon", "NaN"),
        ("attention.layer_norm_rms_epsilon", (-1_f32).into(), "attention.layer_norm_rms_epsilon", "is -1"),
        ("rope.freq_base", f32::INFINITY.into(), "rope.freq_base", "inf"),
    ];
    for (key, value, field, reason) in cases {
        let error = check_model(&model_with(&llama(key), value)).expect_err(key);
        assert_eq!(error.field, llama(field), "{error}");
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(error.kind, Invalid, "{error}");
    }
    let key_heads = model_with("llama.attention.head_count_kv", &[-1_i32][..]);
    let expected = Refusal("llama.attention.head_count_kv", "do not divide among", Invalid);
    assert_refused("negative key heads", check_model(&key_heads), expected);
    let layers = Refusal("llama.block_count", "limit is 512", TooLarge);
    assert_refused("10^6 layers", check_model(&model_with("llama.block_count", 1_000_000_u32)), layers);
    let missing = Refusal("llama.attention.head_count", "missing", Missing);
    assert_refused("no heads", check_model(&model_without("llama.attention.head_count")), missing);
    let missing = Refusal("llama.context_length", "missing", Missing);
    assert_refused("no context", check_model(&model_without("llama.context_length")), missing);
    let wrong = Refusal("llama.block_count", "stored as u64, expected u32", WrongType);
    assert_refused("u64 layers", check_model(&model_with("llama.block_count", 1_u64)), wrong);
    let scaling = Refusal("llama.rope.scaling.type", "does not know 'ntk'", Unsupported);
    assert_refused("rope scaling", check_model(&model_with("llama.rope.scaling.type", "ntk")), scaling);
}

#[test]
fn m16_experts() {
    assert_eq!(facts(&moe_model()).expert_used_count, 2);
    let cases = [
        ("llama.expert_used_count", 5_u32, "llama.expert_used_count", "uses 5 experts of 4", Invalid),
        ("llama.expert_used_count", 0, "llama.expert_used_count", "uses none", Invalid),
        ("llama.expert_count", 0, "llama.expert_used_count", "uses 2 experts of 0", Invalid),
        ("llama.expert_count", 2_000, "llama.expert_count", "limit is 1024", TooLarge),
        ("llama.expert_group_count", 4, "llama.expert_group_count", "4 groups of 4", Invalid),
        ("llama.expert_group_count", 3, "llama.expert_group_count", "do not divide", Invalid),
        ("llama.expert_group_count", 2, "llama.expert_group_used_count", "uses 0 groups of 2", Invalid),
    ];
    for (key, value, field, reason, kind) in cases {
        let mut file = moe_model();
        set(&mut file, key, value);
        assert_refused(key, check_model(&file.to_bytes()), Refusal(field, reason, kind));
    }
}

/// The sample as another architecture, with the sizes that every architecture needs.
fn as_architecture(name: &str) -> GgufWriter<'static> {
    let mut file = model();
    set(&mut file, "general.architecture", name);
    for (key, value) in [("context_length", 64_u32), ("embedding_length", 8), ("block_count", 1)] {
        set(&mut file, &format!("{name}.{key}"), value);
    }
    file
}

#[test]
fn m16_divisors_of_other_architectures() {
    let mut file = as_architecture("rwkv7");
    set(&mut file, "rwkv7.wkv.head_size", 0_u32);
    let expected = Refusal("rwkv7.wkv.head_size", "is 0", Invalid);
    assert_refused("rwkv7", check_model(&file.to_bytes()), expected);
    set(&mut file, "rwkv7.wkv.head_size", 64_u32);
    assert_eq!(facts(&file).kind, ModelKind::Recurrent, "needs no attention heads");
    let mut file = as_architecture("qwen3next");
    set(&mut file, "qwen3next.attention.head_count", 2_u32);
    set(&mut file, "qwen3next.full_attention_interval", 0_u32);
    let expected = Refusal("qwen3next.full_attention_interval", "is 0", Invalid);
    assert_refused("qwen3next", check_model(&file.to_bytes()), expected);
}

#[test]
fn heads_may_differ_by_layer() {
    let mut file = model();
    set(&mut file, "llama.block_count", 3_u32);
    set(&mut file, "llama.attention.head_count", &[2_i32, 0, 2][..]);
    set(&mut file, "llama.attention.head_count_kv", &[1_i32, 0, 2][..]);
    let facts = facts(&file);
    assert_eq!((facts.n_head, facts.n_head_kv), (2, 2));
}

#[test]
fn m17_templates_are_bounded() {
    let key = "tokenizer.chat_template";
    let template = |text: String| check_model(&model_with(key, text));
    assert_eq!(template("{{ x }}".into()).expect("short").chat_template.as_deref(), Some("{{ x }}"));
    let expected = Refusal(key, "limit is 1048576", TooLarge);
    assert_refused("2 MiB", template("x".repeat(2 << 20)), expected);
    assert_refused("NUL", template("a\0b".into()), Refusal(key, "NUL", Malformed));
    let expected = Refusal(key, "expected string", WrongType);
    assert_refused("number", check_model(&model_with(key, 1_u32)), expected);
}

#[test]
fn m21_other_kinds_are_named() {
    let expected = Refusal("general.type", "is a LoRA adapter; pass it with --lora", WrongKind);
    assert_refused("adapter", check_model(&adapter().to_bytes()), expected);
    let expected = Refusal("general.type", "mmproj", WrongKind);
    assert_refused("projector", check_model(&model_with("general.type", "mmproj")), expected);
    let expected = Refusal("general.type", "importance matrix", WrongKind);
    assert_refused("imatrix", check_model(&model_with("general.type", "imatrix")), expected);
    let expected = Refusal("general.architecture", "multimodal projector", WrongKind);
    assert_refused("clip", check_model(&model_with("general.architecture", "clip")), expected);
    let expected = Refusal("general.architecture", "control vector", Unsupported);
    assert_refused("cvec", check_model(&model_with("general.architecture", "controlvector")), expected);
    let expected = Refusal("general.architecture", "does not know architecture 'gpt5'", Unsupported);
    assert_refused("unknown", check_model(&model_with("general.architecture", "gpt5")), expected);
    let expected = Refusal("general.architecture", "missing", Missing);
    assert_refused("none", check_model(&model_without("general.architecture")), expected);
}

#[test]
fn m21_models_that_do_not_generate() {
    for (name, reason) in [
        ("bert", "is an embedding model; it cannot generate text"),
        ("nomic-bert", "embedding"),
        ("jina-bert-v2", "embedding"),
        ("t5encoder", "embedding"),
        ("gemma-embedding", "embedding"),
        ("t5", "encoder-decoder"),
        ("llada", "diffusion"),
        ("eagle3", "draft head"),
        ("wavtokenizer-dec", "audio"),
    ] {
        let mut file = as_architecture(name);
        set(&mut file, &format!("{name}.attention.head_count"), 2_u32);
        let expected = Refusal("general.architecture", reason, WrongKind);
        assert_refused(name, facts(&file).require_generation(), expected);
    }
    let mut pooled = model();
    set(&mut pooled, "llama.pooling_type", 3_u32);
    assert_eq!(facts(&pooled).kind, ModelKind::Embedding);
    set(&mut pooled, "llama.pooling_type", 0_u32);
    assert_eq!(facts(&pooled).kind, ModelKind::Decoder);
    set(&mut pooled, "llama.attention.causal", false);
    assert_eq!(facts(&pooled).kind, ModelKind::Embedding);
}

#[test]
fn weights_need_types_that_can_be_computed_with() {
    let with = |name: &str, kind: TensorType, dims: &[u64], bytes: usize| {
        let mut file = model();
        file.tensor(name, kind, dims, vec![0; bytes]).expect("tensor");
        check_model(&file.to_bytes())
    };
    let q8_1 = TensorType::from_id(9).expect("Q8_1");
    let expected = Refusal("blk.0.x.weight", "cannot compute with Q8_1", Unsupported);
    assert_refused("Q8_1", with("blk.0.x.weight", q8_1, &[32, 1], 36), expected);
    let expected = Refusal("blk.0.x.weight", "cannot compute with I32", Unsupported);
    assert_refused("I32", with("blk.0.x.weight", TensorType::I32, &[4, 2], 32), expected);
    with("blk.0.ffn_gate_tid2eid.weight", TensorType::I32, &[4, 2], 32).expect("a table of integers");
    let expected = Refusal("blk.0.x_norm.weight", "must be F32", Unsupported);
    assert_refused("F16 norm", with("blk.0.x_norm.weight", TensorType::F16, &[8], 16), expected);
    let expected = Refusal("blk.0.x.bias", "must be F32", Unsupported);
    assert_refused("Q8_0 bias", with("blk.0.x.bias", TensorType::Q8_0, &[32], 34), expected);
}

#[test]
fn mapped_weights_are_aligned_to_32_bytes() {
    let bytes = keys().to_bytes();
    let mut file = GgufWriter::copy_of(&Gguf::read(&bytes).expect("sound"));
    file.alignment(8).expect("alignment");
    ones(&mut file, "a.weight", &[2]);
    ones(&mut file, "b.weight", &[2]);
    let error = check_model(&file.to_bytes()).expect_err("unaligned");
    assert!(error.reason.contains("cannot be mapped"), "{error}");
}
