//! From the keywords of one schema to parts, in the order in which they stand: it is the order of the keys later.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::super::error::GrammarError;
use super::document::{Draft, Place};
use super::graph::{Graph, Id};
use super::number::{Bound, Decimal, Num};
use super::part::{Arr, Contains, KINDS, Kind, Obj, Origin, Part, Text, anything};
use super::pattern::Pattern;
use super::{check, conditional, exclusive, format, join, meet, refuse, unevaluated};

/// Keywords that apply other schemas to the same value, or list values.
const IN_PLACE: &[&str] = &["const", "enum", "allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "$recursiveRef"];
/// The same, after all others: what they exclude must not come before the keys that others name.
const LAST: &[&str] = &[
    "not",
    "if",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
];

/// Works out the schema at a place.
pub(super) fn schema<'a>(graph: &mut Graph<'a>, place: Place<'a>) -> Result<Vec<Part>, GrammarError> {
    check::schema(&place)?;
    let Value::Object(object) = place.value else {
        return Ok(if place.value == &Value::Bool(false) { Vec::new() } else { anything() });
    };
    // Up to draft 7, `$ref` silences what stands beside it.
    if place.draft <= Draft::D7 && object.contains_key("$ref") {
        let target = reference(graph, &place, "$ref", &object["$ref"])?;
        return Ok(graph.expand(target)?.to_vec());
    }
    let mut parts = anything();
    let in_place = |key: &str| IN_PLACE.contains(&key) || LAST.contains(&key);
    // The plain keywords come all at once, where `properties` stands or else the first of them.
    let plain =
        object.keys().position(|key| key == "properties").or_else(|| object.keys().position(|key| !in_place(key)));
    for (index, (key, value)) in object.iter().enumerate() {
        if plain == Some(index) {
            let own = own(graph, &place, object)?;
            parts = meet::unions(graph, &parts, &own)?;
        }
        if IN_PLACE.contains(&key.as_str()) {
            parts = apply(graph, &place, key, value, parts)?;
        }
    }
    for key in LAST {
        if let Some(value) = object.get(*key) {
            parts = apply(graph, &place, key, value, parts)?;
        }
    }
    Ok(parts)
}

/// The schema that a reference leads to.
pub(super) fn reference<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    keyword: &'static str,
    value: &Value,
) -> Result<Id, GrammarError> {
    let target = value.as_str().unwrap_or_default();
    if keyword != "$ref" {
        let name = if keyword == "$recursiveRef" { "#recursive" } else { target.rsplit('#').next().unwrap_or("") };
        if !graph.document.is_static(name) {
            let message = format!("'{keyword}' can lead to several places, which cannot be enforced");
            return Err(refuse(&join(&place.pointer, keyword), Some(keyword), message));
        }
    }
    let found = graph.document.resolve(place, keyword, target)?;
    check::schema(&found)?;
    Ok(graph.schema(found))
}

/// The schemas of a list keyword.
pub(super) fn list<'a>(graph: &mut Graph<'a>, place: &Place<'a>, keyword: &str) -> Vec<Id> {
    let length = place.value.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
    let places = (0..length).filter_map(|index| place.child(&[keyword, &index.to_string()]));
    places.map(|place| graph.schema(place)).collect()
}

/// The schema of a keyword.
pub(super) fn one<'a>(graph: &mut Graph<'a>, place: &Place<'a>, keys: &[&str]) -> Id {
    place.child(keys).map_or(Id::TRUE, |place| graph.schema(place))
}

fn apply<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    key: &str,
    value: &Value,
    parts: Vec<Part>,
) -> Result<Vec<Part>, GrammarError> {
    let since = |draft: Draft| place.draft >= draft;
    match key {
        "const" if since(Draft::D6) => meet::unions(graph, &parts, &[Part::Values(vec![value.clone()])]),
        "enum" => {
            let values = value.as_array().cloned().unwrap_or_default();
            meet::unions(graph, &parts, &[Part::Values(values)])
        }
        "allOf" => {
            let mut parts = parts;
            for id in list(graph, place, key) {
                let more = graph.expand(id)?;
                parts = meet::unions(graph, &parts, &more)?;
            }
            Ok(parts)
        }
        "anyOf" => {
            let list = list(graph, place, key);
            let any = graph.or(&list);
            let any = graph.expand(any)?;
            meet::unions(graph, &parts, &any)
        }
        "oneOf" => {
            let list = list(graph, place, key);
            exclusive::one_of(graph, &parts, &list, &join(&place.pointer, "oneOf"))
        }
        "not" => {
            let id = one(graph, place, &["not"]);
            let excluded = graph.expand(id)?;
            exclusive::subtract(graph, &parts, &excluded)
        }
        "$ref" => {
            let target = reference(graph, place, "$ref", value)?;
            let more = graph.expand(target)?;
            meet::unions(graph, &parts, &more)
        }
        "$dynamicRef" if since(Draft::D2020) => {
            let target = reference(graph, place, "$dynamicRef", value)?;
            let more = graph.expand(target)?;
            meet::unions(graph, &parts, &more)
        }
        "$recursiveRef" if place.draft == Draft::D2019 => {
            let target = reference(graph, place, "$recursiveRef", value)?;
            let more = graph.expand(target)?;
            meet::unions(graph, &parts, &more)
        }
        "if" if since(Draft::D7) => conditional::if_then_else(graph, place, parts),
        // No keyword since 2019, but written, meant and enforced by most.
        "dependencies" => conditional::dependent(graph, place, "dependencies", parts),
        "dependentRequired" if since(Draft::D2019) => conditional::dependent(graph, place, "dependentRequired", parts),
        "dependentSchemas" if since(Draft::D2019) => conditional::dependent(graph, place, "dependentSchemas", parts),
        "unevaluatedProperties" if since(Draft::D2019) => unevaluated::properties(graph, place, parts),
        "unevaluatedItems" if since(Draft::D2019) => unevaluated::items(graph, place, parts),
        _ => Ok(parts),
    }
}

/// What the plain keywords say, type by type.
fn own<'a>(graph: &mut Graph<'a>, place: &Place<'a>, object: &Map<String, Value>) -> Result<Vec<Part>, GrammarError> {
    let types: Option<Vec<&str>> = match object.get("type") {
        None => None,
        Some(Value::Array(list)) => Some(list.iter().filter_map(Value::as_str).collect()),
        Some(one) => Some(one.as_str().into_iter().collect()),
    };
    let has = |name: &str| types.as_ref().is_none_or(|types| types.contains(&name));
    let named = |kind: &Kind| match kind {
        Kind::Null => has("null"),
        Kind::Boolean => has("boolean"),
        Kind::Number => has("number") || has("integer"),
        Kind::Text => has("string"),
        Kind::Array => has("array"),
        Kind::Object => has("object"),
    };
    let mut parts = Vec::new();
    for kind in KINDS.iter().filter(|kind| named(kind)) {
        let part = match kind {
            Kind::Number => Part::Number(number(place, object, !has("number"))?),
            Kind::Text => Part::Text(text(place, object)?),
            Kind::Array => Part::Array(array(graph, place, object)?),
            Kind::Object => Part::Object(self::object(graph, place, object)?),
            other => other.any(),
        };
        if !graph.part_empty(&part, 0)? {
            parts.push(part);
        }
    }
    // In the order in which `type` names them.
    if let Some(types) = types {
        let name = |part: &Part| match part.kind() {
            Some(Kind::Null) => "null",
            Some(Kind::Boolean) => "boolean",
            Some(Kind::Number) => "number",
            Some(Kind::Text) => "string",
            Some(Kind::Array) => "array",
            _ => "object",
        };
        let place = |part: &Part| {
            let name = name(part);
            types.iter().position(|known| *known == name || (name == "number" && *known == "integer"))
        };
        parts.sort_by_key(|part| place(part).unwrap_or(usize::MAX));
    }
    Ok(parts)
}

fn number(place: &Place<'_>, object: &Map<String, Value>, integer: bool) -> Result<Num, GrammarError> {
    let bound = |key: &str| -> Result<Option<f64>, GrammarError> {
        let Some(number) = object.get(key).and_then(Value::as_number) else {
            return Ok(None);
        };
        // Beyond 2^53 this is not exact, and need not be: no number that large is ever written.
        let too_large = || refuse(&join(&place.pointer, key), Some(key), format!("{number} is too large"));
        number.as_f64().map(Some).ok_or_else(too_large)
    };
    let is = |key: &str| object.get(key) == Some(&Value::Bool(true));
    let tighter = |plain: Option<f64>, open: Option<f64>, flag: bool, low: bool| match (plain, open) {
        (Some(a), Some(b)) if (b >= a) == low || a == b => Some(Bound { value: b, open: true }),
        (Some(value), _) => Some(Bound { value, open: flag }),
        (None, Some(value)) => Some(Bound { value, open: true }),
        (None, None) => None,
    };
    let low = tighter(bound("minimum")?, bound("exclusiveMinimum")?, is("exclusiveMinimum"), true);
    let high = tighter(bound("maximum")?, bound("exclusiveMaximum")?, is("exclusiveMaximum"), false);
    let multiple = match object.get("multipleOf").and_then(Value::as_number) {
        None => None,
        Some(number) => Some(Decimal::read(number).ok_or_else(|| {
            refuse(&join(&place.pointer, "multipleOf"), Some("multipleOf"), format!("{number} has too many digits"))
        })?),
    };
    Ok(Num { integer, low, high, multiple, ..Num::default() })
}

fn count(object: &Map<String, Value>, key: &str) -> Option<u64> {
    object.get(key).and_then(check::count)
}

fn text(place: &Place<'_>, object: &Map<String, Value>) -> Result<Text, GrammarError> {
    let mut text =
        Text { min: count(object, "minLength").unwrap_or(0), max: count(object, "maxLength"), ..Text::default() };
    if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
        (text.like, text.unlike) = read_pattern(place, "pattern", pattern)?;
    }
    if let Some(name) = object.get("format").and_then(Value::as_str) {
        let at = |message: String| refuse(&join(&place.pointer, "format"), Some("format"), message);
        text.like.extend(format::pattern(name).map_err(at)?);
    }
    Ok(text)
}

/// What must be found and what must not be found.
type Like = (Vec<Rc<Pattern>>, Vec<Rc<Pattern>>);

fn read_pattern(place: &Place<'_>, keyword: &str, pattern: &str) -> Result<Like, GrammarError> {
    Pattern::read(pattern).map_err(|message| {
        let message = if message.contains("'pattern'") { message } else { format!("in 'pattern': {message}") };
        refuse(&join(&place.pointer, keyword), Some(keyword), message)
    })
}

fn array<'a>(graph: &mut Graph<'a>, place: &Place<'a>, object: &Map<String, Value>) -> Result<Arr, GrammarError> {
    let listed = matches!(object.get("items"), Some(Value::Array(_)));
    let prefix = match () {
        () if listed => list(graph, place, "items"),
        () if place.draft >= Draft::D2020 => list(graph, place, "prefixItems"),
        () => Vec::new(),
    };
    let rest = one(graph, place, &[if listed { "additionalItems" } else { "items" }]);
    let mut array = Arr {
        min: count(object, "minItems").unwrap_or(0),
        max: count(object, "maxItems"),
        prefix,
        rest,
        origin: Some(Origin { pointer: Rc::clone(&place.pointer), keyword: "items" }),
        ..Arr::any()
    };
    if object.get("uniqueItems") == Some(&Value::Bool(true)) {
        array.unique = Some(Origin { pointer: join(&place.pointer, "uniqueItems").into(), keyword: "uniqueItems" });
    }
    if object.contains_key("contains") && place.draft >= Draft::D6 {
        let counted = |key: &str| count(object, key).filter(|_| place.draft >= Draft::D2019);
        let node = one(graph, place, &["contains"]);
        let (min, max) = (counted("minContains").unwrap_or(1), counted("maxContains"));
        let origin = Origin { pointer: join(&place.pointer, "contains").into(), keyword: "contains" };
        match node {
            Id::TRUE => {
                array.min = array.min.max(min);
                array.max = meet::least(array.max, max);
            }
            node if min > 0 || max.is_some() => array.contains.push(Contains { node, from: 0, min, max, origin }),
            _ => {}
        }
    }
    Ok(array)
}

fn object<'a>(graph: &mut Graph<'a>, place: &Place<'a>, object: &Map<String, Value>) -> Result<Obj, GrammarError> {
    let mut found = Obj {
        min: count(object, "minProperties").unwrap_or(0),
        max: count(object, "maxProperties"),
        rest: one(graph, place, &["additionalProperties"]),
        origin: Some(Origin { pointer: Rc::clone(&place.pointer), keyword: "properties" }),
        ..Obj::any()
    };
    for name in object.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        let node = one(graph, place, &["properties", name]);
        found.props.insert(name, node);
    }
    for text in object.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        let node = one(graph, place, &["patternProperties", text]);
        let (mut like, unlike) = read_pattern(place, "patternProperties", text)?;
        let pattern = match (like.pop(), like.is_empty() && unlike.is_empty()) {
            (Some(one), true) => one,
            (last, _) => {
                like.extend(last);
                // Matches nothing: no key is touched.
                let Some(both) = Pattern::combined(&like, &unlike)? else { continue };
                Rc::new(both)
            }
        };
        match found.patterns.iter_mut().find(|(known, _)| *known == pattern) {
            Some((_, known)) => *known = graph.and(&[*known, node]),
            None => found.patterns.push((pattern, node)),
        }
    }
    for name in object.get("required").and_then(Value::as_array).into_iter().flatten() {
        name.as_str().into_iter().for_each(|name| found.require(name));
    }
    if object.contains_key("propertyNames") && place.draft >= Draft::D6 {
        let names = one(graph, place, &["propertyNames"]);
        if names != Id::TRUE {
            found.names.push(names);
        }
    }
    Ok(found)
}
