//! Our engine against llama.cpp's grammar sampler, token by token, on random safe grammars.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use serde_json::{Value, json};
use smoa::grammar::{Compiler, MatchResult, Source};

use super::random::{Random, damaged, safe_grammar};
use super::tokens::Tokens;

/// Texts per grammar.
const TEXTS: u64 = 40;
/// llama.cpp keeps every way to read a text as a stack of its own, and ambiguous grammars have as many as powers of the
/// length. A pair that takes longer there, character by character, is not compared.
const PATIENCE: Duration = Duration::from_millis(20);

pub fn run(path: &Path, pairs: u64, seed: u64) -> Result<(bool, Value), String> {
    let backend = LlamaBackend::init().map_err(|error| error.to_string())?;
    let params = LlamaModelParams::default().with_vocab_only(true);
    let model = LlamaModel::load_from_file(&backend, path, &params).map_err(|error| error.to_string())?;
    let tokens = Tokens::load(Some(path))?;
    let vocabulary = &tokens.vocabulary;
    let bytes: HashMap<Vec<u8>, u32> = (0..vocabulary.len() as u32)
        .filter(|&id| vocabulary.is_text(id))
        .map(|id| (vocabulary.piece(id).to_vec(), id))
        .collect();
    let end = vocabulary.end_tokens().first().copied().ok_or("the model has no end token")?;
    let compiler = Compiler::new(vocabulary.clone());
    let mut random = Random(0x5EED_1001 + (seed << 32));
    let (mut done, mut grammars, mut accepted, mut refused, mut skipped) = (0u64, 0u64, 0u64, 0u64, 0u64);
    let mut earlier = 0u64;
    let mut spent = [Duration::ZERO; 2];
    let mut differ = Vec::new();
    while done < pairs {
        let text = safe_grammar(&mut random);
        // A grammar that both refuse is no pair: one rule may have no way out.
        let Ok(compiled) = compiler.compile(&Source::Gbnf(text.clone())) else {
            refused += 1;
            continue;
        };
        grammars += 1;
        for index in 0..TEXTS {
            let sentence = sentence(&compiled, &bytes, &mut random);
            let candidate = damaged(&mut random, &sentence);
            let cut = cut(&candidate, &bytes, &mut random).ok_or("the vocabulary lacks single bytes")?;
            let whole = compiled.matches(candidate.as_bytes()).map_err(|error| error.to_string())?;
            let begun = Instant::now();
            let ours = ours(&compiled, &cut, end);
            spent[0] += begun.elapsed();
            let begun = Instant::now();
            done += 1;
            let characters = characters(&candidate, &bytes).ok_or("the vocabulary lacks single bytes")?;
            let mut theirs = theirs(&model, &text, &characters, end, Some(PATIENCE))?;
            if theirs.is_some() && cut != characters {
                theirs = self::theirs(&model, &text, &cut, end, None)?;
            }
            spent[1] += begun.elapsed();
            let Some(theirs) = theirs else {
                skipped += 1;
                // What is left is likely of the same kind, and none of it is compared.
                let left = (TEXTS - 1 - index).min(pairs.saturating_sub(done));
                (done, skipped) = (done + left, skipped + left);
                break;
            };
            accepted += u64::from(theirs.1);
            // Both refuse the text, llama.cpp in the middle of a character: of a negated class it refuses bytes that could
            // still become a character outside of its ranges.
            let refused_to: usize = cut.iter().take(theirs.0 + 1).map(|&token| vocabulary.piece(token).len()).sum();
            if !theirs.1
                && !ours.1
                && whole != MatchResult::Complete
                && theirs.0 < ours.0
                && !candidate.is_char_boundary(refused_to)
            {
                earlier += 1;
            } else if ours != theirs || theirs.1 != (whole == MatchResult::Complete) {
                differ.push(json!({"grammar": text, "text": candidate, "ours": format!("{ours:?} {whole:?}"), "llama.cpp": format!("{theirs:?}")}));
            }
        }
    }
    println!(
        "agree: {done} pairs of {grammars} grammars ({refused} refused by both or by us): {} compared, {accepted} accepted by \
         llama.cpp, {} differ; {earlier} more that both refuse, llama.cpp already inside a character; {skipped} not compared, where llama.cpp takes more than {} ms; {:.1} s ours, {:.1} s theirs",
        done - skipped,
        differ.len(),
        PATIENCE.as_millis(),
        spent[0].as_secs_f64(),
        spent[1].as_secs_f64(),
    );
    differ.iter().take(5).for_each(|row| println!("  {row}"));
    let result = json!({
        "pairs": done, "grammars": grammars, "accepted": accepted, "refused_grammars": refused, "not_compared": skipped,
        "refused_inside_a_character": earlier,
        "differ": differ,
    });
    Ok((differ.is_empty(), result))
}

/// A text that our engine lets through, up to a length.
fn sentence(compiled: &smoa::grammar::Compiled, bytes: &HashMap<Vec<u8>, u32>, random: &mut Random) -> String {
    let mut matcher = compiled.matcher();
    let mut text = String::new();
    for _ in 0..14 {
        let choices: Vec<&str> = ["a", "b", "c", "é", "日", "x"]
            .into_iter()
            .filter(|letter| {
                let single = bytes.get(letter.as_bytes()).copied();
                single.is_some_and(|token| matcher.allows(token) == Ok(true)) || letter.len() > 1
            })
            .collect();
        if matcher.may_stop() && random.below(3) == 0 {
            break;
        }
        let letter = random.of(&choices);
        if matcher.accept_bytes(letter.as_bytes()).is_ok() {
            text.push_str(letter);
        }
    }
    text
}

/// The text in tokens, cut at random.
fn cut(text: &str, bytes: &HashMap<Vec<u8>, u32>, random: &mut Random) -> Option<Vec<u32>> {
    let mut rest = text.as_bytes();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let lengths: Vec<usize> =
            (1..=rest.len().min(8)).filter(|&length| bytes.contains_key(&rest[..length])).collect();
        let length = *lengths.get(random.below(lengths.len().max(1)))?;
        tokens.push(bytes[&rest[..length]]);
        rest = &rest[length..];
    }
    Some(tokens)
}

/// How many tokens are taken, and whether the text may end after all of them.
fn ours(compiled: &smoa::grammar::Compiled, tokens: &[u32], end: u32) -> (usize, bool) {
    let mut matcher = compiled.matcher();
    let taken = tokens.iter().take_while(|&&token| matcher.accept(token).is_ok()).count();
    (taken, taken == tokens.len() && matcher.allows(end) == Ok(true))
}

/// The text character by character, or byte by byte where a character has no token.
fn characters(text: &str, bytes: &HashMap<Vec<u8>, u32>) -> Option<Vec<u32>> {
    let mut tokens = Vec::new();
    for c in text.chars() {
        let spelled = c.to_string().into_bytes();
        match bytes.get(&spelled) {
            Some(token) => tokens.push(*token),
            None => {
                tokens.extend(spelled.iter().map(|byte| bytes.get(&[*byte][..]).copied()).collect::<Option<Vec<_>>>()?)
            }
        }
    }
    Some(tokens)
}

/// The same by llama.cpp; `None` if it takes longer than `patience`.
fn theirs(
    model: &LlamaModel,
    grammar: &str,
    tokens: &[u32],
    end: u32,
    patience: Option<Duration>,
) -> Result<Option<(usize, bool)>, String> {
    let begun = Instant::now();
    let mut sampler = LlamaSampler::grammar(model, grammar, "root")
        .map_err(|error| format!("llama.cpp refuses: {error}\n{grammar}"))?;
    let allowed = |sampler: &mut LlamaSampler, token: u32| {
        let data = LlamaTokenData::new(LlamaToken(token as i32), 1.0, 0.0);
        let mut array = LlamaTokenDataArray::new(vec![data], false);
        sampler.apply(&mut array);
        array.data[0].logit() > f32::NEG_INFINITY
    };
    for (taken, &token) in tokens.iter().enumerate() {
        if patience.is_some_and(|patience| begun.elapsed() > patience) {
            return Ok(None);
        }
        if !allowed(&mut sampler, token) {
            return Ok(Some((taken, false)));
        }
        sampler.accept(LlamaToken(token as i32));
    }
    Ok(Some((tokens.len(), allowed(&mut sampler, end))))
}
