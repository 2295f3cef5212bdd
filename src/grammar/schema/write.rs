//! Writes what was worked out as a schema for the engine.
//!
//! Alternatives that no finite value satisfies are left out first: the least set of nodes that some value satisfies is
//! found from below, so a schema that demands itself without end is found too.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::error::GrammarError;
use super::super::unique::UniqueArrays;
use super::graph::{Expr, Graph, Id};
use super::lower::{Low, LowObj, Lowering};
use super::part::Kind;
use super::{SchemaMode, SchemaNote, refuse};

/// Keywords from which a missing `type` is read, with that type.
const TELLING: &[(&str, Kind)] = &[
    ("properties", Kind::Object),
    ("patternProperties", Kind::Object),
    ("items", Kind::Array),
    ("prefixItems", Kind::Array),
    ("pattern", Kind::Text),
];
/// Keywords that speak of the type themselves.
const SPEAKING: [&str; 8] = ["type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "if"];

/// Nodes a schema may have when written.
const NODES: usize = 20_000;
/// Levels written inside one another; deeper ones are referred to.
const LEVELS: usize = 24;

/// A schema as written.
pub(super) struct Written {
    pub value: Value,
    pub notes: Vec<SchemaNote>,
    pub unchecked: Vec<SchemaNote>,
    pub unique: UniqueArrays,
    /// JSON pointers of the original, by the names of definitions.
    pub origins: HashMap<String, String>,
}

/// The schema of a node.
pub(super) fn write(graph: &mut Graph<'_>, root: Id, mode: SchemaMode) -> Result<Written, GrammarError> {
    let mut lowering = Lowering::new(graph, mode);
    let mut nodes: HashMap<Id, Vec<Low>> = HashMap::new();
    let mut order = Vec::new();
    let mut queue = vec![root];
    while let Some(id) = queue.pop() {
        if id == Id::TRUE || id == Id::FALSE || nodes.contains_key(&id) {
            continue;
        }
        if nodes.len() > NODES {
            return Err(refuse("", None, "the schema has too many combinations to write out"));
        }
        let parts = lowering.node(id)?;
        let parts = told(lowering.graph, id, parts);
        for part in &parts {
            queue.extend(below(part));
        }
        nodes.insert(id, parts);
        order.push(id);
    }
    let (mut notes, unchecked) = (lowering.notes, lowering.unchecked);
    notes.append(&mut graph.notes);
    let alive = satisfiable(&nodes, &order);
    for parts in nodes.values_mut() {
        parts.retain(|part| finite(part, &alive));
    }
    if root != Id::TRUE && !alive.contains(&root) {
        let message = match root == Id::FALSE || graph.proved_empty(root, 8)? {
            true => "Unsatisfiable schema: nothing can match",
            false => "the schema is unsatisfiable, or demands a value inside itself without end",
        };
        let keyword = if message.contains("without end") { Some("$ref") } else { None };
        return Err(refuse("", keyword, message));
    }
    let mut writer = Writer { nodes, alive, shared: HashSet::new(), names: HashMap::new(), pending: Vec::new() };
    writer.share(root);
    let mut value = writer.node(root, 0);
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
    let origins = writer.names.iter().map(|(id, name)| (name.clone(), graph.pointer(*id))).collect();
    let unique = unique(&writer.nodes, root);
    Ok(Written { value, notes, unchecked, unique, origins })
}

fn below(part: &Low) -> Vec<Id> {
    match part {
        Low::Values(_) | Low::Leaf(_) => Vec::new(),
        Low::Array { prefix, rest, .. } => prefix.iter().copied().chain([*rest]).collect(),
        Low::Object(object) => {
            let props = object.props.iter().map(|(_, id)| *id);
            props.chain(object.patterns.iter().map(|(_, id)| *id)).chain([object.rest]).collect()
        }
    }
}

/// Where the arrays stand whose items must differ.
fn unique(nodes: &HashMap<Id, Vec<Low>>, root: Id) -> UniqueArrays {
    let of = |id: &Id| {
        nodes.get(id).into_iter().flatten().find_map(|part| match part {
            Low::Array { unique, .. } => unique.clone(),
            _ => None,
        })
    };
    let mut found = UniqueArrays { root: of(&root).is_some(), ..UniqueArrays::default() };
    for part in nodes.values().flatten() {
        match part {
            Low::Array { prefix, rest, .. } => found.all |= prefix.iter().chain([rest]).any(|id| of(id).is_some()),
            Low::Object(object) => {
                let unnamed = object.patterns.iter().map(|(_, id)| id).chain([&object.rest]);
                found.all |= unnamed.into_iter().any(|id| of(id).is_some());
                for (name, id) in &object.props {
                    if let Some(values) = of(id) {
                        // Two lists under one key: no list, then.
                        let known = found.keys.entry(name.clone()).or_insert_with(|| values.clone());
                        if *known != values {
                            *known = None;
                        }
                    }
                }
            }
            _ => {}
        }
    }
    // A list holds for the arrays it was made for, not for others under the same key.
    for part in nodes.values().flatten() {
        if let Low::Object(object) = part {
            for (name, id) in object.props.iter().filter(|(_, id)| of(id).is_none() && *id != Id::FALSE) {
                let arrays = *id == Id::TRUE
                    || nodes
                        .get(id)
                        .into_iter()
                        .flatten()
                        .any(|part| matches!(part, Low::Array { .. } | Low::Values(_)));
                if let (true, Some(values)) = (arrays, found.keys.get_mut(name)) {
                    *values = None;
                }
            }
        }
    }
    // Unnamed keys can be called so too.
    if nodes
        .values()
        .flatten()
        .any(|part| matches!(part, Low::Object(o) if o.rest != Id::FALSE || !o.patterns.is_empty()))
    {
        found.keys.values_mut().for_each(|values| *values = None);
    }
    found
}

/// Adds the type that an author plainly had in mind.
///
/// By the letter `{"items": {}}` also allows any text or number. Whoever writes it wants an array, llama.cpp and most
/// other engines give one, and an array is valid by the letter too. So where nothing else in a schema speaks of the
/// type, its keywords do.
fn told(graph: &Graph<'_>, id: Id, parts: Vec<Low>) -> Vec<Low> {
    let Expr::Schema(place) = graph.expr(id) else { return parts };
    let Some(object) = graph.places[*place].value.as_object() else { return parts };
    if SPEAKING.iter().any(|key| object.contains_key(*key)) {
        return parts;
    }
    let mut told: Vec<Kind> =
        TELLING.iter().filter(|(key, _)| object.contains_key(*key)).map(|(_, kind)| *kind).collect();
    told.dedup();
    let [told] = told[..] else { return parts };
    let of = |part: &Low| match part {
        Low::Array { .. } => Some(Kind::Array),
        Low::Object(_) => Some(Kind::Object),
        Low::Leaf(leaf) if leaf.get("type") == Some(&Value::from("string")) => Some(Kind::Text),
        _ => None,
    };
    let kept: Vec<Low> = parts.iter().filter(|part| of(part) == Some(told)).cloned().collect();
    if kept.is_empty() { parts } else { kept }
}

/// The nodes that some finite value satisfies.
fn satisfiable(nodes: &HashMap<Id, Vec<Low>>, order: &[Id]) -> HashSet<Id> {
    let mut users: HashMap<Id, Vec<Id>> = HashMap::new();
    for (&id, parts) in nodes {
        for child in parts.iter().flat_map(below) {
            users.entry(child).or_default().push(id);
        }
    }
    let mut alive = HashSet::from([Id::TRUE]);
    let mut queue: Vec<Id> = order.to_vec();
    while let Some(id) = queue.pop() {
        if !alive.contains(&id) && nodes.get(&id).is_some_and(|parts| parts.iter().any(|part| finite(part, &alive))) {
            alive.insert(id);
            queue.extend(users.get(&id).into_iter().flatten());
        }
    }
    alive
}

/// Whether a finite value satisfies the part, given the nodes that have one.
fn finite(part: &Low, alive: &HashSet<Id>) -> bool {
    match part {
        Low::Values(values) => !values.is_empty(),
        Low::Leaf(_) => true,
        Low::Array { prefix, rest, min, max, .. } => {
            let needed = usize::try_from(*min).unwrap_or(usize::MAX);
            max.is_none_or(|max| *min <= max)
                && prefix.iter().take(needed).all(|id| alive.contains(id))
                && (needed <= prefix.len() || alive.contains(rest))
        }
        Low::Object(object) => {
            let named = |name: &String| object.props.iter().find(|(known, _)| known == name);
            let required = object.required.iter().all(|name| named(name).is_some_and(|(_, id)| alive.contains(id)));
            let open = alive.contains(&object.rest) || object.patterns.iter().any(|(_, id)| alive.contains(id));
            let optional = object.props.iter().filter(|(_, id)| alive.contains(id)).count() as u64;
            required && (open || object.min <= optional)
        }
    }
}

struct Writer {
    nodes: HashMap<Id, Vec<Low>>,
    alive: HashSet<Id>,
    /// Nodes that are written once and referred to.
    shared: HashSet<Id>,
    names: HashMap<Id, String>,
    pending: Vec<Id>,
}

impl Writer {
    /// Finds the nodes that are used more than once, which all that contain themselves are.
    fn share(&mut self, root: Id) {
        let mut uses: HashMap<Id, usize> = HashMap::from([(root, 1)]);
        let mut queue = vec![root];
        while let Some(id) = queue.pop() {
            for child in self.nodes.get(&id).into_iter().flatten().flat_map(below) {
                let count = uses.entry(child).or_default();
                *count += 1;
                if *count == 1 {
                    queue.push(child);
                }
            }
        }
        let large = |id: &Id| {
            let parts = self.nodes.get(id).map_or(&[][..], Vec::as_slice);
            parts.iter().any(|part| matches!(part, Low::Array { .. } | Low::Object(_)))
        };
        self.shared = uses.iter().filter(|(id, count)| **count > 1 && large(id)).map(|(id, _)| *id).collect();
    }

    fn node(&mut self, id: Id, level: usize) -> Value {
        if id == Id::TRUE {
            return Value::Bool(true);
        }
        if !self.alive.contains(&id) {
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
        let parts = self.nodes.get(&id).cloned().unwrap_or_default();
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
