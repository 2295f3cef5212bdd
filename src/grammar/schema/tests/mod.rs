//! Tests of the rewriting as a whole, through the engine, against a validator that shares no code with it.

mod keywords;
mod random;

use std::sync::Arc;

use serde_json::Value;

use super::super::{Compiled, Compiler, GrammarError, MatchResult, Source};

/// A compiler over single bytes.
fn compile(schema: &Value) -> Result<Arc<Compiled>, GrammarError> {
    thread_local!(static COMPILER: Compiler = Compiler::new(super::super::tests::toy()));
    COMPILER.with(|compiler| compiler.compile(&Source::JsonSchema(schema.to_string())))
}

fn accepts(compiled: &Compiled, value: &Value) -> bool {
    compiled.matches(value.to_string().as_bytes()) == Ok(MatchResult::Complete)
}

fn validator(schema: &Value) -> Option<jsonschema::Validator> {
    jsonschema::options().offline().should_validate_formats(true).build(schema).ok()
}

/// What the engine accepts is valid: for schemas and values by chance.
#[test]
fn nothing_invalid_is_accepted() {
    let mut chance = random::Chance(0x5EED_0042);
    let (mut compiled_ones, mut valid_ones, mut accepted) = (0, 0, 0);
    for round in 0..400 {
        let schema = chance.schema(2);
        let Ok(compiled) = compile(&schema) else { continue };
        compiled_ones += 1;
        let Some(validator) = validator(&schema) else { continue };
        for _ in 0..40 {
            let value = chance.value(2);
            let valid = validator.is_valid(&value);
            let accepts = accepts(&compiled, &value);
            assert!(valid || !accepts, "round {round}: {schema} accepts {value}");
            valid_ones += u32::from(valid);
            accepted += u32::from(valid && accepts);
        }
    }
    // Key order, types told by keywords and the cut-short choices take some; most must come through.
    assert!(compiled_ones > 200, "{compiled_ones}");
    assert!(accepted * 10 > valid_ones * 6, "{accepted} of {valid_ones}");
}

/// What cannot be enforced is refused, or checked at the end when the request says so.
#[test]
fn what_is_left_open_is_checked_at_the_end() {
    let text = r#"{"type":"array","items":{"type":"integer"},"not":{"uniqueItems":true}}"#;
    let compiler = Compiler::new(super::super::tests::toy());
    assert!(compiler.compile(&Source::JsonSchema(text.to_owned())).is_err());
    let compiled = compiler.compile(&Source::CheckedSchema(text.to_owned())).unwrap();
    let report = compiled.schema().unwrap();
    assert_eq!(report.unchecked().len(), 1);
    assert_eq!(report.unchecked()[0].pointer, "/not/uniqueItems");
    assert!(accepts(&compiled, &serde_json::json!([1, 2])) && !accepts(&compiled, &serde_json::json!(["a"])));
    assert!(report.check("[1, 1]").is_ok());
    assert!(report.check("[1, 2]").is_err() && report.check("[1,").is_err());
    let enforced = compiler.compile(&Source::CheckedSchema("{}".to_owned())).unwrap();
    assert!(enforced.schema().unwrap().unchecked().is_empty());
    assert!(enforced.schema().unwrap().check("anything").is_ok());
}
