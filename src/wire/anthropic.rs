//! Anthropic's Messages API: requests become chat requests, answers become content blocks.

use serde_json::{Map, Value, json};

use super::asked::Telling;
use super::deltas::{Delta, Parts, Splitter};
use super::fields::{FieldError, expected};
use super::shape::{Frame, Head, Shape};
use crate::error::Failure;
use crate::event::{FinishReason, Finished, Timings, TokenEvent};
use crate::pipeline::Answer;

/// Most tokens of an answer when a request does not say.
const MAX_TOKENS: u64 = 4096;

/// A Messages request as a chat request. Fields that both know stay as they are.
///
/// # Errors
/// A field is wrong, or names something a text model cannot read.
pub fn messages_to_chat(mut body: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    convert(&mut body).map_err(|e| Failure::usage(e.to_string()))?;
    Ok(body)
}

fn convert(body: &mut Map<String, Value>) -> Result<(), FieldError> {
    let mut messages = Vec::new();
    if let Some(system) = body.remove("system").filter(|s| !s.is_null()) {
        messages.push(json!({"role": "system", "content": text_of("system", &system)?}));
    }
    match body.remove("messages") {
        Some(Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                message(&format!("messages[{i}]"), item, &mut messages)?;
            }
        }
        other => return Err(expected("messages", "an array", &other.unwrap_or(Value::Null))),
    }
    body.insert("messages".into(), messages.into());
    if let Some(stop) = body.remove("stop_sequences") {
        body.insert("stop".into(), stop);
    }
    body.entry("max_tokens").or_insert(MAX_TOKENS.into());
    if let Some(Value::Array(tools)) = body.remove("tools") {
        let tool = |(i, t): (usize, &Value)| -> Result<Value, FieldError> {
            if t.get("type").is_some_and(|kind| kind != "custom") {
                let problem = "is a tool of Anthropic's own servers; only tools with an input_schema can be used";
                return Err(FieldError::new(format!("tools[{i}].type"), problem));
            }
            let mut function = Map::new();
            for (from, to) in [("name", "name"), ("description", "description"), ("input_schema", "parameters")] {
                t.get(from).into_iter().for_each(|v| drop(function.insert(to.into(), v.clone())));
            }
            Ok(json!({"type": "function", "function": function}))
        };
        let tools: Vec<Value> = tools.iter().enumerate().map(tool).collect::<Result<_, _>>()?;
        body.insert("tools".into(), tools.into());
    }
    if let Some(choice) = body.remove("tool_choice") {
        if let Some(one) = choice.get("disable_parallel_tool_use").and_then(Value::as_bool) {
            body.insert("parallel_tool_calls".into(), (!one).into());
        }
        let choice = match choice.get("type").and_then(Value::as_str) {
            Some("auto") => json!("auto"),
            Some("none") => json!("none"),
            Some("any") => json!("required"),
            Some("tool") => json!({"type": "function", "function": {"name": choice["name"]}}),
            _ => return Err(expected("tool_choice.type", "\"auto\", \"any\", \"tool\" or \"none\"", &choice)),
        };
        body.insert("tool_choice".into(), choice);
    }
    match body.remove("thinking").as_ref().map(|t| &t["type"]) {
        None | Some(Value::Null) => (),
        Some(Value::String(kind)) if kind == "enabled" || kind == "disabled" || kind == "adaptive" => {
            let kwargs = body.entry("chat_template_kwargs").or_insert_with(|| json!({}));
            if let Some(kwargs) = kwargs.as_object_mut() {
                kwargs.entry("enable_thinking").or_insert((kind != "disabled").into());
            }
        }
        Some(other) => return Err(expected("thinking.type", "\"enabled\" or \"disabled\"", other)),
    }
    // The user's id is for Anthropic's statistics; it must not choose adapters.
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("user_id");
        if metadata.is_empty() {
            body.remove("metadata");
        }
    }
    Ok(())
}

fn text_of(field: &str, value: &Value) -> Result<String, FieldError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let text = |(i, b): (usize, &Value)| match (b["type"].as_str(), b["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_string()),
                (Some(kind @ ("image" | "document")), _) => Err(FieldError::new(
                    format!("{field}[{i}]"),
                    format!("{kind} input is not supported: this model reads text"),
                )),
                _ => Err(expected(&format!("{field}[{i}]"), "a text block", b)),
            };
            let texts: Vec<String> = blocks.iter().enumerate().map(text).collect::<Result<_, _>>()?;
            Ok(texts.join("\n\n"))
        }
        other => Err(expected(field, "a text or an array of blocks", other)),
    }
}

/// One message becomes one, or several when it holds tool results.
fn message(at: &str, value: &Value, out: &mut Vec<Value>) -> Result<(), FieldError> {
    let role = value.get("role").cloned().unwrap_or(Value::Null);
    let content = value.get("content").unwrap_or(&Value::Null);
    let Value::Array(blocks) = content else {
        let text = text_of(&format!("{at}.content"), content)?;
        out.push(json!({"role": role, "content": text}));
        return Ok(());
    };
    let (mut texts, mut calls, mut thoughts) = (Vec::new(), Vec::new(), String::new());
    for (i, block) in blocks.iter().enumerate() {
        let field = format!("{at}.content[{i}]");
        match block["type"].as_str() {
            Some("tool_use") => calls.push(json!({
                "id": block["id"], "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()},
            })),
            Some("tool_result") => {
                let result = match block.get("content") {
                    None | Some(Value::Null) => String::new(),
                    Some(content) => text_of(&format!("{field}.content"), content)?,
                };
                let result = if block["is_error"] == true { format!("Error: {result}") } else { result };
                out.push(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": result}));
            }
            Some("thinking") => thoughts += block["thinking"].as_str().unwrap_or_default(),
            Some("redacted_thinking") => (),
            _ => texts.push(text_of(&field, &json!([block]))?),
        }
    }
    if texts.is_empty() && calls.is_empty() && thoughts.is_empty() {
        return Ok(());
    }
    let mut message = json!({"role": role, "content": texts.join("\n\n")});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.into();
    }
    out.push(message);
    Ok(())
}

/// Answers as Anthropic messages.
pub struct Messages {
    telling: Telling,
    head: Head,
    splitter: Splitter,
    /// The block that is open, and how many there were before it.
    open: Option<&'static str>,
    index: usize,
    calls: usize,
    begun: bool,
}

impl Messages {
    /// For one answer.
    pub fn new(telling: Telling) -> Self {
        let splitter = Splitter::new(telling.split.clone());
        Self { telling, head: Head::default(), splitter, open: None, index: 0, calls: 0, begun: false }
    }

    fn start(&mut self, prompt: usize, cached: usize) -> Vec<Frame> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let usage =
            json!({"cache_read_input_tokens": cached, "input_tokens": prompt - cached.min(prompt), "output_tokens": 0});
        let message = json!({
            "id": format!("msg_{}", self.head.nonce), "type": "message", "role": "assistant", "content": [],
            "model": self.head.model, "stop_reason": null, "stop_sequence": null, "usage": usage,
        });
        vec![Frame::Named("message_start", json!({"type": "message_start", "message": message}))]
    }

    fn close(&mut self, out: &mut Vec<Frame>) {
        let Some(kind) = self.open.take() else { return };
        if kind == "thinking" {
            self.delta(out, json!({"type": "signature_delta", "signature": ""}));
        }
        out.push(Frame::Named("content_block_stop", json!({"type": "content_block_stop", "index": self.index})));
        self.index += 1;
    }

    fn block(&mut self, out: &mut Vec<Frame>, kind: &'static str, block: Value) {
        if self.open == Some(kind) && kind != "tool_use" {
            return;
        }
        self.close(out);
        self.open = Some(kind);
        let value = json!({"type": "content_block_start", "index": self.index, "content_block": block});
        out.push(Frame::Named("content_block_start", value));
    }

    fn delta(&self, out: &mut Vec<Frame>, delta: Value) {
        let value = json!({"type": "content_block_delta", "index": self.index, "delta": delta});
        out.push(Frame::Named("content_block_delta", value));
    }

    fn say(&mut self, deltas: Vec<Delta>) -> Vec<Frame> {
        let mut out = Vec::new();
        for delta in deltas {
            match delta {
                Delta::Text(text) => {
                    self.block(&mut out, "text", json!({"type": "text", "text": ""}));
                    self.delta(&mut out, json!({"type": "text_delta", "text": text}));
                }
                Delta::Reasoning(text) => {
                    self.block(&mut out, "thinking", json!({"type": "thinking", "thinking": "", "signature": ""}));
                    self.delta(&mut out, json!({"type": "thinking_delta", "thinking": text}));
                }
                Delta::Call(name) => {
                    let id = format!("toolu_{}{}", self.head.nonce, self.calls);
                    self.calls += 1;
                    let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                    self.block(&mut out, "tool_use", block);
                }
                Delta::Arguments(text) => {
                    self.delta(&mut out, json!({"type": "input_json_delta", "partial_json": text}));
                }
                Delta::CallEnd => self.close(&mut out),
            }
        }
        out
    }
}

fn stop_reason(reason: FinishReason, called: bool) -> &'static str {
    match reason {
        FinishReason::Length | FinishReason::TimeLimit | FinishReason::ContextFull => "max_tokens",
        _ if called => "tool_use",
        FinishReason::StopString => "stop_sequence",
        FinishReason::Stop | FinishReason::Cancelled => "end_turn",
    }
}

fn usage(t: &Timings) -> Value {
    json!({"cache_read_input_tokens": t.cache_n, "input_tokens": t.prompt_n, "output_tokens": t.predicted_n})
}

impl Shape for Messages {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn begin(&mut self, prompt: usize, cached: usize) -> Vec<Frame> {
        self.start(prompt, cached)
    }

    fn token(&mut self, _index: usize, event: &TokenEvent) -> Vec<Frame> {
        let mut frames = self.start(0, 0);
        let deltas = self.splitter.push(&event.text);
        frames.extend(self.say(deltas));
        frames
    }

    fn finished(&mut self, _index: usize, finished: &Finished) -> Vec<Frame> {
        let mut frames = self.start(0, 0);
        let rest = self.splitter.finish();
        frames.extend(self.say(rest));
        if self.open.is_none() && self.index == 0 {
            self.block(&mut frames, "text", json!({"type": "text", "text": ""}));
        }
        self.close(&mut frames);
        let reason = stop_reason(finished.reason, self.calls > 0);
        let delta = json!({"stop_reason": reason, "stop_sequence": finished.stopping_text});
        let usage = json!({"output_tokens": finished.timings.predicted_n});
        let mut body = Map::new();
        body.insert("type".into(), "message_delta".into());
        body.insert("delta".into(), delta);
        body.insert("usage".into(), usage);
        self.head.tell(&mut body, Some(finished));
        frames.push(Frame::Named("message_delta", body.into()));
        frames
    }

    fn end(&mut self) -> Vec<Frame> {
        vec![Frame::Named("message_stop", json!({"type": "message_stop"}))]
    }

    fn failed(&mut self, error: Value) -> Vec<Frame> {
        let status = error.pointer("/error/code").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        vec![Frame::Named("error", super::anthropic_error(status.unwrap_or(500), &error))]
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let Some(answer) = answers.first() else { return Ok(Value::Null) };
        let parts = Parts::of(&answer.text, &self.telling.split);
        let mut content = Vec::new();
        if let Some(thoughts) = parts.reasoning {
            content.push(json!({"type": "thinking", "thinking": thoughts, "signature": ""}));
        }
        if !parts.text.is_empty() || parts.calls.is_empty() {
            content.push(json!({"type": "text", "text": parts.text}));
        }
        for (n, (name, arguments)) in parts.calls.iter().enumerate() {
            let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
            let id = format!("toolu_{}{n}", self.head.nonce);
            content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
        }
        let f = &answer.finished;
        let mut message = json!({
            "id": format!("msg_{}", self.head.nonce), "type": "message", "role": "assistant", "content": content,
            "model": self.head.model, "stop_reason": stop_reason(f.reason, !parts.calls.is_empty()),
            "stop_sequence": f.stopping_text, "usage": usage(&f.timings),
        });
        if let Value::Object(body) = &mut message {
            self.head.tell(body, Some(f));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deltas::Split;

    #[test]
    fn a_tool_conversation_becomes_a_chat() {
        let body = json!({
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"city": "Ulm"}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sun"}]},
                    {"type": "text", "text": "so?"}]},
            ],
            "tools": [{"name": "get", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "get", "disable_parallel_tool_use": true},
            "stop_sequences": ["X"], "metadata": {"user_id": "u"},
        });
        let Value::Object(body) = body else { panic!("an object") };
        let chat = Value::Object(messages_to_chat(body).expect("converted"));
        let roles: Vec<&str> =
            chat["messages"].as_array().expect("messages").iter().filter_map(|m| m["role"].as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(chat["messages"][2]["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Ulm\"}");
        assert_eq!(chat["tool_choice"]["function"]["name"], "get");
        assert_eq!(
            (&chat["stop"], &chat["max_tokens"], &chat["metadata"]),
            (&json!(["X"]), &json!(4096), &Value::Null)
        );
    }

    #[test]
    fn images_and_server_tools_are_refused_by_name() {
        let table = [
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
                "messages[0].content[0][0]: image",
            ),
            (
                json!({"messages": [], "tools": [{"type": "web_search_20250305", "name": "web"}]}),
                "tools[0].type: is a tool of",
            ),
            (json!({}), "messages: must be an array"),
            (json!({"messages": [], "tool_choice": {"type": "x"}}), "tool_choice.type: must be"),
        ];
        for (body, expected) in table {
            let Value::Object(body) = body else { panic!("an object") };
            let e = messages_to_chat(body).expect_err(expected);
            assert!(e.message.starts_with(expected), "{}", e.message);
        }
    }

    #[test]
    fn blocks_open_and_close_in_order() {
        let split = Split { reasoning: true, tools: vec!["get".into()], ..Split::default() };
        let mut m = Messages::new(Telling { split, ..Telling::default() });
        let event = |text: &str| TokenEvent { text: text.into(), ..TokenEvent::default() };
        let mut frames = m.begin(5, 1);
        for text in ["<think>a", "b</think>", "Hi ", "you", "<tool_call>{\"name\":\"get\"}</tool_call>"] {
            frames.extend(m.token(0, &event(text)));
        }
        let timings = Timings { predicted_n: 9, ..Timings::default() };
        let end = Finished {
            reason: FinishReason::Stop,
            stopping_text: None,
            format_complete: None,
            crossed: Vec::new(),
            timings,
        };
        frames.extend(m.finished(0, &end));
        frames.extend(m.end());
        let mut open = None;
        let mut kinds = Vec::new();
        for frame in &frames {
            let Frame::Named(name, value) = frame else { panic!("{frame:?}") };
            assert_eq!(*name, value["type"]);
            match *name {
                "content_block_start" => {
                    assert_eq!(open, None);
                    open = Some(value["index"].clone());
                    kinds.push(value["content_block"]["type"].clone());
                }
                "content_block_delta" => assert_eq!(open, Some(value["index"].clone())),
                "content_block_stop" => assert_eq!(open.take(), Some(value["index"].clone())),
                "message_delta" => assert_eq!(value["delta"]["stop_reason"], "tool_use"),
                _ => (),
            }
        }
        assert_eq!(kinds, ["thinking", "text", "tool_use"]);
        assert_eq!(frames.len(), 1 + 4 + 1 + 4 + 3 + 1 + 1, "{frames:?}");
    }
}
