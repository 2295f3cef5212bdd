//! The form of a schema: every keyword has a value of the right type. Refused with place and keyword.
//!
//! Only schemas that are reached are looked at; what no reference leads to enforces nothing.

use serde_json::Value;

use super::super::error::{GrammarError, nearest};
use super::document::{Draft, Place};
use super::parse::short;
use super::{join, refuse};

const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];
const SCHEMA: &str = "a schema is an object, true or false";

/// Checks one schema; those below it have their own turn.
pub(super) fn schema(place: &Place<'_>) -> Result<(), GrammarError> {
    let object = match place.value {
        Value::Bool(_) => return Ok(()),
        Value::Object(object) => object,
        _ => return Err(refuse(&place.pointer, None, SCHEMA)),
    };
    for (key, value) in object {
        let at = |message: String| refuse(&join(&place.pointer, key), Some(key), message);
        keyword(key, value, place.draft == Draft::D4).map_err(at)?;
    }
    Ok(())
}

fn keyword(key: &str, value: &Value, draft4: bool) -> Result<(), String> {
    let must = |fits: bool, what: &str| if fits { Ok(()) } else { Err(format!("'{key}' must be {what}")) };
    let is_schema = |value: &Value| value.is_object() || value.is_boolean();
    let strings = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    match key {
        // An option of the engine: with it a schema could switch its own enforcement off.
        "x-guidance" => Err("keyword 'x-guidance' cannot be enforced".to_owned()),
        "type" => types(value),
        "enum" => match value.as_array() {
            Some(values) if !values.is_empty() => Ok(()),
            Some(_) => Err("'enum' is empty: nothing can match".to_owned()),
            None => Err("'enum' must be an array".to_owned()),
        },
        "allOf" | "anyOf" | "oneOf" => {
            must(value.is_array(), "an array")?;
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            must(!list.is_empty(), "an array that is not empty")?;
            must(list.iter().all(is_schema), "an array of schemas; each is an object, true or false")
        }
        "prefixItems" => must(value.as_array().is_some_and(|list| list.iter().all(is_schema)), "an array of schemas"),
        "items" => must(
            is_schema(value) || value.as_array().is_some_and(|list| list.iter().all(is_schema)),
            "a schema or an array of schemas",
        ),
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            must(value.is_object(), "an object")?;
            let entries = value.as_object().into_iter().flatten();
            // Definitions are looked at when something refers to them.
            let loose = key == "$defs" || key == "definitions";
            must(loose || entries.map(|(_, value)| value).all(is_schema), "an object of schemas")
        }
        "dependencies" => {
            let fits = |value: &Value| is_schema(value) || strings(value);
            must(value.as_object().is_some_and(|o| o.values().all(fits)), "an object of schemas or lists of names")
        }
        "dependentRequired" => {
            must(value.as_object().is_some_and(|o| o.values().all(strings)), "an object of lists of names")
        }
        "not"
        | "if"
        | "then"
        | "else"
        | "contains"
        | "propertyNames"
        | "additionalItems"
        | "additionalProperties"
        | "unevaluatedItems"
        | "unevaluatedProperties" => must(is_schema(value), "a schema: an object, true or false"),
        // `required: true` in a property is draft 3; it says nothing since.
        "required" => must(strings(value) || value.is_boolean(), "an array of strings"),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
        | "maxContains" => must(count(value).is_some(), "a whole number, 0 or more"),
        "minimum" | "maximum" => must(value.is_number(), "a number"),
        "exclusiveMinimum" | "exclusiveMaximum" => {
            must(value.is_number() || (value.is_boolean() && draft4) || value.is_boolean(), "a number")
        }
        "multipleOf" => must(value.as_f64().is_some_and(|number| number > 0.0), "a number above 0"),
        "pattern" | "format" | "$ref" | "$dynamicRef" | "$recursiveRef" => must(value.is_string(), "a string"),
        "uniqueItems" => must(value.is_boolean(), "true or false"),
        _ => Ok(()),
    }
}

/// A whole number, also one written as `2.0`.
pub(super) fn count(value: &Value) -> Option<u64> {
    let whole = |number: f64| (number.fract() == 0.0 && (0.0..1e18).contains(&number)).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn types(value: &Value) -> Result<(), String> {
    let one = |value: &Value| match value.as_str() {
        Some(name) if TYPES.contains(&name) => Ok(()),
        Some(name) => Err(match nearest(name, TYPES.iter().copied()) {
            Some(near) => format!("there is no type '{}' (did you mean '{near}'?)", short(name)),
            None => format!("there is no type '{}'", short(name)),
        }),
        None => Err("'type' must be a string or an array of strings".to_owned()),
    };
    match value {
        Value::Array(list) if list.is_empty() => Err("'type' is empty: nothing can match".into()),
        Value::Array(list) => list.iter().try_for_each(one),
        value => one(value),
    }
}
