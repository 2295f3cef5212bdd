//! What was worked out, as a schema again, for the engine's own reading of schemas: keys in the order of the schema.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::graph::Id;
use super::super::lower::{Low, LowObj};
use super::{Plan, below};

/// Levels written inside one another; deeper ones are referred to.
const LEVELS: usize = 24;

/// The schema of a plan, and the nodes by the names of its definitions.
pub(super) fn write(plan: &Plan) -> (Value, HashMap<String, Id>) {
    let mut writer = Writer { plan, shared: HashSet::new(), names: HashMap::new(), pending: Vec::new() };
    writer.share(plan.root);
    let mut value = writer.node(plan.root, 0);
    let mut definitions = Map::new();
    while let Some(id) = writer.pending.pop() {
        let name = writer.names[&id].clone();
        let body = writer.body(id, 0);
        definitions.insert(name, body);
    }
    if !definitions.is_empty() {
        if !value.is_object() || value.get("$ref").is_some() {
            value = json!({"allOf": [value]});
        }
        if let Value::Object(object) = &mut value {
            object.insert("$defs".into(), Value::Object(definitions));
        }
    }
    (value, writer.names.into_iter().map(|(id, name)| (name, id)).collect())
}

struct Writer<'p> {
    plan: &'p Plan,
    /// Nodes that are written once and referred to.
    shared: HashSet<Id>,
    names: HashMap<Id, String>,
    pending: Vec<Id>,
}

impl Writer<'_> {
    /// Finds the nodes that are used more than once, which all that contain themselves are.
    fn share(&mut self, root: Id) {
        let mut uses: HashMap<Id, usize> = HashMap::from([(root, 1)]);
        let mut queue = vec![root];
        while let Some(id) = queue.pop() {
            for child in self.plan.nodes.get(&id).into_iter().flatten().flat_map(below) {
                let count = uses.entry(child).or_default();
                *count += 1;
                if *count == 1 {
                    queue.push(child);
                }
            }
        }
        let large = |id: &Id| {
            let parts = self.plan.nodes.get(id).map_or(&[][..], Vec::as_slice);
            parts.iter().any(|part| matches!(part, Low::Array { .. } | Low::Object(_)))
        };
        self.shared = uses.iter().filter(|(id, count)| **count > 1 && large(id)).map(|(id, _)| *id).collect();
    }

    fn node(&mut self, id: Id, level: usize) -> Value {
        if id == Id::TRUE {
            return Value::Bool(true);
        }
        if !self.plan.alive.contains(&id) {
            return Value::Bool(false);
        }
        if self.shared.contains(&id) || level > LEVELS {
            let next = self.names.len();
            let mut fresh = false;
            let name = self.names.entry(id).or_insert_with(|| {
                fresh = true;
                format!("n{next}")
            });
            let reference = json!({"$ref": format!("#/$defs/{name}")});
            if fresh {
                self.pending.push(id);
            }
            return reference;
        }
        self.body(id, level)
    }

    fn body(&mut self, id: Id, level: usize) -> Value {
        let parts = self.plan.nodes.get(&id).cloned().unwrap_or_default();
        let mut written: Vec<Value> = parts.iter().map(|part| self.part(part, level + 1)).collect();
        match written.len() {
            1 => written.remove(0),
            _ => json!({"anyOf": written}),
        }
    }

    fn part(&mut self, part: &Low, level: usize) -> Value {
        match part {
            Low::Values(values) => json!({"enum": values}),
            Low::Leaf(leaf) => leaf.clone(),
            Low::Array { prefix, rest, min, max, .. } => {
                let mut array = Map::from_iter([("type".into(), "array".into())]);
                if !prefix.is_empty() {
                    let items: Vec<Value> = prefix.iter().map(|id| self.node(*id, level)).collect();
                    array.insert("prefixItems".into(), items.into());
                }
                if *rest != Id::TRUE {
                    array.insert("items".into(), self.node(*rest, level));
                }
                if *min > 0 {
                    array.insert("minItems".into(), (*min).into());
                }
                if let Some(max) = max {
                    array.insert("maxItems".into(), (*max).into());
                }
                Value::Object(array)
            }
            Low::Object(object) => self.object(object, level),
        }
    }

    fn object(&mut self, object: &LowObj, level: usize) -> Value {
        let mut written = Map::from_iter([("type".into(), "object".into())]);
        if !object.props.is_empty() {
            let mut props = Map::new();
            for (name, id) in &object.props {
                props.insert(name.clone(), self.node(*id, level));
            }
            written.insert("properties".into(), Value::Object(props));
        }
        if !object.patterns.is_empty() {
            let mut patterns = Map::new();
            for (pattern, id) in &object.patterns {
                patterns.insert(pattern.clone(), self.node(*id, level));
            }
            written.insert("patternProperties".into(), Value::Object(patterns));
        }
        if object.rest != Id::TRUE {
            written.insert("additionalProperties".into(), self.node(object.rest, level));
        }
        if !object.required.is_empty() {
            written.insert("required".into(), object.required.clone().into());
        }
        if object.min > 0 {
            written.insert("minProperties".into(), object.min.into());
        }
        if let Some(max) = object.max {
            written.insert("maxProperties".into(), max.into());
        }
        Value::Object(written)
    }
}
