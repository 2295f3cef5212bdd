//! M12: split models.

use super::super::{
    GgufError, GgufErrorKind::*, GgufWriter, ModelFacts, ShardFacts, check_model, check_shard, check_shards,
    shard_paths,
};
use super::sample::{keys, model, model_with, ones, set};
use super::{Refusal, assert_refused};

/// Sets the place of a part; the sample is split into three parts of six tensors.
fn split(file: &mut GgufWriter<'_>, index: u16) {
    set(file, "split.no", index);
    set(file, "split.count", 3_u16);
    set(file, "split.tensors.count", 6_i32);
}

fn first() -> ModelFacts {
    let mut file = keys();
    split(&mut file, 0);
    ones(&mut file, "token_embd.weight", &[8, 8]);
    ones(&mut file, "output_norm.weight", &[8]);
    check_model(&file.to_bytes()).expect("the first part")
}

fn part(index: u16, tensors: &[(&str, u64)]) -> GgufWriter<'static> {
    let mut file = GgufWriter::new();
    split(&mut file, index);
    for (name, size) in tensors {
        ones(&mut file, name, &[*size]);
    }
    file
}

fn second() -> GgufWriter<'static> {
    part(1, &[("blk.0.attn_norm.weight", 8), ("blk.0.ffn_norm.weight", 8)])
}

fn third() -> GgufWriter<'static> {
    part(2, &[("blk.0.x.weight", 8), ("blk.0.y.weight", 8)])
}

fn join(parts: &[(&str, &GgufWriter<'_>)]) -> Result<ModelFacts, GgufError> {
    let shard = |file: &GgufWriter<'_>| -> ShardFacts { check_shard(&file.to_bytes()).expect("a part") };
    let rest = parts.iter().map(|(name, file)| ((*name).to_owned(), shard(file)));
    check_shards(first(), rest.collect())
}

#[test]
fn parts_are_joined() {
    let whole = join(&[("b", &second()), ("c", &third())]).expect("sound");
    assert_eq!(whole.tensors.len(), 6);
    assert_eq!(whole.parameter_count, 64 + 5 * 8);
    assert!(whole.tensors.contains_key("blk.0.y.weight"));
}

#[test]
fn m12_wrong_parts_are_named() {
    let (b, c) = (second(), third());
    let expected = Refusal("split.count", "2 parts given, the model has 3", Mismatch);
    assert_refused("missing", join(&[("b", &b)]), expected);
    let expected = Refusal("c", "is part 3 of 3, expected part 2", Mismatch);
    assert_refused("swapped", join(&[("c", &c), ("b", &b)]), expected);
    let expected = Refusal("b2", "is part 2 of 3, expected part 3", Mismatch);
    assert_refused("twice", join(&[("b", &b), ("b2", &b)]), expected);
    let mut other = third();
    set(&mut other, "split.tensors.count", 7_i32);
    let joined = join(&[("b", &b), ("c", &other)]);
    assert_refused("another model", joined, Refusal("c", "another model", Mismatch));
    let other = part(2, &[("blk.1.x.weight", 8), ("blk.0.y.weight", 8)]);
    let joined = join(&[("b", &b), ("c", &other)]);
    assert_refused("more layers", joined, Refusal("c", "another model", Mismatch));
    let other = part(1, &[("blk.0.attn_norm.weight", 16), ("blk.0.ffn_norm.weight", 16)]);
    let joined = join(&[("b", &other), ("c", &c)]);
    assert_refused("wider", joined, Refusal("b", "is 16 wide, the model 8", Mismatch));
    let other = part(2, &[("blk.0.attn_norm.weight", 8), ("blk.0.y.weight", 8)]);
    let joined = join(&[("b", &b), ("c", &other)]);
    assert_refused("shared tensor", joined, Refusal("c", "another part holds as well", Mismatch));
    let other = part(2, &[("blk.0.x.weight", 8)]);
    let joined = join(&[("b", &b), ("c", &other)]);
    let expected = Refusal("split.tensors.count", "5 tensors together, expected 6", Mismatch);
    assert_refused("short", joined, expected);
    let whole = check_model(&model().to_bytes()).expect("whole");
    let shard = check_shard(&b.to_bytes()).expect("a part");
    let joined = check_shards(whole, vec![("b".to_owned(), shard)]);
    assert_refused("not split", joined, Refusal("b", "not a split model", Mismatch));
}

#[test]
fn m12_parts_alone() {
    let expected = Refusal("split.no", "is part 2 of 3 of a split model; pass the first part", WrongKind);
    assert_refused("second as model", check_model(&second().to_bytes()), expected);
    let mut file = second();
    split(&mut file, 0);
    let expected = Refusal("split.no", "first part", WrongKind);
    assert_refused("first as part", check_shard(&file.to_bytes()), expected);
    let whole = model().to_bytes();
    assert_refused("whole as part", check_shard(&whole), Refusal("split.count", "not part of", Missing));
    for (label, bytes, field, reason, kind) in [
        ("no index", model_with("split.count", 3_u16), "split.no", "missing", Missing),
        ("u32 count", model_with("split.count", 3_u32), "split.count", "stored as u32", WrongType),
        ("many", model_with("split.count", 60_000_u16), "split.count", "limit", TooLarge),
    ] {
        assert_refused(label, check_model(&bytes), Refusal(field, reason, kind));
    }
    let mut file = second();
    set(&mut file, "split.no", 1_i32);
    let expected = Refusal("split.no", "stored as i32, expected u16", WrongType);
    assert_refused("i32 index would abort llama.cpp", check_shard(&file.to_bytes()), expected);
    let mut file = second();
    set(&mut file, "split.no", 3_u16);
    assert_refused("index", check_shard(&file.to_bytes()), Refusal("split.no", "is 3 of 3", Invalid));
}

#[test]
fn names_of_parts() {
    let names = shard_paths("models/big-00001-of-00003.gguf", 3).expect("named as parts are");
    assert_eq!(names[0], "models/big-00001-of-00003.gguf");
    assert_eq!(names[2], "models/big-00003-of-00003.gguf");
    assert_eq!(names.len(), 3);
    for (name, count) in [
        ("big.gguf", 3),
        ("big-00002-of-00003.gguf", 3),
        ("big-00001-of-00003.gguf", 4),
        ("-00001-of-00003.gguf", 3),
        ("big-00001-of-00000.gguf", 0),
    ] {
        assert_eq!(shard_paths(name, count), None, "{name}");
    }
}
