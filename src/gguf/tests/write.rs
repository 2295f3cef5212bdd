//! The writer: what it writes is read back as it was.

use super::super::{Gguf, GgufErrorKind::*, GgufWriter, OwnedValue, TensorType, Value, ValueType};
use super::sample::{adapter, model, moe_model, set, spm_model, spm_tokens};
use super::{Refusal, assert_refused};
use proptest::prelude::*;

#[test]
fn copies_are_identical() {
    let mut aligned = adapter();
    aligned.alignment(4096).expect("sound");
    for file in [model(), moe_model(), adapter(), spm_model(&spm_tokens()), aligned] {
        let bytes = file.to_bytes();
        let gguf = Gguf::read(&bytes).expect("sound");
        assert_eq!(gguf.data_offset % gguf.alignment, 0);
        assert_eq!(GgufWriter::copy_of(&gguf).to_bytes(), bytes);
    }
}

#[test]
fn bad_files_cannot_be_written() {
    let mut file = GgufWriter::new();
    let expected = Refusal("general.alignment", "power of two", Invalid);
    assert_refused("alignment", file.alignment(24).map(|_| ()), expected);
    let expected = Refusal("general.alignment", "GgufWriter::alignment", Invalid);
    assert_refused("direct", file.set("general.alignment", 24_u32).map(|_| ()), expected);
    let expected = Refusal("a\\nb", "usable key", Malformed);
    assert_refused("key", file.set("a\nb", 1_u32).map(|_| ()), expected);
    let mut tensor =
        |name: &str, dims: &[u64], bytes: usize| file.tensor(name, TensorType::F32, dims, vec![0; bytes]).map(|_| ());
    tensor("x", &[2, 2], 16).expect("sound");
    assert_refused("taken", tensor("x", &[1], 4), Refusal("x", "two tensors", Malformed));
    assert_refused("size", tensor("y", &[2, 2], 15), Refusal("y", "15 bytes of data do not fit", Malformed));
    assert_refused("no dims", tensor("y", &[], 4), Refusal("y", "shape []", Malformed));
    assert_refused("zero dim", tensor("y", &[0], 0), Refusal("y", "shape [0]", Malformed));
    assert_refused("five dims", tensor("y", &[1; 5], 4), Refusal("y", "shape", Malformed));
    assert!(tensor(&"z".repeat(64), &[1], 4).is_err(), "a name of 64 bytes");
}

#[test]
fn keys_are_replaced_in_place() {
    let mut file = GgufWriter::new();
    set(&mut file, "a", 1_u32);
    set(&mut file, "b", 2_u32);
    set(&mut file, "a", "one");
    let bytes = file.to_bytes();
    let gguf = Gguf::read(&bytes).expect("sound");
    assert_eq!(gguf.keys(), [("a", Value::Str(b"one")), ("b", Value::U32(2))]);
    assert!(gguf.tensors().is_empty());
}

proptest! {
    #[test]
    fn values_survive_writing(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
        words in prop::collection::vec(any::<u32>(), 0..50),
        number in any::<i64>(),
        float in any::<f64>(),
        data in prop::collection::vec(any::<u8>(), 1..200),
        power in 3_u32..=16,
    ) {
        let mut file = GgufWriter::new();
        file.alignment(1 << power).expect("alignment");
        set(&mut file, "t", OwnedValue::texts(&texts));
        set(&mut file, "w", &words[..]);
        set(&mut file, "n", number);
        set(&mut file, "f", float);
        let i8s = TensorType::from_id(24).expect("I8");
        file.tensor("x", i8s, &[data.len() as u64], &data[..]).expect("tensor");
        file.tensor("y", i8s, &[1, data.len() as u64], &data[..]).expect("tensor");
        let bytes = file.to_bytes();
        let gguf = Gguf::read(&bytes).expect("readable");
        let stored = gguf.array("t", &[ValueType::Str]).expect("texts").expect("there");
        prop_assert_eq!(stored.strings().collect::<Vec<_>>(), texts);
        let stored = gguf.array("w", &[ValueType::U32]).expect("words").expect("there");
        prop_assert_eq!(stored.words().collect::<Vec<_>>(), words);
        prop_assert_eq!(gguf.get("n"), Some(&Value::I64(number)));
        prop_assert!(matches!(gguf.get("f"), Some(Value::F64(f)) if f.to_bits() == float.to_bits()));
        for tensor in gguf.tensors() {
            prop_assert_eq!(gguf.tensor_bytes(tensor), &data[..]);
            prop_assert_eq!((gguf.data_offset + tensor.offset) % gguf.alignment, 0);
        }
    }
}
