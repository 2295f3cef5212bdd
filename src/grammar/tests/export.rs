//! JSON Schema as GBNF: what it writes is what the schema's own engine accepts.

use super::super::{KeyOrder, Limits, MatchResult, SchemaMode, Source, gbnf_from_schema};
use super::{compile, gbnf};

#[test]
fn written_grammars_agree_with_the_engine_for_schemas() {
    let cases: &[(&str, &[&str])] = &[
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string","maxLength":2},"c":{"enum":["x",1,null]}},"required":["b"],"additionalProperties":false}"#,
            &[
                r#"{"b": "x"}"#,
                r#"{"a": 1, "b": "xy"}"#,
                r#"{"a": 1,"b": "", "c": null}"#,
                r#"{"b": "x", "c": 1}"#,
                "{}",
                r#"{"b": "xyz"}"#,
                r#"{"b": "x", "a": 1}"#,
                r#"{"a": 1}"#,
                r#"{"b": "x", "d": 1}"#,
            ],
        ),
        (
            r#"{"type":"array","items":{"type":["boolean","null"]},"minItems":2,"maxItems":3}"#,
            &["[true, null]", "[true, false, null]", "[]", "[true]", "[true, true, true, true]", "[1, 2]", "[true,]"],
        ),
        (
            r##"{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"number"},"next":{"$ref":"#/$defs/n"}},"required":["v"],"additionalProperties":false}}}"##,
            &[r#"{"v": 1}"#, r#"{"v": 1.5, "next": {"v": 2}}"#, r#"{"next": {"v": 2}}"#, r#"{"v": 1, "next": {}}"#],
        ),
        (r#"{"anyOf":[{"const":"a \"b\""},{"type":"integer"}]}"#, &[r#""a \"b\"""#, "12", r#""a""#, "1.5"]),
        (r#"{"type":"object","additionalProperties":{"type":"boolean"}}"#, &["{}", r#"{"x": true}"#, r#"{"x": 1}"#]),
    ];
    for (schema, texts) in cases {
        let written = gbnf_from_schema(schema, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        let (text, mode, order) = ((*schema).to_owned(), SchemaMode::Strict, KeyOrder::Schema);
        let (ours, engine) = (gbnf(&written), compile(Source::Schema { text, mode, order }).unwrap());
        for text in *texts {
            let complete =
                |compiled: &super::super::Compiled| compiled.matches(text.as_bytes()) == Ok(MatchResult::Complete);
            assert_eq!(complete(&ours), complete(&engine), "{text} under {schema}\n{written}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_by_its_place() {
    for (schema, message) in [
        (
            r#"{"type":"object","properties":{"a/b":{"type":"string","pattern":"x"}}}"#,
            "at '/properties/a~1b': 'pattern' cannot be written",
        ),
        (r#"{"oneOf":[{}]}"#, "'oneOf' without 'type'"),
        (r#"{"type":"integer","minimum":3}"#, "'minimum' cannot be written"),
        (r##"{"$ref":"http://example.org/x"}"##, "names nothing in this schema"),
        (r#"{"type":"string","minLength":5,"maxLength":2}"#, "'minLength' 5 is above 2"),
        (r#"{"type":"text"}"#, "there is no type 'text'"),
        (r#"{"type":"object","required":["x"]}"#, "'x' is required and not among 'properties'"),
        ("[", "EOF"),
        ("false", "nothing is valid here"),
    ] {
        let refused = gbnf_from_schema(schema, &Limits::default()).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
}
