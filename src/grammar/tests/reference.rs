//! Our engine against a recogniser so simple that it is plainly right, over random grammars and texts.
//!
//! The recogniser works out, for every rule and every place in the text, all the places where the rule may end, by
//! starting from nothing and applying the rules until nothing new appears. No stacks, no automata, no order.

use std::collections::BTreeSet;

use super::super::gbnf::{self, Expr};
use super::super::{Limits, MatchResult, Source};
use super::{Random, compile, toy};

/// Whether `text` is a sentence.
fn recognises(grammar: &gbnf::Grammar, text: &[u8]) -> bool {
    let mut ends = vec![vec![BTreeSet::new(); text.len() + 1]; grammar.rules.len()];
    loop {
        let mut changed = false;
        for rule in 0..grammar.rules.len() {
            for at in 0..=text.len() {
                for end in expr_ends(&grammar.rules[rule].body, at, text, &ends) {
                    changed |= ends[rule][at].insert(end);
                }
            }
        }
        if !changed {
            return ends[grammar.root][0].contains(&text.len());
        }
    }
}

fn expr_ends(expr: &Expr, at: usize, text: &[u8], ends: &[Vec<BTreeSet<usize>>]) -> BTreeSet<usize> {
    let rest = &text[at..];
    match expr {
        Expr::Literal(literal) => {
            rest.starts_with(literal.as_bytes()).then_some(at + literal.len()).into_iter().collect()
        }
        Expr::Class(ranges) => {
            let character = (1..=rest.len().min(4))
                .find_map(|length| std::str::from_utf8(&rest[..length]).ok())
                .and_then(|text| text.chars().next());
            character
                .filter(|&c| ranges.iter().any(|r| r.0 <= u32::from(c) && u32::from(c) <= r.1))
                .map(|c| at + c.len_utf8())
                .into_iter()
                .collect()
        }
        Expr::Sequence(items) => items.iter().fold(BTreeSet::from([at]), |places, item| {
            places.into_iter().flat_map(|place| expr_ends(item, place, text, ends)).collect()
        }),
        Expr::Choice(options) => options.iter().flat_map(|option| expr_ends(option, at, text, ends)).collect(),
        Expr::Repeat { body, min, max } => {
            let mut found = BTreeSet::new();
            let mut places = BTreeSet::from([at]);
            let mut turn = 0;
            loop {
                if turn >= *min {
                    found.extend(places.iter().copied());
                }
                let next: BTreeSet<usize> =
                    places.iter().flat_map(|&place| expr_ends(body, place, text, ends)).collect();
                // The same places once are the same places for ever.
                if next == places && turn < *min {
                    turn = *min;
                    continue;
                }
                if next == places || next.is_empty() || Some(turn) == *max {
                    break found;
                }
                places = next;
                turn += 1;
            }
        }
        Expr::Rule(rule) => ends[*rule][at].clone(),
        Expr::Token { .. } => BTreeSet::new(),
    }
}

/// A random grammar over `a`, `b` and `é`.
pub(super) fn grammar(random: &mut Random) -> String {
    let rules = 1 + random.below(4);
    (0..rules)
        .map(|rule| {
            let name = if rule == 0 { "root".to_owned() } else { format!("r{rule}") };
            format!("{name} ::= {}\n", choice(random, rules, 3))
        })
        .collect()
}

fn choice(random: &mut Random, rules: usize, depth: usize) -> String {
    let options = 1 + random.below(3);
    let options: Vec<String> = (0..options).map(|_| sequence(random, rules, depth)).collect();
    options.join(" | ")
}

fn sequence(random: &mut Random, rules: usize, depth: usize) -> String {
    let items = random.below(4);
    let items: Vec<String> = (0..items).map(|_| item(random, rules, depth)).collect();
    match items.is_empty() {
        true => "\"\"".to_owned(),
        false => items.join(" "),
    }
}

fn item(random: &mut Random, rules: usize, depth: usize) -> String {
    let symbol = match random.below(if depth > 0 { 12 } else { 10 }) {
        0 | 1 => "\"a\"".to_owned(),
        2 => "\"b\"".to_owned(),
        3 => "\"ab\"".to_owned(),
        4 => "[ab]".to_owned(),
        5 => "[^a]".to_owned(),
        6 => "\"é\"".to_owned(),
        7..10 => match random.below(rules) {
            0 => "root".to_owned(),
            rule => format!("r{rule}"),
        },
        _ => format!("({})", choice(random, rules, depth - 1)),
    };
    let marks = [
        "", "", "", "", "", "", "?", "*", "+", "{2}", "{0,2}", "{1,3}", "{2,}", "{2,70}", "{0,90}", "{3,70}?", "{70,}",
    ];
    symbol + marks[random.below(marks.len())]
}

fn text(random: &mut Random) -> String {
    let length = random.below(9);
    (0..length).map(|_| ["a", "b", "a", "b", "é"][random.below(5)]).collect()
}

#[test]
fn random_grammars_accept_what_the_reference_accepts() {
    let mut random = Random(0x5EED_0001);
    let (mut grammars, mut accepted, mut refused) = (0, 0, 0);
    while grammars < 800 {
        let source = grammar(&mut random);
        let Ok(parsed) = gbnf::parse("grammar", &source, &Limits::default()) else {
            refused += 1; // a rule that never finishes
            continue;
        };
        let compiled = match compile(Source::Gbnf(source.clone())) {
            Ok(compiled) => compiled,
            Err(error) => {
                // Only what is documented: left recursion through a counted repetition.
                assert!(error.to_string().contains("counted repetition"), "{source}{error}");
                refused += 1;
                continue;
            }
        };
        grammars += 1;
        for _ in 0..12 {
            let text = text(&mut random);
            let expected = recognises(&parsed, text.as_bytes());
            accepted += usize::from(expected);
            let result = compiled.matches(text.as_bytes()).unwrap();
            assert_eq!(result == MatchResult::Complete, expected, "{text:?} in\n{source}");
        }
    }
    // The test tests something: both answers are common, and few grammars are refused.
    assert!(accepted > 1000, "{accepted}");
    assert!(refused < grammars, "{refused}");
}

#[test]
fn tokens_and_bytes_agree_however_the_text_is_cut() {
    let mut random = Random(0x5EED_0002);
    let vocabulary = toy();
    let mut compared = 0;
    while compared < 2000 {
        let source = grammar(&mut random);
        let Ok(compiled) = compile(Source::Gbnf(source.clone())) else {
            continue;
        };
        let text = text(&mut random);
        let whole = compiled.matches(text.as_bytes()).unwrap();
        let mut matcher = compiled.matcher();
        let mut at = 0;
        let mut result = None;
        while at < text.len() {
            let prefixes = vocabulary.trie().prefixes(&text.as_bytes()[at..]);
            let token = prefixes[random.below(prefixes.len())];
            if matcher.accept(token).is_err() {
                result = Some(at);
                break;
            }
            at += vocabulary.piece(token).len();
        }
        match (whole, result) {
            (MatchResult::Complete, None) => assert!(matcher.may_stop(), "{text:?} in\n{source}"),
            (MatchResult::Prefix, None) => assert!(!matcher.may_stop(), "{text:?} in\n{source}"),
            // The token that was refused holds the first byte that cannot be.
            (MatchResult::Rejected { at: byte }, Some(token)) => {
                assert!(token <= byte, "{text:?} in\n{source}");
            }
            (whole, result) => panic!("{whole:?} but {result:?}: {text:?} in\n{source}"),
        }
        compared += 1;
    }
}

#[test]
fn masks_hold_exactly_the_tokens_that_are_allowed() {
    let mut random = Random(0x5EED_0003);
    let vocabulary = toy();
    let mut masks = 0;
    while masks < 800 {
        let source = grammar(&mut random);
        let Ok(compiled) = compile(Source::Gbnf(source.clone())) else {
            continue;
        };
        let mut matcher = compiled.matcher();
        for _ in 0..6 {
            let mask = matcher.mask().unwrap().clone();
            masks += 1;
            for token in 0..vocabulary.len() as u32 {
                assert_eq!(mask.allows(token), matcher.allows(token).unwrap(), "token {token} in\n{source}");
            }
            let tokens: Vec<u32> = mask.iter().collect();
            let token = tokens[random.below(tokens.len())];
            if vocabulary.is_end(token) {
                break;
            }
            matcher.accept(token).unwrap();
        }
    }
}
