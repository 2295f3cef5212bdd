//! Adapters that are not plain LoRA: gains, soft prompts, control vectors, prefixes.

use std::borrow::Cow;

use super::super::{
    AdapterFacts, AdapterKind, GgufError, GgufErrorKind::*, GgufWriter, ModelFacts, PrefixMessage, PrefixState,
    SoftPrompt, TensorType, check_adapter, control_directions, gains, soft_prompt_rows,
};
use super::sample::{EMBD, adapter_keys, facts, model, ones, set};
use super::{Refusal, assert_refused};

fn check(file: &GgufWriter<'_>) -> Result<AdapterFacts, GgufError> {
    check_adapter(&file.to_bytes(), &facts(&model()))
}

/// A file of one kind, without tensors.
fn of_type(kind: &str) -> GgufWriter<'static> {
    let mut file = GgufWriter::new();
    set(&mut file, "general.architecture", "llama");
    set(&mut file, "general.type", "adapter");
    set(&mut file, "adapter.type", kind);
    file
}

/// An adapter with gains on these tensors of so many outputs.
fn gained(tensors: &[(&str, u64)]) -> GgufWriter<'static> {
    let mut file = of_type("lora_gain");
    for (name, outputs) in tensors {
        ones(&mut file, &format!("{name}.gain"), &[*outputs]);
    }
    file
}

#[test]
fn gains_stand_alone_or_beside_pairs() {
    let mut file = gained(&[("blk.0.ffn_up.weight", 16), ("blk.0.attn_k.weight", 4)]);
    let found = check(&file).expect("sound without pairs, and without alpha");
    assert_eq!((found.kind, found.alpha, found.rank_max, found.parameter_count), (AdapterKind::Gain, 1.0, 0, 20));
    assert_eq!(found.targets, ["attn_k", "ffn_up"]);
    assert_eq!((found.gains[0].layer, found.gains[1].outputs), (Some(0), 16));
    set(&mut file, "adapter.lora.alpha", 4.0_f32);
    ones(&mut file, "blk.0.ffn_up.weight.lora_a", &[EMBD, 2]);
    ones(&mut file, "blk.0.ffn_up.weight.lora_b", &[2, 16]);
    let found = check(&file).expect("sound with a pair");
    assert_eq!((found.pairs.len(), found.gains.len(), found.rank_min), (1, 2, 2));
    let bytes = file.to_bytes();
    let read = gains(&bytes).expect("read");
    assert_eq!(read[0], ("blk.0.ffn_up.weight", &1.0_f32.to_le_bytes().repeat(16)[..]));
}

#[test]
fn gains_that_fit_nothing_are_refused() {
    let refused = |tensors: &[(&str, u64)]| check(&gained(tensors));
    let name = "blk.0.ffn_up.weight.gain";
    let expected = Refusal(name, "16 outputs here", Mismatch);
    assert_refused("length", refused(&[("blk.0.ffn_up.weight", 8)]), expected);
    let expected = Refusal("blk.7.ffn_up.weight.gain", "no tensor", Mismatch);
    assert_refused("layer", refused(&[("blk.7.ffn_up.weight", 16)]), expected);
    for (norm, field) in
        [("blk.0.attn_norm.weight", "blk.0.attn_norm.weight.gain"), ("token_embd.weight", "token_embd.weight.gain")]
    {
        assert_refused(norm, refused(&[(norm, EMBD)]), Refusal(field, "only those have gains", Unsupported));
    }
    let none = Refusal("tensor count", "no LoRA tensors", Missing);
    assert_refused("nothing", check(&of_type("lora_gain")), none);
    let mut plain = adapter_keys();
    ones(&mut plain, name, &[16]);
    assert_refused("type lora", check(&plain), Refusal(name, "type 'lora_gain'", Unsupported));
    let mut halves = of_type("lora_gain");
    halves.tensor(name, TensorType::F16, &[16], vec![0; 32]).expect("tensor");
    assert_refused("F16", check(&halves), Refusal(name, "expected F32", Unsupported));
    let mut nan = of_type("lora_gain");
    nan.tensor(name, TensorType::F32, &[16], f32::NAN.to_le_bytes().repeat(16)).expect("tensor");
    assert_refused("NaN", check(&nan), Refusal(name, "NaN", Invalid));
    let mut active = gained(&[("blk.0.ffn_up.weight", 16)]);
    set(&mut active, "adapter.alora.invocation_tokens", &[1_u32][..]);
    let expected = Refusal("adapter.alora.invocation_tokens", "together with gains", Unsupported);
    assert_refused("aLoRA", check(&active), expected);
}

#[test]
fn soft_prompts_are_written_checked_and_read() {
    let rows: Vec<f32> = (0..24).map(|at| at as f32 / 8.0).collect();
    for halves in [false, true] {
        let prompt = SoftPrompt { architecture: "llama", name: Some("mine"), n_embd: 8, rows: &rows, halves };
        let file = prompt.to_gguf().expect("written");
        let found = check(&file).expect("sound");
        assert_eq!((found.kind, found.name.as_deref()), (AdapterKind::SoftPrompt { tokens: 3 }, Some("mine")));
        assert_eq!(soft_prompt_rows(&file.to_bytes()).expect("read"), rows);
    }
    let wide = SoftPrompt { architecture: "llama", name: None, n_embd: 12, rows: &rows, halves: false };
    let expected = Refusal("prompt_embeddings", "the model is 8 wide", Mismatch);
    assert_refused("width", check(&wide.to_gguf().expect("written")), expected);
    let long = vec![0.5; 8 * 65];
    let long = SoftPrompt { architecture: "llama", name: None, n_embd: 8, rows: &long, halves: false };
    let expected = Refusal("prompt_embeddings", "65 rows, the limit is 64", TooLarge);
    assert_refused("longer than the context", check(&long.to_gguf().expect("written")), expected);
    assert!(SoftPrompt { architecture: "llama", name: None, n_embd: 7, rows: &rows, halves: false }.to_gguf().is_err());
    let mut more = of_type("soft_prompt");
    ones(&mut more, "prompt_embeddings", &[8, 2]);
    ones(&mut more, "other", &[8]);
    assert_refused("other tensor", check(&more), Refusal("other", "does not belong", Unsupported));
    let none = Refusal("prompt_embeddings", "is missing", Missing);
    assert_refused("none", check(&of_type("soft_prompt")), none);
}

/// A model of three layers by its facts.
fn three_layers() -> ModelFacts {
    ModelFacts { n_layer: 3, ..facts(&model()) }
}

/// A control vector as llama.cpp's generator writes it.
fn control(directions: &[&str]) -> GgufWriter<'static> {
    let mut file = GgufWriter::new();
    set(&mut file, "general.architecture", "controlvector");
    set(&mut file, "controlvector.model_hint", "llama");
    set(&mut file, "controlvector.layer_count", directions.len() as u32);
    directions.iter().for_each(|name| ones(&mut file, name, &[EMBD]));
    file
}

#[test]
fn control_vectors_of_llama_cpp_are_read() {
    let base = three_layers();
    let bytes = control(&["direction.2"]).to_bytes();
    let found = check_adapter(&bytes, &base).expect("sound");
    assert_eq!(found.kind, AdapterKind::ControlVector { layers: vec![2] });
    let all = control_directions(&bytes, &base).expect("read");
    assert_eq!(all, [[0.0; 8], [1.0; 8]].concat());
    for (names, field, reason, kind) in [
        (vec!["direction.3"], "direction.3", "go up to 2", Mismatch),
        (vec!["direction.0"], "direction.0", "of a layer N from 1", Unsupported),
        (vec!["direction.01"], "direction.01", "of a layer N from 1", Unsupported),
        (vec!["blk.0"], "blk.0", "of a layer N from 1", Unsupported),
        (vec![], "tensor count", "has no directions", Missing),
    ] {
        let found = check_adapter(&control(&names).to_bytes(), &base);
        assert_refused(field, found, Refusal(field, reason, kind));
    }
    let mut other = control(&["direction.1"]);
    set(&mut other, "controlvector.model_hint", "qwen2");
    let expected = Refusal("controlvector.model_hint", "is for 'qwen2'", Mismatch);
    assert_refused("model", check_adapter(&other.to_bytes(), &base), expected);
    let mut wide = control(&[]);
    ones(&mut wide, "direction.1", &[EMBD * 2]);
    let expected = Refusal("direction.1", "the model is 8 wide", Mismatch);
    assert_refused("width", check_adapter(&wide.to_bytes(), &base), expected);
}

fn message(role: &str, content: &str) -> PrefixMessage {
    PrefixMessage { role: role.to_owned(), content: content.to_owned() }
}

fn prefix() -> PrefixState<'static> {
    PrefixState {
        architecture: Cow::Borrowed("llama"),
        name: Some(Cow::Borrowed("two examples")),
        base: Some(Cow::Borrowed("0123456789abcdef")),
        messages: vec![message("system", "Short."), message("user", "a\n\"b\""), message("assistant", "c")],
        stamp: None,
        tokens: Vec::new(),
        state: Cow::Borrowed(&[]),
    }
}

#[test]
fn prefixes_are_messages_with_or_without_a_state() {
    let base = facts(&model());
    let plain = prefix();
    let bytes = plain.to_gguf().expect("written");
    assert_eq!(PrefixState::read(&bytes).expect("read"), plain);
    let found = check_adapter(&bytes, &base).expect("sound");
    assert_eq!(found.kind, AdapterKind::PrefixState { messages: 3, tokens: 0, state_bytes: 0 });
    assert_eq!((found.parameter_count, found.all_zero), (0, false));
    let state: Vec<u8> = (0..=255).collect();
    let full = PrefixState {
        stamp: Some(Cow::Borrowed("build 1")),
        tokens: vec![0, 4, 7],
        state: Cow::Owned(state),
        ..prefix()
    };
    let bytes = full.to_gguf().expect("written");
    assert_eq!(PrefixState::read(&bytes).expect("read"), full);
    let found = check_adapter(&bytes, &base).expect("sound");
    assert_eq!(found.kind, AdapterKind::PrefixState { messages: 3, tokens: 3, state_bytes: 256 });
}

#[test]
fn prefixes_that_could_mislead_are_refused() {
    let messages = "adapter.prefix.messages";
    for (text, reason) in [
        ("", "is not JSON"),
        ("{}", "is not a list"),
        ("[]", "has 0 messages"),
        ("[1]", "message 0 is not an object"),
        (r#"[{"role": "user"}]"#, "a role and a content"),
        (r#"[{"role": "user", "content": 1}]"#, "a role and a content"),
        (r#"[{"role": "user", "content": "a", "name": "b"}]"#, "a role and a content"),
        (r#"[{"role": "root", "content": "a"}]"#, "role 'root'"),
        (r#"[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]"#, "role 'system'"),
    ] {
        let mut file = of_type("prefix");
        set(&mut file, messages, text);
        assert_refused(text, check(&file), Refusal(messages, reason, Malformed));
    }
    assert_refused("none", check(&of_type("prefix")), Refusal(messages, "is missing", Missing));
    let full = PrefixState {
        stamp: Some(Cow::Borrowed("build 1")),
        tokens: vec![0, 4, 8],
        state: Cow::Borrowed(b"state"),
        ..prefix()
    };
    let bytes = full.to_gguf().expect("written");
    let expected = Refusal("tokens", "token 8 of a vocabulary of 8", Mismatch);
    assert_refused("vocabulary", check_adapter(&bytes, &facts(&model())), expected);
    let unstamped = PrefixState { stamp: None, ..full.clone() }.to_gguf();
    assert_refused("stamp", unstamped, Refusal("adapter.prefix.stamp", "exactly when", Malformed));
    assert!(PrefixState { tokens: Vec::new(), ..full }.to_gguf().is_err(), "a state without tokens");
    let mut deep = of_type("prefix");
    set(&mut deep, messages, "[".repeat(100_000).as_str());
    assert_refused("deep", check(&deep), Refusal(messages, "is not JSON", Malformed));
}

/// A sound file of each kind, for the model of one layer taken as one of three.
pub(super) fn samples() -> [GgufWriter<'static>; 4] {
    let rows = [0.5; 16];
    let soft = SoftPrompt { architecture: "llama", name: None, n_embd: 8, rows: &rows, halves: false };
    let mut state = of_type("prefix");
    set(&mut state, "adapter.prefix.messages", r#"[{"role": "user", "content": "a"}]"#);
    set(&mut state, "adapter.prefix.stamp", "build 1");
    state.tensor("tokens", TensorType::I32, &[2], [0_u8; 8].to_vec()).expect("tensor");
    state.tensor("state", TensorType::I8, &[40], vec![7; 40]).expect("tensor");
    [gained(&[("blk.0.attn_k.weight", 4)]), soft.to_gguf().expect("written"), control(&["direction.2"]), state]
}

#[test]
fn the_samples_are_sound() {
    for file in samples() {
        check_adapter(&file.to_bytes(), &three_layers()).expect("sound");
    }
}
