//! A conversation as text and back: JSONL to go on with, Markdown to read. Pure; knows no files.

use serde_json::{Map, Value, json};

use super::session::{Session, Turn, Worn};
use crate::prompt::{Message, Role};

/// The conversation as JSONL: a message a line.
pub fn to_jsonl(session: &Session) -> String {
    let system = session.system.iter().map(|text| json!({"role": "system", "content": text}));
    system.chain(session.turns().iter().map(turn_value)).map(|line| format!("{line}\n")).collect()
}

fn turn_value(turn: &Turn) -> Value {
    let mut object = Map::new();
    object.insert("role".into(), turn.message.role.as_str().into());
    object.insert("content".into(), turn.message.content.clone().into());
    object.extend(turn.message.extras.clone());
    if turn.message.role == Role::Assistant {
        let worn = |w: &Worn| json!({"name": w.name, "digest": w.digest, "scale": f64::from(w.scale)});
        object.insert("adapters".into(), turn.adapters.iter().map(worn).collect());
    }
    object.into()
}

/// Why a text is no saved conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct StoreError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// The conversation that JSONL holds.
///
/// # Errors
/// The first line that is no message.
pub fn from_jsonl(text: &str) -> Result<Session, StoreError> {
    let mut system = None;
    let mut turns: Vec<Turn> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let turn = turn(line).map_err(|problem| StoreError { line: index + 1, problem })?;
        match turn.message.role {
            Role::System if system.is_none() && turns.is_empty() => system = Some(turn.message.content),
            _ => turns.push(turn),
        }
    }
    if turns.is_empty() && system.is_none() {
        return Err(StoreError { line: 1, problem: "no message is there".into() });
    }
    Ok(Session::of(system, turns))
}

fn turn(line: &str) -> Result<Turn, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut object) = value else {
        return Err("not a JSON object".into());
    };
    let mut text = |name: &str| match object.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(format!("{name} must be a string")),
    };
    let role: Role = text("role")?.parse().map_err(|e: crate::prompt::UnknownRole| e.to_string())?;
    let content = text("content")?;
    let adapters = match object.shift_remove("adapters") {
        Some(Value::Array(items)) => items.iter().map(worn).collect::<Option<Vec<_>>>(),
        None | Some(Value::Null) => Some(Vec::new()),
        Some(_) => None,
    };
    let adapters = adapters.ok_or("adapters must be an array of {name, digest, scale}")?;
    Ok(Turn { message: Message { role, content, extras: object }, adapters })
}

fn worn(value: &Value) -> Option<Worn> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(String::from);
    let scale = value.get("scale").and_then(Value::as_f64)? as f32;
    Some(Worn { name: text("name")?, digest: text("digest")?, scale })
}

/// The conversation as Markdown.
pub fn to_markdown(session: &Session) -> String {
    let section = |title: &str, text: &str| format!("## {title}\n\n{}\n\n", text.trim_end());
    let system = session.system.iter().map(|text| section("System", text));
    let turns = session.turns().iter().map(|turn| {
        let title = match turn.message.role {
            Role::System => "System",
            Role::User => "User",
            Role::Assistant => "Assistant",
            Role::Tool => "Tool",
        };
        let worn = turn.adapters.iter().map(|w| format!("{}={}", w.name, w.scale)).collect::<Vec<_>>().join(" + ");
        let title = if worn.is_empty() { title.to_string() } else { format!("{title} ({worn})") };
        section(&title, &turn.message.content)
    });
    system.chain(turns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let worn = Worn { name: "sql".into(), digest: "ab".repeat(32), scale: 0.5 };
        let turn = |role, text: &str, adapters| Turn { message: Message::new(role, text), adapters };
        Session::of(
            Some("Be brief.".into()),
            vec![turn(Role::User, "two\nlines \"q\"", vec![]), turn(Role::Assistant, "é\u{1b}", vec![worn])],
        )
    }

    #[test]
    fn a_saved_conversation_is_the_same_when_read_again() {
        let text = to_jsonl(&session());
        assert_eq!(text.lines().count(), 3);
        assert_eq!(from_jsonl(&text), Ok(session()));
        assert_eq!(to_jsonl(&from_jsonl(&text).expect("read")), text);
    }

    #[test]
    fn fields_of_other_programs_are_kept() {
        let line = "{\"role\":\"tool\",\"content\":\"4\",\"tool_call_id\":\"x\"}\n";
        assert_eq!(to_jsonl(&from_jsonl(line).expect("read")), line);
    }

    #[test]
    fn what_is_no_conversation_names_its_line() {
        let table = [
            ("", "line 1: no message is there"),
            ("{\"role\":\"user\",\"content\":\"a\"}\n\nx", "line 3: not JSON"),
            ("[]", "line 1: not a JSON object"),
            ("{\"role\":\"user\"}", "line 1: content must be a string"),
            ("{\"role\":\"root\",\"content\":\"a\"}", "line 1: role \"root\" is not one of"),
            ("{\"role\":\"user\",\"content\":\"a\",\"adapters\":[1]}", "line 1: adapters must be an array"),
        ];
        for (text, expected) in table {
            let e = from_jsonl(text).expect_err(text).to_string();
            assert!(e.starts_with(expected), "{e:?} should start with {expected:?}");
        }
    }

    #[test]
    fn markdown_has_a_section_a_message() {
        let text = "## System\n\nBe brief.\n\n## User\n\ntwo\nlines \"q\"\n\n## Assistant (sql=0.5)\n\né\u{1b}\n\n";
        assert_eq!(to_markdown(&session()), text);
    }
}
