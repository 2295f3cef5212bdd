//! Answers in OpenAI's form: chat completions and text completions, whole and streamed.

use serde_json::{Map, Value, json};

use super::asked::Telling;
use super::deltas::{Delta, Parts, Splitter};
use super::shape::{Frame, Head, Shape, finish_reason, logprobs, timings, usage};
use crate::error::Failure;
use crate::event::{Finished, Timings, TokenEvent};
use crate::pipeline::Answer;

/// Chat completions.
pub struct Chat {
    telling: Telling,
    head: Head,
    /// One per answer: its splitter, and the calls it has made.
    answers: Vec<(Splitter, usize)>,
    begun: bool,
    finished: Vec<Timings>,
}

impl Chat {
    /// For so many answers.
    pub fn new(telling: Telling, answers: usize) -> Self {
        let splitters = (0..answers).map(|_| (Splitter::new(telling.split.clone()), 0)).collect();
        Self { telling, head: Head::default(), answers: splitters, begun: false, finished: Vec::new() }
    }

    fn chunk(&self, choices: Value) -> Map<String, Value> {
        let mut chunk = envelope(&self.head, "chat.completion.chunk");
        chunk.insert("choices".into(), choices);
        chunk
    }

    fn delta(&self, index: usize, delta: Value) -> Map<String, Value> {
        self.chunk(json!([{"index": index, "delta": delta, "finish_reason": null}]))
    }

    fn say(&mut self, index: usize, deltas: Vec<Delta>, event: Option<&TokenEvent>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for delta in deltas {
            let delta = match delta {
                Delta::Text(text) => json!({"content": text}),
                Delta::Reasoning(text) => json!({"reasoning_content": text}),
                Delta::Call(name) => {
                    let n = self.answers[index].1;
                    self.answers[index].1 += 1;
                    let function = json!({"name": name, "arguments": ""});
                    json!({"tool_calls": [{"index": n, "id": call_id(&self.head, index, n), "type": "function",
                        "function": function}]})
                }
                Delta::Arguments(text) => {
                    let n = self.answers[index].1.saturating_sub(1);
                    json!({"tool_calls": [{"index": n, "function": {"arguments": text}}]})
                }
                Delta::CallEnd => continue,
            };
            frames.push(self.delta(index, delta));
        }
        let Some(event) = event else { return frames.into_iter().map(|f| Frame::Data(f.into())).collect() };
        if let Some(top) = self.telling.logprobs.filter(|_| !event.probabilities.is_empty()) {
            // Every token's probabilities are told, also of one whose text is held back.
            if frames.is_empty() {
                frames.push(self.delta(index, json!({})));
            }
            if let Some(choice) = frames.last_mut().and_then(|f| f.get_mut("choices")) {
                choice[0]["logprobs"] = json!({"content": logprobs(&event.probabilities, top)});
            }
        }
        frames.into_iter().map(|f| Frame::Data(f.into())).collect()
    }

    fn role(&mut self) -> Vec<Frame> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let role = |i| Frame::Data(self.delta(i, json!({"role": "assistant", "content": null})).into());
        (0..self.answers.len()).map(role).collect()
    }
}

impl Shape for Chat {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn begin(&mut self, prompt: usize, cached: usize) -> Vec<Frame> {
        let mut frames = self.role();
        if self.telling.return_progress {
            let mut chunk = self.delta(0, json!({}));
            let progress = json!({"total": prompt, "cache": cached, "processed": prompt});
            chunk.insert("prompt_progress".into(), progress);
            frames.push(Frame::Data(chunk.into()));
        }
        frames
    }

    fn token(&mut self, index: usize, event: &TokenEvent) -> Vec<Frame> {
        let mut frames = self.role();
        let deltas = self.answers[index].0.push(&event.text);
        frames.extend(self.say(index, deltas, Some(event)));
        frames
    }

    fn finished(&mut self, index: usize, finished: &Finished) -> Vec<Frame> {
        let mut frames = self.role();
        let rest = self.answers[index].0.finish();
        frames.extend(self.say(index, rest, None));
        let reason = finish_reason(finished.reason, self.answers[index].1 > 0);
        let mut last = self.chunk(json!([{"index": index, "delta": {}, "finish_reason": reason}]));
        self.finished.push(finished.timings);
        let is_last = self.finished.len() == self.answers.len();
        if is_last {
            self.head.tell(&mut last, (self.answers.len() == 1).then_some(finished));
        }
        if is_last && !self.telling.include_usage {
            last.insert("timings".into(), timings(&finished.timings));
        }
        if let Some(complete) = finished.format_complete {
            last.insert("format_complete".into(), complete.into());
        }
        frames.push(Frame::Data(last.into()));
        frames
    }

    fn end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.telling.include_usage {
            let mut last = self.chunk(json!([]));
            last.insert("usage".into(), usage(&self.finished, 1));
            if let Some(t) = self.finished.last() {
                last.insert("timings".into(), timings(t));
            }
            frames.push(Frame::Data(last.into()));
        }
        frames.push(Frame::Done);
        frames
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let mut choices = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let parts = Parts::of(&answer.text, &self.telling.split);
            let mut message = Map::new();
            message.insert("role".into(), "assistant".into());
            let silent = parts.text.is_empty() && !parts.calls.is_empty();
            message.insert("content".into(), if silent { Value::Null } else { parts.text.into() });
            if let Some(thoughts) = parts.reasoning {
                message.insert("reasoning_content".into(), thoughts.into());
            }
            let call = |(n, (name, arguments)): (usize, &(String, String))| {
                let function = json!({"name": name, "arguments": arguments});
                json!({"id": call_id(&self.head, index, n), "type": "function", "function": function})
            };
            if !parts.calls.is_empty() {
                message.insert("tool_calls".into(), parts.calls.iter().enumerate().map(call).collect());
            }
            let reason = finish_reason(answer.finished.reason, !parts.calls.is_empty());
            let mut choice = json!({"index": index, "message": message, "finish_reason": reason});
            if let Some(top) = self.telling.logprobs {
                choice["logprobs"] = json!({"content": logprobs(&answer.probabilities, top)});
            }
            choices.push(choice);
        }
        Ok(whole(&self.head, "chat.completion", choices, answers, 1))
    }
}

fn call_id(head: &Head, index: usize, n: usize) -> String {
    format!("call_{}{index}{n}", head.nonce)
}

fn envelope(head: &Head, object: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("id".into(), format!("chatcmpl-{}", head.nonce).into());
    map.insert("object".into(), object.into());
    map.insert("created".into(), head.created.into());
    map.insert("model".into(), head.model.clone().into());
    map.insert("system_fingerprint".into(), head.fingerprint.clone().into());
    map
}

fn whole(head: &Head, object: &str, choices: Vec<Value>, answers: &[Answer], prompts: usize) -> Value {
    let mut body = envelope(head, object);
    body.insert("choices".into(), choices.into());
    let all: Vec<Timings> = answers.iter().map(|a| a.finished.timings).collect();
    body.insert("usage".into(), usage(&all, prompts));
    if let Some(t) = all.last() {
        body.insert("timings".into(), timings(t));
    }
    let only = if let [answer] = answers { Some(&answer.finished) } else { None };
    head.tell(&mut body, only);
    if let Some(complete) = answers.iter().find_map(|a| a.finished.format_complete) {
        body.insert("format_complete".into(), complete.into());
    }
    if !head.warnings.is_empty() {
        body.insert("warnings".into(), head.warnings.clone().into());
    }
    body.into()
}

/// Text completions.
pub struct Completions {
    telling: Telling,
    head: Head,
    prompts: usize,
    answers: usize,
    finished: Vec<Timings>,
}

impl Completions {
    /// For `prompts` prompts with `answers` answers in all.
    pub fn new(telling: Telling, prompts: usize, answers: usize) -> Self {
        Self { telling, head: Head::default(), prompts, answers, finished: Vec::new() }
    }

    fn chunk(&self, choice: Value) -> Map<String, Value> {
        let mut chunk = envelope(&self.head, "text_completion");
        chunk.insert("choices".into(), json!([choice]));
        chunk
    }
}

impl Shape for Completions {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn token(&mut self, index: usize, event: &TokenEvent) -> Vec<Frame> {
        if event.text.is_empty() && event.probabilities.is_empty() {
            return Vec::new();
        }
        let logs = match self.telling.logprobs {
            Some(top) => json!({"content": logprobs(&event.probabilities, top)}),
            None => Value::Null,
        };
        let choice = json!({"text": event.text, "index": index, "logprobs": logs, "finish_reason": null});
        vec![Frame::Data(self.chunk(choice).into())]
    }

    fn finished(&mut self, index: usize, finished: &Finished) -> Vec<Frame> {
        self.finished.push(finished.timings);
        let reason = finish_reason(finished.reason, false);
        let mut last = self.chunk(json!({"text": "", "index": index, "logprobs": null, "finish_reason": reason}));
        if self.finished.len() == self.answers {
            last.insert("usage".into(), usage(&self.finished, self.prompts));
            last.insert("timings".into(), timings(&finished.timings));
            self.head.tell(&mut last, (self.answers == 1).then_some(finished));
        }
        vec![Frame::Data(last.into())]
    }

    fn end(&mut self) -> Vec<Frame> {
        vec![Frame::Done]
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let choice = |(index, answer): (usize, &Answer)| {
            let logs = match self.telling.logprobs {
                Some(top) => json!({"content": logprobs(&answer.probabilities, top)}),
                None => Value::Null,
            };
            let reason = finish_reason(answer.finished.reason, false);
            json!({"text": answer.text, "index": index, "logprobs": logs, "finish_reason": reason})
        };
        let choices = answers.iter().enumerate().map(choice).collect();
        Ok(whole(&self.head, "text_completion", choices, answers, self.prompts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FinishReason;
    use crate::wire::deltas::Split;

    fn finished() -> Finished {
        let timings = Timings { prompt_n: 5, predicted_n: 2, ..Timings::default() };
        Finished {
            reason: FinishReason::Stop,
            stopping_text: None,
            format_complete: None,
            crossed: Vec::new(),
            timings,
        }
    }

    fn text(text: &str) -> TokenEvent {
        TokenEvent { text: text.into(), tokens: vec![1], probabilities: vec![] }
    }

    fn values(frames: Vec<Frame>) -> Vec<Value> {
        let value = |f| if let Frame::Data(v) = f { Some(v) } else { None };
        frames.into_iter().filter_map(value).collect()
    }

    #[test]
    fn a_chat_stream_has_role_text_reason_and_usage_in_this_order() {
        let telling = Telling { stream: true, include_usage: true, ..Telling::default() };
        let mut chat = Chat::new(telling, 1);
        chat.accept(Head { nonce: "x".into(), model: "m".into(), ..Head::default() });
        let mut all = chat.begin(5, 0);
        all.extend(chat.token(0, &text("Hel")));
        all.extend(chat.token(0, &text("")));
        all.extend(chat.token(0, &text("lo")));
        all.extend(chat.finished(0, &finished()));
        all.extend(chat.end());
        assert_eq!(all.last(), Some(&Frame::Done));
        let chunks = values(all);
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
        assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "Hel"}));
        assert_eq!(chunks[2]["choices"][0]["delta"], json!({"content": "lo"}));
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
        assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["total_tokens"]), (&json!([]), &json!(7)));
        assert!(chunks[4]["timings"].is_object() && chunks.iter().all(|c| c["id"] == "chatcmpl-x"));
    }

    #[test]
    fn a_tool_call_is_told_as_one() {
        let split = Split { tools: vec!["get".into()], ..Split::default() };
        let telling = Telling { split, ..Telling::default() };
        let said = r#"{"name": "get", "arguments": {"a": 1}}"#;
        let answer = Answer { text: said.into(), tokens: vec![], probabilities: vec![], finished: finished() };
        let body = Chat::new(telling.clone(), 1).whole(&[answer]).expect("told");
        let message = &body["choices"][0]["message"];
        assert_eq!(message["tool_calls"][0]["function"], json!({"name": "get", "arguments": "{\"a\": 1}"}));
        assert_eq!((&message["content"], &body["choices"][0]["finish_reason"]), (&Value::Null, &json!("tool_calls")));
        let mut chat = Chat::new(telling, 1);
        let (begun, more) = said.split_at(said.len() - 4);
        let mut chunks = values(chat.token(0, &text(begun)));
        chunks.extend(values(chat.token(0, &text(more))));
        chunks.extend(values(chat.finished(0, &finished())));
        let calls: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]["tool_calls"][0]).collect();
        assert_eq!((&calls[1]["function"]["name"], &calls[1]["function"]["arguments"]), (&json!("get"), &json!("")));
        let arguments = |c: &&Value| c["function"]["arguments"].as_str().map(String::from);
        assert_eq!(calls.iter().filter_map(arguments).collect::<String>(), "{\"a\": 1}");
        assert!(calls.iter().all(|c| c.is_null() || c["index"] == 0) && calls.len() == 5, "{chunks:?}");
        assert_eq!(chunks[4]["choices"][0]["finish_reason"], "tool_calls");
    }
}
