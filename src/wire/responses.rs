//! OpenAI's Responses API: requests become chat requests, answers output items. Nothing is stored.

use serde_json::{Map, Value, json};

use super::asked::Telling;
use super::deltas::{Delta, Parts, Splitter};
use super::fields::{FieldError, Fields, expected};
use super::shape::{Frame, Head, Shape};
use crate::error::Failure;
use crate::event::{FinishReason, Finished, TokenEvent};
use crate::pipeline::Answer;

/// A chat request, and what the answer repeats of the Responses request.
pub type ChatAndEcho = (Map<String, Value>, Map<String, Value>);

/// A Responses request as a chat request, and the fields that the response repeats.
///
/// # Errors
/// A field is wrong, or asks for something that is stored or not text.
pub fn responses_to_chat(body: Map<String, Value>) -> Result<ChatAndEcho, Failure> {
    convert(body).map_err(|e| Failure::usage(e.to_string()))
}

fn convert(body: Map<String, Value>) -> Result<ChatAndEcho, FieldError> {
    let mut echo = Map::new();
    for (name, default) in [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", Value::Null),
    ] {
        echo.insert(name.into(), body.get(name).filter(|v| !v.is_null()).cloned().unwrap_or(default));
    }
    let mut f = Fields::new(body);
    for name in ["previous_response_id", "conversation"] {
        if f.take(name).is_some() {
            return Err(FieldError::new(name, "is not supported: nothing is stored here; send the whole input"));
        }
    }
    if f.bool("background")? == Some(true) {
        return Err(FieldError::new("background", "is not supported"));
    }
    f.take("store");
    let mut messages = Vec::new();
    f.string("instructions")?.into_iter().for_each(|t| messages.push(json!({"role": "system", "content": t})));
    match f.take("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => input(&items, &mut messages)?,
        other => return Err(expected("input", "a text or an array of items", &other.unwrap_or(Value::Null))),
    }
    f.put("messages", messages.into());
    if let Some(n) = f.take("max_output_tokens") {
        f.put("max_tokens", n);
    }
    match f.take("text").and_then(|mut t| t.get_mut("format").map(Value::take)) {
        None | Some(Value::Null) => (),
        Some(format) => f.put("response_format", format),
    }
    if let Some(effort) = f.take("reasoning").and_then(|mut r| r.get_mut("effort").map(Value::take)) {
        f.put("reasoning_effort", effort);
    }
    if let Some(Value::Array(tools)) = f.take("tools") {
        let tool = |(i, t): (usize, &Value)| match t["type"].as_str() {
            Some("function") => Ok(json!({"type": "function", "function": t})),
            _ => Err(expected(&format!("tools[{i}].type"), "\"function\"", &t["type"])),
        };
        let tools: Vec<Value> = tools.iter().enumerate().map(tool).collect::<Result<_, _>>()?;
        f.put("tools", tools.into());
    }
    Ok((f.into_inner(), echo))
}

fn input(items: &[Value], messages: &mut Vec<Value>) -> Result<(), FieldError> {
    let mut thoughts: Option<String> = None;
    for (i, item) in items.iter().enumerate() {
        let at = format!("input[{i}]");
        let think = |message: &mut Value, thoughts: &mut Option<String>| {
            if message["role"] == "assistant" {
                thoughts.take().into_iter().for_each(|t| message["reasoning_content"] = t.into());
            }
        };
        match item.get("type").and_then(Value::as_str).unwrap_or("message") {
            "message" => {
                let content = text_of(&at, item.get("content").unwrap_or(&Value::Null))?;
                let mut message = json!({"role": item["role"], "content": content});
                think(&mut message, &mut thoughts);
                messages.push(message);
            }
            "function_call" => {
                let function = json!({"name": item["name"], "arguments": item["arguments"]});
                let call = json!({"id": item["call_id"], "type": "function", "function": function});
                // Calls that stand beside each other were made together.
                if let Some(Value::Array(calls)) = messages.last_mut().and_then(|m| m.get_mut("tool_calls")) {
                    calls.push(call);
                    continue;
                }
                let mut message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
                think(&mut message, &mut thoughts);
                messages.push(message);
            }
            "function_call_output" => {
                let output = text_of(&at, item.get("output").unwrap_or(&Value::Null))?;
                messages.push(json!({"role": "tool", "tool_call_id": item["call_id"], "content": output}));
            }
            "reasoning" => {
                let parts = item["content"].as_array().into_iter().flatten();
                let text: String = parts.filter_map(|p| p["text"].as_str()).collect();
                thoughts = Some(text).filter(|t| !t.is_empty());
            }
            _ => {
                return Err(expected(&format!("{at}.type"), "a message, a function call or its output", &item["type"]));
            }
        }
    }
    Ok(())
}

fn text_of(at: &str, content: &Value) -> Result<String, FieldError> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let text = |(i, p): (usize, &Value)| match (p["type"].as_str(), p["text"].as_str()) {
                (Some("input_text" | "output_text" | "text"), Some(text)) => Ok(text.to_string()),
                _ => Err(expected(&format!("{at}.content[{i}]"), "a text part", p)),
            };
            Ok(parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n\n"))
        }
        other => Err(expected(&format!("{at}.content"), "a text or an array of parts", other)),
    }
}

/// The item that is being told.
struct Open {
    kind: &'static str,
    id: String,
    /// Of a call, its arguments.
    text: String,
    /// Of a call, the tool.
    name: String,
}

/// Answers as responses.
pub struct Responses {
    telling: Telling,
    head: Head,
    echo: Map<String, Value>,
    splitter: Splitter,
    sequence: u64,
    output: Vec<Value>,
    open: Option<Open>,
    begun: bool,
}

impl Responses {
    /// For one answer; `echo` comes from [`responses_to_chat`].
    pub fn new(telling: Telling, echo: Map<String, Value>) -> Self {
        Self {
            splitter: Splitter::new(telling.split.clone()),
            telling,
            head: Head::default(),
            echo,
            sequence: 0,
            output: Vec::new(),
            open: None,
            begun: false,
        }
    }

    fn response(&self, finished: Option<&Finished>, output: &[Value]) -> Value {
        let cut = finished.is_some_and(|f| {
            matches!(f.reason, FinishReason::Length | FinishReason::TimeLimit | FinishReason::ContextFull)
        });
        let status = match finished {
            None => "in_progress",
            Some(_) if cut => "incomplete",
            Some(_) => "completed",
        };
        let mut r = Map::new();
        r.insert("id".into(), format!("resp_{}", self.head.nonce).into());
        r.insert("object".into(), "response".into());
        r.insert("created_at".into(), self.head.created.into());
        r.insert("status".into(), status.into());
        r.insert("error".into(), Value::Null);
        r.insert("incomplete_details".into(), if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null });
        r.insert("model".into(), self.head.model.clone().into());
        r.insert("output".into(), output.into());
        r.extend(self.echo.clone());
        r.insert("previous_response_id".into(), Value::Null);
        r.insert("store".into(), false.into());
        self.head.tell(&mut r, finished);
        let usage = finished.map(|f| {
            let t = &f.timings;
            let read = t.cache_n + t.prompt_n;
            json!({
                "input_tokens": read, "input_tokens_details": {"cached_tokens": t.cache_n},
                "output_tokens": t.predicted_n, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + t.predicted_n,
            })
        });
        r.insert("usage".into(), usage.unwrap_or(Value::Null));
        r.into()
    }

    fn event(&mut self, name: &'static str, fields: Value) -> Frame {
        let mut value = json!({"type": name, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        Frame::Named(name, value)
    }

    fn start(&mut self) -> Vec<Frame> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let response = self.response(None, &[]);
        let created = self.event("response.created", json!({"response": response.clone()}));
        vec![created, self.event("response.in_progress", json!({"response": response}))]
    }

    /// Opens an item of `kind` unless it is open.
    fn item(&mut self, kind: &'static str, out: &mut Vec<Frame>) {
        if self.open.as_ref().is_some_and(|o| o.kind == kind) {
            return;
        }
        self.close(out);
        let at = self.output.len();
        let (id, item, part) = match kind {
            "message" => (
                format!("msg_{}{at}", self.head.nonce),
                json!({"type": "message", "role": "assistant", "status": "in_progress", "content": []}),
                json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []}),
            ),
            _ => (
                format!("rs_{}{at}", self.head.nonce),
                json!({"type": "reasoning", "status": "in_progress", "summary": [], "content": []}),
                json!({"type": "reasoning_text", "text": ""}),
            ),
        };
        let mut item = item;
        item["id"] = id.clone().into();
        out.push(self.event("response.output_item.added", json!({"output_index": at, "item": item})));
        let fields = json!({"item_id": id, "output_index": at, "content_index": 0, "part": part});
        out.push(self.event("response.content_part.added", fields));
        self.open = Some(Open { kind, id, text: String::new(), name: String::new() });
    }

    fn close(&mut self, out: &mut Vec<Frame>) {
        let Some(Open { kind, id, text, name }) = self.open.take() else { return };
        let at = self.output.len();
        if kind == "call" {
            let fields = json!({"item_id": id, "output_index": at, "name": name, "arguments": text});
            out.push(self.event("response.function_call_arguments.done", fields));
            let item = call(&self.head, at, &name, &text);
            out.push(self.event("response.output_item.done", json!({"output_index": at, "item": item})));
            self.output.push(item);
            return;
        }
        let (done, item, part) = match kind {
            "message" => {
                let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
                let item = message(&id, &text);
                ("response.output_text.done", item, part)
            }
            _ => {
                let part = json!({"type": "reasoning_text", "text": text});
                ("response.reasoning_text.done", reasoning(&id, &text), part)
            }
        };
        let mut fields = json!({"item_id": id, "output_index": at, "content_index": 0, "text": text});
        if kind == "message" {
            fields["logprobs"] = json!([]);
        }
        out.push(self.event(done, fields));
        let fields = json!({"item_id": id, "output_index": at, "content_index": 0, "part": part});
        out.push(self.event("response.content_part.done", fields));
        out.push(self.event("response.output_item.done", json!({"output_index": at, "item": item})));
        self.output.push(item);
    }

    fn say(&mut self, deltas: Vec<Delta>) -> Vec<Frame> {
        let mut out = Vec::new();
        for delta in deltas {
            let (kind, name, text) = match delta {
                Delta::Text(text) => ("message", "response.output_text.delta", text),
                Delta::Reasoning(text) => ("reasoning", "response.reasoning_text.delta", text),
                Delta::Call(name) => {
                    self.close(&mut out);
                    self.call(name, &mut out);
                    continue;
                }
                Delta::Arguments(text) => {
                    let Some(open) = &mut self.open else { continue };
                    open.text += &text;
                    let fields = json!({"item_id": open.id, "output_index": self.output.len(), "delta": text});
                    out.push(self.event("response.function_call_arguments.delta", fields));
                    continue;
                }
                Delta::CallEnd => {
                    self.close(&mut out);
                    continue;
                }
            };
            self.item(kind, &mut out);
            let Some(open) = &mut self.open else { continue };
            open.text += &text;
            let mut fields =
                json!({"item_id": open.id, "output_index": self.output.len(), "content_index": 0, "delta": text});
            if kind == "message" {
                fields["logprobs"] = json!([]);
            }
            out.push(self.event(name, fields));
        }
        out
    }

    /// Opens an item for a call.
    fn call(&mut self, name: String, out: &mut Vec<Frame>) {
        let at = self.output.len();
        let mut begun = call(&self.head, at, &name, "");
        begun["status"] = "in_progress".into();
        let id = begun["id"].as_str().unwrap_or_default().to_string();
        out.push(self.event("response.output_item.added", json!({"output_index": at, "item": begun})));
        self.open = Some(Open { kind: "call", id, text: String::new(), name });
    }
}

fn message(id: &str, text: &str) -> Value {
    let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    json!({"id": id, "type": "message", "role": "assistant", "status": "completed", "content": [part]})
}

fn reasoning(id: &str, text: &str) -> Value {
    let part = json!({"type": "reasoning_text", "text": text});
    json!({"id": id, "type": "reasoning", "status": "completed", "summary": [], "content": [part]})
}

fn call(head: &Head, at: usize, name: &str, arguments: &str) -> Value {
    json!({"id": format!("fc_{}{at}", head.nonce), "call_id": format!("call_{}{at}", head.nonce),
        "type": "function_call", "status": "completed", "name": name, "arguments": arguments})
}

impl Shape for Responses {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn begin(&mut self, _prompt: usize, _cached: usize) -> Vec<Frame> {
        self.start()
    }

    fn token(&mut self, _index: usize, event: &TokenEvent) -> Vec<Frame> {
        let mut frames = self.start();
        let deltas = self.splitter.push(&event.text);
        frames.extend(self.say(deltas));
        frames
    }

    fn finished(&mut self, _index: usize, finished: &Finished) -> Vec<Frame> {
        let mut frames = self.start();
        let rest = self.splitter.finish();
        frames.extend(self.say(rest));
        self.close(&mut frames);
        let response = self.response(Some(finished), &self.output);
        let name = if response["status"] == "completed" { "response.completed" } else { "response.incomplete" };
        frames.push(self.event(name, json!({"response": response})));
        frames
    }

    fn end(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn failed(&mut self, error: Value) -> Vec<Frame> {
        let message = error.pointer("/error/message").cloned().unwrap_or(Value::Null);
        let code = error.pointer("/error/type").cloned().unwrap_or(Value::Null);
        vec![self.event("error", json!({"code": code, "message": message, "param": null}))]
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let Some(answer) = answers.first() else { return Ok(Value::Null) };
        let parts = Parts::of(&answer.text, &self.telling.split);
        let mut output = Vec::new();
        if let Some(thoughts) = &parts.reasoning {
            output.push(reasoning(&format!("rs_{}0", self.head.nonce), thoughts));
        }
        if !parts.text.is_empty() || parts.calls.is_empty() {
            output.push(message(&format!("msg_{}{}", self.head.nonce, output.len()), &parts.text));
        }
        for (name, arguments) in &parts.calls {
            output.push(call(&self.head, output.len(), name, arguments));
        }
        Ok(self.response(Some(&answer.finished), &output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timings;
    use crate::wire::deltas::Split;

    #[test]
    fn input_items_become_messages_and_text_format_a_response_format() {
        let body = json!({
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "function_call", "call_id": "c", "name": "get", "arguments": "{}"},
                {"type": "function_call", "call_id": "d", "name": "get", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "5"},
            ],
            "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
            "tools": [{"type": "function", "name": "get", "parameters": {}}],
            "max_output_tokens": 7,
        });
        let Value::Object(body) = body else { panic!("an object") };
        let (chat, _) = responses_to_chat(body).expect("converted");
        let chat = Value::Object(chat);
        let messages = chat["messages"].as_array().expect("messages");
        assert_eq!(messages.len(), 4);
        assert_eq!(messages[2]["tool_calls"].as_array().map(Vec::len), Some(2));
        assert_eq!(chat["response_format"]["schema"], json!({"type": "object"}));
        assert_eq!((&chat["max_tokens"], &chat["tools"][0]["function"]["name"]), (&json!(7), &json!("get")));
        for bad in
            [json!({"input": "x", "previous_response_id": "r"}), json!({}), json!({"input": [{"type": "input_file"}]})]
        {
            let Value::Object(bad) = bad else { panic!("an object") };
            assert!(responses_to_chat(bad).is_err());
        }
    }

    #[test]
    fn events_are_numbered_and_the_last_holds_what_was_told() {
        let split = Split { reasoning: true, tools: vec!["get".into()], ..Split::default() };
        let mut r = Responses::new(Telling { split, ..Telling::default() }, Map::new());
        let event = |text: &str| TokenEvent { text: text.into(), ..TokenEvent::default() };
        let mut frames = r.begin(1, 0);
        for text in ["<think>a</think>", "b", "c", "<tool_call>{\"name\":\"get\"}</tool_call>"] {
            frames.extend(r.token(0, &event(text)));
        }
        let end = Finished {
            reason: FinishReason::Stop,
            stopping_text: None,
            format_complete: None,
            crossed: Vec::new(),
            timings: Timings::default(),
        };
        frames.extend(r.finished(0, &end));
        let values: Vec<&Value> =
            frames.iter().filter_map(|f| if let Frame::Named(_, v) = f { Some(v) } else { None }).collect();
        for (n, value) in values.iter().enumerate() {
            assert_eq!(value["sequence_number"], n);
        }
        let last = &values[values.len() - 1]["response"];
        assert_eq!(last["status"], "completed");
        let kinds: Vec<&Value> = last["output"].as_array().expect("output").iter().map(|o| &o["type"]).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        assert_eq!(last["output"][1]["content"][0]["text"], "bc");
    }
}
