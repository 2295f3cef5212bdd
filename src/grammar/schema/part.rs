//! What a schema says about one kind of value: a conjunction without "or" and without "not".
//!
//! A schema is worked out to a list of parts, any one of which may hold. Subschemas stay unexpanded, as [`Id`]s.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::graph::Id;
use super::number::Num;
use super::pattern::Pattern;

/// Where a constraint comes from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub pointer: Rc<str>,
    pub keyword: &'static str,
}

/// One conjunction, about values of one type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// One of these values. `null` and the booleans have no other form.
    Values(Vec<Value>),
    Number(Num),
    Text(Text),
    Array(Arr),
    Object(Obj),
}

/// Strings.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Text {
    /// Least number of characters.
    pub min: u64,
    /// Greatest number of characters.
    pub max: Option<u64>,
    /// Patterns that must be found.
    pub like: Vec<Rc<Pattern>>,
    /// Patterns that must not be found.
    pub unlike: Vec<Rc<Pattern>>,
}

/// Arrays.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arr {
    pub min: u64,
    pub max: Option<u64>,
    pub prefix: Vec<Id>,
    /// Items after the prefix.
    pub rest: Id,
    pub contains: Vec<Contains>,
    /// No item twice.
    pub unique: Option<Origin>,
    /// Some item twice.
    pub repeats: Option<Origin>,
    pub origin: Option<Origin>,
}

/// How many of the items from `from` on must be of a kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contains {
    pub node: Id,
    pub from: usize,
    pub min: u64,
    pub max: Option<u64>,
    pub origin: Origin,
}

/// Objects.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Obj {
    pub props: Props,
    /// Keys that match; several may match one key.
    pub patterns: Vec<(Rc<Pattern>, Id)>,
    /// Keys that are neither named nor matched.
    pub rest: Id,
    pub required: Vec<String>,
    pub min: u64,
    pub max: Option<u64>,
    /// Schemas of `propertyNames`.
    pub names: Vec<Id>,
    /// A key of the kind exists, with such a value.
    pub some: Vec<Some_>,
    pub origin: Option<Origin>,
}

/// "There is a key of this kind with such a value."
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Some_ {
    pub keys: Keys,
    pub node: Id,
    pub origin: Origin,
}

/// A set of keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Keys {
    /// Keys in which the pattern is found.
    Like(Rc<Pattern>),
    /// Keys that are not named here and match none of these.
    Other(Vec<String>, Vec<Rc<Pattern>>),
    /// Keys that are not of this kind.
    Not(Id),
}

/// Named properties in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Props {
    order: Vec<String>,
    map: HashMap<String, Id>,
}

impl Props {
    pub fn get(&self, name: &str) -> Option<Id> {
        self.map.get(name).copied()
    }

    pub fn insert(&mut self, name: &str, node: Id) {
        if self.map.insert(name.to_owned(), node).is_none() {
            self.order.push(name.to_owned());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Id)> {
        self.order.iter().map(|name| (name.as_str(), self.map[name]))
    }
}

impl Arr {
    pub fn any() -> Self {
        Arr {
            min: 0,
            max: None,
            prefix: Vec::new(),
            rest: Id::TRUE,
            contains: Vec::new(),
            unique: None,
            repeats: None,
            origin: None,
        }
    }

    /// The schema of item `index`.
    pub fn item(&self, index: usize) -> Id {
        self.prefix.get(index).copied().unwrap_or(self.rest)
    }
}

impl Obj {
    pub fn any() -> Self {
        Obj {
            props: Props::default(),
            patterns: Vec::new(),
            rest: Id::TRUE,
            required: Vec::new(),
            min: 0,
            max: None,
            names: Vec::new(),
            some: Vec::new(),
            origin: None,
        }
    }

    pub fn require(&mut self, name: &str) {
        if !self.required.iter().any(|known| known == name) {
            self.required.push(name.to_owned());
        }
    }
}

/// A JSON type, with integers among the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

pub(super) const KINDS: [Kind; 6] = [Kind::Null, Kind::Boolean, Kind::Number, Kind::Text, Kind::Array, Kind::Object];

impl Kind {
    pub fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(_) => Kind::Number,
            Value::String(_) => Kind::Text,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
        }
    }

    /// All values of the type.
    pub fn any(self) -> Part {
        match self {
            Kind::Null => Part::Values(vec![Value::Null]),
            Kind::Boolean => Part::Values(vec![Value::Bool(true), Value::Bool(false)]),
            Kind::Number => Part::Number(Num::default()),
            Kind::Text => Part::Text(Text::default()),
            Kind::Array => Part::Array(Arr::any()),
            Kind::Object => Part::Object(Obj::any()),
        }
    }
}

impl Part {
    /// The type, if it is one type: values may be of several.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Part::Values(values) => {
                let kind = Kind::of(values.first()?);
                values.iter().all(|value| Kind::of(value) == kind).then_some(kind)
            }
            Part::Number(_) => Some(Kind::Number),
            Part::Text(_) => Some(Kind::Text),
            Part::Array(_) => Some(Kind::Array),
            Part::Object(_) => Some(Kind::Object),
        }
    }
}

/// Every value.
pub(super) fn anything() -> Vec<Part> {
    let mut parts = vec![Part::Values(vec![Value::Null, Value::Bool(true), Value::Bool(false)])];
    parts.extend(KINDS[2..].iter().map(|kind| kind.any()));
    parts
}

/// Merges lists of values, drops what stands twice and what a whole type contains.
pub(super) fn tidy(parts: Vec<Part>) -> Vec<Part> {
    let mut values: Vec<Value> = Vec::new();
    let mut place = None;
    let mut found: Vec<Part> = Vec::new();
    for part in parts {
        match part {
            Part::Values(more) => {
                place.get_or_insert(found.len());
                for value in more {
                    if !values.iter().any(|known| super::holds::same(known, &value)) {
                        values.push(value);
                    }
                }
            }
            part if found.contains(&part) => {}
            part => found.push(part),
        }
    }
    let whole: Vec<Kind> = KINDS[2..].iter().copied().filter(|kind| found.contains(&kind.any())).collect();
    let mut kept: Vec<Part> = Vec::new();
    for (index, part) in found.into_iter().enumerate() {
        if place == Some(index) {
            place = None;
            push_values(&mut kept, &mut values, &whole);
        }
        match part.kind() {
            Some(kind) if whole.contains(&kind) && part != kind.any() => {}
            _ => kept.push(part),
        }
    }
    if place.is_some() {
        push_values(&mut kept, &mut values, &whole);
    }
    kept
}

fn push_values(kept: &mut Vec<Part>, values: &mut Vec<Value>, whole: &[Kind]) {
    values.retain(|value| !whole.contains(&Kind::of(value)));
    if !values.is_empty() {
        kept.push(Part::Values(std::mem::take(values)));
    }
}
