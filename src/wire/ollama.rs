//! Ollama's `/api/chat` and `/api/generate`: requests become chat requests, answers lines of JSON.

use serde_json::{Map, Value, json};

use super::asked::Telling;
use super::deltas::{Delta, Parts, Splitter};
use super::fields::{FieldError, Fields, expected};
use super::shape::{Frame, Head, Shape};
use crate::error::Failure;
use crate::event::{FinishReason, Finished, TokenEvent};
use crate::pipeline::Answer;
use crate::prompt::CivilTime;

/// Which of the two routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OllamaRoute {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// Ollama's options and ours. Those about loading (`num_ctx`, `num_gpu`, ..) belong to the start of a server and are
/// not looked at.
const OPTIONS: [(&str, &str); 16] = [
    ("num_predict", "n_predict"),
    ("num_keep", "n_keep"),
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("typical_p", "typical_p"),
    ("repeat_last_n", "repeat_last_n"),
    ("repeat_penalty", "repeat_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("mirostat", "mirostat"),
    ("mirostat_tau", "mirostat_tau"),
    ("mirostat_eta", "mirostat_eta"),
];

/// An Ollama request as a chat request; with `raw`, as a text completion (it then has a `prompt`).
///
/// # Errors
/// A field is wrong or asks for what cannot be done.
pub fn ollama_to_chat(body: Map<String, Value>, route: OllamaRoute) -> Result<Map<String, Value>, Failure> {
    convert(body, route).map_err(|e| Failure::usage(e.to_string()))
}

fn convert(body: Map<String, Value>, route: OllamaRoute) -> Result<Map<String, Value>, FieldError> {
    let mut f = Fields::new(body);
    let mut chat = Map::new();
    chat.insert("stream".into(), f.bool("stream")?.unwrap_or(true).into());
    for name in ["model", "adapters", "metadata", "logprobs", "top_logprobs", "tools"] {
        f.take(name).into_iter().for_each(|v| drop(chat.insert(name.into(), v)));
    }
    match f.take("options") {
        None => (),
        Some(Value::Object(options)) => {
            for (theirs, ours) in OPTIONS {
                let value = options.get(theirs).filter(|v| !v.is_null()).cloned();
                // -2 fills the context, and so does no limit.
                let value = value.map(|v| if theirs == "num_predict" && v == json!(-2) { json!(-1) } else { v });
                value.into_iter().for_each(|v| drop(chat.insert(ours.into(), v)));
            }
        }
        Some(other) => return Err(expected("options", "an object", &other)),
    }
    match f.take("format") {
        None => (),
        Some(Value::String(s)) if s.is_empty() => (),
        Some(Value::String(s)) if s == "json" => {
            drop(chat.insert("response_format".into(), json!({"type": "json_object"})))
        }
        Some(schema @ Value::Object(_)) => drop(chat.insert("json_schema".into(), schema)),
        Some(other) => return Err(expected("format", "\"json\" or a JSON Schema", &other)),
    }
    match f.take("think") {
        None => drop(chat.insert("reasoning_format".into(), "none".into())),
        Some(Value::Bool(on)) => drop(chat.insert("chat_template_kwargs".into(), json!({"enable_thinking": on}))),
        Some(Value::String(effort)) => drop(chat.insert("reasoning_effort".into(), effort.into())),
        Some(other) => return Err(expected("think", "true, false or an effort", &other)),
    }
    let empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty) || *v == json!("");
    for name in ["images", "context", "suffix", "template"] {
        if f.take(name).is_some_and(|v| !empty(&v)) {
            return Err(FieldError::new(name, "is not supported here"));
        }
    }
    match route {
        OllamaRoute::Chat => {
            let Some(Value::Array(mut messages)) = f.take("messages") else {
                return Err(FieldError::new("messages", "is missing"));
            };
            for (i, message) in messages.iter_mut().enumerate() {
                if message.get("images").is_some_and(|v| !v.is_null() && !empty(v)) {
                    return Err(FieldError::new(format!("messages[{i}].images"), "this model reads text"));
                }
                if let Some(thoughts) = message.as_object_mut().and_then(|m| m.remove("thinking")) {
                    message["reasoning_content"] = thoughts;
                }
            }
            chat.insert("messages".into(), messages.into());
        }
        OllamaRoute::Generate => {
            let prompt = f.string("prompt")?.unwrap_or_default();
            let system = f.string("system")?.filter(|s| !s.is_empty());
            if f.bool("raw")? == Some(true) {
                chat.remove("reasoning_format");
                chat.insert("prompt".into(), prompt.into());
                return Ok(chat);
            }
            let mut messages = Vec::new();
            system.into_iter().for_each(|s| messages.push(json!({"role": "system", "content": s})));
            messages.push(json!({"role": "user", "content": prompt}));
            chat.insert("messages".into(), messages.into());
        }
    }
    Ok(chat)
}

/// Answers as Ollama tells them.
pub struct Ollama {
    route: OllamaRoute,
    telling: Telling,
    head: Head,
    splitter: Splitter,
    /// The call that is being read: Ollama tells calls whole.
    call: Parts,
}

impl Ollama {
    /// For one answer.
    pub fn new(route: OllamaRoute, telling: Telling) -> Self {
        let splitter = Splitter::new(telling.split.clone());
        Self { route, telling, head: Head::default(), splitter, call: Parts::default() }
    }

    fn body(&self, text: &str, thoughts: Option<&str>, calls: &[(String, String)]) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".into(), self.head.model.clone().into());
        body.insert("created_at".into(), date(self.head.created).into());
        match self.route {
            OllamaRoute::Generate => {
                body.insert("response".into(), text.into());
                thoughts.into_iter().for_each(|t| drop(body.insert("thinking".into(), t.into())));
            }
            OllamaRoute::Chat => {
                let mut message = json!({"role": "assistant", "content": text});
                thoughts.into_iter().for_each(|t| message["thinking"] = t.into());
                if !calls.is_empty() {
                    let call = |(name, arguments): &(String, String)| {
                        let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                        json!({"function": {"name": name, "arguments": arguments}})
                    };
                    message["tool_calls"] = calls.iter().map(call).collect();
                }
                body.insert("message".into(), message);
            }
        }
        body.insert("done".into(), false.into());
        body
    }

    fn say(&mut self, deltas: Vec<Delta>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for delta in deltas {
            let body = match delta {
                Delta::Text(text) => self.body(&text, None, &[]),
                Delta::Reasoning(text) => self.body("", Some(&text), &[]),
                Delta::CallEnd => {
                    let calls = std::mem::take(&mut self.call).calls;
                    self.body("", None, &calls)
                }
                part => {
                    self.call.take(part);
                    continue;
                }
            };
            frames.push(Frame::Line(body.into()));
        }
        frames
    }

    fn close(&self, body: &mut Map<String, Value>, finished: &Finished) {
        let t = &finished.timings;
        let ns = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let reason = match finished.reason {
            FinishReason::Length | FinishReason::TimeLimit | FinishReason::ContextFull => "length",
            FinishReason::Stop | FinishReason::StopString | FinishReason::Cancelled => "stop",
        };
        let numbers = [
            ("total_duration", ns(t.queued + t.prompt + t.predicted)),
            ("load_duration", 0),
            ("prompt_eval_count", (t.cache_n + t.prompt_n) as u64),
            ("prompt_eval_duration", ns(t.prompt)),
            ("eval_count", t.predicted_n as u64),
            ("eval_duration", ns(t.predicted)),
        ];
        body.insert("done".into(), true.into());
        body.insert("done_reason".into(), reason.into());
        numbers.into_iter().for_each(|(name, n)| drop(body.insert(name.into(), n.into())));
        self.head.tell(body, Some(finished));
    }
}

/// Seconds since 1970 as Ollama spells them.
fn date(seconds: u64) -> String {
    let t = CivilTime::from_unix(i64::try_from(seconds).unwrap_or(0));
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.year, t.month, t.day, t.hour, t.minute, t.second)
}

impl Shape for Ollama {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn token(&mut self, _index: usize, event: &TokenEvent) -> Vec<Frame> {
        let deltas = self.splitter.push(&event.text);
        self.say(deltas)
    }

    fn finished(&mut self, _index: usize, finished: &Finished) -> Vec<Frame> {
        let rest = self.splitter.finish();
        let mut frames = self.say(rest);
        let mut last = self.body("", None, &[]);
        self.close(&mut last, finished);
        frames.push(Frame::Line(last.into()));
        frames
    }

    fn end(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn failed(&mut self, error: Value) -> Vec<Frame> {
        vec![Frame::Line(json!({"error": error.pointer("/error/message")}))]
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let Some(answer) = answers.first() else { return Ok(Value::Null) };
        let parts = Parts::of(&answer.text, &self.telling.split);
        let mut body = self.body(&parts.text, parts.reasoning.as_deref(), &parts.calls);
        self.close(&mut body, &answer.finished);
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_formats_are_translated() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "format": "json",
            "options": {"num_predict": -2, "temperature": 0, "num_ctx": 4096}});
        let Value::Object(body) = body else { panic!("an object") };
        let chat = Value::Object(ollama_to_chat(body, OllamaRoute::Chat).expect("converted"));
        assert_eq!((&chat["stream"], &chat["n_predict"], &chat["temperature"]), (&json!(true), &json!(-1), &json!(0)));
        assert_eq!(chat["response_format"]["type"], "json_object");
    }

    #[test]
    fn generate_is_a_chat_or_raw() {
        for (raw, key) in [(false, "messages"), (true, "prompt")] {
            let Value::Object(body) = json!({"prompt": "hi", "raw": raw}) else { panic!("an object") };
            assert!(ollama_to_chat(body, OllamaRoute::Generate).expect("converted").contains_key(key));
        }
        let Value::Object(body) = json!({"prompt": "hi", "images": ["x"]}) else { panic!("an object") };
        assert!(ollama_to_chat(body, OllamaRoute::Generate).is_err());
    }

    #[test]
    fn dates_are_rfc_3339() {
        assert_eq!(date(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
