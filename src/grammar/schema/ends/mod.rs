//! How values of a schema end soonest: the least value of every node, and [`Track`], which follows a text and tells the
//! least ways to finish it.
//!
//! Worked out from what the engine is told ([`Low`]), not from the engine's own state. So what a track tells may be
//! out of reach for the text at hand (two alternatives that only the engine still tells apart, items that must
//! differ), and whoever uses it asks the engine. What is told is never longer than needed by more than the choice of
//! characters.
//!
//! Costs are counted by a function that is handed in: bytes, or tokens of a model.

mod number;
mod text;
mod track;
mod ways;

use std::collections::HashMap;

use serde_json::Value;

use super::graph::Id;
use super::lower::{Low, LowObj};
use super::write::Plan;
use number::Digits;
use text::{Text, spelled};
pub(in super::super) use track::Track;

/// What a text costs.
pub(in super::super) type Cost = Box<dyn Fn(&[u8]) -> u32 + Send + Sync>;

/// Cannot be, or not in any answer.
const NEVER: u32 = 1 << 30;
/// Rounds in which the least values are worked out; more levels than this are never needed in one least value.
const ROUNDS: usize = 200;

/// One alternative of a node.
#[derive(Debug)]
enum Form {
    /// With their texts, the cheapest first.
    Values(Vec<(Value, String)>),
    Text(Text),
    Number(Digits),
    Array(Array),
    Object(Object),
}

#[derive(Debug)]
struct Array {
    prefix: Vec<Option<usize>>,
    rest: Option<usize>,
    min: usize,
    unique: bool,
}

#[derive(Debug)]
struct Object {
    named: Vec<Member>,
    patterns: Vec<(Text, usize)>,
    rest: Option<usize>,
    min: usize,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// As it is spelled, with quotation marks and colon.
    key: String,
    cost: u32,
    /// None: this key cannot be there.
    node: Option<usize>,
    required: bool,
}

/// The least values of a schema.
pub(in super::super) struct Ends {
    nodes: Vec<Vec<Form>>,
    /// What the least value of each form costs.
    costs: Vec<Vec<u32>>,
    /// The cheapest form of each node, and what it costs.
    least: Vec<(u32, usize)>,
    root: usize,
    cost: Cost,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// Node of every value.
const ANY: usize = 0;

impl Ends {
    pub fn new(plan: &Plan, cost: Cost) -> Ends {
        let mut writer = Reader { plan, ids: HashMap::new(), queue: Vec::new(), nodes: vec![anything()] };
        let root = writer.node(plan.root()).unwrap_or(ANY);
        let mut at = 0;
        while let Some(&id) = writer.queue.get(at) {
            let forms = plan.parts(id).iter().map(|part| writer.form(part, &cost)).collect();
            at += 1;
            writer.nodes[at] = forms;
        }
        let nodes = writer.nodes;
        let costs = nodes.iter().map(|forms| vec![NEVER; forms.len()]).collect();
        let least = vec![(NEVER, 0); nodes.len()];
        let mut ends = Ends { nodes, costs, least, root, cost };
        ends.settle();
        ends
    }

    /// Lowers the costs until none gets lower.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let mut changed = false;
            // What stands inside comes later, as a rule.
            for node in (0..self.nodes.len()).rev() {
                for form in 0..self.nodes[node].len() {
                    let known = self.costs[node][form];
                    let nested = matches!(self.nodes[node][form], Form::Array(_) | Form::Object(_));
                    if !nested && known < NEVER {
                        continue;
                    }
                    let cost = self.form_cost(&self.nodes[node][form]).min(NEVER);
                    if cost < known {
                        self.costs[node][form] = cost;
                        changed = true;
                        if cost < self.least[node].0 {
                            self.least[node] = (cost, form);
                        }
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn text_cost(&self, text: &str) -> u32 {
        (self.cost)(text.as_bytes())
    }

    fn form_cost(&self, form: &Form) -> u32 {
        match form {
            Form::Array(array) => 1u32.saturating_add(self.array_close(array, 0)),
            Form::Object(object) => 1u32.saturating_add(self.object_close(object, &[], 0).0),
            simple => self.simple(simple, 0).map_or(NEVER, |text| self.text_cost(&text)),
        }
    }

    /// A least value without values in it; another one for each number.
    fn simple(&self, form: &Form, others: usize) -> Option<String> {
        match form {
            Form::Values(values) => values.get(others % values.len().max(1)).map(|(_, text)| text.clone()),
            Form::Text(text) => text.another(others).map(|text| format!("\"{}\"", spelled(&text))),
            Form::Number(digits) => digits.another(others),
            Form::Array(_) | Form::Object(_) => None,
        }
    }

    /// What it costs to bring an array with so many items to its end.
    fn array_close(&self, array: &Array, count: usize) -> u32 {
        let mut cost = 1u32;
        for index in count..array.min {
            if index >= array.prefix.len().max(count) {
                let each = self.item_cost(array, index).saturating_add(1);
                let commas = u32::from(index == 0);
                let more = u32::try_from(array.min - index).unwrap_or(NEVER);
                return cost.saturating_add(each.saturating_mul(more)).saturating_sub(commas).min(NEVER);
            }
            cost = cost.saturating_add(self.item_cost(array, index)).saturating_add(u32::from(index > 0));
        }
        cost.min(NEVER)
    }

    fn item_cost(&self, array: &Array, index: usize) -> u32 {
        array.item(index).map_or(NEVER, |node| self.least[node].0)
    }

    /// What it costs to bring an object to its end that has so many members, with these keys; and the members it lacks.
    fn object_close<'a>(&'a self, object: &'a Object, seen: &[String], count: usize) -> (u32, Vec<Lack<'a>>) {
        let mut lacks: Vec<Lack<'a>> = Vec::new();
        let absent = |member: &&Member| !seen.contains(&member.name);
        for member in object.named.iter().filter(|member| member.required).filter(absent) {
            lacks.push(Lack::Named(member));
        }
        let wanted = object.min.saturating_sub(count);
        if lacks.len() < wanted {
            let mut optional: Vec<&Member> =
                object.named.iter().filter(|member| !member.required).filter(absent).collect();
            optional.retain(|member| member.node.is_some_and(|node| self.least[node].0 < NEVER));
            optional.sort_by_key(|member| member.node.map_or(NEVER, |node| member.cost + self.least[node].0));
            let others = object.others(seen, wanted - lacks.len());
            let more = optional
                .into_iter()
                .map(Lack::Named)
                .chain(others.into_iter().map(|(key, node)| Lack::Other(key, node)));
            lacks.extend(more.take(wanted - lacks.len()));
            if lacks.len() < wanted {
                return (NEVER, lacks);
            }
        }
        let mut cost = 1u32;
        for (index, lack) in lacks.iter().enumerate() {
            let comma = u32::from(count + index > 0);
            cost = cost.saturating_add(comma).saturating_add(self.lack_cost(lack));
        }
        (cost.min(NEVER), lacks)
    }

    fn lack_cost(&self, lack: &Lack<'_>) -> u32 {
        match lack {
            Lack::Named(member) => member.node.map_or(NEVER, |node| self.least[node].0.saturating_add(member.cost)),
            Lack::Other(key, node) => self.least[*node].0.saturating_add(self.text_cost(key)),
        }
    }

    /// Appends the least value of a node; another one for each number, if it can be.
    fn write(&self, node: usize, others: usize, out: &mut String) -> Option<()> {
        self.write_form(node, self.least[node].1, others, out)
    }

    fn write_form(&self, node: usize, form: usize, others: usize, out: &mut String) -> Option<()> {
        if self.costs[node].get(form).is_none_or(|cost| *cost >= NEVER) {
            return None;
        }
        match &self.nodes[node][form] {
            Form::Array(array) => {
                out.push('[');
                self.write_items(array, 0, out)
            }
            Form::Object(object) => {
                out.push('{');
                self.write_members(object, &[], 0, out)
            }
            simple => {
                let text = self.simple(simple, others).or_else(|| self.simple(simple, 0))?;
                out.push_str(&text);
                Some(())
            }
        }
    }

    fn write_items(&self, array: &Array, count: usize, out: &mut String) -> Option<()> {
        for index in count..array.min {
            if index > 0 {
                out.push(',');
            }
            self.write(array.item(index)?, if array.unique { index } else { 0 }, out)?;
        }
        out.push(']');
        Some(())
    }

    fn write_members(&self, object: &Object, seen: &[String], count: usize, out: &mut String) -> Option<()> {
        for (index, lack) in self.object_close(object, seen, count).1.iter().enumerate() {
            if count + index > 0 {
                out.push(',');
            }
            match lack {
                Lack::Named(member) => {
                    out.push_str(&member.key);
                    self.write(member.node?, 0, out)?;
                }
                Lack::Other(key, node) => {
                    out.push_str(key);
                    self.write(*node, 0, out)?;
                }
            }
        }
        out.push('}');
        Some(())
    }
}

/// A member that an object lacks.
enum Lack<'a> {
    Named(&'a Member),
    /// Key with colon, and the node of its value.
    Other(String, usize),
}

impl Array {
    fn item(&self, index: usize) -> Option<usize> {
        self.prefix.get(index).copied().unwrap_or(self.rest)
    }
}

impl Object {
    /// Nodes that the value of a key may have.
    fn values(&self, key: &str) -> Vec<usize> {
        if let Some(member) = self.named.iter().find(|member| member.name == key) {
            return member.node.into_iter().collect();
        }
        let mut found: Vec<usize> =
            self.patterns.iter().filter(|(keys, _)| keys.admits(key)).map(|(_, node)| *node).collect();
        if found.is_empty() {
            found.extend(self.rest);
        }
        found
    }

    /// Keys that have no name in the schema, and are not there yet: with quotation marks and colon, and the node of
    /// their values.
    fn others(&self, seen: &[String], most: usize) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let free = |name: &String| !seen.contains(name) && self.named.iter().all(|member| member.name != **name);
        if let Some(node) = self.rest {
            let names = (b'a'..=b'z').map(|byte| char::from(byte).to_string()).chain((0..).map(|n: u32| n.to_string()));
            let plain = names.take(most + seen.len() + self.named.len() + 40).filter(free);
            let plain = plain.filter(|name| self.patterns.iter().all(|(keys, _)| !keys.admits(name)));
            found.extend(plain.take(most).map(|name| (format!("\"{name}\":"), node)));
        }
        for (keys, node) in &self.patterns {
            let lacks = most - found.len();
            if lacks == 0 {
                break;
            }
            let names = (0..lacks + seen.len()).map_while(|others| keys.another(others)).filter(free);
            found.extend(names.take(lacks).map(|name| (format!("\"{}\":", spelled(&name)), *node)));
        }
        found
    }
}

/// Reads a plan.
struct Reader<'p> {
    plan: &'p Plan,
    ids: HashMap<Id, usize>,
    /// The ids of the nodes behind the first one.
    queue: Vec<Id>,
    nodes: Vec<Vec<Form>>,
}

impl Reader<'_> {
    fn node(&mut self, id: Id) -> Option<usize> {
        if id == Id::TRUE {
            return Some(ANY);
        }
        if !self.plan.is_alive(id) {
            return None;
        }
        if let Some(&known) = self.ids.get(&id) {
            return Some(known);
        }
        let new = self.nodes.len();
        self.nodes.push(Vec::new());
        self.queue.push(id);
        self.ids.insert(id, new);
        Some(new)
    }

    fn form(&mut self, part: &Low, cost: &Cost) -> Form {
        match part {
            Low::Values(values) => {
                let mut texts: Vec<(Value, String)> =
                    values.iter().map(|value| (value.clone(), value.to_string().replace('\x7f', "\\u007f"))).collect();
                texts.sort_by_cached_key(|(_, text)| (cost(text.as_bytes()), text.len()));
                Form::Values(texts)
            }
            Low::Leaf(leaf) if leaf["type"] == "string" => Form::Text(Text::of(leaf)),
            Low::Leaf(leaf) => Form::Number(Digits::of(leaf)),
            Low::Array { prefix, rest, min, unique, .. } => Form::Array(Array {
                prefix: prefix.iter().map(|id| self.node(*id)).collect(),
                rest: self.node(*rest),
                min: usize::try_from(*min).unwrap_or(usize::MAX),
                unique: unique.is_some(),
            }),
            Low::Object(object) => Form::Object(self.object(object, cost)),
        }
    }

    fn object(&mut self, object: &LowObj, cost: &Cost) -> Object {
        let named = object.props.iter().map(|(name, id)| {
            let key = format!("\"{}\":", spelled(name));
            let required = object.required.contains(name);
            Member { name: name.clone(), cost: cost(key.as_bytes()), key, node: self.node(*id), required }
        });
        let named = named.collect();
        let patterns = object.patterns.iter().filter_map(|(pattern, id)| Some((Text::like(pattern), self.node(*id)?)));
        let patterns = patterns.collect();
        let min = usize::try_from(object.min).unwrap_or(usize::MAX);
        Object { named, patterns, rest: self.node(object.rest), min }
    }
}

/// Every value.
fn anything() -> Vec<Form> {
    let words = [Value::Null, Value::Bool(true), Value::Bool(false)];
    vec![
        Form::Number(Digits::of(&serde_json::json!({"type": "number"}))),
        Form::Text(Text::any()),
        Form::Values(words.map(|word| (word.clone(), word.to_string())).into()),
        Form::Array(Array { prefix: Vec::new(), rest: Some(ANY), min: 0, unique: false }),
        Form::Object(Object { named: Vec::new(), patterns: Vec::new(), rest: Some(ANY), min: 0 }),
    ]
}
