//! Text to tokens and back, with the model's own vocabulary.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;

use super::model::Model;
use crate::engine::{Token, Tokenizer};
use crate::grammar::Vocabulary;
use crate::prompt::{Piece, Prompt};

/// The tokenizer of a loaded model.
pub(super) struct LlamaTokenizer {
    model: Arc<Model>,
    /// Spellings of control tokens with their ids, longest first.
    control: Vec<(String, Token)>,
    control_texts: Vec<String>,
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

impl LlamaTokenizer {
    pub(super) fn new(model: Arc<Model>) -> Self {
        let vocab = model.safe().vocab();
        let spelled = |token: LlamaToken| {
            let attrs = vocab.attr(token);
            let parsed = attrs.contains(LlamaTokenAttr::Control) || attrs.contains(LlamaTokenAttr::Unknown);
            let text = if parsed { vocab.text(token)?.to_str().ok()? } else { "" };
            (!text.is_empty()).then(|| (text.to_string(), token.0 as Token))
        };
        let mut control: Vec<(String, Token)> = vocab.tokens().filter_map(spelled).collect();
        control.sort_by_key(|(text, id)| (std::cmp::Reverse(text.len()), *id));
        let control_texts = control.iter().map(|(text, _)| text.clone()).collect();
        Self { control, control_texts, vocabulary: OnceLock::new(), model }
    }

    /// Tokens of plain text or, with `parse_control`, of text in which control tokens are recognised.
    fn text(&self, text: &str, add_special: bool, parse_control: bool) -> impl Iterator<Item = Token> {
        let tokens = self.model.safe().vocab().tokenize(text.as_bytes(), add_special, parse_control);
        tokens.into_iter().map(|t| t.0 as Token)
    }

    /// Control tokens and the texts between them. Text of neighbouring pieces is joined, so that a tokenizer sees
    /// no border where user text meets template text; this is how llama.cpp itself partitions a prompt.
    fn partition(&self, pieces: &[Piece]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let push_text = |parts: &mut Vec<Part>, text: &str| match parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ if text.is_empty() => (),
            _ => parts.push(Part::Text(text.to_string())),
        };
        for piece in pieces {
            let mut rest = match piece {
                Piece::Literal(text) => {
                    push_text(&mut parts, text);
                    continue;
                }
                Piece::Template(text) => text.as_str(),
            };
            'piece: loop {
                for (at, _) in rest.char_indices() {
                    if let Some((text, id)) = self.control.iter().find(|(c, _)| rest[at..].starts_with(c.as_str())) {
                        push_text(&mut parts, &rest[..at]);
                        parts.push(Part::Control(*id));
                        rest = &rest[at + text.len()..];
                        continue 'piece;
                    }
                }
                push_text(&mut parts, rest);
                break;
            }
        }
        parts
    }
}

enum Part {
    Text(String),
    Control(Token),
}

impl Tokenizer for LlamaTokenizer {
    fn tokenize(&self, prompt: &Prompt, add_special: bool) -> Vec<Token> {
        let vocab = self.model.safe().vocab();
        if let [Piece::Template(text)] = prompt.pieces() {
            let bos = vocab.bos().0 as Token;
            let tokens: Vec<Token> = self.text(text, add_special, true).collect();
            // A template that writes BOS itself must not get a second one.
            let double = add_special && tokens.len() > 1 && tokens[0] == bos && tokens[1] == bos;
            return if double { tokens[1..].to_vec() } else { tokens };
        }
        let mut tokens: Vec<Token> = Vec::new();
        let parts = self.partition(prompt.pieces());
        let bos = vocab.bos();
        let starts_with_bos = matches!(parts.first(), Some(Part::Control(id)) if *id == bos.0 as Token);
        if add_special && vocab.should_add_bos() && bos.0 >= 0 && !starts_with_bos {
            tokens.push(bos.0 as Token);
        }
        for part in &parts {
            match part {
                Part::Control(id) => tokens.push(*id),
                Part::Text(text) => tokens.extend(self.text(text, false, false)),
            }
        }
        tokens
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        let vocab = self.model.safe().vocab();
        match i32::try_from(token) {
            Ok(id) if id < vocab.n_tokens() => vocab.token_to_piece(LlamaToken(id), false, None),
            _ => Vec::new(),
        }
    }

    fn spelling(&self, token: Token) -> String {
        let vocab = self.model.safe().vocab();
        let text = match i32::try_from(token) {
            Ok(id) if id < vocab.n_tokens() => vocab.text(LlamaToken(id)),
            _ => None,
        };
        text.map_or_else(String::new, |t| t.to_string_lossy().into_owned())
    }

    fn is_end(&self, token: Token) -> bool {
        let vocab = self.model.safe().vocab();
        i32::try_from(token).is_ok_and(|id| id < vocab.n_tokens() && vocab.is_eog(LlamaToken(id)))
    }

    fn vocabulary(&self) -> Arc<Vocabulary> {
        let make = || {
            let vocab = self.model.safe().vocab();
            let kinds = [LlamaTokenAttr::Control, LlamaTokenAttr::Unknown, LlamaTokenAttr::Unused];
            let is_control = |t: LlamaToken| {
                let attrs = vocab.attr(t);
                kinds.into_iter().any(|kind| attrs.contains(kind))
            };
            let pieces = vocab.tokens().map(|t| vocab.token_to_piece(t, false, None)).collect();
            let control = vocab.tokens().map(is_control).collect();
            let end = vocab.tokens().filter(|t| vocab.is_eog(*t)).map(|t| t.0 as Token).collect();
            Arc::new(Vocabulary::new(pieces, control, end))
        };
        self.vocabulary.get_or_init(make).clone()
    }

    fn control_texts(&self) -> &[String] {
        &self.control_texts
    }
}
