//! The tokenizer: what `llama_vocab::impl::load` in `src/llama-vocab.cpp` reads, checked for what it asserts there and
//! for what would only fail later, at some text of some user.

use super::error::{GgufError, GgufErrorKind, shown};
use super::hash::TokenMap;
use super::header::Gguf;
use super::limits::{MAX_CHARSMAP_BYTES, MAX_TOKEN_BYTES, MAX_TOKEN_WORK, MAX_TOKENS};
use super::value::{Array, ValueType};

use GgufErrorKind::{Invalid, Malformed, Missing, TooLarge, Unsupported};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// `LLAMA_TOKEN_TYPE_BYTE`.
const BYTE: u32 = 6;

/// What a file says about its tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// The kind of tokenizer (`tokenizer.ggml.model`): `llama`, `gpt2`, ...
    pub model: String,
    /// The pre-tokenizer (`tokenizer.ggml.pre`): `smollm`, `llama-bpe`, ...
    pub pre: Option<String>,
    /// Number of tokens.
    pub n_vocab: u32,
    /// Beginning of a text, as llama.cpp settles it: the key, or the default of the tokenizer.
    pub bos: Option<u32>,
    /// End of a text, settled in the same way.
    pub eos: Option<u32>,
    /// End of a turn, if a key names it. llama.cpp also looks for well-known texts such as `<|im_end|>`.
    pub eot: Option<u32>,
    /// Whether a text gets a BOS token in front.
    pub add_bos: bool,
    /// Whether a text gets an EOS token at its end.
    pub add_eos: bool,
    /// Merges that name pieces outside the vocabulary. A few occur in published models and only waste a rule.
    pub unknown_merges: usize,
}

/// The algorithms of llama.cpp (`enum llama_vocab_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Spm,
    Wpm,
    Bpe,
    Ugm,
    Rwkv,
    Plamo2,
}

/// Checks the tokenizer of a model.
pub(super) fn check_tokenizer(gguf: &Gguf<'_>) -> Result<TokenizerFacts, GgufError> {
    let Some(model) = gguf.str(MODEL)? else {
        return Err(GgufError::new(Missing, MODEL, "is missing: the file has no tokenizer"));
    };
    let algorithm = match model {
        "llama" => Algorithm::Spm,
        "bert" => Algorithm::Wpm,
        "gpt2" | "hybriddna" | "whitespace" | "gemma4" => Algorithm::Bpe,
        "t5" => Algorithm::Ugm,
        "rwkv" => Algorithm::Rwkv,
        "plamo2" => Algorithm::Plamo2,
        "none" | "no_vocab" => {
            let reason = format!("is '{model}': the file has no tokenizer");
            return Err(GgufError::new(Missing, MODEL, reason));
        }
        _ => {
            let reason = format!("this build of llama.cpp does not know tokenizer '{model}'");
            return Err(GgufError::new(Unsupported, MODEL, reason));
        }
    };
    let pre = gguf.str("tokenizer.ggml.pre")?;
    let Some(tokens) = gguf.array(TOKENS, &[ValueType::Str])? else {
        return Err(GgufError::new(Missing, TOKENS, "is missing: the file has no vocabulary"));
    };
    if tokens.is_empty() {
        return Err(GgufError::new(Invalid, TOKENS, "the vocabulary is empty"));
    }
    if tokens.len() > MAX_TOKENS {
        let reason = format!("{} tokens, the limit is {MAX_TOKENS}", tokens.len());
        return Err(GgufError::new(TooLarge, TOKENS, reason));
    }
    let types = gguf.array(TOKEN_TYPES, &[ValueType::I32])?;
    check_length(TOKEN_TYPES, types, tokens)?;
    let scores = gguf.array(SCORES, &[ValueType::I32, ValueType::F32])?;
    check_length(SCORES, scores, tokens)?;
    check_types(algorithm, tokens, types)?;
    let map = check_texts(tokens)?;
    let unknown_merges = match algorithm {
        Algorithm::Bpe => check_merges(gguf, pre, &map)?,
        Algorithm::Spm => check_bytes(&map).map(|()| 0)?,
        Algorithm::Rwkv => check_rwkv(tokens).map(|()| 0)?,
        Algorithm::Ugm => check_charsmap(gguf).map(|()| 0)?,
        Algorithm::Wpm | Algorithm::Plamo2 => 0,
    };
    gguf.array("tokenizer.ggml.suppress_tokens", &[ValueType::I32])?;
    let facts = TokenizerFacts {
        model: model.to_owned(),
        pre: pre.map(str::to_owned),
        // At most MAX_TOKENS, checked above.
        n_vocab: tokens.len() as u32,
        bos: None,
        eos: None,
        eot: None,
        add_bos: false,
        add_eos: false,
        unknown_merges,
    };
    check_specials(gguf, algorithm, facts)
}

/// Arrays beside the vocabulary are as long as it, or longer.
fn check_length(key: &str, array: Option<Array<'_>>, tokens: Array<'_>) -> Result<(), GgufError> {
    match array {
        Some(array) if array.len() < tokens.len() => {
            let reason = format!("has {} elements for {} tokens", array.len(), tokens.len());
            Err(GgufError::new(Invalid, key, reason))
        }
        _ => Ok(()),
    }
}

/// The text that llama.cpp keeps of a token: it reads C strings, so a NUL ends it.
fn c_text(token: &[u8]) -> &[u8] {
    match token.iter().position(|byte| *byte == 0) {
        Some(end) => token.get(..end).unwrap_or(token),
        None => token,
    }
}

/// The number that a byte token `<0xHH>` stands for.
fn byte_value(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Byte tokens: those marked as such are `<0x00>` to `<0xFF>`, and so is everything that looks like one.
fn check_types(algorithm: Algorithm, tokens: Array<'_>, types: Option<Array<'_>>) -> Result<(), GgufError> {
    // Byte-level BPE vocabularies may hold such text as ordinary pieces; the others derive bytes from it.
    let by_text = matches!(algorithm, Algorithm::Spm | Algorithm::Ugm | Algorithm::Plamo2);
    let mut types = types.map(|types| types.words());
    for (id, token) in tokens.strings().enumerate() {
        let marked = types.as_mut().and_then(Iterator::next) == Some(BYTE) && algorithm != Algorithm::Rwkv;
        if marked && algorithm == Algorithm::Wpm {
            let reason = format!("token {id} is marked as a byte, which a 'bert' tokenizer cannot have");
            return Err(GgufError::new(Invalid, TOKEN_TYPES, reason));
        }
        let looks = by_text && token.len() == 6 && token.starts_with(b"<0x") && token.ends_with(b">");
        if (marked || looks) && byte_value(token).is_none() {
            let reason = format!("byte token {id} is '{}', expected <0x00> to <0xFF>", shown(token));
            return Err(GgufError::new(Malformed, TOKENS, reason));
        }
    }
    Ok(())
}

/// Token texts: bounded, and all different. llama.cpp asserts that no two tokens are the same.
fn check_texts<'a>(tokens: Array<'a>) -> Result<TokenMap<'a>, GgufError> {
    // Each token took at least 8 bytes of the file, so this is in proportion to what is really there.
    let mut map = TokenMap::with_capacity_and_hasher(tokens.len(), Default::default());
    let mut empty = Vec::new();
    let mut work: u64 = 0;
    for (id, token) in tokens.strings().enumerate() {
        if token.len() > MAX_TOKEN_BYTES {
            let reason = format!("token {id} has {} bytes, the limit is {MAX_TOKEN_BYTES}", token.len());
            return Err(GgufError::new(TooLarge, TOKENS, reason));
        }
        work = work.saturating_add((token.len() as u64).saturating_mul(token.len() as u64));
        let text = c_text(token);
        if text.is_empty() {
            empty.push(id);
            continue;
        }
        // Token ids are below MAX_TOKENS.
        if let Some(other) = map.insert(text, id as u32) {
            let reason = format!("tokens {other} and {id} are both '{}'", shown(text));
            return Err(GgufError::new(Malformed, TOKENS, reason));
        }
    }
    if work > MAX_TOKEN_WORK {
        let reason = "the vocabulary holds too many long tokens";
        return Err(GgufError::new(TooLarge, TOKENS, reason));
    }
    // llama.cpp gives empty tokens a text, which must be free as well.
    for id in empty {
        let given = format!("[EMPTY_{id}]");
        if let Some(other) = map.get(given.as_bytes()) {
            let reason = format!("token {other} is '{given}', the name that llama.cpp gives to the empty token {id}");
            return Err(GgufError::new(Malformed, TOKENS, reason));
        }
    }
    Ok(map)
}

/// Merges of byte-pair encoding. llama.cpp needs them (Kimi K2 excepted), and a merge whose pieces or result are not
/// tokens makes it drop text silently. Returns how many such merges there are: up to one in a hundred is let pass,
/// since published vocabularies with edited added tokens have a few.
fn check_merges(gguf: &Gguf<'_>, pre: Option<&str>, map: &TokenMap<'_>) -> Result<usize, GgufError> {
    let Some(merges) = gguf.array(MERGES, &[ValueType::Str])? else {
        if pre == Some("kimi-k2") {
            return Ok(0);
        }
        return Err(GgufError::new(Missing, MERGES, "is missing: the tokenizer needs its merges"));
    };
    let mut unknown = 0;
    let mut example = None;
    let mut joined = Vec::new();
    for (number, merge) in merges.strings().enumerate() {
        let pieces = split_merge(c_text(merge));
        let known = pieces.is_some_and(|(left, right)| {
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            map.contains_key(left) && map.contains_key(right) && map.contains_key(joined.as_slice())
        });
        if !known {
            unknown += 1;
            example.get_or_insert((number, merge));
        }
    }
    match example {
        Some((number, merge)) if unknown > merges.len() / 100 => {
            let reason = format!(
                "{unknown} of {} merges name pieces that are not tokens, first merge {number} '{}'",
                merges.len(),
                shown(merge)
            );
            Err(GgufError::new(Invalid, MERGES, reason))
        }
        _ => Ok(unknown),
    }
}

/// Splits `left right` at the first space that is not at the start, as llama.cpp does.
fn split_merge(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = merge.iter().skip(1).position(|byte| *byte == b' ')?.checked_add(1)?;
    let (left, right) = merge.split_at_checked(space)?;
    Some((left, right.get(1..)?))
}

/// A sentencepiece tokenizer falls back to byte tokens for unknown text; a byte without a token throws through the C
/// interface, which ends the process at the first text that needs it.
fn check_bytes(map: &TokenMap<'_>) -> Result<(), GgufError> {
    for byte in 0..=u8::MAX {
        let token = format!("<0x{byte:02X}>");
        let plain = byte != 0 && map.contains_key([byte].as_slice());
        if !plain && !map.contains_key(token.as_bytes()) {
            let reason = format!("the vocabulary has no token {token}, so some texts could not be tokenized");
            return Err(GgufError::new(Invalid, TOKENS, reason));
        }
    }
    Ok(())
}

/// The RWKV tokenizer never returns from a byte that starts some token but is not one itself.
fn check_rwkv(tokens: Array<'_>) -> Result<(), GgufError> {
    let mut starts = [None; 256];
    let mut alone = [false; 256];
    for (id, token) in tokens.strings().enumerate() {
        let (first, longer) = unescape_rwkv(c_text(token));
        match first {
            Some(byte) if longer => {
                starts[usize::from(byte)].get_or_insert(id);
            }
            Some(byte) => alone[usize::from(byte)] = true,
            None => {}
        }
    }
    for (byte, (start, alone)) in starts.iter().zip(alone).enumerate() {
        if let Some(id) = start
            && !alone
        {
            let reason = format!("token {id} starts with byte 0x{byte:02X}, which is not a token by itself");
            return Err(GgufError::new(Invalid, TOKENS, reason));
        }
    }
    Ok(())
}

/// The first byte of an escaped token, and whether more follow (`llama_unescape_rwkv_token`).
fn unescape_rwkv(token: &[u8]) -> (Option<u8>, bool) {
    let digit = |byte: u8| match byte {
        b'a'.. => byte.wrapping_sub(b'a').wrapping_add(10),
        _ => byte.wrapping_sub(b'0'),
    };
    match token {
        [b'\\', b'x', high, low, rest @ ..] => {
            let byte = digit(*high).wrapping_shl(4).wrapping_add(digit(*low));
            (Some(byte), !rest.is_empty())
        }
        [b'\\', b'x', ..] | [b'\\'] | [] => (None, false),
        [b'\\', b't', rest @ ..] => (Some(b'\t'), !rest.is_empty()),
        [b'\\', b'n', rest @ ..] => (Some(b'\n'), !rest.is_empty()),
        [b'\\', b'r', rest @ ..] => (Some(b'\r'), !rest.is_empty()),
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (Some(*byte), !rest.is_empty()),
    }
}

/// The normalisation table of a unigram tokenizer: a double array that llama.cpp walks with the bytes of a text. A
/// step outside of it throws through the C interface, so every step that a text could take is taken here first.
fn check_charsmap(gguf: &Gguf<'_>) -> Result<(), GgufError> {
    let Some(map) = gguf.array(CHARSMAP, &[ValueType::I8, ValueType::U8])? else {
        return Ok(());
    };
    if map.len() > MAX_CHARSMAP_BYTES {
        let reason = format!("{} bytes, the limit is {MAX_CHARSMAP_BYTES}", map.len());
        return Err(GgufError::new(TooLarge, CHARSMAP, reason));
    }
    let broken = |reason: &str| GgufError::new(Malformed, CHARSMAP, reason);
    let Some((size, rest)) = map.bytes().split_first_chunk::<4>() else {
        return Err(broken("is too short"));
    };
    let size = u32::from_le_bytes(*size) as usize;
    let Some((table, texts)) = rest.split_at_checked(size).filter(|(_, texts)| !texts.is_empty()) else {
        return Err(broken("its table is longer than the value"));
    };
    // A replacement text must end before the table of texts does.
    let last_end = texts.iter().rposition(|byte| *byte == 0);
    let nodes = table.as_chunks::<4>().0;
    let node = |index: usize| nodes.get(index).map(|node| u32::from_le_bytes(*node));
    let base = |packed: u32| ((packed >> 10) << ((packed & (1 << 9)) >> 6)) as usize;
    let Some(root) = node(0) else {
        return Ok(());
    };
    let mut seen = vec![false; nodes.len()];
    let mut pending = vec![base(root)];
    while let Some(from) = pending.pop() {
        for byte in 1..=u8::MAX {
            let index = from ^ usize::from(byte);
            let Some(packed) = node(index) else {
                return Err(broken("its table leads outside of itself"));
            };
            if packed & ((1 << 31) | 0xff) != u32::from(byte) || std::mem::replace(&mut seen[index], true) {
                continue;
            }
            let next = index ^ base(packed);
            if packed & (1 << 8) != 0 {
                let Some(value) = node(next) else {
                    return Err(broken("its table leads outside of itself"));
                };
                let start = (value & ((1 << 31) - 1)) as usize;
                if last_end.is_none_or(|end| start > end) {
                    return Err(broken("a replacement text lies outside of the value"));
                }
            }
            pending.push(next);
        }
    }
    Ok(())
}

/// Special tokens and the flags that add them. llama.cpp asserts that a token it must add exists.
fn check_specials(
    gguf: &Gguf<'_>,
    algorithm: Algorithm,
    mut facts: TokenizerFacts,
) -> Result<TokenizerFacts, GgufError> {
    let pre = facts.pre.as_deref().unwrap_or("");
    let gemma4 = facts.model == "gemma4" || matches!(pre, "gemma4" | "granite-embed-multi-311m");
    let (bos, eos) = match algorithm {
        Algorithm::Spm | Algorithm::Plamo2 => (Some(1), Some(2)),
        Algorithm::Wpm => (Some(101), None),
        Algorithm::Bpe if facts.model == "gemma4" => (None, None),
        Algorithm::Bpe if matches!(pre, "chatglm-bpe" | "glm4" | "glm5") => (None, Some(11)),
        Algorithm::Bpe => (Some(11), Some(11)),
        Algorithm::Ugm => (None, Some(1)),
        Algorithm::Rwkv => (None, None),
    };
    facts.bos = special(gguf, "tokenizer.ggml.bos_token_id", facts.n_vocab, bos)?;
    facts.eos = special(gguf, "tokenizer.ggml.eos_token_id", facts.n_vocab, eos)?;
    facts.eot = special(gguf, "tokenizer.ggml.eot_token_id", facts.n_vocab, None)?;
    special(gguf, "tokenizer.ggml.eom_token_id", facts.n_vocab, None)?;

    let llama3 = [
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
        "tekken",
        "chameleon",
    ];
    let add_bos = match algorithm {
        Algorithm::Spm | Algorithm::Wpm => true,
        Algorithm::Bpe => llama3.contains(&pre),
        Algorithm::Ugm | Algorithm::Rwkv | Algorithm::Plamo2 => false,
    };
    facts.add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos) || gemma4;
    facts.add_eos = gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(algorithm == Algorithm::Ugm);
    // The RWKV tokenizer ignores both flags; a 'bert' tokenizer ends texts with a separator instead.
    if algorithm != Algorithm::Rwkv && (facts.add_bos || algorithm == Algorithm::Wpm) && facts.bos.is_none() {
        let reason = "texts start with this token, but the vocabulary does not name one";
        return Err(GgufError::new(Invalid, "tokenizer.ggml.bos_token_id", reason));
    }
    if !matches!(algorithm, Algorithm::Rwkv | Algorithm::Wpm) && facts.add_eos && facts.eos.is_none() {
        let reason = "texts end with this token, but the vocabulary does not name one";
        return Err(GgufError::new(Invalid, "tokenizer.ggml.eos_token_id", reason));
    }
    if algorithm == Algorithm::Wpm {
        // Out of range, llama.cpp keeps the default here, and so does this.
        let key = "tokenizer.ggml.seperator_token_id";
        let stored = gguf.u32(key)?.filter(|id| *id < facts.n_vocab);
        if stored.is_none() && facts.n_vocab <= 102 {
            let reason = "texts end with this token, but the vocabulary does not name one";
            return Err(GgufError::new(Invalid, key, reason));
        }
    }
    Ok(facts)
}

/// One special token: the key if it is set, the default of the tokenizer if that exists. The number -1 means unset,
/// as converters write it; any other number outside of the vocabulary is refused.
fn special(gguf: &Gguf<'_>, key: &str, n_vocab: u32, default: Option<u32>) -> Result<Option<u32>, GgufError> {
    match gguf.u32(key)? {
        None | Some(u32::MAX) => Ok(default.filter(|id| *id < n_vocab)),
        Some(id) if id < n_vocab => Ok(Some(id)),
        Some(id) => {
            let reason = format!("token {id} of a vocabulary of {n_vocab}");
            Err(GgufError::new(Invalid, key, reason))
        }
    }
}
