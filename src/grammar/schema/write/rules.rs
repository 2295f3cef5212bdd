//! What was worked out, as rules of a grammar in which the keys of an object come in any order.
//!
//! The engine's rules can carry a number of 64 bits. Here it holds the keys that are there already: a key can come
//! where its bit is clear, and `}` where the bits of the required keys are set. So no permutation is written out, and
//! alternatives stay apart as in any grammar.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::super::graph::Id;
use super::super::lower::Low;
use super::{Plan, spell};

/// Rules, and what helps to finish.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super::super) struct Rules {
    /// What stands in front: how white space is read.
    head: String,
    /// The rule of a whole value.
    root: String,
    rules: String,
}

impl Rules {
    /// The grammar, in the engine's language (Lark's), with `start` around the name of the rule of a whole value.
    pub fn text(&self, start: impl Fn(&str) -> String) -> String {
        format!("{}\nstart: {}\n{}", self.head, start(&self.root), self.rules)
    }
}

/// Bytes of rules.
const LONGEST: usize = 4 << 20;
/// Largest number of repetitions; beyond it there is no bound.
const REPEATED: u64 = 1_000_000_000;

pub(super) fn write(plan: &Plan, options: &Value) -> Option<Rules> {
    let mut writer = Writer {
        plan,
        options,
        text: String::new(),
        names: HashMap::new(),
        pending: VecDeque::new(),
        known: HashMap::new(),
        fresh: 0,
    };
    let root = writer.node(plan.root)?;
    while let Some(id) = writer.pending.pop_front() {
        let mut options = Vec::new();
        for part in plan.nodes.get(&id)? {
            options.push(writer.part(part)?);
        }
        let name = writer.names[&id].clone();
        writer.rule(&name, &options.join(" | "));
        if writer.text.len() > LONGEST {
            return None;
        }
    }
    let space = options["whitespace_pattern"].as_str()?;
    let head = format!("%llguidance {{\"ignore_once\":true}}\n%ignore /{space}/");
    Some(Rules { head, root, rules: writer.text })
}

pub(super) struct Writer<'p> {
    pub plan: &'p Plan,
    /// The engine's options for schemas.
    options: &'p Value,
    text: String,
    names: HashMap<Id, String>,
    pending: VecDeque<Id>,
    /// Names of rules and terminals, by what they say.
    known: HashMap<String, String>,
    fresh: usize,
}

impl Writer<'_> {
    /// The rule of a node; `None` if nothing satisfies it.
    pub fn node(&mut self, id: Id) -> Option<String> {
        if id == Id::TRUE {
            return Some(self.json(json!({}), true));
        }
        if !self.plan.is_alive(id) {
            return None;
        }
        if let Some(name) = self.names.get(&id) {
            return Some(name.clone());
        }
        let name = self.name("n");
        self.names.insert(id, name.clone());
        self.pending.push_back(id);
        Some(name)
    }

    /// A name that no rule has.
    pub fn name(&mut self, kind: &str) -> String {
        self.fresh += 1;
        format!("{kind}{}", self.fresh)
    }

    pub fn rule(&mut self, name: &str, body: &str) {
        self.text.push_str(name);
        self.text.push_str(": ");
        self.text.push_str(body);
        self.text.push('\n');
    }

    /// The rule or terminal that says this, made when it is new.
    pub fn shared(&mut self, kind: &str, body: String) -> String {
        if let Some(name) = self.known.get(&body) {
            return name.clone();
        }
        let name = self.name(kind);
        self.rule(&name, &body);
        self.known.insert(body, name.clone());
        name
    }

    /// A schema without objects of ours, left to the engine. `value`: a value, where strings may be spelled in any way;
    /// otherwise a key.
    pub fn json(&mut self, schema: Value, value: bool) -> String {
        let mut schema = match schema {
            Value::Object(object) => object,
            other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
        };
        let mut options = self.options.clone();
        if value {
            options["json_allowed_escapes"] = "nrbtf\\\"u".into();
            options["json_allow_general_unicode_escapes"] = true.into();
        }
        schema.insert("x-guidance".to_owned(), options);
        self.shared("j", format!("%json {}", Value::Object(schema)))
    }

    fn part(&mut self, part: &Low) -> Option<String> {
        match part {
            Low::Values(values) => self.values(values),
            Low::Leaf(leaf) => Some(self.leaf(leaf)),
            Low::Array { prefix, rest, min, max, .. } => self.array(prefix, *rest, *min, *max),
            Low::Object(object) => self.object(object),
        }
    }

    fn leaf(&mut self, leaf: &Value) -> String {
        let plain = |object: &Map<String, Value>| {
            object.get("type").is_some_and(|kind| kind == "string")
                && object.keys().all(|key| matches!(&key[..], "type" | "minLength" | "maxLength"))
        };
        match leaf {
            Value::Object(object) if plain(object) => {
                let bound = |key: &str| object.get(key).and_then(Value::as_u64);
                self.shared("S", spell::any(bound("minLength").unwrap_or(0), bound("maxLength")))
            }
            _ => self.json(leaf.clone(), true),
        }
    }

    pub(super) fn values(&mut self, values: &[Value]) -> Option<String> {
        let mut options = Vec::new();
        let (mut texts, mut others) = (Vec::new(), Vec::new());
        for value in values {
            match value {
                Value::String(text) => texts.push(spell::exactly(text)),
                Value::Null | Value::Bool(_) => texts.push(spell::literal(&value.to_string())),
                Value::Number(_) => others.push(value.clone()),
                Value::Array(items) => {
                    let items: Option<Vec<String>> =
                        items.iter().map(|item| self.values(std::slice::from_ref(item))).collect();
                    let items: Vec<String> = items?.into_iter().map(|item| format!("({item})")).collect();
                    options.push(format!("\"[\" {} \"]\"", items.join(" \",\" ")));
                }
                Value::Object(entries) => options.push(self.constant(entries)?),
            }
        }
        if !texts.is_empty() {
            options.push(self.shared("V", texts.join(" | ")));
        }
        if !others.is_empty() {
            options.push(self.json(json!({"enum": others}), true));
        }
        match options.len() {
            0 => None,
            _ => Some(self.shared("v", options.join(" | "))),
        }
    }

    fn array(&mut self, prefix: &[Id], rest: Id, min: u64, max: Option<u64>) -> Option<String> {
        let mut items = Vec::new();
        for id in prefix.iter().take(max.map_or(usize::MAX, |max| max as usize)) {
            match self.node(*id) {
                Some(item) => items.push(item),
                None => break,
            }
        }
        let whole = items.len() == prefix.len();
        let count = items.len() as u64;
        let (low, high) = (min.saturating_sub(count), max.map(|max| max.saturating_sub(count)));
        let rest = if whole && high != Some(0) { self.node(rest) } else { None };
        if low > 0 && (rest.is_none() || low > REPEATED) {
            return None;
        }
        // So many more, each with a comma in front.
        let more = |item: &str, low: u64, high: Option<u64>| match (low, high.filter(|high| *high < REPEATED)) {
            (_, Some(0)) => String::new(),
            (0, None) => format!("(\",\" {item})*"),
            (low, None) => format!("(\",\" {item}){{{low},}}"),
            (low, Some(high)) => format!("(\",\" {item}){{{low},{high}}}"),
        };
        let name = self.name("a");
        if items.is_empty() {
            let body = match rest {
                None => "\"[\" \"]\"".to_owned(),
                Some(item) => {
                    let tail = more(&item, low.saturating_sub(1), high.map(|high| high - 1));
                    let empty = if low == 0 { "\"[\" \"]\" | " } else { "" };
                    format!("{empty}\"[\" {item} {tail} \"]\"")
                }
            };
            self.rule(&name, &body);
            return Some(name);
        }
        let mut tail = rest.map(|item| more(&item, low, high)).unwrap_or_default();
        for (index, item) in items.iter().enumerate().rev() {
            let from = self.name("a");
            let comma = if index > 0 { "\",\" " } else { "" };
            let skip = if (index as u64) < min { "" } else { " | \"\"" };
            self.rule(&from, &format!("{comma}{item} {tail}{skip}"));
            tail = from;
        }
        self.rule(&name, &format!("\"[\" {tail} \"]\""));
        Some(name)
    }
}
