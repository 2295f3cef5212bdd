//! Tools as requests define them.

use serde_json::Value;

use super::super::error::GrammarError;
use super::{TOOLS, Tool, refuse};

/// Characters of a tool's name, at most.
const NAME: usize = 128;

/// Reads the `tools` of a request in OpenAI's form: a list of `{"type": "function", "function": {"name", "parameters"}}`,
/// or of the functions themselves. A tool without parameters takes any object.
///
/// # Errors
/// [`GrammarError::Schema`] with a JSON pointer that begins with `/tools`.
pub fn read(tools: &Value) -> Result<Vec<Tool>, GrammarError> {
    let Value::Array(list) = tools else {
        return Err(refuse("/tools", "must be a list"));
    };
    if list.is_empty() || list.len() > TOOLS {
        return Err(refuse("/tools", format!("there must be 1 to {TOOLS} tools, not {}", list.len())));
    }
    list.iter().enumerate().map(|(index, tool)| one(index, tool)).collect()
}

fn one(index: usize, tool: &Value) -> Result<Tool, GrammarError> {
    let (pointer, function) = match tool.get("function") {
        Some(function) => (format!("/tools/{index}/function"), function),
        None => (format!("/tools/{index}"), tool),
    };
    if let Some(kind) = tool.get("type").filter(|kind| *kind != "function" && tool.get("function").is_some()) {
        return Err(refuse(&format!("/tools/{index}/type"), format!("must be \"function\", not {kind}")));
    }
    let Some(name) = function.get("name").and_then(Value::as_str) else {
        return Err(refuse(&pointer, "a tool needs a 'name'"));
    };
    let length = name.chars().count();
    if length == 0 || length > NAME || name.chars().any(char::is_control) {
        return Err(refuse(&format!("{pointer}/name"), format!("must be 1 to {NAME} characters without line breaks")));
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => "{\"type\":\"object\"}".to_owned(),
        Some(schema @ (Value::Object(_) | Value::Bool(_))) => schema.to_string(),
        Some(_) => return Err(refuse(&format!("{pointer}/parameters"), "must be a JSON Schema")),
    };
    Ok(Tool { name: name.to_owned(), parameters })
}
