//! "Not": the complement of a union, again as a union.
//!
//! Done type by type: what is not of a type at all stays allowed as a whole.

use std::rc::Rc;

use serde_json::Value;

use super::super::error::GrammarError;
use super::graph::{Graph, Id};
use super::number::{Bound, Num};
use super::part::{Arr, Contains, KINDS, Keys, Kind, Obj, Origin, Part, Some_, Text, tidy};
use super::pattern::Pattern;
use super::{meet, refuse};

/// Everything that no part admits.
pub(super) fn union(graph: &mut Graph<'_>, parts: &[Part]) -> Result<Vec<Part>, GrammarError> {
    let mut found = Vec::new();
    for kind in KINDS {
        let mut left = vec![kind.any()];
        for part in parts {
            let mut values = Vec::new();
            if let Part::Values(all) = part {
                values.extend(all.iter().filter(|value| Kind::of(value) == kind).cloned());
                if values.is_empty() {
                    continue;
                }
            } else if part.kind() != Some(kind) {
                continue;
            }
            let outside = match part {
                Part::Values(_) => without_values(graph, kind, &values)?,
                Part::Number(num) => number(num).into_iter().map(Part::Number).collect(),
                Part::Text(value) => text(value).into_iter().map(Part::Text).collect(),
                Part::Array(value) => array(graph, value),
                Part::Object(value) => object(graph, value)?,
            };
            left = meet::unions(graph, &left, &outside)?;
        }
        found.extend(left);
    }
    Ok(tidy(found))
}

/// The type without some of its values.
fn without_values(graph: &mut Graph<'_>, kind: Kind, values: &[Value]) -> Result<Vec<Part>, GrammarError> {
    Ok(match kind {
        Kind::Null => Vec::new(),
        Kind::Boolean => {
            let kept: Vec<Value> = [true, false].map(Value::Bool).into_iter().filter(|v| !values.contains(v)).collect();
            if kept.is_empty() { Vec::new() } else { vec![Part::Values(kept)] }
        }
        Kind::Number => {
            let mut ends: Vec<f64> = Vec::new();
            for value in values.iter().filter_map(Value::as_number) {
                let exact = super::number::exactly(value);
                let too_large = || refuse("", Some("not"), format!("{value} is too large to be excluded exactly"));
                ends.push(exact.ok_or_else(too_large)?);
            }
            ends.sort_by(f64::total_cmp);
            ends.dedup();
            let end = |value: &f64| Bound { value: *value, open: true };
            let mut ranges = Vec::new();
            for index in 0..=ends.len() {
                let low = index.checked_sub(1).map(|index| end(&ends[index]));
                let high = ends.get(index).map(end);
                ranges.push(Part::Number(Num { low, high, ..Num::default() }));
            }
            ranges
        }
        Kind::Text => {
            let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            vec![Part::Text(Text { unlike: vec![Rc::new(Pattern::literals(&texts))], ..Text::default() })]
        }
        Kind::Array | Kind::Object => {
            let mut left = vec![kind.any()];
            for value in values {
                let outside = without_value(graph, value)?;
                left = meet::unions(graph, &left, &outside)?;
            }
            left
        }
    })
}

/// Arrays that are not this one, or objects that are not.
fn without_value(graph: &mut Graph<'_>, value: &Value) -> Result<Vec<Part>, GrammarError> {
    match value {
        Value::Array(items) => {
            let prefix = items.iter().map(|item| graph.constant(item)).collect();
            let length = items.len() as u64;
            let exact = Arr { prefix, min: length, max: Some(length), ..Arr::any() };
            Ok(array(graph, &exact))
        }
        Value::Object(entries) => {
            let mut exact = Obj { rest: Id::FALSE, ..Obj::any() };
            for (name, value) in entries {
                let node = graph.constant(value);
                exact.props.insert(name, node);
                exact.require(name);
            }
            object(graph, &exact)
        }
        _ => Ok(Vec::new()),
    }
}

fn number(num: &Num) -> Vec<Num> {
    let mut found = Vec::new();
    let origin = || Origin { pointer: "".into(), keyword: "not" };
    if num.integer {
        found.push(Num { fraction: Some(origin()), ..Num::default() });
    }
    if num.fraction.is_some() {
        found.push(Num { integer: true, ..Num::default() });
    }
    if let Some(low) = num.low {
        let high = Some(Bound { value: low.value, open: !low.open });
        found.push(Num { high, ..Num::default() });
    }
    if let Some(high) = num.high {
        let low = Some(Bound { value: high.value, open: !high.open });
        found.push(Num { low, ..Num::default() });
    }
    if let Some(multiple) = num.multiple {
        found.push(Num { not_multiple: vec![(multiple, origin())], ..Num::default() });
    }
    for (multiple, _) in &num.not_multiple {
        found.push(Num { multiple: Some(*multiple), ..Num::default() });
    }
    found
}

fn text(text: &Text) -> Vec<Text> {
    let mut found = Vec::new();
    if text.min > 0 {
        found.push(Text { max: Some(text.min - 1), ..Text::default() });
    }
    if let Some(max) = text.max {
        found.push(Text { min: max.saturating_add(1), ..Text::default() });
    }
    for pattern in &text.like {
        found.push(Text { unlike: vec![Rc::clone(pattern)], ..Text::default() });
    }
    for pattern in &text.unlike {
        found.push(Text { like: vec![Rc::clone(pattern)], ..Text::default() });
    }
    found
}

fn origin(known: &Option<Origin>, keyword: &'static str) -> Origin {
    let pointer = known.as_ref().map_or_else(|| "".into(), |origin| Rc::clone(&origin.pointer));
    Origin { pointer, keyword }
}

fn array(graph: &mut Graph<'_>, array: &Arr) -> Vec<Part> {
    let mut found = Vec::new();
    for (index, &item) in array.prefix.iter().enumerate().filter(|(_, item)| **item != Id::TRUE) {
        let mut prefix = vec![Id::TRUE; index];
        prefix.push(graph.not(item));
        found.push(Arr { prefix, min: index as u64 + 1, ..Arr::any() });
    }
    if array.rest != Id::TRUE {
        let node = graph.not(array.rest);
        let from = array.prefix.len();
        let min = if node == Id::TRUE { from as u64 + 1 } else { 0 };
        let contains = Contains { node, from, min: 1, max: None, origin: origin(&array.origin, "items") };
        let contains = if node == Id::TRUE { Vec::new() } else { vec![contains] };
        found.push(Arr { contains, min, ..Arr::any() });
    }
    if array.min > 0 {
        found.push(Arr { max: Some(array.min - 1), ..Arr::any() });
    }
    if let Some(max) = array.max {
        found.push(Arr { min: max.saturating_add(1), ..Arr::any() });
    }
    for wanted in &array.contains {
        if let Some(fewer) = wanted.min.checked_sub(1) {
            let contains = vec![Contains { min: 0, max: Some(fewer), ..wanted.clone() }];
            found.push(Arr { contains, ..Arr::any() });
        }
        if let Some(max) = wanted.max {
            let contains = vec![Contains { min: max.saturating_add(1), max: None, ..wanted.clone() }];
            found.push(Arr { contains, ..Arr::any() });
        }
    }
    if let Some(origin) = &array.unique {
        found.push(Arr { repeats: Some(origin.clone()), min: 2, ..Arr::any() });
    }
    if let Some(origin) = &array.repeats {
        found.push(Arr { unique: Some(origin.clone()), ..Arr::any() });
    }
    found.into_iter().map(Part::Array).collect()
}

fn object(graph: &mut Graph<'_>, object: &Obj) -> Result<Vec<Part>, GrammarError> {
    let mut found = Vec::new();
    for name in &object.required {
        let mut other = Obj::any();
        other.props.insert(name, Id::FALSE);
        found.push(other);
    }
    for (name, node) in object.props.iter().filter(|(_, node)| *node != Id::TRUE) {
        let mut other = Obj::any();
        let not = graph.not(node);
        other.props.insert(name, not);
        other.require(name);
        found.push(other);
    }
    let mut some = |keys: Keys, node: Id, keyword: &'static str| {
        let some = vec![Some_ { keys, node, origin: origin(&object.origin, keyword) }];
        found.push(Obj { some, min: 1, ..Obj::any() });
    };
    for (pattern, node) in object.patterns.iter().filter(|(_, node)| *node != Id::TRUE) {
        let not = graph.not(*node);
        some(Keys::Like(Rc::clone(pattern)), not, "patternProperties");
    }
    if object.rest != Id::TRUE {
        let named = object.props.iter().map(|(name, _)| name.to_owned()).collect();
        let patterns = object.patterns.iter().map(|(pattern, _)| Rc::clone(pattern)).collect();
        let not = graph.not(object.rest);
        some(Keys::Other(named, patterns), not, "additionalProperties");
    }
    for &names in &object.names {
        some(Keys::Not(names), Id::TRUE, "propertyNames");
    }
    for some in &object.some {
        let node = graph.not(some.node);
        let mut other = Obj::any();
        match &some.keys {
            Keys::Like(pattern) => other.patterns.push((Rc::clone(pattern), node)),
            Keys::Other(named, patterns) => {
                named.iter().for_each(|name| other.props.insert(name, Id::TRUE));
                other.patterns.extend(patterns.iter().map(|pattern| (Rc::clone(pattern), Id::TRUE)));
                other.rest = node;
            }
            Keys::Not(names) if some.node == Id::TRUE => other.names.push(*names),
            Keys::Not(_) => {
                let origin = &some.origin;
                return Err(refuse(&origin.pointer, Some(origin.keyword), "cannot be turned around by 'not'"));
            }
        }
        found.push(other);
    }
    if object.min > 0 {
        found.push(Obj { max: Some(object.min - 1), ..Obj::any() });
    }
    if let Some(max) = object.max {
        found.push(Obj { min: max.saturating_add(1), ..Obj::any() });
    }
    Ok(found.into_iter().map(Part::Object).collect())
}
