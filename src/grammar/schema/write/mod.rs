//! Writes what was worked out for the engine: as rules, or as a schema again.
//!
//! Alternatives that no finite value satisfies are left out first: the least set of nodes that some value satisfies is
//! found from below, so a schema that demands itself without end is found too.

pub(in super::super) mod numbers;
mod object;
mod rules;
mod schema;
pub(in super::super) mod spell;
pub(in super::super) mod words;

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::error::GrammarError;
use super::super::path::Required;
use super::super::unique::UniqueArrays;
use super::graph::{Expr, Graph, Id};
use super::lower::{Low, Lowering};
use super::part::Kind;
use super::{SchemaMode, SchemaNote, refuse};
pub(in super::super) use words::Rules;

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

/// What there is to write.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Plan {
    root: Id,
    nodes: HashMap<Id, Vec<Low>>,
    /// The nodes that some finite value satisfies.
    alive: HashSet<Id>,
    /// JSON pointers of the original.
    pointers: HashMap<Id, String>,
    pub notes: Vec<SchemaNote>,
    pub unchecked: Vec<SchemaNote>,
    pub unique: UniqueArrays,
}

impl Plan {
    /// As a schema, with the JSON pointers of the original by the names of its definitions. Keys come in the order of
    /// the schema.
    pub fn schema(&self) -> (Value, HashMap<String, String>) {
        let (value, names) = schema::write(self);
        let origin = |id: &Id| self.pointers.get(id).cloned().unwrap_or_default();
        (value, names.iter().map(|(name, id)| (name.clone(), origin(id))).collect())
    }

    /// As rules in which keys come in any order; `None` where that cannot be written.
    pub fn rules(&self, options: &Value) -> Option<Rules> {
        rules::write(self, options)
    }

    /// Keys that objects require.
    pub fn required(&self) -> Required {
        let mut found = Required::default();
        let mut ids: Vec<Id> = self.nodes.keys().copied().collect();
        ids.sort_unstable();
        self.require(&mut found, None, self.root);
        for part in ids.iter().flat_map(|id| &self.nodes[id]) {
            if let Low::Object(object) = part {
                object.props.iter().for_each(|(name, id)| self.require(&mut found, Some(name), *id));
            }
        }
        found
    }

    /// Notes what the objects of a node require, and those in its arrays, which stand under the same key.
    fn require(&self, found: &mut Required, key: Option<&str>, id: Id) {
        let (mut seen, mut queue) = (HashSet::new(), vec![id]);
        while let Some(id) = queue.pop() {
            if !seen.insert(id) {
                continue;
            }
            for part in self.nodes.get(&id).into_iter().flatten() {
                match part {
                    Low::Object(object) => {
                        let names = object.props.iter().map(|(name, _)| name);
                        found.add(key, names.filter(|name| object.required.contains(*name)).cloned());
                    }
                    Low::Array { .. } => queue.extend(below(part)),
                    _ => {}
                }
            }
        }
    }

    /// The node of the whole value.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The alternatives of a node that some finite value satisfies.
    pub(super) fn parts(&self, id: Id) -> &[Low] {
        self.nodes.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_alive(&self, id: Id) -> bool {
        id == Id::TRUE || self.alive.contains(&id)
    }
}

/// Works out the alternatives of a node and of all below it.
pub(super) fn plan(graph: &mut Graph<'_>, root: Id, mode: SchemaMode) -> Result<Plan, GrammarError> {
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
    let pointers = nodes.keys().map(|id| (*id, graph.pointer(*id))).collect();
    let unique = unique(&nodes, root);
    Ok(Plan { root, nodes, alive, pointers, notes, unchecked, unique })
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
    // The engine counts members, not keys.
    let counted = |part: &Low| matches!(part, Low::Object(object) if object.min > object.required.len() as u64);
    let counted = nodes.values().flatten().any(counted);
    let mut found = UniqueArrays { root: of(&root).is_some(), keys_once: counted, ..UniqueArrays::default() };
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
