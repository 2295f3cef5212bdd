//! How many tokens may come one after the other, without taking them.

use super::super::{Matcher, Source, Trigger};
use super::{Random, compile, gbnf, toy};

/// Tokens that mostly may come one after the other.
fn tokens(mut matcher: Matcher, random: &mut Random) -> Vec<u32> {
    let mut tokens = Vec::new();
    while tokens.len() < 12 {
        let allowed: Vec<u32> = match matcher.mask() {
            Ok(mask) => mask.iter().collect(),
            Err(_) => return tokens,
        };
        let any = random.below(9) == 0;
        let token = if any { random.below(toy().len()) as u32 } else { allowed[random.below(allowed.len())] };
        tokens.push(token);
        if matcher.accept(token).is_err() {
            return tokens;
        }
    }
    tokens
}

/// How many of `tokens` are taken one by one, up to an end token.
fn taken(matcher: &mut Matcher, tokens: &[u32]) -> usize {
    tokens.iter().take_while(|token| !toy().is_end(**token) && matcher.accept(**token).is_ok()).count()
}

#[test]
fn a_run_is_as_long_as_its_tokens_are_taken_one_by_one() {
    let schema = r#"{"type": "array", "items": {"enum": ["ab", "abc", 10, true]}, "uniqueItems": true}"#;
    let (exact, roughly) = (true, false);
    for (source, kind) in [
        (Source::Gbnf("root ::= (\"ab\" | \"abc\" root \"))\" | \"10\")+".into()), exact),
        (Source::Gbnf("root ::= <think> [a-c]* (\"SELECT\" \" FROM\")? root?".into()), exact),
        (Source::Regex("(ab|ba){2,5}( [0-9]{2})*".into()), exact),
        (Source::JsonSchema(schema.into()), roughly),
    ] {
        let compiled = compile(source.clone()).expect("compiled");
        let mut random = Random(7);
        let mut cut = 0;
        for _ in 0..300 {
            let mut matcher = compiled.matcher();
            let before = tokens(compiled.matcher(), &mut random);
            let from = taken(&mut matcher, &before[..random.below(before.len() + 1)]);
            let mut other = compiled.matcher();
            assert_eq!(taken(&mut other, &before[..from]), from);
            // On from here, or something else.
            let next =
                if random.below(3) == 0 { tokens(compiled.matcher(), &mut random) } else { before[from..].to_vec() };
            let run = matcher.allows_run(&next);
            let expected = taken(&mut other, &next);
            let until = next.iter().position(|token| toy().is_end(*token)).unwrap_or(next.len());
            match kind == exact {
                true => assert_eq!(run, expected, "{source:?} {before:?} {next:?}"),
                false => {
                    assert!(run == expected || expected > 0 && run >= expected && run <= until, "{run} {expected}")
                }
            }
            cut += usize::from(run < until);
            assert_eq!(taken(&mut matcher, &next), expected, "nothing has changed");
        }
        assert!(cut > 10, "{source:?}: {cut} were cut");
    }
}

#[test]
fn a_run_ends_where_a_format_begins_to_hold() {
    let vocabulary = toy();
    let find = |text: &str| vocabulary.find(text.as_bytes()).expect("a token");
    let run = |trigger: Trigger, texts: &[&str]| {
        let mut matcher = gbnf("root ::= \"ab\" [0-9]*").matcher_after(&trigger).expect("it can wait");
        let tokens: Vec<u32> = texts.iter().map(|text| find(text)).collect();
        matcher.allows_run(&tokens)
    };
    let free = Trigger::answer_after("))");
    assert_eq!(run(free.clone(), &["SELECT", "aa", "日"]), 3);
    assert_eq!(run(free.clone(), &["SELECT", "))", "ab", "10"]), 2);
    assert_eq!(run(free.clone(), &["SELECT", ")", ")", "ab"]), 3);
    assert_eq!(run(Trigger { budget: Some(2), ..free.clone() }, &["aa", "bb", "aa", "bb"]), 2);
    assert_eq!(run(Trigger { free: false, ..free.clone() }, &["aa"]), 0);
    assert_eq!(run(Trigger { free: false, ..free }, &[")", ")", "ab"]), 2);
}
