//! JSON Schema as GBNF text, for people who want to read it and go on from there.
//!
//! Answers are never enforced with this: a `json_schema` goes to the engine for schemas, which knows far more. What can
//! be written exactly, or more strictly, is; every other keyword is refused by its place. Stricter than the schema:
//! members come in the order of the schema, and none but the named ones where there are any.

use std::collections::HashMap;

use gbnf::ProductionItem;
use serde_json::{Map, Value};

use super::error::{GrammarError, one_line};
use super::formats::build::{Builder, any, lit, optional, rule, times};
use super::limits::Limits;

/// Keywords that say nothing about which instances are valid.
const SILENT: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$defs",
    "definitions",
];

/// GBNF text for the instances of the JSON Schema in `text`.
///
/// # Errors
/// [`GrammarError::Schema`] with the JSON pointer and the keyword that GBNF cannot say.
pub fn gbnf_from_schema(text: &str, limits: &Limits) -> Result<String, GrammarError> {
    if text.len() > limits.schema_bytes {
        return Err(GrammarError::Limit {
            origin: "schema".to_owned(),
            place: None,
            what: "bytes of text",
            found: text.len() as u64,
            limit: limits.schema_bytes as u64,
        });
    }
    let root: Value = serde_json::from_str(text).map_err(|error| refuse("", None, one_line(&error.to_string())))?;
    let mut export = Export {
        root: &root,
        builder: Builder::new(
            "Written from a JSON Schema: members in the order of the schema, none but the named ones",
        ),
        named: HashMap::new(),
        rules: 0,
    };
    let start = export.schema(&root, "", 0)?;
    export.builder.rule("root", vec![start]);
    let base = super::formats::get("json").map_or("", |format| format.gbnf);
    let base: Vec<&str> = base.lines().filter(|line| !line.starts_with("root ::=") && !line.starts_with('#')).collect();
    Ok(export.builder.print() + "\n" + &base.join("\n") + "\n")
}

fn refuse(pointer: &str, keyword: Option<&str>, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.to_owned(), keyword: keyword.map(str::to_owned), message: message.into() }
}

struct Export<'a> {
    root: &'a Value,
    builder: Builder,
    /// Rules of schemas that `$ref` names.
    named: HashMap<String, String>,
    rules: usize,
}

/// Depth of schemas in schemas, at most.
const DEPTH: usize = 64;

impl Export<'_> {
    /// What matches the instances of `schema`, in an item of its own.
    fn schema(&mut self, schema: &Value, pointer: &str, depth: usize) -> Result<ProductionItem, GrammarError> {
        if depth > DEPTH {
            return Err(refuse(pointer, None, format!("schemas are nested deeper than {DEPTH}")));
        }
        let object = match schema {
            Value::Bool(true) => return Ok(rule("value")),
            Value::Bool(false) => return Err(refuse(pointer, None, "nothing is valid here")),
            Value::Object(object) => object,
            _ => return Err(refuse(pointer, None, "a schema is an object, true or false")),
        };
        let said: Vec<&str> = object.keys().map(String::as_str).filter(|key| !SILENT.contains(key)).collect();
        let alone = |keyword: &str| match said.iter().find(|key| **key != keyword && **key != "type") {
            Some(other) => {
                Err(refuse(pointer, Some(*other), format!("'{other}' beside '{keyword}' cannot be written")))
            }
            None => Ok(()),
        };
        if let Some(reference) = object.get("$ref") {
            alone("$ref")?;
            return self.reference(reference, pointer, depth);
        }
        if let Some(value) = object.get("const") {
            alone("const")?;
            return Ok(lit(&value.to_string()));
        }
        if let Some(values) = object.get("enum") {
            alone("enum")?;
            let values = values.as_array().filter(|values| !values.is_empty());
            let values = values.ok_or_else(|| refuse(pointer, Some("enum"), "must be a list that is not empty"))?;
            return Ok(any(values.iter().map(|value| vec![lit(&value.to_string())]).collect()));
        }
        if let Some(options) = object.get("anyOf") {
            alone("anyOf")?;
            let options = options.as_array().filter(|options| !options.is_empty());
            let options = options.ok_or_else(|| refuse(pointer, Some("anyOf"), "must be a list that is not empty"))?;
            let items = options.iter().enumerate();
            let items: Result<Vec<_>, GrammarError> = items
                .map(|(index, option)| Ok(vec![self.schema(option, &format!("{pointer}/anyOf/{index}"), depth + 1)?]))
                .collect();
            return Ok(any(items?));
        }
        self.typed(object, &said, pointer, depth)
    }

    fn typed(
        &mut self,
        object: &Map<String, Value>,
        said: &[&str],
        pointer: &str,
        depth: usize,
    ) -> Result<ProductionItem, GrammarError> {
        let types: Vec<&str> = match object.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) if !names.is_empty() => names.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(refuse(pointer, Some("type"), "must be a type or a list of types")),
            None if said.is_empty() => return Ok(rule("value")),
            None if object.contains_key("properties") => vec!["object"],
            None if object.contains_key("items") => vec!["array"],
            None => {
                return Err(refuse(
                    pointer,
                    said.first().copied(),
                    format!("'{}' without 'type' cannot be written", said[0]),
                ));
            }
        };
        let known: &[&str] = &[
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "minItems",
            "maxItems",
            "minLength",
            "maxLength",
        ];
        if let Some(keyword) = said.iter().find(|keyword| !known.contains(keyword)) {
            return Err(refuse(pointer, Some(*keyword), format!("'{keyword}' cannot be written as GBNF here")));
        }
        let mut options = Vec::new();
        for name in types {
            options.push(vec![match name {
                "null" => lit("null"),
                "boolean" => any(vec![vec![lit("true")], vec![lit("false")]]),
                "integer" => self.integer(),
                "number" => rule("number"),
                "string" => self.string(object, pointer)?,
                "array" => self.array(object, pointer, depth)?,
                "object" => self.object(object, pointer, depth)?,
                other => return Err(refuse(pointer, Some("type"), format!("there is no type '{other}'"))),
            }]);
        }
        Ok(any(options))
    }

    fn reference(&mut self, reference: &Value, pointer: &str, depth: usize) -> Result<ProductionItem, GrammarError> {
        let target = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let found =
            target.and_then(|target| self.root.pointer(target).map(|schema| (target.to_owned(), schema.clone())));
        let Some((target, schema)) = found else {
            return Err(refuse(pointer, Some("$ref"), format!("{reference} names nothing in this schema")));
        };
        if let Some(name) = self.named.get(&target) {
            return Ok(rule(name));
        }
        let name = self.fresh("ref");
        self.named.insert(target.clone(), name.clone());
        let item = self.schema(&schema, &target, depth + 1)?;
        self.builder.rule(&name, vec![item]);
        Ok(rule(&name))
    }

    fn integer(&mut self) -> ProductionItem {
        let name = "integer";
        if !self.named.contains_key(name) {
            self.named.insert(name.to_owned(), name.to_owned());
            let digits = super::formats::build::ranges(&[('0', '9')]);
            let first = super::formats::build::ranges(&[('1', '9')]);
            let whole = any(vec![vec![lit("0")], vec![first, times(vec![digits], 0, 15)]]);
            self.builder.rule(name, vec![optional(vec![lit("-")]), whole]);
        }
        rule(name)
    }

    fn string(&mut self, object: &Map<String, Value>, pointer: &str) -> Result<ProductionItem, GrammarError> {
        match bounds(object, "minLength", "maxLength", 8192, pointer)? {
            None => Ok(rule("string")),
            Some((min, max)) => {
                let name = self.fresh("text");
                self.builder.rule(&name, vec![lit("\""), times(vec![rule("character")], min, max), lit("\"")]);
                Ok(rule(&name))
            }
        }
    }

    fn array(
        &mut self,
        object: &Map<String, Value>,
        pointer: &str,
        depth: usize,
    ) -> Result<ProductionItem, GrammarError> {
        let item = match object.get("items") {
            None => rule("value"),
            Some(schema) => self.schema(schema, &format!("{pointer}/items"), depth + 1)?,
        };
        let (min, max) = bounds(object, "minItems", "maxItems", 1024, pointer)?.unwrap_or((0, 1024));
        let name = self.fresh("list");
        let ws = || rule("ws");
        let mut items = vec![lit("["), ws()];
        if max > 0 {
            let more = times(vec![lit(","), ws(), item.clone(), ws()], min.saturating_sub(1), max - 1);
            let all = vec![item, ws(), more];
            items.push(if min == 0 { optional(all) } else { times(all, 1, 1) });
        }
        items.push(lit("]"));
        self.builder.rule(&name, items);
        Ok(rule(&name))
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        pointer: &str,
        depth: usize,
    ) -> Result<ProductionItem, GrammarError> {
        let none = Map::new();
        let properties = match object.get("properties") {
            None => &none,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(refuse(pointer, Some("properties"), "must be an object")),
        };
        let required: Vec<&str> =
            object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(name) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(refuse(pointer, Some("required"), format!("'{name}' is required and not among 'properties'")));
        }
        if properties.is_empty() {
            return match object.get("additionalProperties") {
                None | Some(Value::Bool(true)) => Ok(rule("object")),
                Some(Value::Bool(false)) => Ok(any(vec![vec![lit("{"), rule("ws"), lit("}")]])),
                Some(schema) => {
                    let value = self.schema(schema, &format!("{pointer}/additionalProperties"), depth + 1)?;
                    let name = self.fresh("map");
                    let member = || vec![rule("string"), rule("ws"), lit(":"), rule("ws"), value.clone(), rule("ws")];
                    let more = times([vec![lit(","), rule("ws")], member()].concat(), 0, 255);
                    let all = optional([member(), vec![more]].concat());
                    self.builder.rule(&name, vec![lit("{"), rule("ws"), all, lit("}")]);
                    Ok(rule(&name))
                }
            };
        }
        let name = self.fresh("object");
        let count = properties.len();
        // `name-head-i`: nothing stands before member i; `name-tail-i`: something does.
        for (index, (key, schema)) in properties.iter().enumerate() {
            let place = format!("{pointer}/properties/{}", key.replace('~', "~0").replace('/', "~1"));
            let value = self.schema(schema, &place, depth + 1)?;
            let key_text = lit(&Value::String(key.clone()).to_string());
            let tail = format!("{name}-tail-{}", index + 1);
            let member = vec![key_text, rule("ws"), lit(":"), rule("ws"), value, rule("ws"), rule(&tail)];
            let after = [vec![lit(","), rule("ws")], member.clone()].concat();
            let (mut head, mut next) = (vec![member], vec![after]);
            if !required.contains(&key.as_str()) {
                head.push(vec![rule(&format!("{name}-head-{}", index + 1))]);
                next.push(vec![rule(&tail)]);
            }
            self.builder.rule(&format!("{name}-head-{index}"), vec![any(head)]);
            if index > 0 {
                self.builder.rule(&format!("{name}-tail-{index}"), vec![any(next)]);
            }
        }
        self.builder.rule(&format!("{name}-tail-{count}"), vec![lit("")]);
        self.builder.rule(&format!("{name}-head-{count}"), vec![lit("")]);
        self.builder.rule(&name, vec![lit("{"), rule("ws"), rule(&format!("{name}-head-0")), lit("}")]);
        Ok(rule(&name))
    }

    fn fresh(&mut self, hint: &str) -> String {
        self.rules += 1;
        format!("{hint}-{}", self.rules)
    }
}

/// A pair of bounds; `None` if neither is given.
fn bounds(
    object: &Map<String, Value>,
    low: &str,
    high: &str,
    most: usize,
    pointer: &str,
) -> Result<Option<(usize, usize)>, GrammarError> {
    let read = |keyword: &str| match object.get(keyword) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(usize::try_from(number).unwrap_or(usize::MAX))),
            None => Err(refuse(pointer, Some(keyword), "must be a whole number")),
        },
    };
    let (min, max) = (read(low)?, read(high)?);
    if min.is_none() && max.is_none() {
        return Ok(None);
    }
    let (min, max) = (min.unwrap_or(0), max.unwrap_or(most).min(100_000));
    match min <= max {
        true => Ok(Some((min, max.max(min)))),
        false => Err(refuse(pointer, Some(low), format!("'{low}' {min} is above {max}"))),
    }
}
