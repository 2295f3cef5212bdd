//! Keys in any order, and the spellings of texts.

use serde_json::json;

use super::super::tools::{Envelope, ToolChoice, ToolRequest, read_tools};
use super::super::{KeyOrder, MatchResult, SchemaMode, Source};
use super::{check, compile};

fn schema(text: &str) -> Source {
    Source::JsonSchema(text.to_owned())
}

fn ordered(text: &str) -> Source {
    Source::Schema { text: text.to_owned(), mode: SchemaMode::Strict, order: KeyOrder::Schema }
}

const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"tags":{"type":"array",
    "items":{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"required":["a","b"],
    "additionalProperties":false}}},"required":["name","age"],"additionalProperties":false}"#;

#[test]
fn keys_come_in_any_order_and_once() {
    let accepts = [
        r#"{"name": "x", "age": 1}"#,
        r#"{"age": 1, "name": "x"}"#,
        r#"{"tags": [{"b": null, "a": null}, {"a": null, "b": null}], "age": 1, "name": "x"}"#,
        "{\n  \"age\": 1,\n  \"name\": \"x\"\n}",
    ];
    let rejects = [
        "{}",
        r#"{"age": 1}"#,
        r#"{"age": 1, "age": 2, "name": "x"}"#,
        r#"{"age": 1, "name": "x", "more": 1}"#,
        r#"{"age": "1", "name": "x"}"#,
        r#"{"tags": [{"b": null}], "age": 1, "name": "x"}"#,
        r#"{"age": 1, "name": "x",}"#,
    ];
    let compiled = compile(schema(PERSON)).unwrap();
    assert!(compiled.schema().unwrap().notes().is_empty());
    check(&compiled, &accepts, &rejects);
    // The order of the schema alone, when that is asked for.
    let compiled = compile(ordered(PERSON)).unwrap();
    check(&compiled, &accepts[..1], &rejects);
    check(&compiled, &[], &accepts[1..3]);
}

#[test]
fn unnamed_keys_stand_anywhere() {
    let text = r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],
        "patternProperties":{"^x-":{"type":"boolean"}},"additionalProperties":{"type":"string"}}"#;
    check(
        &compile(schema(text)).unwrap(),
        &[r#"{"$schema": "s", "x-a": true, "id": 1, "b": "c"}"#, r#"{"id": 1}"#, r#"{"id": 1, "é": "é"}"#],
        &[r#"{"x-a": "c", "id": 1}"#, r#"{"b": true, "id": 1}"#, r#"{"b": "c"}"#, r#"{"id": "c"}"#],
    );
}

#[test]
fn alternatives_stay_apart() {
    let text = r#"{"anyOf":[
        {"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind","x"],
         "additionalProperties":false},
        {"type":"object","properties":{"kind":{"const":"b"},"x":{"type":"string"},"y":{"type":"null"}},
         "required":["kind","y"],"additionalProperties":false}]}"#;
    check(
        &compile(schema(text)).unwrap(),
        &[r#"{"x": 1, "kind": "a"}"#, r#"{"y": null, "kind": "b"}"#, r#"{"x": "s", "y": null, "kind": "b"}"#],
        &[r#"{"x": 1, "kind": "b"}"#, r#"{"kind": "b", "x": "s"}"#, r#"{"x": "s", "kind": "a"}"#],
    );
}

#[test]
fn more_keys_than_the_engine_counts_one_by_one() {
    let names: Vec<String> = (0..100).map(|index| format!("k{index}")).collect();
    let properties: serde_json::Map<String, serde_json::Value> =
        names.iter().map(|name| (name.clone(), json!({"type": "null"}))).collect();
    let text = |required: &[String]| {
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            .to_string()
    };
    let object = |names: &[&String]| {
        let entries: Vec<String> = names.iter().map(|name| format!("\"{name}\": null")).collect();
        format!("{{{}}}", entries.join(", "))
    };
    let forward: Vec<&String> = names.iter().collect();
    let some: Vec<&String> = names.iter().take(50).rev().chain(names.iter().skip(90)).collect();
    let compiled = compile(schema(&text(&[]))).unwrap();
    check(
        &compiled,
        &["{}", &object(&forward), &object(&some)],
        &[&object(&[&names[99], &names[99]]), "{\"k100\": null}"],
    );
    let compiled = compile(schema(&text(&names))).unwrap();
    // The last ones keep their order, wherever the others stand.
    let mixed: Vec<&String> = names[50..].iter().chain(names[..50].iter().rev()).collect();
    check(&compiled, &[&object(&forward), &object(&mixed)], &["{}", &object(&forward[..99]), &object(&forward[1..])]);
}

#[test]
fn keys_without_a_name_are_counted_once() {
    for source in [schema, ordered] {
        let compiled = compile(source(r#"{"type":"object","minProperties":2,"maxProperties":3}"#)).unwrap();
        check(
            &compiled,
            &[r#"{"a": 1, "b": 2}"#, r#"{"a": {"a": 1, "b": 2}, "b": 2, "c": 3}"#],
            &["{}", r#"{"a": 1}"#, r#"{"a": 1, "a": 2}"#, r#"{"a": 1, "b": 1, "c": 1, "d": 1}"#],
        );
    }
}

#[test]
fn texts_have_their_spellings_and_keys_no_second_one() {
    let text = r#"{"type":"object","properties":{"é":{"enum":["ö","o"]},"a":{"type":"string","maxLength":2}},
        "additionalProperties":{"type":"integer"}}"#;
    check(
        &compile(schema(text)).unwrap(),
        &[
            "{\"é\": \"ö\"}",
            r#"{"\u00e9": "\u00F6"}"#,
            r#"{"a": "\u0041\ud83d\ude00"}"#,
            r#"{"a": "\n\/", "\u00fc": 1}"#,
        ],
        &[
            r#"{"\u00e9": 1}"#,
            r#"{"\u0061": 1}"#,
            r#"{"a": "\ud83d"}"#,
            r#"{"a": "\u0041\u0042\u0043"}"#,
            r#"{"\u00e9": "o", "é": "o"}"#,
        ],
    );
    // A control character without a short escape.
    check(&compile(schema(r#"{"const":"\u0001"}"#)).unwrap(), &[r#""\u0001""#], &["\"1\""]);
}

#[test]
fn who_wishes_to_close_gets_the_key_that_is_missing() {
    let text = r#"{"type":"object","properties":{"age":{"type":"integer"}},"required":["age"]}"#;
    let compiled = compile(schema(text)).unwrap();
    let mut matcher = compiled.matcher();
    let close = u32::from(b'}');
    assert_eq!(matcher.urge(close), Ok(None), "nothing is open");
    matcher.accept_bytes(b"{\"name\": \"x\"").unwrap();
    assert_eq!((matcher.lacks_key(), matcher.allows(close)), (Ok(true), Ok(false)));
    assert_eq!(matcher.urge(u32::from(b',')), Ok(None), "it goes on by itself");
    let token = matcher.urge(close).unwrap().unwrap();
    matcher.accept(token).unwrap();
    let rest = matcher.forced_bytes().unwrap();
    let begun = super::toy().piece(token).to_vec();
    assert_eq!([begun, rest.clone()].concat(), b", \"age\": ");
    matcher.accept_bytes(&rest).unwrap();
    assert_eq!(matcher.forced_bytes(), Ok(Vec::new()));
    matcher.accept_bytes(b"3").unwrap();
    assert_eq!((matcher.lacks_key(), matcher.allows(close)), (Ok(false), Ok(true)));
    // Another way is taken: nothing is forced any more.
    let mut matcher = compiled.matcher();
    matcher.accept_bytes(b"{\"name\": \"x\"").unwrap();
    matcher.urge(close).unwrap().unwrap();
    matcher.accept_bytes(b", \"n").unwrap();
    assert_eq!(matcher.forced_bytes(), Ok(Vec::new()));
}

#[test]
fn constants_with_keys_come_in_any_order_too() {
    let compiled = compile(schema(r#"{"enum":[{"a":1,"b":[true,{"c":"x","d":null}]},[1,2],[]]}"#)).unwrap();
    check(
        &compiled,
        &[r#"{"b": [true, {"d": null, "c": "x"}], "a": 1}"#, "[1, 2]", "[]"],
        &[r#"{"a": 1}"#, r#"{"a": 1, "b": [true, {"d": null}]}"#, "[1]", "[2, 1]"],
    );
}

#[test]
fn arguments_of_tools_come_in_any_order_and_their_items_differ() {
    let tools = json!([{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"},
        "b": {"type": "array", "items": {"type": "integer"}, "uniqueItems": true}}, "required": ["a", "b"],
        "additionalProperties": false}}]);
    let request = ToolRequest {
        tools: read_tools(&tools).unwrap(),
        envelope: Envelope::Hermes,
        choice: ToolChoice::Required,
        parallel: true,
        text_before: false,
    };
    let format = request.format().unwrap().unwrap();
    let compiled = compile(format.source).unwrap();
    let verdict = |text: &str| {
        let mut matcher = compiled.matcher_after(format.trigger.as_ref().unwrap()).unwrap();
        match matcher.accept_bytes(text.as_bytes()) {
            Ok(()) if matcher.may_stop() => MatchResult::Complete,
            Ok(()) => MatchResult::Prefix,
            Err(_) => MatchResult::Rejected { at: 0 },
        }
    };
    let call = |arguments: &str| format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {arguments}}}\n</tool_call>");
    let (one, two) = (call(r#"{"b": [1, 2], "a": 3}"#), call(r#"{"a": 3, "b": []}"#));
    for text in [&one, &two, &format!("{one}\n{two}")] {
        assert_eq!(verdict(text), MatchResult::Complete, "{text}");
    }
    for text in [call(r#"{"a": 3}"#), call(r#"{"b": [1, 1], "a": 3}"#), format!("{one}\n{}", call(r#"{"a": 3}"#))] {
        assert_ne!(verdict(&text), MatchResult::Complete, "{text}");
    }
}

#[test]
fn keys_that_patterns_name_are_not_asked_for_when_none_is_left() {
    let text = r#"{"type":"object","patternProperties":{"^[a-d]$":true},"additionalProperties":false,
        "required":["d"],"minProperties":2}"#;
    let compiled = compile(schema(text)).unwrap();
    check(&compiled, &[r#"{"d": 1, "a": 2}"#, r#"{"c": 1, "a": 2, "d": 3}"#], &[r#"{"d": 1}"#, r#"{"a": 1, "b": 1}"#]);
    let mut matcher = compiled.matcher();
    matcher.accept_bytes(br#"{"a": 1, "b": 2, "d": 3"#).unwrap();
    assert!(matcher.allows_bytes(b",").unwrap());
    matcher.accept_bytes(br#", "c": 4"#).unwrap();
    assert!(!matcher.allows_bytes(b",").unwrap() && matcher.allows_bytes(b"}").unwrap());
}
