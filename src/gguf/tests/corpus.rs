//! The kept corpus: small damaged files in `tests/corpus/gguf`, each refused for good.
//!
//! `NAME.model.gguf` is given to [`check_model`], `NAME.adapter.gguf` to [`check_adapter`] with the sample model, and
//! `NAME.shard.gguf` to [`check_shard`]. The files in [`corpus`] are made by this test; files that a fuzzer or a user
//! found are added by hand and are checked in the same way. To write the made ones anew:
//! `SMOA_BLESS=1 cargo test --lib gguf::tests::corpus::made`.

use std::path::PathBuf;

use super::super::{GgufError, OwnedValue, TensorType, check_adapter, check_model, check_shard};
use super::sample::{
    DIMS, EMBD, KEY_COUNT, OFFSET_2D, TENSOR_COUNT, TYPE_2D, adapter, adapter_keys, adapter_with, after, facts, model,
    ones, patch, patch_after, set, small_model,
};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpus", "gguf"].iter().collect()
}

/// Checks a file as its name asks.
fn check(name: &str, bytes: &[u8]) -> Result<(), GgufError> {
    match name.rsplit('.').nth(1) {
        Some("model") => check_model(bytes).map(|_| ()),
        Some("adapter") => check_adapter(bytes, &facts(&model())).map(|_| ()),
        Some("shard") => check_shard(bytes).map(|_| ()),
        _ => panic!("{name}: expected .model.gguf, .adapter.gguf or .shard.gguf"),
    }
}

/// A made file: name, bytes, and a part of what the refusal says.
type Made = (&'static str, Vec<u8>, &'static str);

fn corpus() -> Vec<Made> {
    let mut all = containers();
    all.extend(models());
    all.extend(adapters());
    all
}

fn containers() -> Vec<Made> {
    let small = || small_model().to_bytes();
    let word = |number: u64| number.to_le_bytes();
    let (tokens, embedding) = ("tokenizer.ggml.tokens", "token_embd.weight");
    let mut aligned = small_model();
    aligned.alignment(32).expect("alignment");
    let aligned = aligned.to_bytes();
    let mut nul = small();
    let at = after(&nul, "general.name") - 1;
    nul[at] = 0;
    let nested = patch_after(small(), tokens, 4, &9_u32.to_le_bytes());
    let unknown = patch_after(small(), embedding, TYPE_2D, &99_u32.to_le_bytes());
    vec![
        ("m01-empty.model.gguf", Vec::new(), "magic: the file is empty"),
        ("m01-magic-only.model.gguf", b"GGUF".to_vec(), "version: needs 4 bytes"),
        ("m02-big-endian.model.gguf", patch(small(), 4, &3_u32.to_be_bytes()), "big-endian"),
        ("m03-tensors.model.gguf", patch(small(), TENSOR_COUNT, &word(i64::MAX as u64)), "limit is 65536"),
        ("m03-keys.model.gguf", patch(small(), KEY_COUNT, &word(1 << 31)), "limit is 4096"),
        ("m04-array.model.gguf", patch_after(small(), tokens, 8, &word(1 << 40)), "claims"),
        ("m04-array-of-arrays.model.gguf", nested, "array of arrays"),
        ("m05-offset.model.gguf", patch_after(small(), embedding, OFFSET_2D, &word(1 << 40)), "expected 0"),
        ("m05-cut.model.gguf", small()[..small().len() - 40].to_vec(), "cut short"),
        ("m07-dimension-zero.model.gguf", patch_after(small(), embedding, DIMS, &word(0)), "is 0"),
        ("m08-padding-wraps.model.gguf", patch_after(small(), embedding, DIMS, &word(u64::MAX / 4)), "too large"),
        ("m09-alignment-zero.model.gguf", patch_after(aligned, "general.alignment", 4, &[0; 4]), "alignment: 0"),
        ("m10-type-99.model.gguf", unknown, "type 99"),
        ("m11-key-with-nul.model.gguf", nul, "control character"),
    ]
}

fn models() -> Vec<Made> {
    let with = |key: &str, value: OwnedValue| {
        let mut file = small_model();
        set(&mut file, key, value);
        file.to_bytes()
    };
    let types: OwnedValue = [3_i32, 3, 6, 1, 1, 1, 1, 1][..].into();
    let equal = OwnedValue::texts(["<s>", "</s>", "a", "b", "c", "a", "ab", "abc"]);
    let mut part = adapter();
    set(&mut part, "split.count", 2_u16);
    set(&mut part, "split.no", 1_i32);
    vec![
        ("m12-index-type.shard.gguf", part.to_bytes(), "split.no: is stored as i32"),
        ("m13-byte-token.model.gguf", with("tokenizer.ggml.token_type", types), "byte token 2"),
        ("m13-equal-tokens.model.gguf", with("tokenizer.ggml.tokens", equal), "tokens 2 and 5"),
        ("m14-bos.model.gguf", with("tokenizer.ggml.bos_token_id", 8_u32.into()), "token 8 of a vocabulary of 8"),
        ("m15-merges.model.gguf", with("tokenizer.ggml.merges", ["a z"][..].into()), "not tokens"),
        ("m16-no-heads.model.gguf", with("llama.attention.head_count", 0_u32.into()), "head_count: is 0"),
        ("m16-rope-odd.model.gguf", with("llama.rope.dimension_count", 3_u32.into()), "odd"),
        ("m21-adapter.model.gguf", adapter().to_bytes(), "--lora"),
    ]
}

fn adapters() -> Vec<Made> {
    let (a, b) = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b");
    let mut lonely = adapter_keys();
    ones(&mut lonely, a, &[EMBD, 2]);
    let mut infinite = adapter_keys();
    let numbers = 0x7c00_u16.to_le_bytes().repeat(16);
    infinite.tensor(a, TensorType::F16, &[EMBD, 2], numbers).expect("A");
    ones(&mut infinite, b, &[2, EMBD]);
    let mut norms = adapter();
    ones(&mut norms, "blk.0.attn_norm.weight", &[EMBD]);
    let mut absent = adapter_keys();
    ones(&mut absent, "blk.9.attn_q.weight.lora_a", &[EMBD, 2]);
    ones(&mut absent, "blk.9.attn_q.weight.lora_b", &[2, EMBD]);
    vec![
        ("a01-model.adapter.gguf", small_model().to_bytes(), "pass it with -m"),
        ("a03-no-b.adapter.gguf", lonely.to_bytes(), "no matching .lora_b"),
        ("a04-alpha-text.adapter.gguf", adapter_with("adapter.lora.alpha", "16"), "expected f32"),
        ("a05-norm.adapter.gguf", norms.to_bytes(), "whole norm"),
        ("a05-layer.adapter.gguf", absent.to_bytes(), "no tensor"),
        ("a07-infinite.adapter.gguf", infinite.to_bytes(), "infinite"),
    ]
}

#[test]
fn made_files_are_committed_as_made_and_refused_as_meant() {
    check_model(&small_model().to_bytes()).expect("the file they start from is sound");
    for (name, bytes, reason) in corpus() {
        let path = folder().join(name);
        if std::env::var_os("SMOA_BLESS").is_some() {
            std::fs::write(&path, &bytes).expect("write the corpus");
        }
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; see the module's comment"));
        assert!(stored == bytes, "{name} is not as made; see the module's comment");
        assert!(stored.len() < 2_048, "{name} has {} bytes", stored.len());
        let error = check(name, &stored).expect_err(name).to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn every_kept_file_is_refused() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("the corpus is there") {
        let path = entry.expect("readable").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".gguf") {
            let bytes = std::fs::read(&path).expect("readable");
            assert!(check(&name, &bytes).is_err(), "{name} was accepted");
            count += 1;
        }
    }
    assert!(count >= corpus().len());
}
