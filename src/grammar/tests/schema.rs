//! JSON Schemas: what is enforced, what is refused and how it is said.

use super::super::{GrammarError, MatcherError, Source};
use super::{Random, check, compile, refusal, toy};

fn schema(text: &str) -> Source {
    Source::JsonSchema(text.to_owned())
}

#[test]
fn schemas_are_enforced() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("{}", &["1", "null", "[1, {\"a\": \"b\"}]", "\"x\""], &["", "x", "{", "1 1", "[1,]"]),
        ("true", &["{}", "[]"], &["{]"]),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},
                "required":["a"],"additionalProperties":false}"#,
            &[r#"{"a": 1}"#, r#"{"a":1,"b":"x"}"#, "{\n  \"a\": 1,\n  \"b\": \"x\"\n}"],
            &["{}", r#"{"b": "x"}"#, r#"{"a": 1, "c": 2}"#, r#"{"a": "1"}"#, r#"{"a":     1}"#],
        ),
        (r#"{"enum":["red","green",3]}"#, &["\"red\"", "3"], &["\"blue\"", "red"]),
        (r#"{"type":"integer","minimum":5,"maximum":12}"#, &["5", "12"], &["4", "13", "5.5"]),
        (r#"{"type":"string","pattern":"^\\d{2}$"}"#, &["\"12\""], &["\"1\"", "\"ab\""]),
        (
            r#"{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2}"#,
            &["[true]", "[true, false]"],
            &["[]", "[1]"],
        ),
        (
            r##"{"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"next":{"$ref":"#/$defs/t"}},"additionalProperties":false}}}"##,
            &["{}", r#"{"next": {"next": {}}}"#],
            &[r#"{"next": 1}"#],
        ),
        // A type that the keywords tell.
        (r#"{"items":{"type":"integer"}}"#, &["[1, 2]", "[]"], &["1", "\"x\""]),
        (r#"{"properties":{"a":{"type":"null"}},"required":["a"]}"#, &[r#"{"a": null}"#], &["1", "{}"]),
        (r#"{"type":"array","uniqueItems":false}"#, &["[1, 1]"], &["1"]),
        // What one pattern forbids stays forbidden where a key is demanded that others match.
        (
            r#"{"type":"object","allOf":[
                {"patternProperties":{"a":true},"additionalProperties":false},
                {"patternProperties":{"b":true},"additionalProperties":false},
                {"not":{"patternProperties":{"c":false}}}]}"#,
            &[r#"{"abc":1}"#, r#"{"cab":1,"bac":2}"#],
            &[r#"{"ac":1}"#, r#"{"bc":1}"#, r#"{"ab":1}"#, r#"{}"#],
        ),
        // What patterns say of a named key holds where some key is demanded (found by chance).
        (
            r##"{"properties":{"c":{"allOf":[{"if":{"type":["boolean","number"],"minItems":3}},{"dependentRequired":{"a":["c","d1"]},"properties":{"c":{"type":["null","integer"]}}}]}},"dependentSchemas":{"b":{"patternProperties":{"^[ab]+$":{"not":{"minLength":2,"type":"number"},"type":"object","multipleOf":3},"^(a|b1?)?$":{"not":{"pattern":"b","type":"null"}}}}},"oneOf":[true,{"type":"object","additionalProperties":false,"prefixItems":[{"anyOf":[{"type":["number","integer"],"pattern":"^(a|b1?)?$"}],"maxLength":2}]}]}"##,
            &[],
            &[r#"{"b":null,"d1":[null,null,0.5]}"#],
        ),
        (
            r##"{"minItems":1,"dependentSchemas":{"a":{"not":{"additionalProperties":false},"patternProperties":{"^[ab]+$":true,"^a":{"required":["b","c"],"allOf":[{"multipleOf":3,"pattern":"^(a|b1?)?$","const":{"ab":false,"d1":"a"}}],"properties":{"ab":{"pattern":"b","type":["boolean","integer"]},"c":true}}},"properties":{"ab":{"type":"object"}}}},"multipleOf":3}"##,
            &[],
            &[r#"{"a":{},"c":"ab","d1":"ab"}"#],
        ),
        (
            r##"{"dependentRequired":{"c":["ab"]},"oneOf":[true,{"additionalProperties":false},{"dependentSchemas":{"d1":{"type":"object"}},"properties":{"a":{"const":{},"dependentRequired":{"a":["ab"]}},"d1":{"maxLength":3}}}],"patternProperties":{"^a":{"additionalProperties":{"type":"string","enum":["a",{"ab":null,"c":false,"d1":0.5},false]},"multipleOf":0.5,"uniqueItems":true},"^(a|b1?)?$":{"type":"number","additionalProperties":false,"dependentRequired":{"c":["c"]}}}}"##,
            &[],
            &[r#"{"a":["1",true,3],"ab":{}}"#],
        ),
        (
            r##"{"oneOf":[{"properties":{"ab":{"required":["b","d1"],"maxLength":2,"enum":["abc","b1",{}]},"b":{"type":"integer","enum":[[0.5,"1"],{"a":true,"b":0,"c":0.5},[5]],"required":["a","ab"]}}},{"dependentRequired":{"ab":["c"]}},{"additionalProperties":{"exclusiveMaximum":2,"type":"number"}}],"dependentSchemas":{"ab":{"patternProperties":{"^a":{"enum":[[null,"abc",5],12],"type":"object"},"^(a|b1?)?$":{"multipleOf":0.5,"minimum":0}},"not":{"minItems":0,"type":"string","maxLength":3}}}}"##,
            &[],
            &[r#"{"ab":"x","b":{},"c":[false]}"#],
        ),
    ];
    for (text, accepts, rejects) in cases {
        let compiled = compile(schema(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
        check(&compiled, accepts, rejects);
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_with_its_place() {
    let cases = [
        (
            r#"{"properties":{"a":{"type":"array","not":{"uniqueItems":true}}}}"#,
            "schema at '/properties/a/not/uniqueItems': keyword 'uniqueItems' cannot be enforced",
        ),
        (r#"{"type":"number","not":{"multipleOf":2}}"#, "keyword 'not' cannot be enforced"),
        (r#"{"x-guidance":{"lenient":true}}"#, "keyword 'x-guidance' cannot be enforced"),
        (r##"{"$ref":"#/definitions/x"}"##, "schema at '/$ref': '$ref' to '#/definitions/x', which is not there"),
        (r#"{"$ref":"https://example.com/s.json"}"#, "leaves the document; nothing is fetched"),
        (
            r#"{"items":{"$ref":"file:///etc/passwd"}}"#,
            "schema at '/items/$ref': '$ref' to 'file:///etc/passwd' leaves the document",
        ),
        (r##"{"$ref":"#"}"##, "demands a value inside itself without end"),
        (r##"{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}"##, "without end"),
        (r#"{"type":"strng"}"#, "schema at '/type': there is no type 'strng' (did you mean 'string'?)"),
        (r#"{"enum":[]}"#, "'enum' is empty"),
        (r#"{"properties":[1]}"#, "'properties' must be an object"),
        (r#"{"pattern":"(?=a)b"}"#, "schema at '/pattern': look-around '(?='"),
        (r#"{"type":"string","pattern":"^([a-z$"}"#, "in 'pattern': unclosed character class"),
        (r#"{"not":{}}"#, "Unsatisfiable"),
        (r#"{"required":"a"}"#, "schema at '/required': 'required' must be an array of strings"),
        (r#"{"properties":{"a/b":{"multipleOf":0}}}"#, "schema at '/properties/a~1b/multipleOf'"),
        (r#"{"type":"integer","minimum":5,"maximum":1}"#, "Unsatisfiable"),
        ("false", "Unsatisfiable"),
        (r#"{"type":"string","type":"integer"}"#, "key 'type' stands twice"),
        (r#"{"const":1e400}"#, "number out of range"),
        ("\"string\"", "a schema is an object, true or false"),
        ("{\"type\": \"object\"", "EOF"),
        ("", "EOF"),
        ("{} {}", "trailing characters"),
    ];
    for (text, part) in cases {
        let message = refusal(schema(text));
        assert!(message.contains(part), "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let deep = format!("{}{{}}{}", "{\"items\":".repeat(100), "}".repeat(100));
    assert!(refusal(schema(&deep)).contains("nested too deeply"));
    let wide = format!("{{\"enum\":[{}0]}}", "1234567,".repeat(40_000));
    assert!(refusal(schema(&wide)).contains("bytes of text: 320012, the limit is 262144"));
}

#[test]
fn a_long_chain_of_references_does_not_exhaust_the_stack() {
    let length = 3_000;
    let definitions: Vec<String> =
        (0..length).map(|i| format!("\"a{i}\":{{\"$ref\":\"#/$defs/a{}\"}}", i + 1)).collect();
    let text = format!(
        "{{\"$ref\":\"#/$defs/a0\",\"$defs\":{{{},\"a{length}\":{{\"type\":\"null\"}}}}}}",
        definitions.join(",")
    );
    // Either answer will do; what counts is that there is one.
    match compile(schema(&text)) {
        Ok(compiled) => check(&compiled, &["null"], &["1"]),
        Err(error) => assert!(matches!(error, GrammarError::Schema { .. }), "{error}"),
    }
}

#[test]
fn tokens_follow_a_schema_and_masks_hold_what_is_allowed() {
    let vocabulary = toy();
    let compiled = compile(schema(
        r#"{"type":"object","properties":{"a":{"type":"string","maxLength":4},"b":{"type":"boolean"}},
            "required":["a","b"],"additionalProperties":false}"#,
    ))
    .unwrap();
    let mut random = Random(0x5EED_0006);
    for _ in 0..10 {
        let mut matcher = compiled.matcher();
        let mut text = Vec::new();
        loop {
            let mask = matcher.mask().unwrap().clone();
            for token in 0..vocabulary.len() as u32 {
                assert_eq!(mask.allows(token), matcher.allows(token).unwrap(), "{token}");
            }
            let refused = (0..vocabulary.len() as u32).find(|&token| !mask.allows(token)).unwrap();
            assert_eq!(matcher.accept(refused), Err(MatcherError::Refused { token: refused }));
            let tokens: Vec<u32> = mask.iter().collect();
            let token = tokens[random.below(tokens.len())];
            assert_eq!(matcher.may_stop(), mask.allows(vocabulary.end_tokens()[0]));
            matcher.accept(token).unwrap();
            if vocabulary.is_end(token) {
                assert_eq!(matcher.accept(token), Err(MatcherError::Finished));
                break;
            }
            text.extend_from_slice(vocabulary.piece(token));
            assert!(text.len() < 400);
        }
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(value["a"].as_str().unwrap().chars().count() <= 4);
        assert!(value["b"].is_boolean());
    }
}

#[test]
fn the_work_limit_of_one_step_is_not_used_up_by_a_long_text() {
    let compiled =
        compile(schema(r#"{"type":"string","maxLength":500,"pattern":"^(?:\\S+\\s+){0,49}\\S+$"}"#)).unwrap();
    let text = format!("\"{}word\"", "word and ".repeat(24));
    check(&compiled, &[&text], &["\"two  \""]);
    let mut matcher = compiled.matcher();
    for byte in text.bytes() {
        matcher.accept(u32::from(byte)).unwrap();
    }
    assert!(matcher.may_stop());
}
