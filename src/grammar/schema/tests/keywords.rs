//! One table per keyword that the engine does not know: what is accepted and what is not. Every line is held against
//! the validator first, so that the table itself is right.

use serde_json::{Value, from_str};

use super::{accepts, compile, validator};

fn check(schema: &str, valid: &[&str], invalid: &[&str]) {
    let schema: Value = from_str(schema).unwrap();
    let validator = validator(&schema).unwrap();
    let compiled = compile(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
    for (texts, wanted) in [(valid, true), (invalid, false)] {
        for text in texts {
            let value: Value = from_str(text).unwrap();
            assert_eq!(validator.is_valid(&value), wanted, "the table is wrong: {schema} and {text}");
            assert_eq!(accepts(&compiled, &value), wanted, "{schema} and {text}");
        }
    }
}

#[test]
fn not() {
    check(r#"{"not":{"type":["integer","string"]}}"#, &["null", "true", "[1]", "{}"], &["1", "\"a\""]);
    check(
        r#"{"type":"string","not":{"enum":["red","reed"]}}"#,
        &["\"re\"", "\"redd\"", "\"\""],
        &["\"red\"", "\"reed\""],
    );
    check(r#"{"type":"integer","not":{"const":5}}"#, &["4", "6", "-5"], &["5"]);
    check(r#"{"type":"string","not":{"pattern":"^x-"}}"#, &["\"x\"", "\"ax-\"", "\"\""], &["\"x-\"", "\"x-a\""]);
    check(r#"{"type":"object","not":{"required":["a"]}}"#, &["{}", r#"{"b":1}"#], &[r#"{"a":1}"#]);
    check(
        r#"{"type":"object","properties":{"a":{"type":"integer"}},"not":{"properties":{"a":{"minimum":3}}}}"#,
        &[r#"{"a":2}"#],
        &["{}", r#"{"a":3}"#],
    );
    check(r#"{"type":"array","not":{"items":{"type":"null"}}}"#, &["[1]", "[null,1]"], &["[]", "[null]"]);
    check(r#"{"type":"array","items":{"type":"integer"},"not":{"const":[1,2]}}"#, &["[1]", "[2,1]", "[]"], &["[1,2]"]);
    check(r#"{"not":{"not":{"type":"null"}}}"#, &["null"], &["1"]);
    check(r#"{"type":"integer","minimum":0,"maximum":20,"not":{"multipleOf":3}}"#, &["1", "20"], &["0", "3", "18"]);
    check(r#"{"not":{"type":"object"},"type":["object","null"]}"#, &["null"], &["{}"]);
}

#[test]
fn one_of() {
    check(r#"{"oneOf":[{"type":"integer"},{"type":"string"}]}"#, &["1", "\"a\""], &["null", "1.5"]);
    check(
        r#"{"oneOf":[{"properties":{"k":{"const":"a"}},"required":["k"]},
            {"properties":{"k":{"const":"b"}},"required":["k"]}]}"#,
        &[r#"{"k":"a"}"#, r#"{"k":"b"}"#],
        &["{}", r#"{"k":"c"}"#],
    );
    check(
        r#"{"type":"object","oneOf":[{"required":["a"]},{"required":["b"]}]}"#,
        &[r#"{"a":1}"#, r#"{"b":1}"#],
        &["{}", r#"{"a":1,"b":1}"#],
    );
    check(r#"{"type":"integer","oneOf":[{"minimum":5},{"maximum":8}]}"#, &["4", "9"], &["5", "8"]);
    check(r#"{"oneOf":[{"enum":[1,2]},{"enum":[2,3]}]}"#, &["1", "3"], &["2", "4"]);
    check(r#"{"oneOf":[true,{"type":"null"}]}"#, &["1", "\"a\""], &["null"]);
}

#[test]
fn if_then_else() {
    check(
        r#"{"type":"object","properties":{"kind":{"enum":["a","b"]},"x":{"type":"integer"}},"required":["kind"],
            "additionalProperties":false,
            "if":{"properties":{"kind":{"const":"a"}}},"then":{"required":["x"]},"else":{"properties":{"x":false}}}"#,
        &[r#"{"kind":"a","x":1}"#, r#"{"kind":"b"}"#],
        &[r#"{"kind":"a"}"#, r#"{"kind":"b","x":1}"#, "{}"],
    );
    check(r#"{"if":{"type":"string"},"then":{"minLength":2}}"#, &["\"ab\"", "1"], &["\"a\""]);
}

#[test]
fn dependent() {
    check(
        r#"{"type":"object","properties":{"a":true,"b":true,"c":true},"dependentRequired":{"a":["b"],"b":["a"]}}"#,
        &["{}", r#"{"a":1,"b":2}"#, r#"{"c":1}"#],
        &[r#"{"a":1}"#, r#"{"b":1}"#],
    );
    check(
        r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object",
            "dependencies":{"a":{"properties":{"b":{"type":"null"}}},"c":["a"]}}"#,
        &["{}", r#"{"b":1}"#, r#"{"a":1,"b":null}"#],
        &[r#"{"a":1,"b":1}"#, r#"{"c":1}"#],
    );
}

#[test]
fn contains() {
    check(r#"{"type":"array","contains":{"type":"null"}}"#, &["[null]", "[1,2,null]", "[null,null]"], &["[]", "[1]"]);
    check(
        r#"{"type":"array","contains":{"const":1},"minContains":2,"maxContains":2,"maxItems":4}"#,
        &["[1,1]", "[1,0,1]", "[0,0,1,1]"],
        &["[1]", "[1,1,1]", "[]"],
    );
    check(
        r#"{"type":"array","contains":{"type":"null"},"minContains":0,"maxContains":0}"#,
        &["[]", "[1]"],
        &["[null]"],
    );
}

#[test]
fn unique_items() {
    check(
        r#"{"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true}"#,
        &["[]", "[\"b\"]", "[\"c\",\"a\",\"b\"]"],
        &["[\"a\",\"a\"]", "[\"a\",\"b\",\"a\"]"],
    );
    check(
        r#"{"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false,"uniqueItems":true}"#,
        &["[\"a\",1]", "[]"],
        &["[1]"],
    );
    check(r#"{"type":"array","items":{"type":"integer"},"uniqueItems":true}"#, &["[1,11,2]", "[]"], &["[1,2,1]"]);
    check(
        r#"{"type":"object","properties":{"a":{"type":"array","uniqueItems":true},"b":{"type":"array"}}}"#,
        &[r#"{"a":["x",{"y":1}],"b":[1,1]}"#],
        &[r#"{"a":["x","x"]}"#, r#"{"a":[{"y":[1]},{"y":[1]}]}"#],
    );
}

#[test]
fn keys() {
    check(r#"{"type":"object","propertyNames":{"pattern":"^a"}}"#, &["{}", r#"{"a":1,"ab":2}"#], &[r#"{"b":1}"#]);
    check(r#"{"type":"object","propertyNames":{"enum":["a","b"]}}"#, &[r#"{"a":1}"#, "{}"], &[r#"{"c":1}"#]);
    check(r#"{"type":"object","propertyNames":{"maxLength":2}}"#, &[r#"{"ab":1}"#], &[r#"{"abc":1}"#]);
    check(
        r#"{"type":"object","patternProperties":{"^a":{"type":"string"},"b$":{"minLength":2}}}"#,
        &[r#"{"a":"x"}"#, r#"{"b":1}"#, r#"{"ab":"xx"}"#],
        &[r#"{"a":1}"#, r#"{"ab":"x"}"#, r#"{"ab":12}"#],
    );
    check(
        r#"{"type":"object","properties":{"a":{"type":"integer"}},"patternProperties":{"^a":{"minimum":3}},
            "additionalProperties":{"type":"null"}}"#,
        &[r#"{"a":3}"#, r#"{"ax":"t"}"#, r#"{"b":null}"#],
        &[r#"{"a":2}"#, r#"{"ax":1}"#, r#"{"b":1}"#],
    );
    check(
        r#"{"allOf":[{"type":"object","patternProperties":{"^a":{"type":"integer"}},"additionalProperties":false},
            {"patternProperties":{"1$":{"minimum":2}}}]}"#,
        &["{}", r#"{"a":1}"#, r#"{"a1":2}"#],
        &[r#"{"a1":1}"#, r#"{"b1":2}"#],
    );
    check(
        r#"{"type":"object","properties":{"a":true,"b":true,"c":true},"minProperties":2,"maxProperties":2,
            "additionalProperties":false}"#,
        &[r#"{"a":1,"b":1}"#, r#"{"a":1,"c":1}"#, r#"{"b":1,"c":1}"#],
        &["{}", r#"{"a":1}"#, r#"{"a":1,"b":1,"c":1}"#],
    );
    check(
        r#"{"type":"object","properties":{"a":true,"b":true},"minProperties":2}"#,
        &[r#"{"a":1,"b":1}"#, r#"{"a":1,"x":1}"#, r#"{"x":1,"y":1}"#, r#"{"a":1,"b":1,"x":1}"#],
        &["{}", r#"{"a":1}"#, r#"{"x":1}"#],
    );
    check(
        r#"{"type":"object","not":{"patternProperties":{"^x":{"type":"null"}}}}"#,
        &[r#"{"x":1}"#, r#"{"xa":"b"}"#],
        &["{}", r#"{"x":null}"#, r#"{"a":1}"#],
    );
}

#[test]
fn unevaluated() {
    check(
        r#"{"type":"object","properties":{"a":true},"allOf":[{"properties":{"b":true}}],"unevaluatedProperties":false}"#,
        &["{}", r#"{"a":1,"b":1}"#],
        &[r#"{"c":1}"#],
    );
    check(
        r#"{"type":"object","anyOf":[{"properties":{"a":{"const":1}},"required":["a"]},
            {"properties":{"b":{"const":1}},"required":["b"]}],"unevaluatedProperties":false}"#,
        &[r#"{"a":1}"#, r#"{"b":1}"#, r#"{"a":1,"b":1}"#],
        &["{}", r#"{"a":1,"b":2}"#, r#"{"a":1,"c":1}"#],
    );
    check(
        r#"{"type":"array","prefixItems":[true],"unevaluatedItems":{"type":"null"}}"#,
        &["[1]", "[1,null]", "[]"],
        &["[1,2]"],
    );
}

#[test]
fn references() {
    check(
        r##"{"$id":"http://x.y/a","$ref":"b#/$defs/c","$defs":{"d":{"$id":"b","$defs":{"c":{"type":"null"}}}}}"##,
        &["null"],
        &["1"],
    );
    check(r##"{"$ref":"#t","$defs":{"x":{"$anchor":"t","type":"null"}}}"##, &["null"], &["1"]);
    check(r##"{"$ref":"#/$defs/a~1b%25","$defs":{"a/b%":{"type":"null"}}}"##, &["null"], &["1"]);
    check(
        r##"{"type":"object","properties":{"n":{"$ref":"#"}},"not":{"required":["x"]},"additionalProperties":true}"##,
        &["{}", r#"{"n":{"n":{}}}"#],
        &[r#"{"n":{"x":1}}"#, r#"{"x":1}"#],
    );
    // Up to draft 7 `$ref` silences what stands beside it.
    check(
        r##"{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/a","maximum":1,
            "definitions":{"a":{"type":"integer"}}}"##,
        &["5"],
        &["null"],
    );
}

#[test]
fn numbers() {
    check(
        r#"{"$schema":"http://json-schema.org/draft-04/schema#","type":"number","minimum":1,"exclusiveMinimum":true}"#,
        &["2", "1.5"],
        &["1"],
    );
    check(r#"{"allOf":[{"multipleOf":4},{"multipleOf":6}],"type":"integer"}"#, &["12", "0", "-24"], &["4", "6", "8"]);
}
