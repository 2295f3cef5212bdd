//! llama-server's own completion: prompt shapes in, its result object out.

use serde_json::{Map, Value, json};

use super::asked::Telling;
use super::fields::{FieldError, expected};
use super::shape::{Frame, Head, Shape, logprobs, timings};
use crate::engine::Token;
use crate::error::Failure;
use crate::event::{FinishReason, Finished, TokenEvent};
use crate::grammar::Source;
use crate::pipeline::Answer;
use crate::request::Request;
use crate::sampling::Mirostat;

/// A part of a prompt: text, or a token as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text, in which control tokens are recognised.
    Text(String),
    /// A token.
    Token(Token),
}

/// The prompts of a request: a text; token ids; texts and ids mixed; `{"prompt_string": ..}`; or an array of those.
/// True when they were an array of prompts.
///
/// # Errors
/// It is none of these.
pub fn prompts(field: &str, value: &Value) -> Result<(Vec<Vec<Part>>, bool), FieldError> {
    let Value::Array(items) = value else {
        return Ok((vec![single(field, value)?], false));
    };
    if items.iter().any(Value::is_number) {
        return Ok((vec![single(field, value)?], false));
    }
    if items.is_empty() {
        return Err(FieldError::new(field, "is an empty array"));
    }
    let one = |(i, item)| single(&format!("{field}[{i}]"), item);
    Ok((items.iter().enumerate().map(one).collect::<Result<_, _>>()?, true))
}

fn single(field: &str, value: &Value) -> Result<Vec<Part>, FieldError> {
    let id = |v: &Value| v.as_u64().and_then(|n| Token::try_from(n).ok());
    match value {
        Value::String(text) => Ok(vec![Part::Text(text.clone())]),
        Value::Object(object) => {
            if object.get("multimodal_data").is_some_and(|d| d.as_array().is_none_or(|a| !a.is_empty())) {
                return Err(FieldError::new(format!("{field}.multimodal_data"), "this model takes text only"));
            }
            match object.get("prompt_string") {
                Some(Value::String(text)) => Ok(vec![Part::Text(text.clone())]),
                _ => Err(FieldError::new(format!("{field}.prompt_string"), "is missing")),
            }
        }
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(Part::Text(text.clone())),
                other => id(other).map(Part::Token).ok_or_else(|| expected(field, "texts and token ids", other)),
            })
            .collect(),
        other => Err(expected(field, "a text, token ids or an array of prompts", other)),
    }
}

/// `generation_settings`: the request as llama-server tells it.
pub fn settings(r: &Request) -> Value {
    let s = &r.sampling;
    let (grammar, schema) = match &r.format {
        Some(Source::Gbnf(text)) => (text.clone(), Value::Null),
        Some(Source::JsonSchema(text) | Source::CheckedSchema(text) | Source::Schema { text, .. }) => {
            (String::new(), serde_json::from_str(text).unwrap_or(Value::Null))
        }
        _ => (String::new(), Value::Null),
    };
    let named = match &r.format {
        Some(Source::Named(name)) => json!(name),
        _ => Value::Null,
    };
    let seconds = r.limits.max_time.map_or(-1, |t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX));
    let mut told = json!({
        "n_predict": r.limits.max_tokens.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        "max_tokens": r.limits.max_tokens.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        "seed": s.seed.unwrap_or(u32::MAX),
        "temperature": s.temperature,
        "dynatemp_range": s.dynatemp_range,
        "dynatemp_exponent": s.dynatemp_exponent,
        "top_k": s.top_k,
        "top_p": s.top_p,
        "min_p": s.min_p,
        "top_n_sigma": s.top_n_sigma,
        "xtc_probability": s.xtc_probability,
        "xtc_threshold": s.xtc_threshold,
        "typical_p": s.typical_p,
        "repeat_last_n": s.repeat_last_n,
        "repeat_penalty": s.repeat_penalty,
        "presence_penalty": s.presence_penalty,
        "frequency_penalty": s.frequency_penalty,
        "dry_multiplier": s.dry_multiplier,
        "dry_base": s.dry_base,
        "dry_allowed_length": s.dry_allowed_length,
        "dry_penalty_last_n": s.dry_penalty_last_n,
        "dry_sequence_breakers": s.dry_sequence_breakers,
        "mirostat": match s.mirostat { Mirostat::Off => 0, Mirostat::V1 => 1, Mirostat::V2 => 2 },
        "mirostat_tau": s.mirostat_tau,
        "mirostat_eta": s.mirostat_eta,
        "adaptive_target": s.adaptive_target,
        "adaptive_decay": s.adaptive_decay,
        "stop": r.limits.stop,
        "n_keep": r.limits.shift.map_or(0, |s| s.keep),
        "n_discard": r.limits.shift.and_then(|s| s.discard).unwrap_or(0),
        "ignore_eos": s.ignore_eos,
        "n_probs": r.n_probs,
        "min_keep": s.min_keep,
        "grammar": grammar,
        "json_schema": schema,
        "format": named,
        "samplers": s.order.iter().map(|k| k.name()).collect::<Vec<_>>(),
        "t_max_predict_ms": seconds,
        "cache_prompt": r.cache_prompt,
        "post_sampling_probs": false,
        "timings_per_token": false,
    });
    told["speculative.types"] = r.drafts.ways.names().into();
    told
}

/// llama-server's own completions, whole and streamed.
pub struct Native {
    telling: Telling,
    head: Head,
    settings: Value,
    /// The prompts as the model reads them; one per answer.
    prompts: Vec<String>,
    /// An array of prompts was given, so an array of results is.
    several: bool,
    answers: Vec<Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    tokens: usize,
    newline: bool,
    prompt: usize,
}

impl Native {
    /// For answers to `prompts`.
    pub fn new(telling: Telling, request: &Request, prompts: Vec<String>, several: bool) -> Self {
        let answers = vec![Progress::default(); prompts.len()];
        let mut settings = settings(request);
        settings["stream"] = telling.stream.into();
        Self { telling, head: Head::default(), settings, prompts, several, answers }
    }

    fn last(&self, index: usize, finished: &Finished, newline: bool) -> Map<String, Value> {
        let t = &finished.timings;
        let read = t.cache_n + t.prompt_n;
        let value = json!({
            "index": index,
            "content": "",
            "tokens": [],
            "id_slot": index,
            "stop": true,
            "model": self.head.model,
            "tokens_predicted": t.predicted_n,
            "tokens_evaluated": read,
            "generation_settings": self.settings,
            "prompt": self.prompts.get(index),
            "has_new_line": newline,
            "truncated": finished.reason == FinishReason::ContextFull,
            "stop_type": stop_type(finished.reason),
            "stopping_word": finished.stopping_text.as_deref().unwrap_or_default(),
            "tokens_cached": (read + t.predicted_n).saturating_sub(1),
            "timings": timings(t),
        });
        let Value::Object(mut object) = value else { return Map::new() };
        self.head.tell(&mut object, Some(finished));
        if let Some(complete) = finished.format_complete {
            object.insert("format_complete".into(), complete.into());
        }
        object
    }

    fn chosen(&self, object: Map<String, Value>) -> Value {
        if self.telling.response_fields.is_empty() {
            return object.into();
        }
        let object = Value::Object(object);
        let mut chosen = Map::new();
        for path in &self.telling.response_fields {
            let found = path.split('/').try_fold(&object, |at, key| at.get(key));
            found.into_iter().for_each(|v| drop(chosen.insert(path.clone(), v.clone())));
        }
        chosen.into()
    }
}

fn stop_type(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "eos",
        FinishReason::StopString => "word",
        FinishReason::Length | FinishReason::TimeLimit | FinishReason::ContextFull => "limit",
        FinishReason::Cancelled => "none",
    }
}

impl Shape for Native {
    fn accept(&mut self, head: Head) {
        self.head = head;
    }

    fn begin(&mut self, prompt: usize, cached: usize) -> Vec<Frame> {
        self.answers.iter_mut().for_each(|a| a.prompt = prompt);
        if !self.telling.return_progress {
            return Vec::new();
        }
        let progress = json!({"total": prompt, "cache": cached, "processed": prompt});
        vec![Frame::Data(json!({"index": 0, "content": "", "tokens": [], "stop": false, "prompt_progress": progress}))]
    }

    fn token(&mut self, index: usize, event: &TokenEvent) -> Vec<Frame> {
        let so_far = &mut self.answers[index];
        so_far.tokens += event.tokens.len();
        so_far.newline |= event.text.contains('\n');
        if event.text.is_empty() && event.tokens.is_empty() {
            return Vec::new();
        }
        let mut object = json!({
            "index": index,
            "content": event.text,
            "tokens": event.tokens,
            "stop": false,
            "id_slot": index,
            "tokens_predicted": so_far.tokens,
            "tokens_evaluated": so_far.prompt,
        });
        if let Some(top) = self.telling.logprobs.filter(|_| !event.probabilities.is_empty()) {
            object["completion_probabilities"] = logprobs(&event.probabilities, top);
        }
        vec![Frame::Data(object)]
    }

    fn finished(&mut self, index: usize, finished: &Finished) -> Vec<Frame> {
        let object = self.last(index, finished, self.answers[index].newline);
        vec![Frame::Data(self.chosen(object))]
    }

    fn end(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure> {
        let one = |(index, answer): (usize, &Answer)| {
            let mut object = self.last(index, &answer.finished, answer.text.contains('\n'));
            object.insert("content".into(), answer.text.clone().into());
            if self.telling.return_tokens {
                object.insert("tokens".into(), answer.tokens.clone().into());
            }
            if let Some(top) = self.telling.logprobs {
                object.insert("completion_probabilities".into(), logprobs(&answer.probabilities, top));
            }
            self.chosen(object)
        };
        let mut results: Vec<Value> = answers.iter().enumerate().map(one).collect();
        Ok(if self.several || results.len() != 1 { results.into() } else { results.remove(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Input;

    #[test]
    fn prompts_have_llama_servers_shapes() {
        let text = |t: &str| Part::Text(t.into());
        let table = [
            (json!("a"), vec![vec![text("a")]], false),
            (json!([1, 2]), vec![vec![Part::Token(1), Part::Token(2)]], false),
            (json!([1, "a", 2]), vec![vec![Part::Token(1), text("a"), Part::Token(2)]], false),
            (json!(["a", "b"]), vec![vec![text("a")], vec![text("b")]], true),
            (json!([[1], "b"]), vec![vec![Part::Token(1)], vec![text("b")]], true),
            (json!({"prompt_string": "a"}), vec![vec![text("a")]], false),
            (json!([[1, "x"], {"prompt_string": "b"}]), vec![vec![Part::Token(1), text("x")], vec![text("b")]], true),
        ];
        for (value, expected, several) in table {
            assert_eq!(prompts("prompt", &value).expect("read"), (expected, several), "{value}");
        }
        let bad = [
            json!(5),
            json!([]),
            json!([1, -1]),
            json!([1.5]),
            json!({}),
            json!([null]),
            json!(true),
            json!({"prompt_string": "a", "multimodal_data": ["x"]}),
        ];
        for value in bad {
            assert!(prompts("prompt", &value).is_err(), "{value}");
        }
    }

    #[test]
    fn response_fields_pick_by_path() {
        let request = Request::new(Input::Raw("x".into()));
        let fields = ["content", "generation_settings/n_predict", "nothing/here"].map(String::from).to_vec();
        let telling = Telling { response_fields: fields, ..Telling::default() };
        let finished = Finished {
            reason: FinishReason::Stop,
            stopping_text: None,
            format_complete: None,
            crossed: Vec::new(),
            timings: Default::default(),
        };
        let answer = Answer { text: "hi".into(), tokens: vec![], probabilities: vec![], finished };
        let body = Native::new(telling, &request, vec!["x".into()], false).whole(&[answer]).expect("told");
        assert_eq!(body, json!({"content": "hi", "generation_settings/n_predict": -1}));
    }
}
