//! A row of a task file: a conversation that ends with the answer wanted, and what a metric needs beside it.

use serde_json::{Map, Value};

use super::text;

/// Who speaks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One question of a task with the answer wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The conversation up to the answer.
    pub messages: Vec<(Speaker, String)>,
    /// The answer wanted: the last message.
    pub answer: String,
    /// What the metric needs: `refs`, `answer`, `setup`, `rows`, ..
    pub meta: Map<String, Value>,
}

/// Why a line is no row.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No JSON object.
    #[error("is not a JSON object: {0}")]
    Json(String),
    /// A field that is missing or of the wrong kind.
    #[error("{field}: {what}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads `{"messages": [{"role", "content"}, ..], "meta": {..}}`; the last message is the assistant's.
///
/// # Errors
/// The field that is missing or wrong.
pub fn read_row(line: &str) -> Result<Row, TaskError> {
    let wrong = |field: String, what| TaskError::Field { field, what };
    let value: Value = serde_json::from_str(line).map_err(|e| TaskError::Json(e.to_string()))?;
    let object = value.as_object().ok_or_else(|| TaskError::Json("another kind of value".to_owned()))?;
    let listed = object.get("messages").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| wrong("messages".into(), "give a list of {\"role\", \"content\"}"))?;
    let mut messages = Vec::new();
    for (at, message) in listed.iter().enumerate() {
        let speaker = match message["role"].as_str() {
            Some("system") => Speaker::System,
            Some("user") => Speaker::User,
            Some("assistant") => Speaker::Assistant,
            _ => return Err(wrong(format!("messages[{at}].role"), "give system, user or assistant")),
        };
        let content = message["content"].as_str();
        let content = content.ok_or_else(|| wrong(format!("messages[{at}].content"), "give a text"))?;
        messages.push((speaker, content.to_owned()));
    }
    let answer = match messages.pop() {
        Some((Speaker::Assistant, answer)) => answer,
        _ => return Err(wrong("messages".into(), "the last one must be the assistant's: the answer wanted")),
    };
    if !messages.iter().any(|(speaker, _)| *speaker == Speaker::User) {
        return Err(wrong("messages".into(), "there is no message of a user"));
    }
    let meta = match object.get("meta") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(meta)) => meta.clone(),
        Some(_) => return Err(wrong("meta".into(), "give an object")),
    };
    if meta.get("refs").is_some_and(|refs| texts(refs).is_none_or(|refs| refs.is_empty())) {
        return Err(wrong("meta.refs".into(), "give a list of texts"));
    }
    Ok(Row { messages, answer, meta })
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

impl Row {
    /// The last text of the user.
    pub fn user(&self) -> &str {
        self.messages.iter().rfind(|(speaker, _)| *speaker == Speaker::User).map_or("", |(_, text)| text)
    }

    /// The texts that an answer may equal: `meta.refs`, else the answer wanted.
    pub fn references(&self) -> Vec<&str> {
        self.meta.get("refs").and_then(texts).unwrap_or_else(|| vec![&self.answer])
    }

    /// A text of the meta object; a number is read as its digits.
    pub fn meta_text(&self, key: &str) -> Option<String> {
        self.meta.get(key).and_then(text::scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_or_refused_by_field() {
        let good = r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
            {"role": "assistant", "content": "A"}], "meta": {"refs": ["A", "B"], "n": 3}}"#;
        let row = read_row(good).expect("read");
        assert_eq!((row.user(), row.answer.as_str(), row.references()), ("U", "A", vec!["A", "B"]));
        assert_eq!((row.meta_text("n").as_deref(), row.meta_text("m")), (Some("3"), None));
        let user = r#"{"role": "user", "content": "U"}"#;
        let answer = r#"{"role": "assistant", "content": "A"}"#;
        let table = [
            ("[]".to_owned(), "not a JSON object"),
            ("{".to_owned(), "not a JSON object"),
            ("{}".to_owned(), "messages"),
            (format!(r#"{{"messages": [{user}]}}"#), "the last one must be the assistant's"),
            (format!(r#"{{"messages": [{answer}]}}"#), "no message of a user"),
            (format!(r#"{{"messages": [{user}, {{"role": "tool", "content": ""}}]}}"#), "messages[1].role"),
            (format!(r#"{{"messages": [{user}, {{"role": "assistant"}}]}}"#), "messages[1].content"),
            (format!(r#"{{"messages": [{user}, {answer}], "meta": 3}}"#), "meta: give an object"),
            (format!(r#"{{"messages": [{user}, {answer}], "meta": {{"refs": [1]}}}}"#), "meta.refs"),
            (format!(r#"{{"messages": [{user}, {answer}], "meta": {{"refs": []}}}}"#), "meta.refs"),
        ];
        for (line, words) in table {
            let error = read_row(&line).expect_err(&line).to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
