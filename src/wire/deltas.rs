//! An answer's text taken apart while it comes: thoughts, tool calls, and what is said.
//!
//! Text is given out as soon as it cannot be part of a mark (`<think>`, `<tool_call>`) any more. A tool call is given
//! out whole, once it has been read as one; what turns out not to be a call is text after all.

use serde_json::{Map, Value};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// What is said.
    Text(String),
    /// Thoughts before it.
    Reasoning(String),
    /// A tool is called: its name, and its arguments as JSON text.
    Call {
        /// The tool.
        name: String,
        /// An object, as text.
        arguments: String,
    },
}

/// What to look for in an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Take thoughts out of the text.
    pub reasoning: bool,
    /// The prompt has opened the thoughts already.
    pub thinking: bool,
    /// Names of tools that may be called; empty when there are none.
    pub tools: Vec<String>,
    /// The answer is nothing but calls: its format says so.
    pub only_calls: bool,
}

const THINK: &str = "<think>";
const UNTHINK: &str = "</think>";
const CALL: &str = "<tool_call>";
const UNCALL: &str = "</tool_call>";

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing but white space has come.
    Start,
    Thinking,
    /// After thoughts: white space is dropped.
    AfterThinking,
    Text,
    /// Inside `<tool_call>`.
    Call,
    /// A text that begins as JSON, while tools are offered.
    Json,
}

/// Takes one answer apart.
#[derive(Clone, Debug)]
pub struct Splitter {
    split: Split,
    state: State,
    held: String,
}

impl Splitter {
    /// For one answer.
    pub fn new(split: Split) -> Self {
        let state = match (&split.only_calls, split.thinking && split.reasoning) {
            (true, _) => State::Json,
            (_, true) => State::Thinking,
            _ => State::Start,
        };
        Self { split, state, held: String::new() }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.held += text;
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The answer is complete: what was held back.
    pub fn finish(&mut self) -> Vec<Delta> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Vec::new();
        }
        match self.state {
            State::Thinking => vec![Delta::Reasoning(held)],
            State::Json => self.calls(&held).unwrap_or_else(|| vec![Delta::Text(held)]),
            State::Call => self.calls(&held).unwrap_or_else(|| vec![Delta::Text(format!("{CALL}{held}"))]),
            State::AfterThinking if held.trim().is_empty() => Vec::new(),
            State::Start | State::AfterThinking | State::Text => vec![Delta::Text(held)],
        }
    }

    /// One step; false when more text is needed.
    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match self.state {
            State::Start | State::AfterThinking => self.decide(),
            State::Thinking => match self.held.split_once(UNTHINK) {
                Some((thought, rest)) => {
                    push(out, Delta::Reasoning(thought.to_string()));
                    self.held = rest.to_string();
                    self.state = State::AfterThinking;
                    true
                }
                None => {
                    push(out, Delta::Reasoning(self.certain(UNTHINK)));
                    false
                }
            },
            State::Text if self.split.tools.is_empty() => {
                push(out, Delta::Text(std::mem::take(&mut self.held)));
                false
            }
            State::Text => match self.held.split_once(CALL) {
                Some((text, rest)) => {
                    // White space before a call is no speech.
                    push(out, Delta::Text(text.trim_end().to_string()));
                    self.held = rest.to_string();
                    self.state = State::Call;
                    true
                }
                None => {
                    push(out, Delta::Text(self.certain(CALL)));
                    false
                }
            },
            State::Call => match self.held.split_once(UNCALL) {
                Some((body, rest)) => {
                    let (body, rest) = (body.to_string(), rest.to_string());
                    let raw = || vec![Delta::Text(format!("{CALL}{body}{UNCALL}"))];
                    out.extend(self.calls(&body).unwrap_or_else(raw));
                    self.held = rest.trim_start().to_string();
                    self.state = State::Text;
                    true
                }
                None => false,
            },
            State::Json => false,
        }
    }

    /// What begins here, once that can be told.
    fn decide(&mut self) -> bool {
        let at_start = self.state == State::Start;
        let begun = self.held.trim_start();
        let think = self.split.reasoning && at_start;
        if begun.is_empty() || (think && begun.len() < THINK.len() && THINK.starts_with(begun)) {
            return false;
        }
        if think && begun.starts_with(THINK) {
            self.held = begun[THINK.len()..].to_string();
            self.state = State::Thinking;
            return true;
        }
        let json = !self.split.tools.is_empty() && begun.starts_with(['{', '[']);
        if !at_start || json || (!self.split.tools.is_empty() && begun.starts_with('<')) {
            self.held = begun.to_string();
        }
        self.state = if json { State::Json } else { State::Text };
        true
    }

    /// Takes what cannot be the beginning of `mark`.
    fn certain(&mut self, mark: &str) -> String {
        let longest = (1..mark.len().min(self.held.len() + 1)).rev().find(|n| self.held.ends_with(&mark[..*n]));
        let at = self.held.len() - longest.unwrap_or(0);
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }

    /// The calls that a JSON text holds: one, or an array of them, of tools that were offered.
    fn calls(&self, text: &str) -> Option<Vec<Delta>> {
        let values = match serde_json::from_str(text.trim()).ok()? {
            Value::Array(items) if !items.is_empty() => items,
            value @ Value::Object(_) => vec![value],
            _ => return None,
        };
        values.into_iter().map(|value| self.call(value)).collect()
    }

    fn call(&self, mut value: Value) -> Option<Delta> {
        if let Some(inner) = value.get_mut("function").filter(|f| f.is_object()) {
            value = inner.take();
        }
        let name = value.get("name")?.as_str().filter(|n| self.split.tools.iter().any(|t| t == n))?.to_string();
        let arguments = ["arguments", "parameters"].iter().find_map(|key| value.get(*key));
        let arguments = match arguments {
            None => Value::Object(Map::new()).to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(value @ Value::Object(_)) => value.to_string(),
            Some(_) => return None,
        };
        Some(Delta::Call { name, arguments })
    }
}

fn push(out: &mut Vec<Delta>, delta: Delta) {
    let (Delta::Text(text) | Delta::Reasoning(text)) = &delta else {
        out.push(delta);
        return;
    };
    if !text.is_empty() {
        out.push(delta);
    }
}

/// A whole answer, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// What is said.
    pub text: String,
    /// The thoughts, if there were any.
    pub reasoning: Option<String>,
    /// The calls: names and arguments.
    pub calls: Vec<(String, String)>,
}

impl Parts {
    /// Takes `text` apart.
    pub fn of(text: &str, split: &Split) -> Self {
        let mut splitter = Splitter::new(split.clone());
        let mut parts = Self::default();
        for delta in splitter.push(text).into_iter().chain(splitter.finish()) {
            match delta {
                Delta::Text(text) => parts.text += &text,
                Delta::Reasoning(text) => *parts.reasoning.get_or_insert_default() += &text,
                Delta::Call { name, arguments } => parts.calls.push((name, arguments)),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split() -> Split {
        Split { reasoning: true, tools: vec!["get".into(), "put".into()], ..Split::default() }
    }

    fn joined(deltas: Vec<Delta>) -> Parts {
        let mut parts = Parts::default();
        for delta in deltas {
            match delta {
                Delta::Text(text) => parts.text += &text,
                Delta::Reasoning(text) => *parts.reasoning.get_or_insert_default() += &text,
                Delta::Call { name, arguments } => parts.calls.push((name, arguments)),
            }
        }
        parts
    }

    #[test]
    fn answers_are_taken_apart() {
        let call = |name: &str, arguments: &str| (name.to_string(), arguments.to_string());
        let table = [
            ("plain", "plain", None, vec![]),
            ("a < b and <tool", "a < b and <tool", None, vec![]),
            ("<think>hm</think>\n\nyes", "yes", Some("hm"), vec![]),
            ("<think>never closed", "", Some("never closed"), vec![]),
            ("  <think>x</think>", "", Some("x"), vec![]),
            ("say <think>", "say <think>", None, vec![]),
            (
                "Let me see.\n<tool_call>{\"name\":\"get\",\"arguments\":{\"a\":1}}</tool_call>",
                "Let me see.",
                None,
                vec![call("get", "{\"a\":1}")],
            ),
            (
                "<tool_call>\n{\"name\": \"get\"}\n</tool_call>\n<tool_call>{\"name\":\"put\",\"parameters\":{}}</tool_call>",
                "",
                None,
                vec![call("get", "{}"), call("put", "{}")],
            ),
            ("{\"name\":\"get\",\"arguments\":{}}", "", None, vec![call("get", "{}")]),
            ("{\"name\":\"other\"}", "{\"name\":\"other\"}", None, vec![]),
            ("<tool_call>nonsense</tool_call> x", "<tool_call>nonsense</tool_call>x", None, vec![]),
            ("<tool_call>{\"name\":\"get\"", "<tool_call>{\"name\":\"get\"", None, vec![]),
        ];
        for (text, said, thought, calls) in table {
            let expected = Parts { text: said.into(), reasoning: thought.map(String::from), calls };
            assert_eq!(Parts::of(text, &split()), expected, "{text}");
        }
    }

    #[test]
    fn without_tools_and_reasoning_text_is_text() {
        let text = "<think>x</think><tool_call>{}</tool_call>";
        assert_eq!(Parts::of(text, &Split::default()).text, text);
    }

    #[test]
    fn an_opened_thought_needs_no_mark() {
        let split = Split { reasoning: true, thinking: true, ..Split::default() };
        let expected = Parts { text: "b".into(), reasoning: Some("a".into()), calls: vec![] };
        assert_eq!(Parts::of("a</think>b", &split), expected);
    }

    proptest! {
        #[test]
        fn how_text_is_cut_does_not_matter(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("<think>"), Just("</think>"), Just("<tool_call>"), Just("</tool_call>"), Just("{\"name\":\"get\"}"),
                    Just(" "), Just("\n"), Just("<"), Just("é"), Just("word"), Just("[")
                ], 0..12),
            cut in 1usize..5,
        ) {
            let text = pieces.concat();
            let chars: Vec<char> = text.chars().collect();
            let mut splitter = Splitter::new(split());
            let mut deltas = Vec::new();
            for chunk in chars.chunks(cut) {
                deltas.extend(splitter.push(&chunk.iter().collect::<String>()));
            }
            deltas.extend(splitter.finish());
            // White space before a call may have been given out before the call began.
            let squeeze = |p: Parts| Parts { text: p.text.split_whitespace().collect(), ..p };
            prop_assert_eq!(squeeze(joined(deltas)), squeeze(Parts::of(&text, &split())));
        }
    }
}
