//! How much is still needed, and answers that end in time.

use std::collections::BTreeMap;

use super::super::{Compiler, MatchResult, Matcher, Source, Vocabulary, format_names};
use super::{Random, compile, gbnf, toy};

fn after(text: &str, grammar: &str) -> Matcher {
    let mut matcher = gbnf(grammar).matcher();
    matcher.accept_bytes(text.as_bytes()).unwrap();
    matcher
}

#[test]
fn the_least_need_is_exact() {
    let json = "root ::= v\nv ::= o | a | \"null\" | [0-9]+ | s\no ::= \"{\" (s \":\" v (\",\" s \":\" v)*)? \"}\"\n\
                a ::= \"[\" (v (\",\" v)*)? \"]\"\ns ::= \"\\\"\" [a-z]{3,5} \"\\\"\"";
    for (text, grammar, least) in [
        ("", "root ::= \"abc\"", 3),
        ("ab", "root ::= \"abc\"", 1),
        ("", "root ::= \"a\"{5,9}", 5),
        ("", "root ::= \"ab\"{50,90} \"x\"", 101),
        ("ababa", "root ::= \"ab\"{50,90} \"x\"", 96),
        ("", "root ::= (\"ab\"{40,}){3,} [x-z]", 241),
        ("", "root ::= \"a\" root \"b\" | \"a\"", 1),
        ("aa", "root ::= \"a\" root \"b\" | \"a\"", 1),
        ("aab", "root ::= \"a\" root \"b\" | \"a\"", 0),
        ("aaab", "root ::= \"a\" root \"b\" | \"a\"", 1),
        ("", "root ::= root \"x\" | \"long\" | \"b\"", 1),
        ("l", "root ::= root \"x\" | \"long\" | \"b\"", 3),
        ("", json, 1),
        ("{", json, 1),
        ("{\"", json, 3 + 1 + 1 + 1 + 1),
        ("{\"abcd", json, 1 + 1 + 1 + 1),
        ("[[[", json, 3),
        ("[[[1,", json, 1 + 3),
        ("", "root ::= [é日]", 2),
    ] {
        assert_eq!(after(text, grammar).least_bytes_to_finish(), Some(least), "{text:?} in {grammar}");
    }
}

/// The least need by looking at all texts, shortest first.
fn least_by_search(source: &str, limit: usize) -> Option<usize> {
    let compiled = compile(Source::Gbnf(source.to_owned())).ok()?;
    let mut texts: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::from([(0, vec![Vec::new()])]);
    for length in 0..=limit {
        for text in texts.remove(&length).unwrap_or_default() {
            let mut matcher = compiled.matcher();
            matcher.accept_bytes(&text).unwrap();
            if matcher.may_stop() {
                return Some(length);
            }
            for byte in [b'a', b'b', 0xC3, 0xA9] {
                if matcher.allows_bytes(&[byte]).unwrap() {
                    texts.entry(length + 1).or_default().push([text.as_slice(), &[byte]].concat());
                }
            }
        }
    }
    None
}

#[test]
fn the_least_need_of_random_grammars_is_what_a_search_finds() {
    let mut random = Random(0x5EED_0011);
    let mut compared = 0;
    while compared < 400 {
        let source = super::reference::grammar(&mut random);
        let Ok(compiled) = compile(Source::Gbnf(source.clone())) else {
            continue;
        };
        let least = compiled.matcher().least_bytes_to_finish().unwrap();
        if least > 6 {
            continue;
        }
        assert_eq!(least_by_search(&source, 6), Some(least), "{source}");
        compared += 1;
    }
}

#[test]
fn masks_for_closing_hold_exactly_the_tokens_that_leave_room() {
    let mut random = Random(0x5EED_0012);
    let vocabulary = toy();
    let mut masks = 0;
    while masks < 600 {
        let source = super::reference::grammar(&mut random);
        let Ok(compiled) = compile(Source::Gbnf(source.clone())) else {
            continue;
        };
        let mut matcher = compiled.matcher();
        for _ in 0..5 {
            let least = matcher.least_bytes_to_finish().unwrap();
            let budget = least + random.below(4);
            let mask = matcher.mask_closing(budget).unwrap().clone();
            masks += 1;
            for token in 0..vocabulary.len() as u32 {
                let allowed = matcher.allows_closing(token, budget).unwrap();
                if budget > 0 {
                    assert_eq!(mask.allows(token), allowed, "token {token}, budget {budget} in\n{source}");
                }
            }
            let plain = matcher.mask().unwrap().clone();
            assert!(mask.iter().all(|token| plain.allows(token)));
            let tokens: Vec<u32> = mask.iter().collect();
            let token = tokens[random.below(tokens.len())];
            if vocabulary.is_end(token) {
                break;
            }
            matcher.accept(token).unwrap();
        }
    }
}

/// A vocabulary with all bytes and some longer tokens, as a model would have.
fn finish(matcher: &mut Matcher, vocabulary: &Vocabulary, budget: usize, random: &mut Random) -> (bool, Vec<u8>) {
    let mut text = Vec::new();
    for left in (1..=budget).rev() {
        if matcher.must_stop() {
            return (true, text);
        }
        let mask = matcher.mask().unwrap().clone();
        let tokens: Vec<u32> = mask.iter().collect();
        let mut token = tokens[random.below(tokens.len())];
        if !matcher.allows_closing(token, left).unwrap() {
            let closing: Vec<u32> = matcher.mask_closing(left).unwrap().iter().collect();
            token = closing[random.below(closing.len())];
        }
        if vocabulary.is_end(token) {
            return (true, text);
        }
        matcher.accept(token).unwrap_or_else(|error| panic!("{error} at {}", String::from_utf8_lossy(&text)));
        text.extend_from_slice(vocabulary.piece(token));
    }
    (matcher.may_stop(), text)
}

#[test]
fn every_ready_format_is_complete_at_every_limit_that_is_enough() {
    let vocabulary = toy();
    let mut random = Random(0x5EED_0013);
    for name in format_names() {
        let compiled = compile(Source::Named((*name).to_owned())).unwrap();
        let least = compiled.matcher().least_bytes_to_finish().unwrap();
        for budget in [least, least + 1, least + 7, least + 40, least + 90] {
            for _ in 0..4 {
                let (complete, text) = finish(&mut compiled.matcher(), &vocabulary, budget, &mut random);
                assert!(complete, "{name} with {budget}: {}", String::from_utf8_lossy(&text));
            }
        }
    }
}

#[test]
fn what_is_too_long_for_the_limit_still_comes_as_near_as_it_can() {
    let vocabulary = toy();
    // Nine bytes at least, and tokens for two and four of them at once.
    let compiled = gbnf("root ::= \"abababab\" \"c\" | \"aaaaaaaab\"");
    let (complete, text) = finish(&mut compiled.matcher(), &vocabulary, 2, &mut Random(7));
    assert!(complete, "{}", String::from_utf8_lossy(&text));
}

#[test]
fn schemas_are_complete_at_the_limit() {
    let compiler = Compiler::new(toy());
    let mut random = Random(0x5EED_0014);
    let schemas = [
        r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}}},"required":["name","age"]}"#,
        r#"{"type":"array","items":{"type":"object","properties":{"x":{"type":"number","minimum":5},"y":{"enum":["left","right"]}},"required":["x","y"],"additionalProperties":false},"minItems":2}"#,
        r#"{"type":"object","properties":{"when":{"type":"string","format":"date"},"id":{"type":"string","pattern":"^[A-Z]{2}[0-9]{4}$"}},"required":["when","id"]}"#,
        r##"{"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/n"}},"required":["v"]}},"$ref":"#/$defs/n"}"##,
        BOOK,
        "true",
    ];
    for schema in schemas {
        let compiled = compiler.compile(&Source::JsonSchema(schema.to_owned())).unwrap();
        let enough = compiled.matcher().tokens_to_finish().unwrap().expect(schema);
        for budget in [enough, enough + 3, enough + 20, enough + 60] {
            for _ in 0..3 {
                let mut matcher = compiled.matcher();
                let (complete, text) = finish(&mut matcher, &toy(), budget, &mut random);
                assert!(complete, "{schema} with {budget}: {}", String::from_utf8_lossy(&text));
                assert_eq!(compiled.matches(&text), Ok(MatchResult::Complete), "{}", String::from_utf8_lossy(&text));
            }
        }
    }
}

#[test]
fn forced_bytes_are_those_of_every_continuation() {
    for (text, grammar, forced) in [
        ("", "root ::= \"abc\" [x-z]", "abc"),
        ("a", "root ::= \"abc\" | \"abd\" | \"ab\" [0-9]", "b"),
        ("", "root ::= \"ab\"? \"abc\"", "ab"),
        ("", "root ::= \"ab\"? ", ""),
        ("", "root ::= \"é\" | \"è\"", "\u{0}"),
        ("", "root ::= <[97]> \"b\"", ""),
        ("x", "root ::= \"x\" \"ab\"{2} [yz]", "abab"),
    ] {
        let got = after(text, grammar).forced_bytes().unwrap();
        let expected = if forced == "\u{0}" { vec![0xC3] } else { forced.as_bytes().to_vec() };
        assert_eq!(got, expected, "{text:?} in {grammar}");
    }
    let schema = r#"{"type":"object","properties":{"name":{"enum":["left","lean"]}},"required":["name"],"additionalProperties":false}"#;
    let compiled = compile(Source::JsonSchema(schema.to_owned())).unwrap();
    let mut matcher = compiled.matcher();
    matcher.accept_bytes(b"{\"").unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"name\"".to_vec());
    matcher.accept_bytes(b"name\": \"").unwrap();
    assert_eq!(matcher.forced_bytes().unwrap(), b"le".to_vec());
    assert!(matcher.accept_bytes(b"lo").is_err());
    matcher.accept_bytes(b"left\"}").unwrap();
    assert!(matcher.may_stop());
}

const BOOK: &str = r#"{"type":"object","properties":{"title":{"type":"string"},"year":{"type":"integer"},
    "tags":{"type":"array","items":{"type":"string"}},"author":{"type":"object","properties":{
    "name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"]}},
    "required":["title","year","tags","author"]}"#;

/// Objects to which other keys may be added: the names of one are allowed in the other, and lead away from the end.
#[test]
fn each_object_gets_the_keys_it_lacks() {
    let compiled = compile(Source::JsonSchema(BOOK.to_owned())).unwrap();
    let least = r#"{"title":"","year":1,"tags":[],"author":{"name":"","age":1}}"#.len();
    for (text, most) in [
        ("", least),
        ("{", least),
        ("{\n  \"id\": \"a", least + 3),
        ("{\"year\": 12, \"author\": {\"born\": tru", least),
        ("{\"author\": {\"title\": {\"a\": [", least + 4),
        ("{\"author\": {\"na", least),
    ] {
        let mut matcher = compiled.matcher();
        matcher.accept_bytes(text.as_bytes()).unwrap();
        let need = matcher.tokens_to_finish().unwrap().unwrap_or_else(|| panic!("no way from {text}"));
        assert!(need <= most, "{need} tokens from {text}");
        let mut budget = need;
        while budget > 0 && !matcher.may_stop() {
            let token = matcher.mask_closing(budget).unwrap().iter().next().unwrap();
            matcher.accept(token).unwrap();
            budget -= 1;
        }
        assert!(matcher.may_stop(), "{text}");
    }
}

/// Patterns, numbers within bounds and items that differ: what closes first leads nowhere there.
#[test]
fn patterns_are_filled_in_time() {
    let compiler = Compiler::new(toy());
    let mut random = Random(0x5EED_0015);
    let cases = [
        (
            r#"{"type":"object","properties":{"id":{"type":"string","pattern":"^[a-z0-9]{8}-[a-z0-9]{4}$"}},"required":["id"]}"#,
            22,
        ),
        (
            r#"{"type":"object","properties":{"mail":{"type":"string","format":"email"},"at":{"type":"string","format":"date-time"}},"required":["mail","at"],"additionalProperties":false}"#,
            60,
        ),
        (r#"{"type":"array","items":{"type":"string","pattern":"^(north|south-west)ern$"},"minItems":2}"#, 25),
        (
            r#"{"type":"array","items":{"type":"integer","minimum":1200,"multipleOf":7},"minItems":3,"uniqueItems":true}"#,
            20,
        ),
        (
            r#"{"type":"object","patternProperties":{"^k[0-9]{3}$":{"type":"boolean"}},"additionalProperties":false,"minProperties":2}"#,
            30,
        ),
        (
            r#"{"anyOf":[{"type":"object","properties":{"t":{"const":"aa"},"s":{"type":"string","minLength":90}},"required":["t","s"]},{"type":"object","properties":{"t":{"const":"abab"}},"required":["t"]}]}"#,
            14,
        ),
    ];
    for (schema, most) in cases {
        let compiled = compiler.compile(&Source::JsonSchema(schema.to_owned())).unwrap();
        let mut matcher = compiled.matcher();
        let least = matcher.least_tokens().unwrap().unwrap_or_else(|| panic!("nothing is known of {schema}"));
        let enough = matcher.tokens_to_finish().unwrap().unwrap_or_else(|| panic!("no way in {schema}"));
        assert!(least <= enough && enough <= most, "{least} to {enough} tokens for {schema}");
        for budget in [enough, enough + 1, enough + 9, enough + 40] {
            for _ in 0..4 {
                let (complete, text) = finish(&mut compiled.matcher(), &toy(), budget, &mut random);
                assert!(complete, "{schema} with {budget}: {}", String::from_utf8_lossy(&text));
                assert_eq!(compiled.matches(&text), Ok(MatchResult::Complete), "{}", String::from_utf8_lossy(&text));
            }
        }
    }
}
