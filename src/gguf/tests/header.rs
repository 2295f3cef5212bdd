//! M1 to M11: the container.

use super::super::{Gguf, GgufErrorKind::*, OwnedValue, TensorType, Value, ValueType, check_model};
use super::sample::{
    DIMS, KEY_COUNT, OFFSET_2D, TENSOR_COUNT, TYPE_2D, after, keys, model, model_with, ones, patch, patch_after, set,
};
use super::{Refusal, assert_refused};

#[test]
fn m1_files_too_short_to_be_gguf() {
    for (label, bytes, reason) in [
        ("empty", &b""[..], "empty"),
        ("three bytes", b"GGU", "3 bytes long"),
        ("a web page", b"<!DOCTYPE html>", "web page"),
        ("a git pointer", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ("a zip", b"PK\x03\x04....", "zip"),
        ("a pickle", b"\x80\x02}q", "pickle"),
        ("safetensors", b"\x10\0\0\0\0\0\0\0{\"a\":{}}", "safetensors"),
        ("text", b"hello", "not a GGUF file"),
    ] {
        assert_refused(label, Gguf::read(bytes), Refusal("magic", reason, NotGguf));
    }
    let expected = Refusal("version", "needs 4 bytes but only 0", Truncated);
    assert_refused("magic only", Gguf::read(b"GGUF"), expected);
}

#[test]
fn m2_other_formats_and_versions_are_unsupported() {
    for magic in [b"GGML", b"GGJT", b"tjgg", b"lmgg", b"algg", b"fmgg"] {
        let bytes = patch(model().to_bytes(), 0, magic);
        let label = String::from_utf8_lossy(magic);
        assert_refused(&label, Gguf::read(&bytes), Refusal("magic", "old", NotGguf));
    }
    for (version, reason) in [
        (0_u32, "not a GGUF version"),
        (1, "unsupported"),
        (4, "unsupported"),
        (99, "unsupported"),
        (0x0300_0000, "big-endian"),
    ] {
        let bytes = patch(model().to_bytes(), 4, &version.to_le_bytes());
        let label = format!("version {version}");
        assert_refused(&label, Gguf::read(&bytes), Refusal("version", reason, Unsupported));
    }
    let second = patch(model().to_bytes(), 4, &2_u32.to_le_bytes());
    assert_eq!(Gguf::read(&second).expect("version 2").version, 2);
}

#[test]
fn m3_counts() {
    let none = keys().to_bytes();
    assert_refused("no tensors", check_model(&none), Refusal("tensor count", "no weights", Missing));
    for count in [1_u64 << 31, (1 << 63) - 1, u64::MAX, 65_537] {
        let bytes = patch(model().to_bytes(), TENSOR_COUNT, &count.to_le_bytes());
        assert_refused("tensors", Gguf::read(&bytes), Refusal("tensor count", "limit is 65536", TooLarge));
        let bytes = patch(model().to_bytes(), KEY_COUNT, &count.to_le_bytes());
        assert_refused("keys", Gguf::read(&bytes), Refusal("key count", "limit is 4096", TooLarge));
    }
    let bytes = patch(model().to_bytes(), TENSOR_COUNT, &65_536_u64.to_le_bytes());
    assert!(Gguf::read(&bytes).is_err(), "more tensors than there are");
}

#[test]
fn m4_lengths_beyond_the_file() {
    let huge = (1_u64 << 40).to_le_bytes();
    let tokens = "tokenizer.ggml.tokens";
    let text = patch_after(model().to_bytes(), "general.name", 4, &huge);
    assert_refused("string", Gguf::read(&text), Refusal("general.name", "too long", TooLarge));
    let text = patch_after(model().to_bytes(), "general.name", 4, &(1_u64 << 20).to_le_bytes());
    assert_refused("string in the cap", Gguf::read(&text), Refusal("general.name", "are left", Truncated));
    let array = patch_after(model().to_bytes(), tokens, 8, &huge);
    assert_refused("array", Gguf::read(&array), Refusal(tokens, "claims 1099511627776", TooLarge));
    let array = patch_after(model().to_bytes(), tokens, 8, &(1_u64 << 20).to_le_bytes());
    assert_refused("array in the cap", Gguf::read(&array), Refusal(tokens, "bytes are left", Truncated));
    let array = patch_after(model().to_bytes(), tokens, 8, &u64::MAX.to_le_bytes());
    assert_refused("array count wraps", Gguf::read(&array), Refusal(tokens, "claims", TooLarge));
    let nested = patch_after(model().to_bytes(), tokens, 4, &9_u32.to_le_bytes());
    assert_refused("nested", Gguf::read(&nested), Refusal(tokens, "array of arrays", Unsupported));
    let kind = patch_after(model().to_bytes(), tokens, 0, &13_u32.to_le_bytes());
    assert_refused("type 13", Gguf::read(&kind), Refusal(tokens, "metadata type 13", Malformed));
    let big = model_with("custom.blob", &vec![0_u8; (16 << 20) + 1][..]);
    assert_refused("17 MiB value", Gguf::read(&big), Refusal("custom.blob", "limit", TooLarge));
}

#[test]
fn m5_data_past_the_end() {
    let sound = model().to_bytes();
    let last = "blk.0.ffn_down.weight";
    let moved = patch_after(sound.clone(), last, OFFSET_2D, &(1_u64 << 40).to_le_bytes());
    let expected = Refusal(last, "starts at byte 1099511627776", Malformed);
    assert_refused("offset", Gguf::read(&moved), expected);
    let grown = patch_after(sound, last, DIMS, &(1_u64 << 30).to_le_bytes());
    assert_refused("size", Gguf::read(&grown), Refusal(last, "cut short", Truncated));
    // llama.cpp does not ask for the padding after the last tensor.
    let mut odd = model();
    ones(&mut odd, "extra.weight", &[3]);
    let odd = odd.to_bytes();
    Gguf::read(&odd[..odd.len() - 20]).expect("only the last padding is gone");
    assert!(Gguf::read(&odd[..odd.len() - 21]).is_err(), "without the last byte of data");
}

#[test]
fn m5_every_cut_is_refused() {
    let sound = model().to_bytes();
    for len in 0..sound.len() {
        let error = Gguf::read(&sound[..len]).expect_err("a cut file");
        assert!(matches!(error.kind, Truncated | NotGguf), "cut at {len} of {}: {error}", sound.len());
    }
}

#[test]
fn m6_overlaps_and_duplicates() {
    let name = "blk.0.attn_q.weight";
    let overlap = patch_after(model().to_bytes(), name, OFFSET_2D, &0_u64.to_le_bytes());
    assert_refused("overlap", Gguf::read(&overlap), Refusal(name, "overlap", Malformed));
    let mut twice = model().to_bytes();
    let at = after(&twice, "blk.0.attn_k") - 1;
    twice[at] = b'v';
    let expected = Refusal("blk.0.attn_v.weight", "two tensors", Malformed);
    assert_refused("one name twice", Gguf::read(&twice), expected);
    let mut file = model();
    set(&mut file, "custom.x", 1_u32);
    set(&mut file, "custom.y", 1_u32);
    let mut bytes = file.to_bytes();
    let at = after(&bytes, "custom.y") - 1;
    bytes[at] = b'x';
    assert_refused("one key twice", Gguf::read(&bytes), Refusal("custom.x", "twice", Malformed));
}

#[test]
fn m7_m8_dimensions() {
    let name = "blk.0.attn_q.weight";
    let sound = || model().to_bytes();
    for (label, size, reason) in [
        ("zero", 0_u64, "dimension 0 is 0"),
        ("negative", -8_i64 as u64, "dimension 0 is -8"),
        ("product wraps", i64::MAX as u64, "too large"),
        ("padding wraps", u64::MAX / 4, "too large"),
    ] {
        let bytes = patch_after(sound(), name, DIMS, &size.to_le_bytes());
        assert_refused(label, Gguf::read(&bytes), Refusal(name, reason, Malformed));
    }
    for count in [0_u32, 5, u32::MAX] {
        let bytes = patch_after(sound(), name, 0, &count.to_le_bytes());
        let expected = Refusal(name, "dimensions, expected 1 to 4", Malformed);
        assert_refused("dimensions", Gguf::read(&bytes), expected);
    }
}

#[test]
fn m9_alignment() {
    let key = "general.alignment";
    let mut file = model();
    file.alignment(64).expect("sound alignment");
    let sound = file.to_bytes();
    assert_eq!(Gguf::read(&sound).expect("aligned to 64").alignment, 64);
    for alignment in [0_u32, 3, 4, 1 << 17, 1 << 31] {
        let bytes = patch_after(sound.clone(), key, 4, &alignment.to_le_bytes());
        assert_refused("alignment", Gguf::read(&bytes), Refusal(key, "not a power of two", Invalid));
    }
    let bytes = patch_after(sound, key, 0, &(ValueType::I32 as u32).to_le_bytes());
    let expected = Refusal(key, "stored as i32, expected u32", WrongType);
    assert_refused("alignment as i32", Gguf::read(&bytes), expected);
}

#[test]
fn m10_tensor_types() {
    let name = "blk.0.attn_q.weight";
    for (id, reason) in [
        (4_u32, "was removed"),
        (31, "was removed"),
        (38, "was removed"),
        (43, "unknown"),
        (99, "unknown"),
        (u32::MAX, "unknown"),
    ] {
        let bytes = patch_after(model().to_bytes(), name, TYPE_2D, &id.to_le_bytes());
        assert_refused("tensor type", Gguf::read(&bytes), Refusal(name, reason, Unsupported));
    }
    let bytes = patch_after(model().to_bytes(), name, TYPE_2D, &8_u32.to_le_bytes());
    let expected = Refusal(name, "rows of 8 elements are not a multiple of the 32 of a Q8_0", Malformed);
    assert_refused("partial block", Gguf::read(&bytes), expected);
}

#[test]
fn m11_names() {
    let mut file = model();
    set(&mut file, "custom.key", 1_u32);
    let sound = file.to_bytes();
    let damaged = |text: &str, byte: u8| {
        let at = after(&sound, text) - 1;
        patch(sound.clone(), at, &[byte])
    };
    for (label, byte, reason) in [("NUL", 0_u8, "control"), ("escape", 0x1b, "control"), ("high", 0xff, "UTF-8")] {
        let bytes = damaged("custom.key", byte);
        assert_refused(label, Gguf::read(&bytes), Refusal("key 15", reason, Malformed));
        let bytes = damaged("output.weight", byte);
        assert_refused(label, Gguf::read(&bytes), Refusal("tensor 2", reason, Malformed));
    }
    let bytes = damaged("Tiny", 0xff);
    assert_refused("text", Gguf::read(&bytes), Refusal("general.name", "UTF-8", Malformed));
    let length_of = |text: &str| after(&sound, text) - text.len() - 8;
    let empty = patch(sound.clone(), length_of("general.architecture"), &0_u64.to_le_bytes());
    assert_refused("empty key", Gguf::read(&empty), Refusal("key 0", "empty", Malformed));
    let long = patch(sound.clone(), length_of("token_embd.weight"), &64_u64.to_le_bytes());
    assert_refused("tensor name of 64", Gguf::read(&long), Refusal("tensor 0", "too long", TooLarge));
}

#[test]
fn messages_are_one_safe_line() {
    let name = "x\u{1b}[31m\r\n\u{202e}evil";
    let bytes = model_with("general.architecture", name);
    let error = check_model(&bytes).expect_err("an unknown architecture").to_string();
    assert!(error.contains("\\u{1b}[31m\\r\\n\\u{202e}evil"), "{error}");
    let long = check_model(&model_with("general.architecture", "y".repeat(100_000))).expect_err("unknown");
    assert!(long.to_string().len() < 1_000);
}

#[test]
fn typed_getters_refuse_other_types_by_name() {
    let bytes = model().to_bytes();
    let gguf = Gguf::read(&bytes).expect("sound");
    assert_eq!(gguf.u32("llama.block_count").expect("u32"), Some(1));
    assert_eq!(gguf.str("general.name").expect("text"), Some("Tiny"));
    assert_eq!(gguf.str("no.such.key").expect("absent"), None);
    let wrong = Refusal("llama.block_count", "stored as u32, expected string", WrongType);
    assert_refused("text", gguf.str("llama.block_count"), wrong);
    let tokens = "tokenizer.ggml.tokens";
    let wrong = Refusal(tokens, "stored as array of string, expected u32", WrongType);
    assert_refused("number", gguf.u32(tokens), wrong);
    let wrong = Refusal(tokens, "expected array of i32 or f32", WrongType);
    assert_refused("array", gguf.array(tokens, &[ValueType::I32, ValueType::F32]), wrong);
}

#[test]
fn tensors_are_found_with_their_bytes() {
    let bytes = model().to_bytes();
    let gguf = Gguf::read(&bytes).expect("sound");
    assert_eq!(gguf.tensors().len(), 12);
    let tensor = gguf.tensor("blk.0.attn_k.weight").expect("there");
    assert_eq!((tensor.dims, tensor.kind, tensor.size), ([8, 4, 1, 1], TensorType::F32, 128));
    assert_eq!(gguf.tensor_bytes(tensor), 1.0_f32.to_le_bytes().repeat(32));
    assert!(gguf.tensor("blk.1.attn_k.weight").is_none());
}

#[test]
fn unknown_keys_of_every_type_are_fine() {
    let mut file = model();
    set(&mut file, "custom.u8", 1_u8);
    set(&mut file, "custom.i64", -1_i64);
    set(&mut file, "custom.f64", 0.5_f64);
    set(&mut file, "custom.empty", &[] as &[u32]);
    set(&mut file, "custom.flags", &[true, false][..]);
    set(&mut file, "custom.bytes", OwnedValue::texts([b"\xff\xfe"]));
    let bytes = file.to_bytes();
    check_model(&bytes).expect("unknown keys");
    let gguf = Gguf::read(&bytes).expect("sound");
    assert_eq!(gguf.get("custom.i64"), Some(&Value::I64(-1)));
    let flags = gguf.array("custom.flags", &[ValueType::Bool]).expect("flags").expect("there");
    assert_eq!(flags.words().collect::<Vec<_>>(), [1, 0]);
    let texts = gguf.array("custom.bytes", &[ValueType::Str]).expect("texts").expect("there");
    assert_eq!(texts.strings().collect::<Vec<_>>(), [b"\xff\xfe"]);
}

#[test]
fn every_tensor_type_has_a_size() {
    let known: Vec<_> = (0..=50).filter_map(TensorType::from_id).collect();
    assert_eq!(known.len(), 35);
    for kind in known {
        let row = kind.block_elements() * 3;
        assert_eq!(kind.size_of(&[row, 2, 1, 1]), Some(kind.block_bytes() * 6), "{kind}");
        let partial = kind.size_of(&[row + 1, 1, 1, 1]).is_some();
        assert_eq!(partial, kind.block_elements() == 1, "{kind}");
    }
}
