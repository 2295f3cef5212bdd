//! The matcher's promises.

use std::sync::Arc;

use super::super::{Compiler, Limits, MatchResult, MatcherError, Source, Vocabulary, format_names};
use super::{Random, compile, gbnf, think, toy};

fn token(text: &str) -> u32 {
    toy().find(text.as_bytes()).unwrap()
}

#[test]
fn a_refused_token_leaves_the_matcher_as_it_was() {
    let mut matcher = gbnf("root ::= \"ab\" \"c\"?").matcher();
    assert_eq!(matcher.accept(token("b")), Err(MatcherError::Refused { token: token("b") }));
    matcher.accept(token("ab")).unwrap();
    assert_eq!(matcher.accept(token("a")), Err(MatcherError::Refused { token: token("a") }));
    assert!(matcher.may_stop() && !matcher.must_stop());
    matcher.accept(token("c")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn every_end_token_is_allowed_exactly_when_the_text_is_complete() {
    let ends = toy().end_tokens().to_vec();
    assert_eq!(ends.len(), 2);
    let mut matcher = gbnf("root ::= \"a\"").matcher();
    for &end in &ends {
        assert_eq!(matcher.allows(end), Ok(false));
        assert_eq!(matcher.accept(end), Err(MatcherError::Refused { token: end }));
        assert!(!matcher.mask().unwrap().allows(end));
    }
    matcher.accept(token("a")).unwrap();
    let mask: Vec<u32> = matcher.mask().unwrap().iter().collect();
    assert_eq!(mask, ends);
    matcher.accept(ends[1]).unwrap();
    assert_eq!(matcher.accept(ends[1]), Err(MatcherError::Finished));
    assert_eq!(matcher.allows(token("a")), Err(MatcherError::Finished));
    assert_eq!(matcher.mask().err(), Some(MatcherError::Finished));
    assert!(!matcher.may_stop());
}

#[test]
fn control_tokens_and_tokens_without_text_are_never_text() {
    let mut matcher = gbnf("root ::= .*").matcher();
    let silent = toy().len() as u32 - 1;
    for token in [think(), silent, toy().len() as u32, u32::MAX] {
        assert_eq!(matcher.allows(token), Ok(false), "{token}");
        assert!(!matcher.mask().unwrap().allows(token));
        assert!(matcher.accept(token).is_err());
    }
}

#[test]
fn a_token_terminal_takes_that_token_and_no_text_like_it() {
    let mut matcher = gbnf("root ::= <think> \"a\"").matcher();
    let mask: Vec<u32> = matcher.mask().unwrap().iter().collect();
    assert_eq!(mask, [think()]);
    assert_eq!(matcher.allows(token("<")), Ok(false));
    matcher.accept(think()).unwrap();
    matcher.accept(token("a")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn a_negated_token_terminal_takes_any_text_token_but_one() {
    let (ba, aab) = (token("ba"), token("aab"));
    let compiled = gbnf(&format!("root ::= !<[{ba}]>* <[97]> \"!\""));
    let mut matcher = compiled.matcher();
    assert_eq!(matcher.allows(think()), Ok(false));
    assert_eq!(matcher.allows(ba), Ok(false));
    assert!(!matcher.mask().unwrap().allows(ba));
    for text in ["ab", "日本", "a"] {
        assert!(matcher.mask().unwrap().allows(token(text)));
        matcher.accept(token(text)).unwrap();
    }
    // The `a` may have been the terminal <[97]>.
    matcher.accept(token("!")).unwrap();
    assert!(matcher.may_stop());
    assert_eq!(compiled.matches(b"bbba!"), Ok(MatchResult::Complete));
    assert_eq!(compiled.matches(b"bbb!"), Ok(MatchResult::Prefix));
    let compiled = gbnf(&format!("root ::= <[{aab}]> \"b\""));
    assert_eq!(compiled.matches(b"aabb"), Ok(MatchResult::Complete));
    assert_eq!(compiled.matches(b"abb"), Ok(MatchResult::Rejected { at: 0 }));
}

#[test]
fn tokens_that_split_a_character_are_followed_byte_by_byte() {
    let mut matcher = gbnf("root ::= [é-ü]+").matcher();
    let half = token("é");
    assert_eq!(matcher.allows(0xC3), Ok(true));
    matcher.accept(0xC3).unwrap();
    assert_eq!(matcher.allows(half), Ok(false));
    assert_eq!(matcher.allows(0xA8), Ok(false)); // è comes before é
    matcher.accept(0xA9).unwrap();
    assert!(matcher.may_stop());
    // No token may lead into bytes that no character has.
    let mut matcher = gbnf("root ::= .*").matcher();
    for byte in [0x80, 0xC0, 0xC1, 0xF5, 0xFF] {
        assert_eq!(matcher.allows(byte), Ok(false), "{byte:x}");
    }
    matcher.accept(0xED).unwrap();
    assert_eq!(matcher.allows(0xA0), Ok(false)); // would be a surrogate
}

#[test]
fn a_vocabulary_that_cannot_spell_the_answer_is_a_dead_end() {
    let vocabulary = Vocabulary::new(vec![b"a".to_vec(), Vec::new()], vec![false; 2], vec![1]);
    let compiler = Compiler::new(Arc::new(vocabulary));
    let compiled = compiler.compile(&Source::Gbnf("root ::= \"ab\"".to_owned())).unwrap();
    let mut matcher = compiled.matcher();
    matcher.accept(0).unwrap();
    assert_eq!(matcher.mask().err(), Some(MatcherError::DeadEnd));
}

#[test]
fn the_work_limit_ends_a_step_and_is_named() {
    let limits = Limits { step_work: 50, ..Limits::default() };
    let compiler = Compiler::with_limits(toy(), limits);
    let source = Source::Gbnf(format!("root ::= {}", "(\"a\"|\"b\")? ".repeat(400)));
    let mut matcher = compiler.compile(&source).unwrap().matcher();
    assert_eq!(matcher.mask().err(), Some(MatcherError::Work { limit: 50 }));
    // It stays that way: no later call gives a free answer.
    assert_eq!(matcher.mask().err(), Some(MatcherError::Work { limit: 50 }));
}

#[test]
fn long_texts_need_no_more_memory_than_short_ones() {
    // Every turn makes a new state; old ones are forgotten when the half of this is full.
    let limits = Limits { matcher_bytes: 200_000, ..Limits::default() };
    let compiler = Compiler::with_limits(toy(), limits);
    let source = Source::Gbnf("root ::= \"x\" | \"(\" [ab]{0,100000} \")\"".to_owned());
    let compiled = compiler.compile(&source).unwrap();
    let mut text = vec![b'('];
    text.extend(std::iter::repeat_n(b'a', 20_000));
    assert_eq!(compiled.matches(&text), Ok(MatchResult::Prefix));
    text.push(b')');
    assert_eq!(compiled.matches(&text), Ok(MatchResult::Complete));
    // A text that must be remembered does not fit, and that is an error.
    let source = Source::Gbnf("root ::= \"(\" root \")\" | \"a\"".to_owned());
    let compiled = compiler.compile(&source).unwrap();
    let result = compiled.matches("(".repeat(20_000).as_bytes());
    assert_eq!(result, Err(MatcherError::Memory { limit: 200_000 }));
}

#[test]
fn counted_repetitions_are_exact_at_any_size() {
    let compiled = gbnf("root ::= [ab]{1000,2000}");
    for (length, result) in [
        (999, MatchResult::Prefix),
        (1000, MatchResult::Complete),
        (2000, MatchResult::Complete),
        (2001, MatchResult::Rejected { at: 2000 }),
    ] {
        assert_eq!(compiled.matches("a".repeat(length).as_bytes()), Ok(result), "{length}");
    }
    // Tokens of several turns stop at the bound too.
    let mut matcher = gbnf("root ::= [ab]{70,75}").matcher();
    for _ in 0..9 {
        matcher.accept(token("aaaaaaaa")).unwrap();
    }
    assert!(matcher.may_stop());
    assert_eq!(matcher.allows(token("aaaaaaaa")), Ok(false));
    assert_eq!(matcher.allows(token("aab")), Ok(true));
    assert_eq!(matcher.allows(token("abab")), Ok(false));
    let mask = matcher.mask().unwrap();
    assert!(mask.allows(token("aab")) && !mask.allows(token("abab")));
}

/// Follows masks at random for a while, then takes what closes brackets and quotes; the end must come.
#[test]
fn every_walk_along_the_masks_can_be_brought_to_an_end() {
    let vocabulary = toy();
    let closing: Vec<u32> = "\"'`/}]>);0a \n".bytes().map(u32::from).collect();
    let mut random = Random(0x5EED_0004);
    for name in format_names() {
        let compiled = compile(Source::Named((*name).to_owned())).unwrap();
        for _ in 0..8 {
            let mut matcher = compiled.matcher();
            let mut text = Vec::new();
            let mut steps = 0;
            loop {
                let mask = matcher.mask().unwrap_or_else(|error| panic!("{name}: {error}"));
                let tokens: Vec<u32> = mask.iter().collect();
                let end = vocabulary.end_tokens()[0];
                let next = if steps < 60 {
                    tokens[random.below(tokens.len())]
                } else if mask.allows(end) {
                    end
                } else {
                    // Different first choices from step to step, so that no two of them chase each other.
                    let shift = random.below(closing.len());
                    let mut order = closing[shift..].iter().chain(&closing[..shift]);
                    let closes = order.find(|&&token| mask.allows(token)).copied();
                    closes.unwrap_or(tokens[random.below(tokens.len())])
                };
                if vocabulary.is_end(next) {
                    break;
                }
                matcher.accept(next).unwrap();
                text.extend_from_slice(vocabulary.piece(next));
                steps += 1;
                assert!(steps < 20_000, "{name}: no end to {}", String::from_utf8_lossy(&text));
            }
            assert_eq!(compiled.matches(&text), Ok(MatchResult::Complete), "{name}");
        }
    }
}
