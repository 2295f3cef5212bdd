//! M13 to M15: the tokenizer.

use super::super::{GgufErrorKind::*, OwnedValue, check_model};
use super::sample::{facts, model, model_with, model_without, set, spm_model, spm_tokens};
use super::{Refusal, assert_refused};

const TOKENS: &str = "tokenizer.ggml.tokens";

#[test]
fn sound_vocabularies_pass() {
    let spm = facts(&spm_model(&spm_tokens()));
    assert_eq!(spm.tokenizer.model, "llama");
    assert!(spm.tokenizer.add_bos);
    assert_eq!((spm.tokenizer.bos, spm.tokenizer.eos), (Some(1), Some(2)));
    // Token texts need not be UTF-8, and may be empty.
    let odd = OwnedValue::texts([&b"\xff\xfe"[..], b"", b"a", b"b", b"c", b"d", b"ab", b"abc"]);
    check_model(&model_with(TOKENS, odd)).expect("arbitrary bytes");
}

#[test]
fn m13_byte_tokens() {
    for text in ["<0x-1>", "<0xZZ>", "<0x+1>", "<0x 1>"] {
        let mut tokens = spm_tokens();
        tokens[20] = text.to_owned();
        let bytes = spm_model(&tokens).to_bytes();
        let expected = Refusal(TOKENS, "expected <0x00> to <0xFF>", Malformed);
        assert_refused(text, check_model(&bytes), expected);
    }
    // Marked as a byte without looking like one.
    let types = model_with("tokenizer.ggml.token_type", &[3_i32, 3, 6, 1, 1, 1, 1, 1][..]);
    assert_refused("marked", check_model(&types), Refusal(TOKENS, "byte token 2 is 'a'", Malformed));
    // Byte-level BPE does not read bytes out of texts.
    let texts = OwnedValue::texts(["<s>", "</s>", "a", "b", "c", "<0xZZ>", "ab", "abc"]);
    check_model(&model_with(TOKENS, texts)).expect("ordinary text");
}

#[test]
fn m13_every_byte_has_a_token() {
    let without = |byte_token: &str| {
        let tokens = spm_tokens().into_iter();
        let tokens = tokens.map(|token| if token == byte_token { "other".to_owned() } else { token });
        check_model(&spm_model(&tokens.collect::<Vec<_>>()).to_bytes())
    };
    assert_refused("no byte", without("<0xE2>"), Refusal(TOKENS, "no token <0xE2>", Invalid));
    without("<0x62>").expect("the plain letter 'b' stands for its byte");
}

#[test]
fn m13_sizes() {
    let many = OwnedValue::texts((0..1_000_001).map(|id| id.to_string()));
    let expected = Refusal(TOKENS, "1000001 tokens, the limit is 1000000", TooLarge);
    assert_refused("many", check_model(&model_with(TOKENS, many)), expected);
    let mut long = super::sample::TOKENS.map(str::to_owned);
    long[5] = "x".repeat(1 << 20);
    let expected = Refusal(TOKENS, "token 5 has 1048576 bytes", TooLarge);
    assert_refused("long", check_model(&model_with(TOKENS, OwnedValue::texts(&long))), expected);
    let mut file = model();
    file.remove("tokenizer.ggml.token_type");
    let work = (0..40_000_u32).map(|id| format!("{id:05}{}", "x".repeat(150)));
    set(&mut file, TOKENS, OwnedValue::texts(work));
    let expected = Refusal(TOKENS, "too many long tokens", TooLarge);
    assert_refused("quadratic", check_model(&file.to_bytes()), expected);
    let empty = model_with(TOKENS, OwnedValue::texts::<&str>([]));
    assert_refused("empty", check_model(&empty), Refusal(TOKENS, "empty", Invalid));
}

#[test]
fn two_equal_tokens_would_abort_llama() {
    let cases: [(&str, [&[u8]; 8], &str); 3] = [
        ("equal", [b"<s>", b"</s>", b"a", b"b", b"c", b"a", b"ab", b"abc"], "tokens 2 and 5 are both 'a'"),
        ("equal up to a NUL", [b"<s>", b"</s>", b"a", b"b", b"c", b"a\0x", b"ab", b"abc"], "tokens 2 and 5"),
        ("the name of an empty one", [b"[EMPTY_5]", b"</s>", b"a", b"b", b"c", b"", b"ab", b"abc"], "[EMPTY_5]"),
    ];
    for (label, texts, reason) in cases {
        let bytes = model_with(TOKENS, OwnedValue::texts(texts));
        assert_refused(label, check_model(&bytes), Refusal(TOKENS, reason, Malformed));
    }
}

#[test]
fn m14_ids_and_lengths() {
    for key in ["bos", "eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let error = check_model(&model_with(&key, 8_u32)).expect_err("out of range");
        assert_eq!((error.field.as_str(), error.kind), (key.as_str(), Invalid));
        assert!(error.reason.contains("token 8 of a vocabulary of 8"), "{error}");
    }
    let unset = check_model(&model_with("tokenizer.ggml.bos_token_id", u32::MAX)).expect("-1 is unset");
    assert_eq!(unset.tokenizer.bos, None);
    check_model(&model_with("tokenizer.ggml.padding_token_id", 99_u32)).expect("llama.cpp ignores padding");
    let key = "tokenizer.ggml.scores";
    let expected = Refusal(key, "has 7 elements for 8 tokens", Invalid);
    assert_refused("scores", check_model(&model_with(key, &[0_f32; 7][..])), expected);
    let expected = Refusal(key, "stored as array of f64", WrongType);
    assert_refused("scores", check_model(&model_with(key, &[0_f64; 8][..])), expected);
    let key = "tokenizer.ggml.token_type";
    let expected = Refusal(key, "has 2 elements for 8 tokens", Invalid);
    assert_refused("types", check_model(&model_with(key, &[1_i32, 1][..])), expected);
    let key = "tokenizer.ggml.bos_token_id";
    assert_refused("i32", check_model(&model_with(key, 1_i32)), Refusal(key, "stored as i32", WrongType));
}

#[test]
fn m14_tokens_that_must_be_added_exist() {
    let mut file = model();
    file.remove("tokenizer.ggml.bos_token_id");
    file.remove("tokenizer.ggml.eos_token_id");
    facts(&file);
    for (flag, key) in [
        ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
        ("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id"),
    ] {
        let mut file = file.clone();
        set(&mut file, flag, true);
        assert_refused(flag, check_model(&file.to_bytes()), Refusal(key, "does not name one", Invalid));
    }
    set(&mut file, "tokenizer.ggml.pre", "llama-bpe");
    let expected = Refusal("tokenizer.ggml.bos_token_id", "does not name one", Invalid);
    assert_refused("llama 3 adds BOS", check_model(&file.to_bytes()), expected);
}

#[test]
fn m15_merges_and_missing_tokenizers() {
    let key = "tokenizer.ggml.merges";
    for merge in ["a z", "z a", "a c", "abc", " a", ""] {
        let bytes = model_with(key, &["a b", merge][..]);
        let expected = Refusal(key, "1 of 2 merges name pieces that are not tokens", Invalid);
        assert_refused(merge, check_model(&bytes), expected);
    }
    let mut many = vec!["a b"; 199];
    many.push("a z");
    let bytes = model_with(key, &many[..]);
    assert_eq!(check_model(&bytes).expect("one in 200").tokenizer.unknown_merges, 1);
    assert_refused("no merges", check_model(&model_without(key)), Refusal(key, "missing", Missing));
    let mut kimi = model();
    set(&mut kimi, "tokenizer.ggml.pre", "kimi-k2");
    kimi.remove(key);
    facts(&kimi);

    let key = "tokenizer.ggml.model";
    assert_refused("no tokenizer", check_model(&model_without(key)), Refusal(key, "no tokenizer", Missing));
    for none in ["none", "no_vocab"] {
        assert_refused(none, check_model(&model_with(key, none)), Refusal(key, "no tokenizer", Missing));
    }
    let expected = Refusal(key, "does not know tokenizer 'magic'", Unsupported);
    assert_refused("unknown", check_model(&model_with(key, "magic")), expected);
    assert_refused("no tokens", check_model(&model_without(TOKENS)), Refusal(TOKENS, "missing", Missing));
}

#[test]
fn a_rwkv_vocabulary_cannot_hang() {
    let with = |texts: &[&str]| {
        let mut file = model();
        set(&mut file, "tokenizer.ggml.model", "rwkv");
        set(&mut file, TOKENS, texts);
        file.remove("tokenizer.ggml.token_type");
        file.remove("tokenizer.ggml.bos_token_id");
        file.remove("tokenizer.ggml.eos_token_id");
        check_model(&file.to_bytes())
    };
    with(&["<", "<s>", "\\n", "\\n\\n", "\\x0b", "\\x0ba", "</s>"]).expect("sound");
    let expected = Refusal(TOKENS, "token 1 starts with byte 0x0A", Invalid);
    assert_refused("newlines", with(&["<", "\\n\\n", "a"]), expected);
    let expected = Refusal(TOKENS, "token 0 starts with byte 0xFE", Invalid);
    assert_refused("escapes", with(&["\\xfe\\xff"]), expected);
}

#[test]
fn a_unigram_table_cannot_lead_outside() {
    let key = "tokenizer.ggml.precompiled_charsmap";
    // 512 entries, the root at base 256; entry 256 ^ 'a' is a leaf whose base leads to entry 300.
    let entry = |base: u32, leaf: bool, label: u8| (base << 10) | (u32::from(leaf) << 8) | u32::from(label);
    let mut table = vec![0_u32; 512];
    table[0] = entry(256, false, 0);
    let child = 256 ^ usize::from(b'a');
    table[child] = entry(child as u32 ^ 300, true, b'a');
    table[300] = 1 << 31;
    let with = |table: &[u32], texts: &[u8]| {
        let mut value = (table.len() as u32 * 4).to_le_bytes().to_vec();
        value.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
        value.extend_from_slice(texts);
        let mut file = model();
        set(&mut file, "tokenizer.ggml.model", "t5");
        set(&mut file, key, &value[..]);
        check_model(&file.to_bytes())
    };
    with(&table, b"b\0").expect("sound");
    let refused = |label: &str, table: &[u32], texts: &[u8], reason| {
        assert_refused(label, with(table, texts), Refusal(key, reason, Malformed));
    };
    refused("unterminated", &table, b"b", "replacement text");
    refused("no texts", &table, b"", "longer than the value");
    table[300] = (1 << 31) | 5;
    refused("text outside", &table, b"b\0", "replacement text");
    table[child] = entry(child as u32 ^ 600, true, b'a');
    refused("entry outside", &table, b"b\0", "leads outside");
    table[0] = entry(1 << 20, false, 0);
    refused("root outside", &table, b"b\0", "leads outside");
}
