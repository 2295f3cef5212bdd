//! The tokens of a model, read from its file without loading it; and texts cut into them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use smoa::gguf::{Gguf, Value};
use smoa::grammar::Vocabulary;

/// Tokens and a way to cut texts.
pub struct Tokens {
    pub vocabulary: Arc<Vocabulary>,
    pub what: String,
    ids: HashMap<Vec<u8>, u32>,
    longest: usize,
}

impl Tokens {
    /// The tokens of the model, or every byte and one end token.
    pub fn load(model: Option<&Path>) -> Result<Tokens, String> {
        let (pieces, control, end, what) = match model {
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let (pieces, control, end) = read(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let what = format!("{} tokens of {name}", pieces.len());
                (pieces, control, end, what)
            }
            None => {
                let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
                pieces.push(Vec::new());
                let control = (0..257).map(|id| id == 256).collect();
                (pieces, control, vec![256], "single bytes".to_owned())
            }
        };
        let text = pieces.iter().enumerate().filter(|(id, piece)| !piece.is_empty() && !control[*id]);
        let ids: HashMap<Vec<u8>, u32> = text.map(|(id, piece)| (piece.clone(), id as u32)).collect();
        let longest = ids.keys().map(Vec::len).max().unwrap_or(1);
        Ok(Tokens { vocabulary: Arc::new(Vocabulary::new(pieces, control, end)), what, ids, longest })
    }

    /// The text as tokens, the longest first. Not the model's own cut, but one it could have made.
    pub fn cut(&self, text: &str) -> Option<Vec<u32>> {
        let mut rest = text.as_bytes();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length =
                (1..=self.longest.min(rest.len())).rev().find(|&length| self.ids.contains_key(&rest[..length]))?;
            found.push(self.ids[&rest[..length]]);
            rest = &rest[length..];
        }
        Some(found)
    }
}

type Read = (Vec<Vec<u8>>, Vec<bool>, Vec<u32>);

/// Tokens of a byte-level vocabulary (`gpt2`), where each character stands for a byte.
fn read(bytes: &[u8]) -> Result<Read, String> {
    let file = Gguf::read(bytes).map_err(|error| error.to_string())?;
    if file.str("tokenizer.ggml.model").map_err(|e| e.to_string())? != Some("gpt2") {
        return Err("only byte-level vocabularies ('gpt2') are read here".to_owned());
    }
    let texts: Vec<String> = match file.get("tokenizer.ggml.tokens") {
        Some(Value::Array(array)) => array.strings().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
        _ => return Err("no 'tokenizer.ggml.tokens'".to_owned()),
    };
    let kinds: Vec<u32> = match file.get("tokenizer.ggml.token_type") {
        Some(Value::Array(array)) => array.words().collect(),
        _ => vec![1; texts.len()],
    };
    let byte_of = characters();
    let mut pieces = Vec::new();
    let mut control = Vec::new();
    for (text, kind) in texts.iter().zip(&kinds) {
        // 1: normal, 4: added by a user; all others are not text.
        control.push(*kind != 1 && *kind != 4);
        let bytes: Option<Vec<u8>> = text.chars().map(|c| byte_of.get(&c).copied()).collect();
        pieces.push(bytes.filter(|_| *kind == 1).unwrap_or_else(|| text.as_bytes().to_vec()));
    }
    let end = file.u32("tokenizer.ggml.eos_token_id").map_err(|e| e.to_string())?;
    Ok((pieces, control, end.into_iter().collect()))
}

/// The characters that stand for bytes: printable ones for themselves, the others from 256 up.
fn characters() -> HashMap<char, u8> {
    let mut found = HashMap::new();
    let mut next = 256u32;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let c = if printable { char::from(byte) } else { char::from_u32(next).unwrap_or('?') };
        next += u32::from(!printable);
        found.insert(c, byte);
    }
    found
}
