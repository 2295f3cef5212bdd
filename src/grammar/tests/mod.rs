//! Tests of the module as a whole; tables behind one `check` each.

mod closing;
mod deferred;
mod engine;
mod export;
mod formats;
mod gbnf;
mod hostile;
mod order;
mod policy;
mod reference;
mod regex;
mod rows;
mod runs;
mod schema;
mod shapes;
mod tools;

use std::sync::Arc;

use super::{Compiled, Compiler, GrammarError, Limits, MatchResult, Source, Vocabulary};

/// Every byte as a token of its own, then some longer ones, a control token, two end tokens and one without text.
pub(super) fn toy() -> Arc<Vocabulary> {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let words = [
        "ab", "ba", "aab", "aa", "bb", "abab", "abc", "true", "null", "\": ", "\", \"", "{\"", "\"}", "}}", "  ",
        "\n  ", "10", "123", "é", "日", "日本", "a\u{301}", "SELECT", " FROM", "FR", "OM ", "))", "ab", "--", "}, {",
        "e\"", "aaaaaaaa",
    ];
    pieces.extend(words.iter().map(|word| word.as_bytes().to_vec()));
    // Tokens that split characters.
    pieces.push(vec![0xC3]);
    pieces.push(vec![0xE6, 0x97]);
    pieces.push(vec![0xA5, b'"']);
    let mut control = vec![false; pieces.len()];
    pieces.extend([b"<think>".to_vec(), b"<eos>".to_vec(), Vec::new(), Vec::new()]);
    control.extend([true, true, false, false]);
    let first = pieces.len() as u32 - 4;
    // `<think>` is first, then the two ends, then a token that prints nothing.
    Arc::new(Vocabulary::new(pieces, control, vec![first + 1, first + 2]))
}

/// The id of `<think>` in [`toy`].
pub(super) fn think() -> u32 {
    toy().len() as u32 - 4
}

pub(super) fn compile(source: Source) -> Result<Arc<Compiled>, GrammarError> {
    Compiler::new(toy()).compile(&source)
}

pub(super) fn gbnf(text: &str) -> Arc<Compiled> {
    compile(Source::Gbnf(text.to_owned())).unwrap_or_else(|error| panic!("{}", error.explain()))
}

/// The one-line message with which a grammar is refused.
pub(super) fn refusal(source: Source) -> String {
    match compile(source.clone()) {
        Ok(_) => panic!("accepted: {source:?}"),
        Err(error) => error.to_string(),
    }
}

/// Holds a compiled grammar against texts that it must accept and texts that it must not.
pub(super) fn check(compiled: &Compiled, accepts: &[&str], rejects: &[&str]) {
    for text in accepts {
        let result = compiled.matches(text.as_bytes());
        assert_eq!(result, Ok(MatchResult::Complete), "must accept {text:?}");
    }
    for text in rejects {
        let result = compiled.matches(text.as_bytes());
        assert!(
            matches!(result, Ok(MatchResult::Prefix | MatchResult::Rejected { .. })),
            "must reject {text:?}, says {result:?}"
        );
    }
}

/// A small generator of numbers, the same on every run.
pub(super) struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn compiled_grammars_and_matchers_can_cross_threads() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Compiler>();
    shared::<Compiled>();
    shared::<Vocabulary>();
    send::<super::Matcher>();
}

#[test]
fn the_cache_gives_the_same_grammar_again_and_stays_within_its_bytes() {
    let limits = Limits { cache_bytes: 1 << 20, ..Limits::default() };
    let compiler = Compiler::with_limits(toy(), limits);
    let first = Source::Gbnf("root ::= \"first\"".to_owned());
    let one = compiler.compile(&first).unwrap();
    assert!(Arc::ptr_eq(&one, &compiler.compile(&first).unwrap()));
    for number in 0..10_000 {
        let source = Source::Gbnf(format!("root ::= \"n{number}\""));
        compiler.compile(&source).unwrap();
    }
    assert!(compiler.cached_bytes() <= 1 << 20);
    assert!(!Arc::ptr_eq(&one, &compiler.compile(&first).unwrap()));
}

#[test]
fn a_bad_grammar_between_good_ones_changes_nothing() {
    let compiler = Compiler::new(toy());
    let good = Source::Gbnf("root ::= \"a\"".to_owned());
    let bad = Source::Gbnf("root ::= \"a".to_owned());
    assert!(compiler.compile(&good).is_ok());
    assert!(compiler.compile(&bad).is_err());
    assert!(compiler.compile(&good).is_ok());
}

#[test]
fn digests_tell_vocabularies_apart() {
    let a = Vocabulary::new(vec![b"a".to_vec()], vec![false], vec![]);
    let b = Vocabulary::new(vec![b"b".to_vec()], vec![false], vec![]);
    let c = Vocabulary::new(vec![b"a".to_vec()], vec![true], vec![]);
    assert_ne!(a.digest(), b.digest());
    assert_ne!(a.digest(), c.digest());
}
