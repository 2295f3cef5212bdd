//! An answer's text taken apart while it comes: thoughts, tool calls, and what is said.
//!
//! Text is given out as soon as it cannot be part of a mark (`<think>`, what begins a call) any more. The name of a call
//! is given out once it is known to be one, its arguments as they come; what turns out not to be a call is text after
//! all.

use serde_json::{Map, Value};

use super::calls::{Head, Reading, head};
use crate::grammar::tools::Envelope;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// What is said.
    Text(String),
    /// Thoughts before it.
    Reasoning(String),
    /// A call of the tool with this name begins.
    Call(String),
    /// More of its arguments: an object as JSON text, in parts.
    Arguments(String),
    /// The call ends.
    CallEnd,
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
    /// How the model writes calls; Hermes' tags when nothing is said.
    pub envelope: Option<Envelope>,
}

const THINK: &str = "<think>";
const UNTHINK: &str = "</think>";
const CALL: &str = "<tool_call>";
const UNCALL: &str = "</tool_call>";

impl Split {
    /// What begins a call.
    fn marks(&self) -> &'static [&'static str] {
        match self.envelope {
            _ if self.tools.is_empty() => &[],
            None | Some(Envelope::Hermes) => &[CALL],
            Some(Envelope::Llama3) => &["{\"name\":"],
            // The mark may be a control token, which is no text.
            Some(Envelope::Mistral) => &["[TOOL_CALLS]", "[{\"name\":"],
        }
    }
}

/// What stands around calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Frame {
    /// `<tool_call>` and `</tool_call>`, each call its own.
    Tags,
    /// `[` and `]`, with commas between.
    List,
    /// Nothing.
    Bare,
}

impl Frame {
    /// The mark that is not part of the text that is held.
    fn opening(self) -> &'static str {
        if self == Frame::Tags { CALL } else { "" }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing but white space has come.
    Start,
    Thinking,
    /// After thoughts: white space is dropped.
    AfterThinking,
    Text,
    /// Before a call's head, or in it.
    Call(Frame),
    /// In a call's arguments, or in what follows them; true while they last.
    Body(Frame, Reading, bool),
    /// Behind a call.
    After(Frame),
    /// Something begins as a call and is none as far as it can be told: held until its end.
    Whole(Frame),
}

/// Takes one answer apart.
#[derive(Clone, Debug)]
pub struct Splitter {
    split: Split,
    state: State,
    held: String,
    /// White space before what begins as a call: dropped when it is one.
    gap: String,
}

impl Splitter {
    /// For one answer.
    pub fn new(split: Split) -> Self {
        let state = if split.thinking && split.reasoning { State::Thinking } else { State::Start };
        Self { split, state, held: String::new(), gap: String::new() }
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
        match self.state {
            State::Body(_, _, true) => vec![Delta::CallEnd],
            State::Body(..) | State::After(_) => Vec::new(),
            _ if held.is_empty() => Vec::new(),
            State::Thinking => vec![Delta::Reasoning(held)],
            State::Call(frame) | State::Whole(frame) => {
                let raw = || vec![Delta::Text(format!("{}{}{held}", self.gap, frame.opening()))];
                self.calls(&held).unwrap_or_else(raw)
            }
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
                    push(out, Delta::Reasoning(self.certain(&[UNTHINK])));
                    false
                }
            },
            State::Text => self.text(out),
            State::Call(frame) => self.call(frame, out),
            State::Body(frame, reading, arguments) => self.body(frame, reading, arguments, out),
            State::After(frame) => self.after(frame),
            State::Whole(Frame::Tags) => match self.held.split_once(UNCALL) {
                Some((body, rest)) => {
                    let (body, rest) = (body.to_string(), rest.trim_start().to_string());
                    let raw = || vec![Delta::Text(format!("{}{CALL}{body}{UNCALL}", self.gap))];
                    out.extend(self.calls(&body).unwrap_or_else(raw));
                    self.held = rest;
                    self.state = State::Text;
                    true
                }
                None => false,
            },
            State::Whole(_) => false,
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
        let tools = !self.split.tools.is_empty();
        let frame = match begun.as_bytes().first() {
            Some(b'{') if tools => Some(Frame::Bare),
            // Mistral's own mark begins like a list.
            Some(b'[') if tools && self.split.envelope != Some(Envelope::Mistral) => Some(Frame::List),
            _ => None,
        };
        if !at_start || frame.is_some() || (tools && begun.starts_with(['<', '['])) {
            self.held = begun.to_string();
        }
        self.state = frame.map_or(State::Text, State::Call);
        true
    }

    /// Text up to what begins a call.
    fn text(&mut self, out: &mut Vec<Delta>) -> bool {
        let marks = self.split.marks();
        if marks.is_empty() {
            push(out, Delta::Text(std::mem::take(&mut self.held)));
            return false;
        }
        let found = marks.iter().filter_map(|mark| Some((self.held.find(mark)?, *mark))).min_by_key(|(at, _)| *at);
        let Some((at, mark)) = found else {
            push(out, Delta::Text(self.certain(marks)));
            return false;
        };
        // White space before a call is no speech.
        let said = self.held[..at].trim_end();
        self.gap = self.held[said.len()..at].to_string();
        push(out, Delta::Text(said.to_string()));
        let (frame, skip) = match mark {
            CALL => (Frame::Tags, mark.len()),
            "[TOOL_CALLS]" => (Frame::List, mark.len()),
            _ if mark.starts_with('[') => (Frame::List, 0),
            _ => (Frame::Bare, 0),
        };
        self.held.drain(..at + skip);
        self.state = State::Call(frame);
        true
    }

    /// The head of a call: everything up to its arguments.
    fn call(&mut self, frame: Frame, out: &mut Vec<Delta>) -> bool {
        let begun = self.held.trim_start();
        let open = if frame == Frame::List { begun.strip_prefix('[').unwrap_or(begun) } else { begun };
        match head(open, &self.split.tools) {
            Head::More => false,
            Head::Odd => {
                self.state = State::Whole(frame);
                true
            }
            Head::Found { name, rest } => {
                self.held = rest;
                out.push(Delta::Call(name));
                self.state = State::Body(frame, Reading::default(), true);
                true
            }
        }
    }

    fn body(&mut self, frame: Frame, mut reading: Reading, arguments: bool, out: &mut Vec<Delta>) -> bool {
        let end = reading.read(&self.held);
        let rest = self.held.split_off(end.unwrap_or(self.held.len()));
        let read = std::mem::replace(&mut self.held, rest);
        if arguments && !read.is_empty() {
            out.push(Delta::Arguments(read));
        }
        self.state = match (end, arguments) {
            (None, _) => State::Body(frame, reading, arguments),
            (Some(_), true) => {
                out.push(Delta::CallEnd);
                // What follows, up to the brace that ends the call itself.
                State::Body(frame, Reading::inside(), false)
            }
            (Some(_), false) => State::After(frame),
        };
        end.is_some()
    }

    fn after(&mut self, frame: Frame) -> bool {
        let begun = self.held.trim_start();
        if begun.is_empty() {
            return false;
        }
        let (next, skip) = match frame {
            Frame::Tags if begun.len() < UNCALL.len() && UNCALL.starts_with(begun) => return false,
            Frame::Tags if begun.starts_with(UNCALL) => (State::Text, UNCALL.len()),
            Frame::List if begun.starts_with(',') => (State::Call(frame), 1),
            Frame::List if begun.starts_with(']') => (State::Text, 1),
            _ => (State::Text, 0),
        };
        self.held = begun[skip..].trim_start().to_string();
        self.state = next;
        true
    }

    /// Takes what cannot be the beginning of one of `marks`.
    fn certain(&mut self, marks: &[&str]) -> String {
        let longest =
            |mark: &&str| (1..mark.len().min(self.held.len() + 1)).rev().find(|n| self.held.ends_with(&mark[..*n]));
        let at = self.held.len() - marks.iter().filter_map(longest).max().unwrap_or(0);
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
        let calls = values.into_iter().map(|value| self.whole_call(value)).collect::<Option<Vec<_>>>()?;
        let told = |(name, arguments)| [Delta::Call(name), Delta::Arguments(arguments), Delta::CallEnd];
        Some(calls.into_iter().flat_map(told).collect())
    }

    fn whole_call(&self, mut value: Value) -> Option<(String, String)> {
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
        Some((name, arguments))
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
        let deltas = splitter.push(text).into_iter().chain(splitter.finish());
        let mut parts = Self::default();
        deltas.for_each(|delta| parts.take(delta));
        parts
    }

    /// Adds a part.
    pub fn take(&mut self, delta: Delta) {
        match delta {
            Delta::Text(text) => self.text += &text,
            Delta::Reasoning(text) => *self.reasoning.get_or_insert_default() += &text,
            Delta::Call(name) => self.calls.push((name, String::new())),
            Delta::Arguments(text) => self.calls.last_mut().into_iter().for_each(|(_, all)| *all += &text),
            Delta::CallEnd => (),
        }
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
        deltas.into_iter().for_each(|delta| parts.take(delta));
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
            // A call that was cut off tells what there is of it.
            ("<tool_call>{\"name\":\"get\",\"arguments\":{\"a", "", None, vec![call("get", "{\"a")]),
            (
                "[{\"name\":\"get\",\"arguments\":{}}, {\"name\":\"put\",\"arguments\":{\"x\":[1]}}]",
                "",
                None,
                vec![call("get", "{}"), call("put", "{\"x\":[1]}")],
            ),
        ];
        for (text, said, thought, calls) in table {
            let expected = Parts { text: said.into(), reasoning: thought.map(String::from), calls };
            assert_eq!(Parts::of(text, &split()), expected, "{text}");
        }
    }

    #[test]
    fn every_envelope_is_opened() {
        let call = |name: &str, arguments: &str| (name.to_string(), arguments.to_string());
        let table = [
            (
                Envelope::Llama3,
                "Well. {\"name\": 1} {\"name\":\"get\"",
                "Well. {\"name\": 1} {\"name\":\"get\"",
                vec![],
            ),
            (
                Envelope::Llama3,
                "Well. {\"name\":\"get\",\"parameters\":{\"a\":1}}",
                "Well.",
                vec![call("get", "{\"a\":1}")],
            ),
            (Envelope::Mistral, "[TOOL_CALLS][{\"name\":\"get\",\"arguments\":{}}]", "", vec![call("get", "{}")]),
            (
                Envelope::Mistral,
                "So: [{\"name\":\"get\",\"arguments\":{}},{\"name\":\"put\",\"arguments\":{}}]",
                "So:",
                vec![call("get", "{}"), call("put", "{}")],
            ),
            (Envelope::Hermes, "{\"name\":\"get\",\"arguments\":{}}", "", vec![call("get", "{}")]),
        ];
        for (envelope, text, said, calls) in table {
            let split = Split { envelope: Some(envelope), ..split() };
            assert_eq!(Parts::of(text, &split), Parts { text: said.into(), reasoning: None, calls }, "{text}");
        }
    }

    #[test]
    fn arguments_come_as_they_are_written() {
        let mut splitter = Splitter::new(split());
        let pieces = ["<tool_", "call>{\"name\": \"get\", ", "\"arguments\": {\"a\"", ": 1", "}}", "</tool_call>"];
        let deltas: Vec<Vec<Delta>> = pieces.iter().map(|p| splitter.push(p)).collect();
        let arguments = |t: &str| Delta::Arguments(t.into());
        assert_eq!(deltas[2], [Delta::Call("get".into()), arguments("{\"a\"")]);
        assert_eq!((&deltas[3], &deltas[4]), (&vec![arguments(": 1")], &vec![arguments("}"), Delta::CallEnd]));
        assert!(deltas[0].is_empty() && deltas[1].is_empty() && deltas[5].is_empty() && splitter.finish().is_empty());
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
                    Just("{\"name\": \"put\", \"arguments\": "), Just("{\"a\": \"}\"}"), Just("}"), Just("]"), Just(","),
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
