//! Grammars made to hurt. Each is refused, or runs within a bound of work; none hangs, none panics.

use proptest::prelude::*;

use super::super::{Compiler, Limits, MatcherError, Source, Vocabulary};
use super::{Random, compile, gbnf, refusal, toy};

fn gbnf_source(text: impl Into<String>) -> Source {
    Source::Gbnf(text.into())
}

/// Runs a grammar for some tokens; an error of a limit is an answer too.
fn run(text: String) {
    let compiled = match compile(Source::Gbnf(text)) {
        Ok(compiled) => compiled,
        Err(_) => return,
    };
    let mut random = Random(0x5EED_0005);
    let mut matcher = compiled.matcher();
    for _ in 0..40 {
        let tokens: Vec<u32> = match matcher.mask() {
            Ok(mask) => mask.iter().collect(),
            Err(MatcherError::Work { .. } | MatcherError::Memory { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let token = tokens[random.below(tokens.len())];
        if toy().is_end(token) {
            return;
        }
        matcher.accept(token).unwrap();
    }
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let nested = |depth: usize| format!("root ::= {}\"a\"{}", "(".repeat(depth), ")".repeat(depth));
    let chain: String = (0..12_000).map(|i| format!("r{i}::=r{}\n", i + 1)).collect();
    let cases = [
        (nested(10_000), "depth of nesting: 201, the limit is 200"),
        (nested(100_000), "bytes of text"),
        (format!("root ::= \"a\"{}", "?".repeat(300)), "depth of nesting"),
        (format!("root ::= {}", "\"a\"|".repeat(60_000)), "bytes of text"),
        (chain, "bytes of text"),
        ("root ::= \"a\"{100001}".into(), "repetition bound: 100001, the limit is 100000"),
        ("root ::= \"a\"{0,1000000000}".into(), "repetition bound"),
        ("root ::= \"a\"{99999999999999999999999}".into(), "repetition bound"),
        ("root ::= (\"a\"{1000}){1000}".into(), "shortest text it allows: 1000000"),
        (format!("root ::= {}\"a\"", "\"a\"? ".repeat(5_000)), "states and edges"),
    ];
    for (text, part) in cases {
        let message = refusal(gbnf_source(text));
        assert!(message.contains(part), "{message}");
    }
    // Shortest text of 2^70 bytes: counted without overflow, and not mistaken for one without end.
    let mut text = "root ::= a0\n".to_owned();
    for i in 0..70 {
        text.push_str(&format!("a{i} ::= a{0} a{0}\n", i + 1));
    }
    text.push_str("a70 ::= \"x\"\n");
    assert!(refusal(gbnf_source(text)).contains("shortest text it allows"));
}

#[test]
fn many_rules_are_refused_and_long_chains_are_not() {
    let limits = Limits { gbnf_bytes: 1 << 20, ..Limits::default() };
    let compiler = Compiler::with_limits(toy(), limits);
    let chain = |length: usize| {
        let rules: String = (0..length).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect();
        Source::Gbnf(format!("root ::= r0\n{rules}r{length} ::= \"a\""))
    };
    let message = compiler.compile(&chain(20_000)).unwrap_err().to_string();
    assert!(message.contains("rules: 10001, the limit is 10000"), "{message}");
    let mut matcher = compiler.compile(&chain(9_000)).unwrap().matcher();
    matcher.accept(u32::from(b'a')).unwrap();
    assert!(matcher.must_stop());
    // Left recursion through five thousand rules.
    let rules: String = (0..5_000).map(|i| format!("r{i} ::= r{} \"x\" | \"y\"\n", (i + 1) % 5_000)).collect();
    let message = compiler.compile(&Source::Gbnf(format!("root ::= r0\n{rules}"))).unwrap_err().to_string();
    assert!(message.contains("left recursion through too many rules: r"), "{message}");
}

#[test]
fn ambiguity_costs_bounded_work() {
    let mut doubling = "root ::= a0\n".to_owned();
    for i in 0..40 {
        doubling.push_str(&format!("a{i} ::= a{0} a{0}\n", i + 1));
    }
    doubling.push_str("a40 ::= \"x\" | \"\"\n");
    for text in [
        format!("root ::= {}", "\"a\"? ".repeat(200)),
        format!("root ::= {}", "(\"a\"|\"b\")? ".repeat(400)),
        "root ::= ((\"a\"{0,40}){0,40}){0,40}".to_owned(),
        "root ::= (\"a\"? \"b\"? \"a\"?){0,1000}{0,1000}".to_owned(),
        "root ::= s\ns ::= \"a\" | \"a\" s | s2 s\ns2 ::= \"a\" | \"a\" \"a\"".to_owned(),
        // As many stacks as texts, were they written out.
        "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\"".to_owned(),
        "root ::= root root root | root root | \"a\" | \"b\" | \"\"".to_owned(),
        format!("root ::= (\"a\" | \"b\")* \"a\" {}", "[ab] ".repeat(60)),
        "root ::= x{0,500}\nx ::= \"a\" x | \"a\" | \"\"".to_owned(),
        doubling,
    ] {
        run(text);
    }
}

#[test]
fn stacks_that_would_be_exponential_stay_shared() {
    let mut matcher = gbnf("root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\"").matcher();
    for _ in 0..60 {
        matcher.accept(u32::from(b'a')).unwrap();
    }
    for round in 0..59 {
        let byte = if round % 3 == 0 { b'b' } else { b'c' };
        matcher.accept(u32::from(byte)).unwrap();
    }
    assert!(matcher.must_stop());
}

#[test]
fn an_empty_vocabulary_is_an_error_and_no_panic() {
    let compiler = Compiler::new(std::sync::Arc::new(Vocabulary::new(vec![], vec![], vec![])));
    let compiled = compiler.compile(&gbnf_source("root ::= \"a\"")).unwrap();
    assert_eq!(compiled.matcher().mask().err(), Some(MatcherError::DeadEnd));
    let schema = Source::JsonSchema("{}".to_owned());
    assert!(compiler.compile(&schema).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,60}") {
        let _ = compile(Source::Gbnf(text.clone()));
        let _ = compile(Source::Regex(text.clone()));
        let _ = compile(Source::JsonSchema(text));
    }

    #[test]
    fn no_likely_grammar_makes_anything_panic(parts in prop::collection::vec(
        prop::sample::select(vec![
            "root", "::=", "\n", " ", "\"a\"", "\"", "[", "]", "[a-z]", "^", "-", "(", ")", "|", "*", "+", "?", "{",
            "}", "{2}", "{0,3}", ",", "9", "x", "x ::= ", "\\", "\\x41", "<", ">", "<[97]>", "!", "#", ".", "é",
        ]), 0..40))
    {
        run(format!("root ::= {}", parts.concat()));
        run(parts.concat());
    }

    #[test]
    fn no_likely_pattern_makes_anything_panic(parts in prop::collection::vec(
        prop::sample::select(vec![
            "a", "b", "[", "]", "[a-z]", "^", "$", "-", "(", "(?:", "(?<n>", ")", "|", "*", "+", "?", "{2}", "{0,3}",
            "{", "}", ",", "9", "\\", "\\d", "\\w", "\\x41", "\\u{e9}", ".", "é",
        ]), 0..30))
    {
        if let Ok(compiled) = compile(Source::Regex(parts.concat())) {
            let mut matcher = compiled.matcher();
            prop_assert!(matcher.mask().is_ok());
        }
    }
}
