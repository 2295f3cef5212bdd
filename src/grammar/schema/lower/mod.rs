//! From parts to what the engine can be told: no "contains", no "at least one of these keys", no patterns that
//! overlap. Each such demand becomes a choice of simpler parts.
//!
//! Where the choice would have no end it is cut short, with a note (the result is stricter), or the demand is
//! reported as one that cannot be enforced.

mod array;
mod count;
mod keys;
mod number;
mod object;
mod text;

use serde_json::Value;

use super::super::error::GrammarError;
use super::graph::{Graph, Id};
use super::part::{Origin, Part};
use super::{SchemaMode, SchemaNote};

/// A part in the engine's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Low {
    Values(Vec<Value>),
    /// A schema of its own without subschemas: numbers, strings.
    Leaf(Value),
    Array {
        prefix: Vec<Id>,
        rest: Id,
        min: u64,
        max: Option<u64>,
        unique: Option<Unique>,
    },
    Object(LowObj),
}

/// That the items of an array differ, with all values an item can have, if they are few.
pub(super) type Unique = Option<Vec<Value>>;

/// An object in the engine's words: patterns do not overlap, and bounds stand only where the engine counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LowObj {
    pub props: Vec<(String, Id)>,
    pub patterns: Vec<(String, Id)>,
    pub rest: Id,
    pub required: Vec<String>,
    pub min: u64,
    pub max: Option<u64>,
}

/// A demand that cannot be expressed.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub pointer: String,
    pub keyword: &'static str,
    /// Without the alternative the schema is only stricter, not another one.
    pub droppable: bool,
}

impl Loss {
    fn of(origin: &Origin, droppable: bool) -> Self {
        Loss { pointer: origin.pointer.to_string(), keyword: origin.keyword, droppable }
    }
}

/// What lowering a node needs and leaves.
pub(super) struct Lowering<'g, 'a> {
    pub graph: &'g mut Graph<'a>,
    pub mode: SchemaMode,
    pub notes: Vec<SchemaNote>,
    pub unchecked: Vec<SchemaNote>,
    /// Demands met in this node that could not be expressed.
    losses: Vec<Loss>,
    /// No keys beside the pieces just made.
    closed: bool,
}

impl<'g, 'a> Lowering<'g, 'a> {
    pub fn new(graph: &'g mut Graph<'a>, mode: SchemaMode) -> Self {
        Lowering { graph, mode, notes: Vec::new(), unchecked: Vec::new(), losses: Vec::new(), closed: false }
    }

    /// The alternatives of a node.
    ///
    /// # Errors
    /// A demand that cannot be enforced, unless it may be left to the check at the end.
    pub fn node(&mut self, id: Id) -> Result<Vec<Low>, GrammarError> {
        let parts = self.graph.expand(id)?;
        self.losses.clear();
        let mut found = Vec::new();
        for part in parts.iter() {
            self.graph.spend(1)?;
            found.extend(match part {
                Part::Values(values) => self.values(values)?,
                Part::Number(num) => self.number(num),
                Part::Text(text) => self.text(text)?,
                Part::Array(array) => self.array(array)?,
                Part::Object(object) => self.object(object)?,
            });
        }
        self.graph.spend(found.len())?;
        let losses = std::mem::take(&mut self.losses);
        let at = |loss: &Loss, graph: &Graph<'_>| match loss.pointer.is_empty() {
            true => graph.pointer(id),
            false => loss.pointer.clone(),
        };
        for loss in losses {
            let pointer = at(&loss, self.graph);
            if self.mode == SchemaMode::Check {
                self.later(&pointer, loss.keyword);
            } else if loss.droppable && !found.is_empty() {
                self.note(&pointer, loss.keyword, "some of what it admits is never written");
            } else {
                let message = format!("keyword '{}' cannot be enforced here", loss.keyword);
                return Err(super::refuse(&pointer, Some(loss.keyword), message));
            }
        }
        Ok(found)
    }

    /// Reports a demand that cannot be expressed. Whether to go on without it: only if it is checked at the end.
    fn lose(&mut self, origin: &Origin, droppable: bool) -> bool {
        self.losses.push(Loss::of(origin, droppable));
        self.mode == SchemaMode::Check
    }

    pub fn note(&mut self, pointer: &str, keyword: &str, message: &str) {
        let note = SchemaNote { pointer: pointer.into(), keyword: keyword.into(), message: message.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn later(&mut self, pointer: &str, keyword: &str) {
        let message = format!("keyword '{keyword}' is checked when the answer is complete");
        let note = SchemaNote { pointer: pointer.into(), keyword: keyword.into(), message };
        if !self.unchecked.contains(&note) {
            self.unchecked.push(note);
        }
    }

    fn values(&mut self, values: &[Value]) -> Result<Vec<Low>, GrammarError> {
        let mut kept = Vec::new();
        for value in values {
            if number::exact(value) {
                kept.push(value.clone());
            } else {
                let origin = Origin { pointer: "".into(), keyword: "enum" };
                self.losses.push(Loss::of(&origin, true));
            }
        }
        Ok(if kept.is_empty() { Vec::new() } else { vec![Low::Values(kept)] })
    }
}

/// `count` of `total`, as index lists, if they are at most `most`.
fn choices(total: usize, count: usize, most: usize) -> Option<Vec<Vec<usize>>> {
    let mut found: Vec<Vec<usize>> = vec![Vec::new()];
    for round in 0..count {
        let mut next = Vec::new();
        for chosen in &found {
            let from = chosen.last().map_or(0, |last| last + 1);
            // Leave room for those still to come.
            for index in from..(total + round + 1).saturating_sub(count) {
                let mut chosen = chosen.clone();
                chosen.push(index);
                next.push(chosen);
            }
            if next.len() > most {
                return None;
            }
        }
        found = next;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn choices_are_all_and_only_those_of_the_size() {
        assert_eq!(super::choices(4, 2, 10).unwrap().len(), 6);
        assert_eq!(super::choices(3, 0, 10).unwrap(), vec![Vec::<usize>::new()]);
        assert_eq!(super::choices(2, 3, 10).unwrap(), Vec::<Vec<usize>>::new());
        assert_eq!(super::choices(30, 15, 100), None);
    }
}
