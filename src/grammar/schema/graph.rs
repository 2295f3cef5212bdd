//! Schemas and what is made of them by and, or and not, worked out one level at a time.
//!
//! Every combination is kept once, so schemas that refer to themselves stay finite: a node is expanded to parts
//! whose subschemas are nodes again. All work is counted; too much of it refuses the schema.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::Value;

use super::super::error::GrammarError;
use super::document::{Document, Place};
use super::part::{Part, anything, tidy};
use super::{SchemaNote, holds, meet, negate, read, refuse};

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub u32);

impl Id {
    pub const TRUE: Id = Id(0);
    pub const FALSE: Id = Id(1);
}

/// What a node means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Expr {
    True,
    False,
    /// The schema at a place of the document.
    Schema(usize),
    /// All of these. Order decides the order of keys.
    And(Vec<Id>),
    /// Any of these.
    Or(Vec<Id>),
    Not(Id),
    /// Exactly this value, by index.
    Const(usize),
}

/// Steps of work a schema may take: some tens of milliseconds.
const WORK: u64 = 600_000;
/// Alternatives one node may have.
const ALTERNATIVES: usize = 400;
const ENDLESS: &str = "the schema demands a value inside itself without end";
/// Depth of references and combinations in place.
const DEPTH: usize = 4_000;

pub(super) struct Graph<'a> {
    pub document: &'a Document<'a>,
    pub places: Vec<Place<'a>>,
    place_ids: HashMap<usize, usize>,
    exprs: Vec<Expr>,
    ids: HashMap<Expr, Id>,
    expanded: HashMap<Id, Rc<Vec<Part>>>,
    running: HashSet<Id>,
    empty: HashMap<Id, bool>,
    constants: Vec<Value>,
    /// Where what comes out is stricter than the schema.
    pub notes: Vec<SchemaNote>,
    work: u64,
}

impl<'a> Graph<'a> {
    pub fn new(document: &'a Document<'a>) -> Self {
        Graph {
            document,
            places: Vec::new(),
            place_ids: HashMap::new(),
            exprs: vec![Expr::True, Expr::False],
            ids: HashMap::from([(Expr::True, Id::TRUE), (Expr::False, Id::FALSE)]),
            expanded: HashMap::from([(Id::TRUE, Rc::new(anything())), (Id::FALSE, Rc::default())]),
            running: HashSet::new(),
            empty: HashMap::from([(Id::TRUE, false), (Id::FALSE, true)]),
            constants: Vec::new(),
            notes: Vec::new(),
            work: 0,
        }
    }

    pub fn expr(&self, id: Id) -> &Expr {
        &self.exprs[id.0 as usize]
    }

    fn intern(&mut self, expr: Expr) -> Id {
        if let Some(&id) = self.ids.get(&expr) {
            return id;
        }
        let id = Id(self.exprs.len() as u32);
        self.exprs.push(expr.clone());
        self.ids.insert(expr, id);
        id
    }

    /// The schema at a place.
    pub fn schema(&mut self, place: Place<'a>) -> Id {
        match place.value {
            Value::Bool(true) => return Id::TRUE,
            Value::Bool(false) => return Id::FALSE,
            Value::Object(object) if object.is_empty() => return Id::TRUE,
            _ => {}
        }
        let address = std::ptr::from_ref(place.value) as usize;
        let places = &mut self.places;
        let index = *self.place_ids.entry(address).or_insert_with(|| {
            places.push(place);
            places.len() - 1
        });
        self.intern(Expr::Schema(index))
    }

    pub fn and(&mut self, ids: &[Id]) -> Id {
        let mut list: Vec<Id> = Vec::new();
        for &id in ids {
            let inner = match self.expr(id) {
                Expr::And(inner) => inner.clone(),
                _ => vec![id],
            };
            for id in inner {
                if id == Id::FALSE || matches!(self.ids.get(&Expr::Not(id)), Some(not) if list.contains(not)) {
                    return Id::FALSE;
                }
                if let Expr::Not(inner) = self.expr(id)
                    && list.contains(inner)
                {
                    return Id::FALSE;
                }
                if id != Id::TRUE && !list.contains(&id) {
                    list.push(id);
                }
            }
        }
        match list[..] {
            [] => Id::TRUE,
            [one] => one,
            _ => self.intern(Expr::And(list)),
        }
    }

    pub fn or(&mut self, ids: &[Id]) -> Id {
        let mut list: Vec<Id> = Vec::new();
        for &id in ids {
            if id == Id::TRUE {
                return Id::TRUE;
            }
            if id != Id::FALSE && !list.contains(&id) {
                list.push(id);
            }
        }
        match list[..] {
            [] => Id::FALSE,
            [one] => one,
            _ => self.intern(Expr::Or(list)),
        }
    }

    pub fn not(&mut self, id: Id) -> Id {
        match self.expr(id) {
            Expr::True => Id::FALSE,
            Expr::False => Id::TRUE,
            Expr::Not(inner) => *inner,
            _ => self.intern(Expr::Not(id)),
        }
    }

    /// Exactly this value.
    pub fn constant(&mut self, value: &Value) -> Id {
        let known = self.constants.iter().position(|known| holds::same(known, value));
        let index = known.unwrap_or_else(|| {
            self.constants.push(value.clone());
            self.constants.len() - 1
        });
        self.intern(Expr::Const(index))
    }

    /// Counts work.
    pub fn spend(&mut self, steps: usize) -> Result<(), GrammarError> {
        self.work += steps as u64;
        if self.work > WORK {
            return Err(refuse("", None, "the schema has too many combinations to work out"));
        }
        Ok(())
    }

    /// The parts of a node, any one of which may hold.
    pub fn expand(&mut self, id: Id) -> Result<Rc<Vec<Part>>, GrammarError> {
        if let Some(parts) = self.expanded.get(&id) {
            return Ok(Rc::clone(parts));
        }
        if !self.running.insert(id) {
            let pointer = self.pointer(id);
            return Err(refuse(&pointer, Some("$ref"), ENDLESS));
        }
        let parts = match self.running.len() > DEPTH {
            true => Err(refuse("", Some("$ref"), "the chain of references is too long")),
            false => self.compute(id),
        };
        self.running.remove(&id);
        let parts = parts?;
        if parts.len() > ALTERNATIVES {
            let pointer = self.pointer(id);
            return Err(refuse(&pointer, None, format!("more than {ALTERNATIVES} combinations of alternatives")));
        }
        self.spend(1 + parts.len())?;
        let parts = Rc::new(parts);
        self.expanded.insert(id, Rc::clone(&parts));
        Ok(parts)
    }

    fn compute(&mut self, id: Id) -> Result<Vec<Part>, GrammarError> {
        Ok(match self.expr(id).clone() {
            Expr::True => anything(),
            Expr::False => Vec::new(),
            Expr::Schema(place) => read::schema(self, self.places[place].clone())?,
            Expr::And(list) => {
                let mut parts = anything();
                for id in list {
                    let more = self.expand(id)?;
                    parts = meet::unions(self, &parts, &more)?;
                }
                parts
            }
            Expr::Or(list) => {
                let mut parts = Vec::new();
                for id in list {
                    parts.extend(self.expand(id)?.iter().cloned());
                    self.spend(parts.len())?;
                }
                tidy(parts)
            }
            Expr::Not(inner) => {
                let parts = self.expand(inner)?;
                negate::union(self, &parts)?
            }
            Expr::Const(index) => vec![Part::Values(vec![self.constants[index].clone()])],
        })
    }

    /// Where the nearest schema of the document is that the node was made of.
    pub fn pointer(&self, id: Id) -> String {
        let mut id = id;
        for _ in 0..100 {
            id = match self.expr(id) {
                Expr::Schema(place) => return self.places[*place].pointer.to_string(),
                Expr::And(list) | Expr::Or(list) => list[0],
                Expr::Not(inner) => *inner,
                _ => break,
            };
        }
        String::new()
    }

    /// Whether the value is of the kind the node describes. Exact.
    pub fn holds(&mut self, id: Id, value: &Value) -> Result<bool, GrammarError> {
        self.spend(1)?;
        match self.expr(id).clone() {
            Expr::True => Ok(true),
            Expr::False => Ok(false),
            Expr::Not(inner) => Ok(!self.holds(inner, value)?),
            Expr::And(list) => {
                for id in list {
                    if !self.holds(id, value)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Expr::Or(list) => {
                for id in list {
                    if self.holds(id, value)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Expr::Schema(_) | Expr::Const(_) => {
                let parts = self.expand(id)?;
                for part in parts.iter() {
                    if holds::part(self, part, value)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Whether it is proved that no value is of the kind. `false` means: not proved.
    pub fn proved_empty(&mut self, id: Id, depth: usize) -> Result<bool, GrammarError> {
        if let Some(&known) = self.empty.get(&id) {
            return Ok(known);
        }
        if depth == 0 || self.running.contains(&id) {
            return Ok(false);
        }
        let parts = match self.expand(id) {
            // It is being worked out right now: nothing is known of it yet.
            Err(GrammarError::Schema { message, .. }) if message == ENDLESS => return Ok(false),
            parts => parts?,
        };
        let mut empty = true;
        for part in parts.iter() {
            empty &= self.part_empty(part, depth - 1)?;
            if !empty {
                break;
            }
        }
        if empty {
            self.empty.insert(id, true);
        }
        Ok(empty)
    }

    /// The same for one part.
    pub fn part_empty(&mut self, part: &Part, depth: usize) -> Result<bool, GrammarError> {
        self.spend(1)?;
        Ok(match part {
            Part::Values(values) => values.is_empty(),
            Part::Number(num) => num.is_empty(),
            Part::Text(text) => text.max.is_some_and(|max| text.min > max) || meet::text_empty(text),
            Part::Array(array) => {
                if array.max.is_some_and(|max| array.min > max) {
                    return Ok(true);
                }
                for index in 0..(array.min.min(array.prefix.len() as u64 + 1) as usize) {
                    if self.proved_empty(array.item(index), depth)? {
                        return Ok(true);
                    }
                }
                for wanted in array.contains.clone() {
                    let impossible = wanted.max.is_some_and(|max| wanted.min > max)
                        || (wanted.min > 0 && self.proved_empty(wanted.node, depth)?);
                    if impossible {
                        return Ok(true);
                    }
                }
                false
            }
            Part::Object(object) => {
                if object.max.is_some_and(|max| object.min > max || object.required.len() as u64 > max) {
                    return Ok(true);
                }
                for name in &object.required {
                    let node = self.property(object, name)?;
                    if self.proved_empty(node, depth)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    /// What an object's value under `name` must be; [`Id::FALSE`] for names that may not be.
    pub fn property(&mut self, object: &super::part::Obj, name: &str) -> Result<Id, GrammarError> {
        for &names in &object.names {
            if !self.holds(names, &Value::from(name))? {
                return Ok(Id::FALSE);
            }
        }
        let mut found: Vec<Id> = object.props.get(name).into_iter().collect();
        let mut known = !found.is_empty();
        for (pattern, node) in &object.patterns {
            if pattern.found_in(name)? {
                known = true;
                found.push(*node);
            }
        }
        if !known {
            found.push(object.rest);
        }
        Ok(self.and(&found))
    }
}
