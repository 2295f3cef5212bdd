//! JSON Schemas: read, worked out, and written again in the words that the engine enforces.
//!
//! `llguidance` enforces a part of JSON Schema exactly and refuses the rest. This pass stands in front of it. It reads
//! a schema of any draft from 4 to 2020-12 into parts ([`part`]), each a conjunction about one type; `not`, `oneOf`,
//! `if`, `dependent*` and the like become operations on unions of parts ([`exclusive`], [`negate`], [`meet`],
//! [`conditional`]), where subschemas stay nodes of a graph ([`graph`]) so that recursion stays finite. What comes
//! out is lowered to what the engine knows ([`lower`]) and written as a schema ([`write`]). From the same, [`ends`] tells
//! how a begun value ends soonest.
//!
//! The pass may be stricter than the schema, and says so in a note; it is never laxer. What it cannot enforce it
//! refuses with a JSON pointer and the keyword, or, when asked to check, leaves to a validator at the end.
//!
//! It knows no vocabulary, no engine and no model: a text in, a value and notes out.

mod check;
mod conditional;
mod document;
mod ends;
mod exclusive;
mod format;
mod graph;
mod holds;
mod lower;
mod meet;
mod negate;
mod number;
mod parse;
mod part;
mod pattern;
mod read;
mod unevaluated;
mod uri;
mod write;

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::error::GrammarError;
use super::limits::Limits;
pub(super) use ends::{Ends, Track};
pub(super) use holds::same;
pub(super) use write::{Plan, Rules};

/// What rules are made of, for the engine's side.
pub(super) mod rules {
    pub(in super::super) use super::number::decimal_of;
    pub(in super::super) use super::write::numbers;
    pub(in super::super) use super::write::spell::{CHARACTER, KEY_CHARACTER};
    pub(in super::super) use super::write::words::{Choice, Compared, Item, Rules, Step, When, Word};
}

/// What to do with a keyword that cannot be enforced token by token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SchemaMode {
    /// Refuse the schema.
    #[default]
    Strict,
    /// Enforce the rest, and check the whole answer at the end.
    Check,
}

/// Something the author of a schema should know: where it is enforced more strictly than it says, or not before the
/// end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaNote {
    /// JSON pointer into the schema.
    pub pointer: String,
    /// The keyword.
    pub keyword: String,
    /// What happens, on one line.
    pub message: String,
}

/// In which order the keys of an object come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyOrder {
    /// Any.
    #[default]
    Any,
    /// The order of the schema; keys that it does not name come last.
    Schema,
}

/// A schema ready for the engine.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rewritten {
    /// Enforces at least the schema, but for what `unchecked` names.
    pub plan: Plan,
    /// The schema as it was read.
    pub original: Value,
}

/// Reads a schema and rewrites it.
pub(super) fn rewrite(text: &str, mode: SchemaMode, limits: &Limits) -> Result<Rewritten, GrammarError> {
    if text.len() > limits.schema_bytes {
        return Err(GrammarError::Limit {
            origin: "schema".to_owned(),
            place: None,
            what: "bytes of text",
            found: text.len() as u64,
            limit: limits.schema_bytes as u64,
        });
    }
    let original = parse::parse(text, limits)?;
    if !matches!(original, Value::Object(_) | Value::Bool(_)) {
        return Err(refuse("", None, "a schema is an object, true or false"));
    }
    let document = document::Document::new(&original);
    let mut graph = graph::Graph::new(&document);
    let root = graph.schema(document.root.clone());
    let plan = write::plan(&mut graph, root, mode)?;
    Ok(Rewritten { plan, original })
}

fn refuse(pointer: &str, keyword: Option<&str>, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.to_owned(), keyword: keyword.map(str::to_owned), message: message.into() }
}

/// One step down a JSON pointer.
fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}
