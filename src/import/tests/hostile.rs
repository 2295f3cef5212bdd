//! Rows A8 and A10 of the reliability page, and mutators that look for a panic.

use proptest::prelude::*;

use super::*;

fn refused(weights: &[u8]) -> ImportError {
    let config = String::from_utf8(corpus("lora/adapter_config.json")).expect("text");
    import_parts(&config, weights, &Options::default()).expect_err("refused")
}

/// The header of a file with one tensor.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
}

#[test]
fn a8_damaged_headers_are_refused() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a": {{"dtype": "F32", "shape": [2], "data_offsets": {first}}},
                "b": {{"dtype": "F32", "shape": [2], "data_offsets": {second}}}}}"#
        )
    };
    let many: Vec<String> = (0..100_000)
        .map(|at| format!(r#""t{at}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}"#))
        .collect();
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "no safetensors"),
        ("short", vec![1, 0, 0], "no safetensors"),
        ("length 0", length(0), "header is empty"),
        ("length 2^63", length(1 << 63), "the limit is"),
        ("length 2^64 - 1", length(u64::MAX), "the limit is"),
        ("length over 100 MB", length(100_000_001), "the limit is"),
        ("length past the end", length(3), "the file has 2"),
        ("not JSON", file_of("{nonsense", &[]), "header is refused"),
        ("an array", file_of("[]", &[]), "no JSON object"),
        ("100k tensors", file_of(&format!("{{{}}}", many.join(",")), &[]), "more than 65536"),
        ("overlap", file_of(&two("[0, 8]", "[4, 12]"), &[0; 12]), "overlaps"),
        ("same place", file_of(&two("[0, 8]", "[0, 8]"), &[0; 8]), "overlaps"),
        ("gap", file_of(&two("[0, 8]", "[12, 20]"), &[0; 20]), "follows a gap"),
        ("gap at the start", file_of(&two("[4, 12]", "[12, 20]"), &[0; 20]), "follows a gap"),
        ("bytes after the last", file_of(&two("[0, 8]", "[8, 16]"), &[0; 20]), "follow the last"),
        ("past the end", file_of(&two("[0, 8]", "[8, 16]"), &[0; 12]), "the file holds"),
        ("backwards", file_of(&one("F32", "[2]", "[8, 0]"), &[0; 8]), "gap"),
        ("odd BF16", file_of(&one("BF16", "[1]", "[0, 3]"), &[0; 3]), "do not fit"),
        ("overflowing shape", file_of(&one("F32", "[9223372036854775807, 4]", "[0, 8]"), &[0; 8]), "do not fit"),
        ("negative shape", file_of(&one("F32", "[-1]", "[0, 8]"), &[0; 8]), "header is refused"),
        ("unknown dtype", file_of(&one("F99", "[2]", "[0, 8]"), &[0; 8]), "unknown dtype"),
        ("many dimensions", file_of(&one("F32", "[1,1,1,1,1,1,1,1,1]", "[0, 4]"), &[0; 4]), "dimensions"),
        (
            "a name twice",
            file_of(
                r#"{"t": {"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "t": {"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                &[0; 8],
            ),
            "is there twice",
        ),
        ("no tensors", file_of("{}", &[]), "no adapter tensors"),
        ("deep JSON", file_of(&format!("{{\"t\": {}", "[".repeat(100_000)), &[]), "header is refused"),
    ];
    for (name, bytes, expected) in cases {
        let error = refused(&bytes).to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains('\n') && error.len() < 1000, "{name}: {error}");
    }
}

#[test]
fn a8_weights_that_are_no_numbers_are_refused_by_name() {
    let name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
    let other = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut numbers = vec![0.5; 128];
        numbers[77] = bad;
        let error = refused(&weights_of(&[(name, &[2, 64], numbers), (other, &[64, 2], vec![0.5; 128])])).to_string();
        assert!(error.contains(name) && error.contains("NaN or infinite"), "{error}");
    }
    let header = format!(
        r#"{{"{name}": {{"dtype":"U8","shape":[2,64],"data_offsets":[0,128]}},
            "{other}": {{"dtype":"F32","shape":[64,2],"data_offsets":[128,640]}}}}"#
    );
    let error = refused(&file_of(&header, &[0; 640])).to_string();
    assert!(error.contains("not stored as floats"), "{error}");
}

#[test]
fn numbers_near_the_end_of_f32_are_refused_or_finite() {
    let part = |part: &str| format!("base_model.model.model.layers.0.mlp.down_proj.{part}");
    let config = config_with("r", "8");
    for size in [1e15_f32, 1e19, 1e25, 3e38] {
        let numbers: Vec<f32> = (0..512).map(|at| if at % 3 == 0 { size } else { -size / 3.0 }).collect();
        let names = [part("lora_A.weight"), part("lora_B.weight")];
        let weights = weights_of(&[(&names[0], &[8, 64], numbers.clone()), (&names[1], &[64, 8], numbers)]);
        for rank in [None, Some(4)] {
            let options = Options { rank, ..any_options() };
            // What is imported has passed the checker, which refuses numbers that are not finite.
            let _ = import_parts(&config, &weights, &options);
        }
    }
}

#[test]
fn a10_pickles_are_refused_unread() {
    for (bytes, found) in [
        (&b"PK\x03\x04archive/data.pkl"[..], "zip archive"),
        (b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01", "a pickle"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}", "a pickle"),
        (b"\x1f\x8b\x08\x00", "gzip"),
    ] {
        let error = refused(bytes);
        assert!(matches!(error, ImportError::Pickle { .. }), "{error}");
        assert!(error.to_string().contains(found), "{error}");
    }
    assert!(refused(b"GGUF\x03\0\0\0").to_string().contains("GGUF"));
    assert!(refused(b"version https://git-lfs.github.com/spec/v1\n").to_string().contains("git lfs pull"));
    // A header of 640 bytes starts with the same two bytes as a pickle.
    let header = format!("{:640}", one("F32", "[1]", "[0, 4]"));
    assert!(SafeTensors::read(&file_of(&header, &[0; 4])).is_ok());
}

#[test]
fn a9_configurations_that_are_none_are_refused() {
    for config in ["", "[]", "null", "{", "{}", "{\"r\": 1}", &"[".repeat(100_000)] {
        let error = import_parts(config, &lora_weights(), &Options::default()).expect_err("refused").to_string();
        assert!(error.starts_with("adapter_config.json: ") && !error.contains('\n'), "{error}");
    }
    let long = format!("{{\"x\": \"{}\"}}", "a".repeat(5 << 20));
    assert!(import_parts(&long, &lora_weights(), &Options::default()).is_err());
}

#[test]
fn texts_of_files_are_printed_safely() {
    let weights = weights_of(&[("evil\u{1b}[31m\n\u{202e}name", &[1], vec![1.0])]);
    let error = refused(&weights).to_string();
    assert!(!error.contains('\u{1b}') && !error.contains('\n') && !error.contains('\u{202e}'), "{error}");
}

/// A JSON value of any kind, biased to what the fields hold.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (0_i64..600).prop_map(Value::from),
        "[a-z_.*^$()|\\\\]{0,12}".prop_map(Value::from),
        prop_oneof![Just("LORA"), Just("LOHA"), Just("LOKR"), Just("VERA"), Just("IA3"), Just("pissa"), Just("none")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_.*^$()|\\\\]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Folders of every kind.
const FOLDERS: [&str; 10] =
    ["lora", "rslora", "alora", "patterns", "embedding", "dora", "ia3", "loha", "lokr_both", "vera"];

/// Fast options for any folder.
fn any_options() -> Options {
    Options { max_relative_error: None, rank: Some(4), threads: 1, ..Options::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_configurations_never_panic(
        folder in prop::sample::select(&FOLDERS[..]),
        field in any::<prop::sample::Index>(),
        value in value(),
    ) {
        let text = String::from_utf8(corpus(&format!("{folder}/adapter_config.json"))).expect("text");
        let mut map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("an object");
        let names: Vec<String> = map.keys().cloned().collect();
        map.insert(field.get(&names).clone(), value);
        let weights = corpus(&format!("{folder}/adapter_model.safetensors"));
        let config = serde_json::to_string(&map).expect("text");
        if let Err(error) = import_parts(&config, &weights, &any_options()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn changed_headers_never_panic(
        folder in prop::sample::select(&FOLDERS[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        digits in any::<bool>(),
    ) {
        let config = String::from_utf8(corpus(&format!("{folder}/adapter_config.json"))).expect("text");
        let mut weights = corpus(&format!("{folder}/adapter_model.safetensors"));
        let length = u64::from_le_bytes(*weights.first_chunk().expect("length")) as usize;
        for (at, byte) in changes {
            // Digits for digits reach past the JSON parser: shapes, offsets, layers.
            let places: Vec<usize> = (0..8 + length)
                .filter(|at| !digits || weights.get(*at).is_some_and(u8::is_ascii_digit))
                .collect();
            let at = *at.get(&places);
            weights[at] = if digits { b'0' + byte % 10 } else { byte };
        }
        if let Err(error) = import_parts(&config, &weights, &any_options()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn cut_files_never_panic(folder in prop::sample::select(&FOLDERS[..]), at in any::<prop::sample::Index>()) {
        let config = String::from_utf8(corpus(&format!("{folder}/adapter_config.json"))).expect("text");
        let weights = corpus(&format!("{folder}/adapter_model.safetensors"));
        let cut = &weights[..at.index(weights.len())];
        prop_assert!(import_parts(&config, cut, &any_options()).is_err());
    }

    #[test]
    fn changed_gguf_adapters_never_panic(changes in prop::collection::vec((0_usize..3000, any::<u8>()), 1..4)) {
        let mut adapter = corpus("arch_mistral/llama_cpp.gguf");
        for (at, byte) in changes {
            let at = at % adapter.len();
            adapter[at] = byte;
        }
        let _ = requantize(&adapter, Storage::Q8_0);
    }
}
