//! Grammars that wait for their cue.

use super::super::{Hurry, MatcherError, Source, Trigger};
use super::{compile, gbnf, think, toy};

fn token(text: &str) -> u32 {
    toy().find(text.as_bytes()).unwrap()
}

#[test]
fn thinking_is_free_and_the_answer_is_not() {
    let compiled = gbnf("root ::= \"ab\" \"c\"?");
    let mut matcher = compiled.matcher_after(&Trigger::answer_after("bb")).unwrap();
    let end = toy().end_tokens()[0];
    assert!(!matcher.may_stop());
    assert_eq!(matcher.allows(end), Ok(false));
    assert_eq!(matcher.accept(end), Err(MatcherError::Refused { token: end }));
    for text in ["SELECT", "日", "b", "a", "ba"] {
        assert!(matcher.mask().unwrap().allows(token(text)), "{text}");
        matcher.accept(token(text)).unwrap();
    }
    // `ba` then `b` then `ba`: the marker is complete inside the token and the rest must fit.
    matcher.accept(token("b")).unwrap();
    assert_eq!(matcher.allows(token("ba")), Ok(true));
    matcher.accept(token("ba")).unwrap();
    assert_eq!(matcher.allows(token("a")), Ok(false));
    matcher.accept(token("b")).unwrap();
    assert!(matcher.may_stop());
    matcher.accept(token("c")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn a_token_that_runs_past_the_marker_must_fit_the_grammar() {
    let compiled = gbnf("root ::= \"x\"");
    let mut matcher = compiled.matcher_after(&Trigger::answer_after("aa")).unwrap();
    // `aab` and `aaaaaaaa` would complete the marker with something that cannot follow.
    let mask = matcher.mask().unwrap().clone();
    assert!(!mask.allows(token("aab")) && !mask.allows(token("aaaaaaaa")));
    assert!(mask.allows(token("aa")) && mask.allows(token("abab")));
    for id in 0..toy().len() as u32 {
        assert_eq!(matcher.allows(id).unwrap(), mask.allows(id), "{id}");
    }
}

#[test]
fn a_control_token_can_be_the_marker() {
    let compiled = gbnf("root ::= \"ab\"");
    let mut matcher = compiled.matcher_after(&Trigger::answer_after("<think>")).unwrap();
    matcher.accept(token("SELECT")).unwrap();
    matcher.accept(think()).unwrap();
    assert_eq!(matcher.allows(token("SELECT")), Ok(false));
    matcher.accept(token("ab")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn markers_that_overlap_themselves_are_found() {
    let compiled = gbnf("root ::= \"!\"");
    let mut matcher = compiled.matcher_after(&Trigger::answer_after("aab")).unwrap();
    matcher.accept_bytes(b"aaaab!").unwrap();
    assert!(matcher.must_stop());
    let mut matcher = compiled.matcher_after(&Trigger::answer_after("abab!")).unwrap();
    matcher.accept_bytes(b"ababab!").unwrap();
    assert!(!matcher.may_stop());
    matcher.accept_bytes(b"!").unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn a_marker_may_be_demanded_at_once_or_left_out() {
    let compiled = gbnf("root ::= \"ab\"");
    let at_once = Trigger { marker: b"abc".to_vec(), must: true, ..Trigger::default() };
    let mut matcher = compiled.matcher_after(&at_once).unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"abcab");
    assert_eq!(matcher.tokens_to_finish(), Ok(Some(3)));
    assert_eq!(matcher.allows(token("b")), Ok(false));
    let allowed: Vec<u32> = matcher.mask().unwrap().iter().collect();
    assert_eq!(allowed, {
        let mut ids: Vec<u32> = toy().trie().prefixes(b"abcab");
        ids.sort_unstable();
        ids
    });
    let lazy = Trigger { marker: b"bb".to_vec(), free: true, ..Trigger::default() };
    let mut matcher = compiled.matcher_after(&lazy).unwrap();
    matcher.accept(token("SELECT")).unwrap();
    assert!(matcher.may_stop() && !matcher.must_stop());
    matcher.accept(token("bb")).unwrap();
    assert!(!matcher.may_stop());
}

#[test]
fn thinking_is_closed_in_time_for_the_answer() {
    let compiled = compile(Source::Named("yes-no".to_owned())).unwrap();
    let trigger = Trigger::answer_after("</think>");
    for budget in [10, 11, 14, 25] {
        let mut matcher = compiled.matcher_after(&trigger).unwrap();
        let mut text = Vec::new();
        for left in (1..=budget).rev() {
            if matcher.must_stop() {
                break;
            }
            // The model would think for ever.
            let wish = token("a");
            let next = match matcher.allows_closing(wish, left).unwrap() {
                true => wish,
                false => matcher.mask_closing(left).unwrap().iter().next().unwrap(),
            };
            matcher.accept(next).unwrap();
            text.extend_from_slice(toy().piece(next));
        }
        assert!(matcher.may_stop(), "{budget}: {}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn a_budget_brings_the_marker() {
    let compiled = gbnf("root ::= \"ab\"");
    let thrifty = Trigger { budget: Some(2), ..Trigger::answer_after("bb") };
    let mut matcher = compiled.matcher_after(&thrifty).unwrap();
    for text in ["SELECT", "b"] {
        assert!(matcher.allows(token("SELECT")).unwrap(), "free so far");
        matcher.accept(token(text)).unwrap();
    }
    // The part of the marker that is there counts.
    assert_eq!(matcher.allows(token("SELECT")), Ok(false));
    assert_eq!(matcher.forced_bytes().unwrap(), b"bab");
    matcher.accept(token("b")).unwrap();
    matcher.accept(token("ab")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn a_message_goes_before_a_marker_that_is_forced() {
    let compiled = gbnf("root ::= \"ab\"");
    let trigger = Trigger { budget: Some(1), message: b"a!".to_vec(), ..Trigger::answer_after("bb") };
    let mut matcher = compiled.matcher_after(&trigger).unwrap();
    assert!(matcher.forced_bytes().unwrap().is_empty(), "free so far");
    matcher.accept(token("SELECT")).unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"a!bbab");
    matcher.accept_bytes(b"a!bbab").unwrap();
    assert!(matcher.must_stop());
    // A marker that has begun is finished without it, and one that came by itself needs none.
    let mut matcher = compiled.matcher_after(&trigger).unwrap();
    matcher.accept(token("b")).unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"bab");
    let mut matcher = compiled.matcher_after(&trigger).unwrap();
    matcher.accept(token("bb")).unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"ab");
}

#[test]
fn free_text_can_be_ended_from_outside() {
    let compiled = gbnf("root ::= \"ab\"");
    let hurry = Hurry::default();
    let trigger = Trigger { hurry: Some(hurry.clone()), ..Trigger::answer_after("bb") };
    let mut matcher = compiled.matcher_after(&trigger).unwrap();
    matcher.accept(token("SELECT")).unwrap();
    assert!(hurry.ask() && hurry.ask(), "asking again does no harm");
    // What was allowed before it was asked is still accepted.
    assert!(matcher.allows(token("SELECT")).unwrap());
    matcher.accept(token("SELECT")).unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"bbab");
    assert_eq!(matcher.allows(token("SELECT")), Ok(false));
    matcher.accept(token("bb")).unwrap();
    assert!(!hurry.ask(), "there is nothing to end any more");
    matcher.accept(token("ab")).unwrap();
    assert!(matcher.must_stop());
}

#[test]
fn a_marker_is_brought_in_time_in_a_large_vocabulary_without_a_search_for_each_token() {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::{Compiler, Vocabulary};

    let mut pieces: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
    pieces.extend((0..50_000_u32).map(|n| format!("word{n}").into_bytes()));
    let mut control = vec![false; pieces.len()];
    pieces.push(Vec::new());
    control.push(true);
    let end = pieces.len() as u32 - 1;
    let vocabulary = Arc::new(Vocabulary::new(pieces, control, vec![end]));
    let compiled =
        Compiler::new(vocabulary.clone()).compile(&Source::Gbnf("root ::= \"yes\" | \"no\"".into())).unwrap();
    let mut matcher = compiled.matcher().after(Trigger::answer_after("\nANSWER:"), &vocabulary).unwrap();
    let began = Instant::now();
    let mut text = Vec::new();
    for left in (1..=16).rev() {
        if matcher.must_stop() {
            break;
        }
        // It would go on writing words.
        let wish = 300 + left as u32;
        let next = match matcher.allows_closing(wish, left).unwrap() {
            true => wish,
            false => matcher.mask_closing(left).unwrap().iter().next().unwrap(),
        };
        text.extend_from_slice(vocabulary.piece(next));
        matcher.accept(next).unwrap();
    }
    let text = String::from_utf8(text).unwrap();
    assert!(matcher.may_stop() && text.contains("\nANSWER:"), "{text}");
    // A search of all tokens for each token takes minutes here.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
