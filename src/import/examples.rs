//! Examples for a prefix: lines of JSON into messages.
//!
//! A line is one of `{"messages": [{"role", "content"}, ..]}`, `{"input", "output"}`, `{"prompt", "completion"}` or
//! `["input", "output"]`. Every example ends with the assistant's answer, so that the request's own message follows.

use serde_json::{Map, Value};

use super::error::{ImportError, shown};
use crate::gguf::PrefixMessage;
use crate::gguf::limits::{MAX_PREFIX_BYTES, MAX_PREFIX_MESSAGES};

/// Pairs of keys that name a question and its answer.
const PAIRS: [[&str; 2]; 2] = [["input", "output"], ["prompt", "completion"]];

/// The messages of a file of examples, `system` first when it is given.
///
/// # Errors
/// [`ImportError::Example`] with the line: not JSON, none of the forms, a role out of turn, an example that does not end
/// with an answer; no examples, or too many.
pub fn examples(text: &str, system: Option<&str>) -> Result<Vec<PrefixMessage>, ImportError> {
    if text.len() > MAX_PREFIX_BYTES {
        let reason = format!("{} bytes, the limit is {MAX_PREFIX_BYTES}", text.len());
        return Err(ImportError::Example { line: 1, reason });
    }
    let mut messages: Vec<PrefixMessage> = system.map(|text| message("system", text)).into_iter().collect();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refuse = |reason: String| ImportError::Example { line: number + 1, reason: shown(&reason) };
        let value: Value = serde_json::from_str(line).map_err(|error| refuse(format!("is not JSON: {error}")))?;
        let example = example(value).map_err(refuse)?;
        for (at, one) in example.iter().enumerate() {
            if one.role == "system" && (at > 0 || !messages.is_empty()) {
                return Err(refuse("has a system message; only the first example may begin with one".to_owned()));
            }
            if one.role == "assistant" && messages.last().is_none_or(|before| before.role != "user") {
                return Err(refuse("has an answer without a question before it".to_owned()));
            }
            messages.push(one.clone());
        }
        if messages.last().is_none_or(|last| last.role != "assistant") {
            return Err(refuse("does not end with an answer of the assistant".to_owned()));
        }
        if messages.len() > MAX_PREFIX_MESSAGES {
            return Err(refuse(format!("is beyond {MAX_PREFIX_MESSAGES} messages")));
        }
    }
    match messages.iter().any(|message| message.role == "assistant") {
        true => Ok(messages),
        false => Err(ImportError::Example { line: 1, reason: "the file holds no examples".to_owned() }),
    }
}

fn message(role: &str, content: &str) -> PrefixMessage {
    PrefixMessage { role: role.to_owned(), content: content.to_owned() }
}

/// The messages of one line.
fn example(value: Value) -> Result<Vec<PrefixMessage>, String> {
    let forms = "expected {\"messages\": [..]}, {\"input\", \"output\"}, {\"prompt\", \"completion\"} or a list of two \
                 texts";
    match value {
        Value::Array(items) => match &items[..] {
            [Value::String(input), Value::String(output)] => {
                Ok(vec![message("user", input), message("assistant", output)])
            }
            _ => Err(format!("is a list of other things than two texts; {forms}")),
        },
        Value::Object(fields) => of_object(&fields).ok_or_else(|| format!("has none of the forms; {forms}"))?,
        _ => Err(format!("is neither an object nor a list; {forms}")),
    }
}

fn of_object(fields: &Map<String, Value>) -> Option<Result<Vec<PrefixMessage>, String>> {
    if let Some(list) = fields.get("messages") {
        return Some(of_messages(list));
    }
    PAIRS.iter().find_map(|[input, output]| {
        let (input, output) = (fields.get(*input)?.as_str()?, fields.get(*output)?.as_str()?);
        Some(Ok(vec![message("user", input), message("assistant", output)]))
    })
}

fn of_messages(list: &Value) -> Result<Vec<PrefixMessage>, String> {
    let items = list.as_array().ok_or("has messages that are no list")?;
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    let one = |item: &Value| match (text(item, "role"), text(item, "content")) {
        (Some(role), Some(content)) if ["system", "user", "assistant"].contains(&role.as_str()) => {
            Ok(PrefixMessage { role, content })
        }
        (Some(role), Some(_)) => Err(format!("has a message of role '{role}'; expected system, user or assistant")),
        _ => Err("has a message without role and content, both texts".to_owned()),
    };
    items.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, system: Option<&str>) -> String {
        match examples(text, system) {
            Ok(messages) => {
                let all: Vec<_> =
                    messages.iter().map(|m| format!("{}:{}", m.role.get(..1).unwrap_or_default(), m.content)).collect();
                all.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_form_becomes_messages() {
        for (text, system, expected) in [
            (r#"{"input": "a", "output": "b"}"#, None, "u:a a:b"),
            (r#"{"prompt": "a", "completion": "b", "id": 7}"#, None, "u:a a:b"),
            ("\n[\"a\", \"b\"]\n\n[\"c\", \"d\"]\n", Some("S"), "s:S u:a a:b u:c a:d"),
            (
                r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
                None,
                "s:S u:a a:b",
            ),
        ] {
            assert_eq!(told(text, system), expected);
        }
    }

    #[test]
    fn what_is_no_example_is_refused_with_its_line() {
        let system = r#"{"messages": [{"role": "system", "content": "S"}]}"#;
        for (text, given, expected) in [
            ("", None, "examples, line 1: the file holds no examples"),
            ("\n\n", Some("S"), "examples, line 1: the file holds no examples"),
            ("[\"a\", \"b\"]\n{", None, "examples, line 2: is not JSON"),
            ("[\"a\"]", None, "line 1: is a list of other things"),
            ("7", None, "neither an object nor a list"),
            (r#"{"input": "a"}"#, None, "none of the forms"),
            (system, None, "does not end with an answer"),
            (system, Some("S"), "only the first example"),
            (r#"{"messages": [{"role": "assistant", "content": "b"}]}"#, None, "without a question"),
            (r#"{"messages": [{"role": "root", "content": "b"}]}"#, None, "role 'root'"),
            (r#"{"messages": 3}"#, None, "no list"),
        ] {
            let told = told(text, given);
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
