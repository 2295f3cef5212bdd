//! GBNF text to a checked grammar.
//!
//! The language is llama.cpp's, with these differences, all of them towards an answer instead of a surprise:
//! `_` may be part of a rule name; repetition bounds are exact at any size; left recursion works; a rule defined
//! twice, an inverted range or bound, an empty class, a surrogate, and a rule that can never finish are errors.

mod check;
mod parser;
mod text;

use super::error::GrammarError;
use super::limits::Limits;
pub(super) use check::{Lengths, each_rule};
pub(super) use parser::normalize;
pub(super) use text::{Span, Text};

/// A grammar in which every name is defined and every rule can finish.
#[derive(Debug)]
pub(super) struct Grammar {
    /// The text it came from, for errors of later stages.
    pub text: Text,
    pub rules: Vec<Rule>,
    /// Index of the rule every text must match.
    pub root: usize,
    /// Shortest texts, per rule.
    pub lengths: Lengths,
}

/// One rule: `name ::= body`.
#[derive(Debug)]
pub(super) struct Rule {
    pub name: String,
    /// Where the name stands in its definition.
    pub span: Span,
    pub body: Expr,
}

/// The right-hand side of a rule.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    /// These characters, in order. Empty for `""`.
    Literal(String),
    /// One character out of inclusive ranges, sorted, disjoint and free of surrogates.
    Class(Vec<(u32, u32)>),
    Sequence(Vec<Expr>),
    Choice(Vec<Expr>),
    Repeat {
        body: Box<Expr>,
        min: u32,
        /// `None`: no upper bound.
        max: Option<u32>,
    },
    /// Another rule, by index.
    Rule(usize),
    /// One token of the vocabulary, or any text token but it.
    Token {
        token: TokenName,
        negated: bool,
        span: Span,
    },
}

/// How a grammar names a token.
#[derive(Debug, Clone)]
pub(super) enum TokenName {
    /// `<[id]>`
    Id(u64),
    /// `<text>`, angle brackets included.
    Text(String),
}

/// Parses and checks GBNF. `origin` is how messages call the text.
pub(super) fn parse(origin: &str, text: &str, limits: &Limits) -> Result<Grammar, GrammarError> {
    let text = Text { origin: origin.to_owned(), text: text.to_owned() };
    if text.text.len() > limits.gbnf_bytes {
        return Err(text.limit(None, "bytes of text", text.text.len() as u64, limits.gbnf_bytes as u64));
    }
    let rules = parser::parse(&text, limits)?;
    check::check(text, rules, limits)
}

/// The text in `bytes`, which must be UTF-8.
pub(super) fn decode(origin: &str, bytes: Vec<u8>) -> Result<String, GrammarError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let byte = bytes.get(valid).copied().unwrap_or_default();
        let text = Text { origin: origin.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() };
        let span = Span { start: valid, end: valid + 1 };
        text.error(span, None, format!("byte 0x{byte:02X} is not UTF-8"), None)
    })
}

/// Checks a grammar of one rule that did not come from GBNF text.
pub(super) fn single(text: Text, body: Expr, limits: &Limits) -> Result<Grammar, GrammarError> {
    let span = Span { start: 0, end: 0 };
    let rule = Rule { name: "root".to_owned(), span, body };
    check::check(text, vec![rule], limits)
}
