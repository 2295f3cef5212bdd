//! What there is to know about a compiled JSON Schema beside its grammar, and the check of whole answers.
//!
//! Only schemas compiled from [`Source::CheckedSchema`](super::Source::CheckedSchema) leave anything to the check. The
//! validator is the crate `jsonschema`, which shares no code with the rewriting; it fetches nothing.

use jsonschema::Validator;
use serde_json::Value;

use super::error::{GrammarError, one_line};
use super::schema::SchemaNote;

/// How a compiled JSON Schema differs from its text.
#[derive(Debug)]
pub struct SchemaReport {
    notes: Vec<SchemaNote>,
    unchecked: Vec<SchemaNote>,
    validator: Option<Box<Validator>>,
}

/// Why a whole answer does not satisfy its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer does not satisfy the schema{}: {message}", place(.pointer))]
pub struct SchemaViolation {
    /// JSON pointer into the answer.
    pub pointer: String,
    /// What is wrong, on one line.
    pub message: String,
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at '{pointer}'") }
}

impl SchemaReport {
    pub(super) fn new(notes: Vec<SchemaNote>, unchecked: Vec<SchemaNote>, schema: Value) -> Result<Self, GrammarError> {
        let validator = match unchecked.is_empty() {
            true => None,
            false => Some(Box::new(validator(&schema)?)),
        };
        Ok(SchemaReport { notes, unchecked, validator })
    }

    /// Where the grammar is stricter than the schema: some valid answers are never written.
    pub fn notes(&self) -> &[SchemaNote] {
        &self.notes
    }

    /// Keywords that the grammar does not enforce. Empty unless the schema was compiled to be checked.
    pub fn unchecked(&self) -> &[SchemaNote] {
        &self.unchecked
    }

    /// Checks a whole answer. At once if the grammar enforces everything.
    ///
    /// # Errors
    /// The first violation. The answer must not be given out as valid then: ask again, or fail the request.
    pub fn check(&self, answer: &str) -> Result<(), SchemaViolation> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let violation = |pointer: String, message: String| SchemaViolation { pointer, message: one_line(&message) };
        let value: Value = serde_json::from_str(answer).map_err(|e| violation(String::new(), e.to_string()))?;
        match validator.validate(&value) {
            Ok(()) => Ok(()),
            Err(error) => Err(violation(error.instance_path().to_string(), error.to_string())),
        }
    }
}

fn validator(schema: &Value) -> Result<Validator, GrammarError> {
    let options = jsonschema::options().offline().should_validate_formats(true).should_ignore_unknown_formats(true);
    options.build(schema).map_err(|error| GrammarError::Schema {
        pointer: error.instance_path().to_string(),
        keyword: None,
        message: one_line(&error.to_string()),
    })
}
