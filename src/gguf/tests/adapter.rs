//! A1 to A7 and A12: adapters against their base model.

use super::super::{AdapterFacts, GgufError, GgufErrorKind::*, GgufWriter, TensorType, check_adapter};
use super::sample::{EMBD, adapter, adapter_keys, adapter_with, facts, model, moe_model, ones, patch_after, set};
use super::{Refusal, assert_refused};

const ALPHA: &str = "adapter.lora.alpha";
const A: &str = "blk.0.attn_q.weight.lora_a";
const B: &str = "blk.0.attn_q.weight.lora_b";

fn check(bytes: &[u8]) -> Result<AdapterFacts, GgufError> {
    check_adapter(bytes, &facts(&model()))
}

/// An adapter of these tensors, each of ones.
fn of(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let mut file = adapter_keys();
    for (name, dims) in tensors {
        ones(&mut file, name, dims);
    }
    file.to_bytes()
}

#[test]
fn the_sample_adapter_is_described() {
    let mut file = adapter();
    set(&mut file, "general.name", "SQL");
    ones(&mut file, "output.weight.lora_a", &[EMBD, 4]);
    ones(&mut file, "output.weight.lora_b", &[4, 8]);
    let facts = check(&file.to_bytes()).expect("sound");
    assert_eq!((facts.alpha, facts.rank_min, facts.rank_max), (4.0, 2, 4));
    assert_eq!(facts.targets, ["attn_q", "output"]);
    assert_eq!(facts.parameter_count, 2 * 2 * 8 + 2 * 4 * 8);
    assert_eq!(facts.name.as_deref(), Some("SQL"));
    assert!(!facts.all_zero);
    let pair = &facts.pairs[0];
    assert_eq!((pair.tensor.as_str(), pair.layer, pair.rank), ("blk.0.attn_q.weight", Some(0), 2));
    assert_eq!((pair.experts, pair.embedding, pair.a), (1, false, TensorType::F32));
}

#[test]
fn a1_other_files() {
    let kind = "general.type";
    let expected = Refusal(kind, "is a model, not an adapter; pass it with -m", WrongKind);
    assert_refused("model", check(&model().to_bytes()), expected);
    let mut file = adapter();
    file.remove(kind);
    assert_refused("no type", check(&file.to_bytes()), Refusal(kind, "missing, expected 'adapter'", Missing));
    let expected = Refusal(kind, "stored as u32, expected string", WrongType);
    assert_refused("a number would abort llama.cpp", check(&adapter_with(kind, 1_u32)), expected);
    let expected = Refusal(kind, "is 'imatrix', expected 'adapter'", WrongKind);
    assert_refused("imatrix", check(&adapter_with(kind, "imatrix")), expected);
    let expected = Refusal("adapter.type", "is 'x'; supported are 'lora'", Unsupported);
    assert_refused("other", check(&adapter_with("adapter.type", "x")), expected);
    let mut file = adapter();
    file.remove("adapter.type");
    assert_refused("none", check(&file.to_bytes()), Refusal("adapter.type", "missing", Missing));
    assert_refused("not GGUF", check(b"PK\x03\x04"), Refusal("magic", "zip", NotGguf));
    let none = adapter_keys().to_bytes();
    assert_refused("no tensors", check(&none), Refusal("tensor count", "no LoRA tensors", Missing));
}

#[test]
fn a2_other_models() {
    let expected = Refusal("general.architecture", "is for 'qwen2', the model is 'llama'", Mismatch);
    assert_refused("architecture", check(&adapter_with("general.architecture", "qwen2")), expected);
    let wider = of(&[(A, &[16, 2]), (B, &[2, 16])]);
    let expected = Refusal(A, "does not fit the model's [8, 8, 1, 1]", Mismatch);
    assert_refused("width in", check(&wider), expected);
    let wider = of(&[(A, &[EMBD, 2]), (B, &[2, 16])]);
    assert_refused("width out", check(&wider), Refusal(B, "does not fit", Mismatch));
    let turned = of(&[(A, &[2, EMBD]), (B, &[EMBD, 2])]);
    assert_refused("transposed", check(&turned), Refusal(A, "does not fit", Mismatch));
}

#[test]
fn a3_pairs_and_ranks() {
    assert_refused("no B", check(&of(&[(A, &[EMBD, 2])])), Refusal(A, "no matching .lora_b", Malformed));
    assert_refused("no A", check(&of(&[(B, &[2, EMBD])])), Refusal(B, "no matching .lora_a", Malformed));
    let ranks = of(&[(A, &[EMBD, 2]), (B, &[4, EMBD])]);
    let expected = Refusal(A, "has rank 2, its .lora_b has rank 4", Malformed);
    assert_refused("ranks", check(&ranks), expected);
    let high = of(&[(A, &[EMBD, 4096]), (B, &[4096, EMBD])]);
    assert_refused("rank 4096", check(&high), Refusal(A, "rank 4096, the limit is 512", TooLarge));
    let zero = patch_after(adapter().to_bytes(), A, 12, &0_u64.to_le_bytes());
    assert_refused("rank 0", check(&zero), Refusal(A, "dimension 1 is 0", Malformed));
    let mut both = adapter();
    ones(&mut both, "blk.0.attn_q.weight.lora_a.lora_a", &[EMBD, 2]);
    let expected = Refusal("blk.0.attn_q.weight.lora_a.lora_a", "twice", Malformed);
    assert_refused("suffix twice", check(&both.to_bytes()), expected);
}

#[test]
fn a4_alpha() {
    for alpha in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let expected = Refusal(ALPHA, "finite number above 0", Invalid);
        assert_refused(&alpha.to_string(), check(&adapter_with(ALPHA, alpha)), expected);
    }
    let expected = Refusal(ALPHA, "stored as string, expected f32", WrongType);
    assert_refused("text", check(&adapter_with(ALPHA, "16")), expected);
    let expected = Refusal(ALPHA, "stored as u32, expected f32", WrongType);
    assert_refused("integer", check(&adapter_with(ALPHA, 16_u32)), expected);
    let mut file = adapter();
    file.remove(ALPHA);
    assert_refused("none", check(&file.to_bytes()), Refusal(ALPHA, "missing", Missing));
}

#[test]
fn a5_tensors_that_cannot_be_adapted() {
    let refused = |name: &'static str, dims: &[u64], reason| {
        let mut file = adapter();
        ones(&mut file, name, dims);
        assert_refused(name, check(&file.to_bytes()), Refusal(name, reason, Unsupported));
    };
    refused("blk.0.attn_norm.weight", &[EMBD], "whole norm or bias");
    refused("blk.0.attn_q.bias", &[EMBD], "whole norm or bias");
    refused("blk.0.attn_q.weight", &[EMBD, EMBD], "whole tensor");
    refused("blk.0.attn_q.weight.magnitude", &[EMBD], "unknown suffix");

    let mut base = model();
    ones(&mut base, "position_embd.weight", &[EMBD, 64]);
    ones(&mut base, "blk.0.ssm_a", &[EMBD, 4]);
    let base = facts(&base);
    let on = |tensor: &str, out: u64| {
        let mut file = adapter_keys();
        ones(&mut file, &format!("{tensor}.lora_a"), &[EMBD, 2]);
        ones(&mut file, &format!("{tensor}.lora_b"), &[2, out]);
        check_adapter(&file.to_bytes(), &base)
    };
    let absent = "no tensor 'blk.7.attn_q.weight' (it has 1 layers)";
    let expected = Refusal("blk.7.attn_q.weight.lora_a", absent, Mismatch);
    assert_refused("layer", on("blk.7.attn_q.weight", EMBD), expected);
    let expected = Refusal("blk.0.attn_norm.weight.lora_a", "norms and biases", Unsupported);
    assert_refused("norm", on("blk.0.attn_norm.weight", 1), expected);
    let expected = Refusal("position_embd.weight.lora_a", "applies no adapter to", Unsupported);
    assert_refused("positions", on("position_embd.weight", 64), expected);
    let expected = Refusal("blk.0.ssm_a.lora_a", "applies no adapter to", Unsupported);
    assert_refused("state", on("blk.0.ssm_a", 4), expected);
}

#[test]
fn a5_embeddings_have_a_and_b_exchanged() {
    let name = "token_embd.weight.lora_a";
    let pair = |a: &[u64], b: &[u64]| of(&[(name, a), ("token_embd.weight.lora_b", b)]);
    let sound = pair(&[2, 8], &[2, EMBD]);
    let adapted = check(&sound).expect("sound");
    assert!(adapted.pairs[0].embedding);
    assert_eq!((adapted.rank_max, adapted.targets[0].as_str()), (2, "token_embd"));
    let ranks = check(&pair(&[4, 8], &[2, EMBD]));
    assert_refused("ranks", ranks, Refusal(name, "has rank 4, its .lora_b has rank 2", Malformed));
    let tokens = check(&pair(&[2, 9], &[2, EMBD]));
    assert_refused("nine tokens", tokens, Refusal(name, "does not fit", Mismatch));

    let mut tied = facts(&model());
    tied.tensors.remove("output.weight");
    let expected = Refusal(name, "shares its embedding", Unsupported);
    assert_refused("tied", check_adapter(&sound, &tied), expected);
}

#[test]
fn a6_experts() {
    let base = facts(&moe_model());
    let (name_a, name_b) = ("blk.0.ffn_gate_exps.weight.lora_a", "blk.0.ffn_gate_exps.weight.lora_b");
    let pair = |a: &[u64], b: &[u64]| check_adapter(&of(&[(name_a, a), (name_b, b)]), &base);
    assert_eq!(pair(&[EMBD, 2, 4], &[2, 16, 4]).expect("sound").pairs[0].experts, 4);
    for (label, a, b, half) in [
        ("fewer in A", [EMBD, 2, 3], [2, 16, 4], name_a),
        ("fewer in B", [EMBD, 2, 4], [2, 16, 2], name_b),
        ("more in B", [EMBD, 2, 4], [2, 16, 8], name_b),
    ] {
        assert_refused(label, pair(&a, &b), Refusal(half, "the model has 4 here", Mismatch));
    }
    let four = of(&[(A, &[EMBD, 2, 4]), (B, &[2, EMBD, 4])]);
    assert_refused("on a matrix", check(&four), Refusal(A, "the model has 1 here", Mismatch));
}

#[test]
fn a7_numbers() {
    let with = |kind: TensorType, data: Vec<u8>| {
        let mut file = adapter_keys();
        file.tensor(A, kind, &[EMBD, 2], data).expect("A");
        ones(&mut file, B, &[2, EMBD]);
        check(&file.to_bytes())
    };
    let single = |last: f32| {
        let mut data = 1_f32.to_le_bytes().repeat(16);
        data[60..].copy_from_slice(&last.to_le_bytes());
        with(TensorType::F32, data)
    };
    single(f32::MAX).expect("the largest number");
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        assert_refused("F32", single(bad), Refusal(A, "NaN or infinite", Invalid));
    }
    for (label, kind, bad) in [
        ("F16 Inf", TensorType::F16, 0x7c00_u16),
        ("F16 NaN", TensorType::F16, 0xfe01),
        ("BF16 Inf", TensorType::BF16, 0xff80),
        ("BF16 NaN", TensorType::BF16, 0x7fc0),
    ] {
        let mut data = 0x3c00_u16.to_le_bytes().repeat(16);
        with(kind, data.clone()).expect("sound");
        data[14..16].copy_from_slice(&bad.to_le_bytes());
        assert_refused(label, with(kind, data), Refusal(A, "NaN or infinite", Invalid));
    }
}

#[test]
fn a7_scales_of_blocks() {
    let mut base = model();
    ones(&mut base, "blk.0.wide.weight", &[256, 32]);
    let base = facts(&base);
    let with = |kind: TensorType, data: Vec<u8>| {
        let mut file = adapter_keys();
        file.tensor("blk.0.wide.weight.lora_a", kind, &[256, 2], data).expect("A");
        ones(&mut file, "blk.0.wide.weight.lora_b", &[2, 32]);
        check_adapter(&file.to_bytes(), &base)
    };
    let blocks = [TensorType::Q4_0, TensorType::Q4_1, TensorType::Q5_0, TensorType::Q5_1, TensorType::Q8_0];
    for kind in blocks {
        let size = kind.block_bytes() as usize;
        // Quants of all ones are no numbers to fear; the scale in front of them is.
        let mut block = vec![0xff_u8; size];
        block[..4].fill(0x11);
        let sound = block.repeat(16);
        assert!(!with(kind, sound.clone()).expect("sound").all_zero, "{kind}");
        let mut bad = sound;
        bad[size..size + 2].copy_from_slice(&0xfc00_u16.to_le_bytes());
        let expected = Refusal("blk.0.wide.weight.lora_a", "NaN or infinite", Invalid);
        assert_refused(kind.name(), with(kind, bad), expected);
    }
    let q2_k = TensorType::from_id(10).expect("Q2_K");
    let expected = Refusal("blk.0.wide.weight.lora_a", "stored as Q2_K, expected one of F32", Unsupported);
    assert_refused("Q2_K", with(q2_k, vec![0; 168]), expected);
}

#[test]
fn a7_zeros_are_told() {
    let zeros = |file: &mut GgufWriter<'_>, name: &str, dims: &[u64]| {
        let count: u64 = dims.iter().product();
        // Negative zeros are zeros too.
        let data = (-0.0_f32).to_le_bytes().repeat(count as usize);
        file.tensor(name, TensorType::F32, dims, data).expect("zeros");
    };
    let mut file = adapter_keys();
    ones(&mut file, A, &[EMBD, 2]);
    zeros(&mut file, B, &[2, EMBD]);
    assert!(check(&file.to_bytes()).expect("sound").all_zero, "B is zero, as before training");
    ones(&mut file, "output.weight.lora_a", &[EMBD, 2]);
    ones(&mut file, "output.weight.lora_b", &[2, 8]);
    assert!(!check(&file.to_bytes()).expect("sound").all_zero, "one pair has effect");
}

#[test]
fn a12_invocation_tokens() {
    let key = "adapter.alora.invocation_tokens";
    let facts = check(&adapter_with(key, &[2_u32, 7][..])).expect("sound");
    assert_eq!(facts.invocation_tokens, [2, 7]);
    let expected = Refusal(key, "token 8 of a vocabulary of 8", Mismatch);
    assert_refused("outside", check(&adapter_with(key, &[2_u32, 8][..])), expected);
    assert_refused("empty", check(&adapter_with(key, &[] as &[u32])), Refusal(key, "empty", Invalid));
    let expected = Refusal(key, "limit is 1024", TooLarge);
    assert_refused("many", check(&adapter_with(key, &vec![1_u32; 1_000_000][..])), expected);
    let expected = Refusal(key, "stored as array of i32", WrongType);
    assert_refused("i32", check(&adapter_with(key, &[2_i32][..])), expected);
}
