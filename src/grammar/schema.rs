//! JSON Schemas, checked before they are compiled.
//!
//! `llguidance` does the enforcing and refuses what it cannot enforce. This check comes first because it can say
//! where: it walks the schema with a JSON pointer in hand and refuses what is too large or too deep, what refers
//! outside the document, what no engine here enforces, and what no finite text could satisfy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{GrammarError, nearest, one_line};
use super::limits::Limits;

/// Keywords that restrict a value and that cannot be enforced token by token here. Refused, never ignored.
const UNSUPPORTED: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    // Options of the engine: with them a schema could switch its own enforcement off.
    "x-guidance",
];

/// Keywords whose value is one schema.
const ONE: &[&str] = &["items", "additionalItems", "additionalProperties"];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value is an object of schemas.
const MAP: &[&str] = &["properties", "patternProperties", "$defs", "definitions"];

const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];

/// Parses and checks a schema.
pub(super) fn check(text: &str, limits: &Limits) -> Result<Value, GrammarError> {
    if text.len() > limits.schema_bytes {
        return Err(GrammarError::Limit {
            origin: "schema".to_owned(),
            place: None,
            what: "bytes of text",
            found: text.len() as u64,
            limit: limits.schema_bytes as u64,
        });
    }
    let mut value = parse(text, limits)?;
    if !matches!(value, Value::Object(_) | Value::Bool(_)) {
        return Err(refuse("", None, "a schema is an object, true or false"));
    }
    tidy(&mut value);
    let mut check = Check { document: &value, references: BTreeMap::new() };
    check.schema(&value, "")?;
    check.references()?;
    Ok(value)
}

fn refuse(pointer: &str, keyword: Option<&str>, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.to_owned(), keyword: keyword.map(str::to_owned), message: message.into() }
}

/// One step down a JSON pointer.
fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The subschemas of a schema, with their pointers.
fn children<'a>(object: &'a Map<String, Value>, pointer: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for (key, value) in object {
        let here = || join(pointer, key);
        match value {
            Value::Object(_) | Value::Bool(_) if ONE.contains(&key.as_str()) => {
                found.push((here(), value));
            }
            Value::Array(items) if LIST.contains(&key.as_str()) => {
                let items = items.iter().enumerate();
                found.extend(items.map(|(index, item)| (format!("{}/{index}", here()), item)));
            }
            Value::Object(entries) if MAP.contains(&key.as_str()) => {
                let entries = entries.iter();
                found.extend(entries.map(|(name, entry)| (join(&here(), name), entry)));
            }
            _ => {}
        }
    }
    found
}

/// Keywords from which a missing `type` is read, with that type.
const TELLING: &[(&str, &str)] = &[
    ("properties", "object"),
    ("patternProperties", "object"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("pattern", "string"),
];

/// Removes keywords that say nothing (`uniqueItems: false`) and adds the `type` that an author plainly had in mind.
///
/// By the letter `{"items": {}}` also allows any text or number. Whoever writes it wants an array, llama.cpp and most
/// other engines give one, and an array is valid by the letter too. So where nothing else in a schema speaks of the
/// type, its keywords do. Only members of `allOf` are left alone: there the type may stand in another member.
fn tidy(schema: &mut Value) {
    // The depth of the document is bounded, so recursion is.
    let Value::Object(object) = schema else {
        return;
    };
    if object.get("uniqueItems") == Some(&Value::Bool(false)) {
        object.shift_remove("uniqueItems");
    }
    const SPEAK: [&str; 7] = ["type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"];
    if !SPEAK.iter().any(|key| object.contains_key(*key)) {
        let mut told: Vec<&str> =
            TELLING.iter().filter(|(key, _)| object.contains_key(*key)).map(|(_, told)| *told).collect();
        told.dedup();
        if let [told] = told[..] {
            object.insert("type".to_owned(), Value::from(told));
        }
    }
    for (key, value) in object.iter_mut() {
        let key = key.as_str();
        match value {
            Value::Array(_) if key == "allOf" => {}
            Value::Array(items) if LIST.contains(&key) => items.iter_mut().for_each(tidy),
            Value::Object(entries) if MAP.contains(&key) => entries.values_mut().for_each(tidy),
            value if ONE.contains(&key) => tidy(value),
            _ => {}
        }
    }
}

struct Check<'a> {
    document: &'a Value,
    /// Target of each `$ref`, with the pointer of the first schema that has it.
    references: BTreeMap<String, String>,
}

impl<'a> Check<'a> {
    fn schema(&mut self, schema: &'a Value, pointer: &str) -> Result<(), GrammarError> {
        let object = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(object) => object,
            _ => {
                let message = "a schema is an object, true or false";
                return Err(refuse(pointer, None, message));
            }
        };
        for (key, value) in object {
            let at = |message: String| refuse(&join(pointer, key), Some(key), message);
            let key = key.as_str();
            if UNSUPPORTED.contains(&key) {
                return Err(at(format!("keyword '{key}' cannot be enforced")));
            }
            if MAP.contains(&key) && !value.is_object() {
                return Err(at(format!("'{key}' must be an object")));
            }
            if ["allOf", "anyOf", "oneOf", "prefixItems"].contains(&key) && !value.is_array() {
                return Err(at(format!("'{key}' must be an array")));
            }
            match key {
                "$ref" => self.reference(value, pointer)?,
                "type" => types(value).map_err(at)?,
                "enum" => match value.as_array() {
                    Some(values) if !values.is_empty() => {}
                    Some(_) => return Err(at("'enum' is empty: nothing can match".to_owned())),
                    None => return Err(at("'enum' must be an array".to_owned())),
                },
                "pattern" => match value.as_str() {
                    Some(pattern) => unfollowable(pattern).map_err(at)?,
                    None => return Err(at("'pattern' must be a string".to_owned())),
                },
                _ => {}
            }
        }
        for (pointer, child) in children(object, pointer) {
            self.schema(child, &pointer)?;
        }
        Ok(())
    }

    fn reference(&mut self, value: &Value, pointer: &str) -> Result<(), GrammarError> {
        let here = join(pointer, "$ref");
        let at = |message: String| refuse(&here, Some("$ref"), message);
        let Some(target) = value.as_str() else {
            return Err(at("'$ref' must be a string".to_owned()));
        };
        let shown = short(target);
        if !target.starts_with('#') {
            return Err(at(format!("'$ref' to '{shown}' leaves the document; nothing is fetched")));
        }
        if !(target == "#" || target.starts_with("#/")) {
            return Err(at(format!("'$ref' to '{shown}' is by anchor; only pointers '#/...' are supported")));
        }
        if target.contains(['~', '%']) {
            return Err(at(format!("'$ref' to '{shown}' has an escaped name, which is not supported")));
        }
        if self.target(target).is_none() {
            return Err(at(format!("'$ref' to '{shown}', which is not there")));
        }
        self.references.entry(target.to_owned()).or_insert_with(|| pointer.to_owned());
        Ok(())
    }

    fn target(&self, reference: &str) -> Option<&'a Value> {
        match reference {
            "#" | "#/" => Some(self.document),
            _ => self.document.pointer(reference.strip_prefix('#')?),
        }
    }

    /// Checks the targets of references that no walk from the top has met, and that the whole can be finished.
    fn references(&mut self) -> Result<(), GrammarError> {
        // Targets may lie anywhere, even in unknown keywords, and may hold references of their own.
        let mut walked = BTreeSet::new();
        loop {
            let next = self.references.keys().find(|target| !walked.contains(*target));
            let Some(next) = next.cloned() else { break };
            let target = self.target(&next);
            walked.insert(next.clone());
            if let Some(target) = target {
                self.schema(target, next.trim_start_matches('#'))?;
            }
        }
        let finite = self.finite();
        if !self.can_finish(self.document, &finite) {
            return Err(refuse("", Some("$ref"), "the schema demands a value inside itself without end"));
        }
        Ok(())
    }

    /// The reference targets that some finite value satisfies, as far as references are to blame: the least set that
    /// contains every target it makes finite.
    fn finite(&self) -> BTreeSet<String> {
        let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for target in self.references.keys() {
            let mut used = BTreeSet::new();
            if let Some(schema) = self.target(target) {
                collect(schema, &mut used);
            }
            for used in used {
                users.entry(used).or_default().push(target);
            }
        }
        let mut finite = BTreeSet::new();
        let mut queue: Vec<&str> = self.references.keys().map(String::as_str).collect();
        while let Some(target) = queue.pop() {
            let ends = |schema| self.can_finish(schema, &finite);
            if !finite.contains(target) && self.target(target).is_some_and(ends) {
                finite.insert(target.to_owned());
                queue.extend(users.get(target).into_iter().flatten());
            }
        }
        finite
    }

    /// Whether `schema` has a finite value if exactly the references in `finite` have.
    fn can_finish(&self, schema: &Value, finite: &BTreeSet<String>) -> bool {
        let Value::Object(object) = schema else {
            return true;
        };
        let ends = |schema: &Value| self.can_finish(schema, finite);
        if let Some(Value::String(target)) = object.get("$ref")
            && !finite.contains(target)
        {
            return false;
        }
        let list = |key: &str| object.get(key).and_then(Value::as_array);
        if list("allOf").is_some_and(|all| !all.iter().all(ends)) {
            return false;
        }
        for key in ["anyOf", "oneOf"] {
            if list(key).is_some_and(|any| !any.iter().any(ends)) {
                return false;
            }
        }
        // With another type to choose, objects and arrays need not finish.
        match object.get("type").and_then(Value::as_str) {
            Some("object") => list("required").into_iter().flatten().all(|name| {
                let properties = object.get("properties").and_then(Value::as_object);
                let property = name.as_str().and_then(|name| properties?.get(name));
                property.is_none_or(ends)
            }),
            Some("array") => {
                let least = object.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                let prefix = list("prefixItems").map_or(&[][..], Vec::as_slice);
                let held = prefix.iter().take(least as usize).all(ends);
                let more = least > prefix.len() as u64;
                held && (!more || object.get("items").is_none_or(ends))
            }
            _ => true,
        }
    }
}

/// Every reference in a schema and its subschemas.
fn collect<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    if let Value::Object(object) = schema {
        if let Some(Value::String(target)) = object.get("$ref") {
            found.insert(target);
        }
        for (_, child) in children(object, "") {
            collect(child, found);
        }
    }
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

/// Look-around, back-references and word boundaries, which no automaton can follow, by name. Other mistakes are left
/// to the engine.
fn unfollowable(pattern: &str) -> Result<(), String> {
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(digit @ '1'..='9') => {
                    return Err(format!("back-reference '\\{digit}' in 'pattern' cannot be enforced"));
                }
                Some(edge @ ('b' | 'B')) => {
                    return Err(format!("word boundary '\\{edge}' in 'pattern' cannot be enforced"));
                }
                _ => {}
            },
            '(' => {
                let rest = rest.as_str();
                let looks = ["?=", "?!", "?<=", "?<!"];
                if let Some(look) = looks.iter().find(|look| rest.starts_with(**look)) {
                    return Err(format!("look-around '({look}' in 'pattern' cannot be enforced"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A name from the schema, short enough for a message.
fn short(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &name[..cut]),
        None => name.to_owned(),
    }
}

/// JSON text to a value: bounded depth, no key twice in one object.
fn parse(text: &str, limits: &Limits) -> Result<Value, GrammarError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The seed bounds the depth before serde_json's own bound of 128 is reached.
    let seed = Strict { depth: limits.schema_depth.min(120) };
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| refuse("", None, one_line(&error.to_string())))
}

/// Reads a value at most `depth` levels deep.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Strict, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Strict { depth }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(seed)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(seed)?;
            if object.contains_key(&key) {
                let message = format!("key '{}' stands twice in one object", short(&key));
                return Err(de::Error::custom(message));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
