//! What a server meets from strangers, a row each: refused with a reason, or served; and the grammars of everybody else
//! go on working.

use super::super::{Compiler, Source};
use super::{check, compile, gbnf, refusal, toy};

fn refused(source: Source, part: &str) {
    let message = refusal(source);
    assert!(message.contains(part), "{message}");
    assert!(!message.contains('\n'), "one line: {message}");
}

fn grammar(text: impl Into<String>) -> Source {
    Source::Gbnf(text.into())
}

fn schema(text: impl Into<String>) -> Source {
    Source::JsonSchema(text.into())
}

#[test]
fn what_is_malformed_is_refused_with_line_and_column() {
    for (text, part) in [
        ("", "line 1, column 1: the grammar has no rules"),
        ("start ::= \"a\"", "root"),
        ("root ::= foo", "line 1, column 10"),
        ("root ::= \"a", "line 1, column 10"),
        ("root ::= \"\\q\"", "line 1, column"),
        ("root ::= [z-a]", "line 1, column"),
        ("root ::= \"\\uD800\"", "line 1, column"),
        ("root ::= [\\U00110000]", "line 1, column"),
        ("root ::= \"a\"{5,2}", "line 1, column"),
    ] {
        refused(grammar(text), part);
    }
    let bytes = Source::gbnf(b"root ::= \"\xFF\"".to_vec()).unwrap_err().to_string();
    assert!(bytes.contains("line 1, column 11"), "{bytes}");
}

#[test]
fn recursion_and_repetition_are_served_or_refused_by_a_limit() {
    check(&gbnf("root ::= root \"a\" | \"a\""), &["a", "aaa"], &["", "b"]);
    let cycle: String = (0..5_000).map(|i| format!("r{i} ::= r{} \"x\" | \"y\"\n", (i + 1) % 5_000)).collect();
    refused(grammar(format!("root ::= r0\n{cycle}")), "limit");
    refused(grammar(format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000))), "limit");
    refused(grammar(format!("root ::= {}\"a\"", "\"a\"|".repeat(60_000))), "limit");
    refused(grammar("root ::= \"a\"{0,1000000000}"), "limit");
    refused(grammar("root ::= (\"a\"{1000}){1000}"), "limit");
}

#[test]
fn a_grammar_of_nothing_stops_at_once_and_one_without_end_is_refused() {
    let mut empty = gbnf("root ::= \"\"").matcher();
    assert!(empty.may_stop() && empty.must_stop());
    refused(grammar("root ::= \"a\" root"), "never");
}

#[test]
fn nothing_is_fetched_and_nothing_is_ignored() {
    for (text, part) in [
        (r##"{"$ref":"#"}"##.to_owned(), "without end"),
        (r#"{"$ref":"http://127.0.0.1:1/s.json"}"#.to_owned(), "nothing is fetched"),
        (r#"{"$ref":"file:///etc/passwd"}"#.to_owned(), "leaves the document"),
        (r#"{"pattern":"(?<=a)b"}"#.to_owned(), "look-around"),
        (r#"{"pattern":"*a"}"#.to_owned(), "pattern"),
        (format!(r#"{{"pattern":"{}"}}"#, "(".repeat(10_000)), "pattern"),
        (r#"{"type":"string","minLength":1000000000}"#.to_owned(), "minLength"),
        (format!(r#"{{"enum":[{}0]}}"#, "1,".repeat(200_000)), "limit"),
        (r#"{"type":"integer","minimum":5,"maximum":1}"#.to_owned(), "Unsatisfiable"),
        (r#"{"type":"array","not":{"uniqueItems":true}}"#.to_owned(), "uniqueItems"),
        (format!("{}{{}}{}", "{\"items\":".repeat(10_000), "}".repeat(10_000)), "nested too deeply"),
    ] {
        refused(schema(text), part);
    }
}

#[test]
fn ten_thousand_grammars_leave_the_memory_as_it_is() {
    let compiler = Compiler::new(toy());
    for index in 0..10_000 {
        compiler.compile(&grammar(format!("root ::= \"{index}\" [a-z]*"))).unwrap();
        assert!(compiler.cached_bytes() <= compiler.limits().cache_bytes);
    }
}

#[test]
fn a_bad_grammar_between_good_ones_changes_nothing() {
    let compiler = Compiler::new(toy());
    for _ in 0..3 {
        for good in [grammar("root ::= \"a\""), schema("{\"type\":\"null\"}"), Source::Regex("a+".to_owned())] {
            compiler.compile(&good).unwrap();
        }
        for bad in [grammar("root ::= ("), schema("{\"type\":7}"), Source::Regex("a(".to_owned())] {
            assert!(compiler.compile(&bad).is_err());
        }
    }
    assert!(compile(schema("{}")).is_ok());
}
