//! The document a schema stands in: drafts, identifiers, and where references lead. Nothing is ever fetched.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::super::error::GrammarError;
use super::parse::short;
use super::uri;
use super::{join, refuse};

/// The dialects of JSON Schema, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    D4,
    D6,
    D7,
    D2019,
    D2020,
}

impl Draft {
    fn of(schema: &Value) -> Option<Draft> {
        let uri = schema.get("$schema")?.as_str()?.trim_end_matches('#');
        let (_, path) = uri.split_once("json-schema.org/")?;
        Some(match path {
            "draft-03/schema" | "draft-04/schema" => Draft::D4,
            "draft-06/schema" => Draft::D6,
            "draft-07/schema" => Draft::D7,
            "draft/2019-09/schema" => Draft::D2019,
            "draft/2020-12/schema" => Draft::D2020,
            _ => return None,
        })
    }
}

/// A schema in its document.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub value: &'a Value,
    pub pointer: Rc<str>,
    /// What relative references are relative to.
    pub base: Rc<str>,
    pub draft: Draft,
}

/// Keywords whose value is one schema.
pub(super) const ONE: &[&str] = &[
    "items",
    "additionalItems",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
pub(super) const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value is an object of schemas.
pub(super) const MAP: &[&str] =
    &["properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas"];

impl<'a> Place<'a> {
    /// The schema below this one at the keys.
    pub fn child(&self, keys: &[&str]) -> Option<Place<'a>> {
        let mut value = self.value;
        let mut pointer = self.pointer.to_string();
        for key in keys {
            value = match value {
                Value::Object(object) => object.get(*key)?,
                Value::Array(list) => list.get(key.parse::<usize>().ok()?)?,
                _ => return None,
            };
            pointer = join(&pointer, key);
        }
        Some(self.step(value, pointer))
    }

    fn step(&self, value: &'a Value, pointer: String) -> Place<'a> {
        let draft = Draft::of(value).unwrap_or(self.draft);
        let base = match identifier(value, draft) {
            Some(id) => uri::resolve(&self.base, id).into(),
            None => Rc::clone(&self.base),
        };
        Place { value, pointer: pointer.into(), base, draft }
    }

    /// Schemas one level below, wherever the keywords put them.
    pub fn children(&self) -> Vec<Place<'a>> {
        let mut found = Vec::new();
        let Value::Object(object) = self.value else {
            return found;
        };
        for (key, value) in object {
            let key = key.as_str();
            match value {
                Value::Object(_) | Value::Bool(_) if ONE.contains(&key) => {
                    found.extend(self.child(&[key]));
                }
                Value::Array(items) if LIST.contains(&key) => {
                    found.extend((0..items.len()).filter_map(|index| self.child(&[key, &index.to_string()])));
                }
                Value::Object(entries) if MAP.contains(&key) => {
                    found.extend(entries.keys().filter_map(|name| self.child(&[key, name])));
                }
                _ => {}
            }
        }
        found
    }
}

/// The identifier a schema gives itself, anchors aside.
fn identifier(value: &Value, draft: Draft) -> Option<&str> {
    let object = value.as_object()?;
    // Up to draft 7, `$ref` silences what stands beside it.
    if draft <= Draft::D7 && object.contains_key("$ref") {
        return None;
    }
    let id = object.get(if draft == Draft::D4 { "id" } else { "$id" })?.as_str()?;
    (!id.starts_with('#')).then_some(id)
}

pub(super) struct Document<'a> {
    pub root: Place<'a>,
    resources: HashMap<String, Place<'a>>,
    anchors: HashMap<(String, String), Place<'a>>,
    /// How many dynamic anchors there are of each name.
    dynamic: HashMap<String, usize>,
}

impl<'a> Document<'a> {
    /// Finds all identifiers.
    pub fn new(value: &'a Value) -> Self {
        let outside = Place { value, pointer: "".into(), base: "".into(), draft: Draft::D2020 };
        let root = outside.step(value, String::new());
        let mut document = Document {
            root: root.clone(),
            resources: HashMap::new(),
            anchors: HashMap::new(),
            dynamic: HashMap::new(),
        };
        document.resources.insert(String::new(), root.clone());
        // The root's base even without an identifier; the depth of the document is bounded.
        let mut queue = vec![root];
        while let Some(place) = queue.pop() {
            document.note(&place);
            queue.extend(place.children());
        }
        document
    }

    fn note(&mut self, place: &Place<'a>) {
        let base = place.base.to_string();
        if identifier(place.value, place.draft).is_some() || place.pointer.is_empty() {
            let bare = base.split('#').next().unwrap_or_default().to_owned();
            self.resources.entry(bare).or_insert_with(|| place.clone());
        }
        let text = |key: &str| place.value.get(key).and_then(Value::as_str);
        let mut anchor = |name: &str| {
            let bare = base.split('#').next().unwrap_or_default().to_owned();
            self.anchors.entry((bare, name.to_owned())).or_insert_with(|| place.clone());
        };
        if place.draft >= Draft::D2019 {
            for key in ["$anchor", "$dynamicAnchor"] {
                text(key).into_iter().for_each(&mut anchor);
            }
            if let Some(name) = text("$dynamicAnchor") {
                *self.dynamic.entry(name.to_owned()).or_default() += 1;
            }
            if place.value.get("$recursiveAnchor") == Some(&Value::Bool(true)) {
                *self.dynamic.entry("#recursive".to_owned()).or_default() += 1;
            }
        } else {
            let key = if place.draft == Draft::D4 { "id" } else { "$id" };
            if let Some(name) = text(key).and_then(|id| id.strip_prefix('#')) {
                anchor(name);
            }
        }
    }

    /// Where a reference leads.
    ///
    /// # Errors
    /// With the place of the reference, if it leads out of the document or to nothing.
    pub fn resolve(&self, from: &Place<'a>, keyword: &str, target: &str) -> Result<Place<'a>, GrammarError> {
        let here = join(&from.pointer, keyword);
        let shown = short(target);
        let at = |message: String| refuse(&here, Some(keyword), message);
        let full = uri::resolve(&from.base, target);
        let (resource, fragment) = full.split_once('#').unwrap_or((&full, ""));
        let Some(place) = self.resources.get(resource) else {
            return Err(at(format!("'{keyword}' to '{shown}' leaves the document; nothing is fetched")));
        };
        let fragment =
            uri::decode(fragment).ok_or_else(|| at(format!("'{keyword}' to '{shown}' is not a valid reference")))?;
        if fragment.is_empty() {
            return Ok(place.clone());
        }
        let found = match fragment.strip_prefix('/') {
            Some(path) => self.walk(place.clone(), path),
            None => self.anchors.get(&(resource.to_owned(), fragment)).cloned(),
        };
        found.ok_or_else(|| at(format!("'{keyword}' to '{shown}', which is not there")))
    }

    fn walk(&self, mut place: Place<'a>, path: &str) -> Option<Place<'a>> {
        // `#/` is llama.cpp's and others' way to write `#`.
        if path.is_empty() && place.value.get("").is_none() {
            return Some(place);
        }
        for token in path.split('/') {
            let key = token.replace("~1", "/").replace("~0", "~");
            place = place.child(&[key.as_str()])?;
        }
        Some(place)
    }

    /// Whether a dynamic reference to the name can only lead to one place.
    pub fn is_static(&self, name: &str) -> bool {
        self.dynamic.get(name).is_none_or(|count| *count <= 1)
    }
}
