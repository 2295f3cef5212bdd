//! Whether a value satisfies a part. Exact, so that lists of values can be filtered by any keyword.

use serde_json::Value;

use super::super::error::GrammarError;
use super::graph::Graph;
use super::part::{Arr, Keys, Obj, Part, Text};

/// Equality of JSON values: numbers by value, objects without order.
pub(in crate::grammar) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.is_f64(), b.is_f64()) {
            (false, false) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

pub(super) fn part(graph: &mut Graph<'_>, part: &Part, value: &Value) -> Result<bool, GrammarError> {
    graph.spend(1)?;
    match (part, value) {
        (Part::Values(values), value) => {
            graph.spend(values.len())?;
            Ok(values.iter().any(|known| same(known, value)))
        }
        (Part::Number(num), Value::Number(number)) => Ok(num.admits(number)),
        (Part::Text(text), Value::String(value)) => self::text(text, value),
        (Part::Array(array), Value::Array(items)) => self::array(graph, array, items),
        (Part::Object(object), Value::Object(entries)) => self::object(graph, object, entries),
        _ => Ok(false),
    }
}

pub(super) fn text(text: &Text, value: &str) -> Result<bool, GrammarError> {
    let length = value.chars().count() as u64;
    if length < text.min || text.max.is_some_and(|max| length > max) {
        return Ok(false);
    }
    for pattern in &text.like {
        if !pattern.found_in(value)? {
            return Ok(false);
        }
    }
    for pattern in &text.unlike {
        if pattern.found_in(value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn twice(items: &[Value]) -> bool {
    items.iter().enumerate().any(|(index, item)| items[..index].iter().any(|other| same(item, other)))
}

fn array(graph: &mut Graph<'_>, array: &Arr, items: &[Value]) -> Result<bool, GrammarError> {
    let length = items.len() as u64;
    if length < array.min || array.max.is_some_and(|max| length > max) {
        return Ok(false);
    }
    for (index, item) in items.iter().enumerate() {
        if !graph.holds(array.item(index), item)? {
            return Ok(false);
        }
    }
    for wanted in &array.contains {
        let mut count = 0;
        for item in items.iter().skip(wanted.from) {
            count += u64::from(graph.holds(wanted.node, item)?);
        }
        if count < wanted.min || wanted.max.is_some_and(|max| count > max) {
            return Ok(false);
        }
    }
    graph.spend(items.len())?;
    if (array.unique.is_some() && twice(items)) || (array.repeats.is_some() && !twice(items)) {
        return Ok(false);
    }
    Ok(true)
}

fn object(graph: &mut Graph<'_>, object: &Obj, entries: &serde_json::Map<String, Value>) -> Result<bool, GrammarError> {
    let size = entries.len() as u64;
    if size < object.min || object.max.is_some_and(|max| size > max) {
        return Ok(false);
    }
    if !object.required.iter().all(|name| entries.contains_key(name)) {
        return Ok(false);
    }
    for (name, value) in entries {
        let node = graph.property(object, name)?;
        if !graph.holds(node, value)? {
            return Ok(false);
        }
    }
    for some in &object.some {
        let mut found = false;
        for (name, value) in entries {
            found = found || (in_keys(graph, &some.keys, name)? && graph.holds(some.node, value)?);
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the key is in the set.
pub(super) fn in_keys(graph: &mut Graph<'_>, keys: &Keys, name: &str) -> Result<bool, GrammarError> {
    match keys {
        Keys::Like(pattern) => pattern.found_in(name),
        Keys::Other(named, patterns) => {
            for pattern in patterns {
                if pattern.found_in(name)? {
                    return Ok(false);
                }
            }
            Ok(!named.iter().any(|known| known == name))
        }
        Keys::Not(names) => Ok(!graph.holds(*names, &Value::from(name))?),
    }
}
