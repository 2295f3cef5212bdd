//! Typed access to the fields of a JSON object: a wrong type is an error that names the field.

use serde_json::{Map, Value};

/// A field of a request is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field, with a path for nested ones.
    pub field: String,
    /// What is wrong, with the value.
    pub problem: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    pub(super) fn expected(field: &str, expected: &str, found: &Value) -> Self {
        let mut shown = found.to_string();
        if shown.len() > 60 {
            let cut = (0..=57).rev().find(|i| shown.is_char_boundary(*i)).unwrap_or(0);
            shown.truncate(cut);
            shown.push_str("...");
        }
        Self::new(field, format!("must be {expected}, not {shown}"))
    }
}

/// The fields of a request. `null` counts as absent, as in llama-server.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// What has not been taken.
    pub(super) fn into_inner(self) -> Map<String, Value> {
        self.0
    }

    /// Puts a field in.
    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_string(), value);
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|v| !v.is_null())
    }

    /// Takes the first present of several spellings, with the spelling used.
    pub(super) fn take_any<'n>(&mut self, names: &[&'n str]) -> Option<(&'n str, Value)> {
        let found = names.iter().find_map(|name| self.take(name).map(|v| (*name, v)));
        names.iter().for_each(|name| drop(self.take(name)));
        found
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, FieldError> {
        self.typed(name, "a string", |v| v.as_str().map(String::from))
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn f32(&mut self, name: &str) -> Result<Option<f32>, FieldError> {
        self.typed(name, "a number", |v| v.as_f64().map(|n| n as f32))
    }

    /// A whole number; `5.0` is one, `5.5` is not.
    pub(super) fn i64(&mut self, name: &str) -> Result<Option<i64>, FieldError> {
        self.typed(name, "a whole number", whole)
    }

    pub(super) fn i32(&mut self, name: &str) -> Result<Option<i32>, FieldError> {
        self.typed(name, "a whole number of 32 bits", |v| whole(v).and_then(|n| i32::try_from(n).ok()))
    }

    pub(super) fn usize(&mut self, name: &str) -> Result<Option<usize>, FieldError> {
        self.typed(name, "a whole number of 0 or more", |v| whole(v).and_then(|n| usize::try_from(n).ok()))
    }

    /// A string or an array of strings.
    pub(super) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, FieldError> {
        self.typed(name, "a string or an array of strings", |v| match v {
            Value::String(s) => Some(vec![s.clone()]),
            Value::Array(items) => items.iter().map(|i| i.as_str().map(String::from)).collect(),
            _ => None,
        })
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| FieldError::expected(name, expected, &value))
    }
}

fn whole(v: &Value) -> Option<i64> {
    v.as_i64().or_else(|| v.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9.0e15).map(|n| n as i64))
}

pub(super) fn expected(field: &str, what: &str, found: &Value) -> FieldError {
    FieldError::expected(field, what, found)
}
