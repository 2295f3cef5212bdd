//! What every way of answering has in common: frames of a stream, the head of a response, token counts.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::result::{route_value, tell_compositions};
use crate::error::Failure;
use crate::event::{Candidate, FinishReason, Finished, Timings, TokenEvent, TokenProbability};
use crate::pipeline::{Answer, Applied, Compositions};
use crate::router::Route;

/// One piece of a streamed response, before it is spelled as bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A server-sent event without a name.
    Data(Value),
    /// A server-sent event with a name.
    Named(&'static str, Value),
    /// `data: [DONE]`, OpenAI's end mark.
    Done,
    /// One line of newline-delimited JSON.
    Line(Value),
}

impl Frame {
    /// The bytes on the wire.
    pub fn to_text(&self) -> String {
        match self {
            Frame::Data(value) => format!("data: {value}\n\n"),
            Frame::Named(name, value) => format!("event: {name}\ndata: {value}\n\n"),
            Frame::Done => "data: [DONE]\n\n".into(),
            Frame::Line(value) => format!("{value}\n"),
        }
    }
}

/// What a response tells besides the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// A random part for ids, unique per request.
    pub nonce: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, with its adapter where one is named.
    pub model: String,
    /// `system_fingerprint`.
    pub fingerprint: String,
    /// The adapters the answer runs under.
    pub adapters: Vec<Applied>,
    /// How they were chosen, when the router chose them.
    pub route: Option<Arc<Route>>,
    /// What its compositions came to.
    pub compositions: Compositions,
    /// What the caller should know, one line each.
    pub warnings: Vec<String>,
}

impl Head {
    /// Adds to the body of an answer which adapters it ran under, and how they were chosen.
    /// `finished`: the end of the answer, where it is one and it has ended.
    pub fn tell(&self, body: &mut Map<String, Value>, finished: Option<&Finished>) {
        body.insert("adapters".into(), adapters_value(&self.adapters));
        if let Some(route) = &self.route {
            body.insert("route".into(), route_value(route));
        }
        tell_compositions(body, &self.compositions, finished);
    }
}

/// One API's way of telling answers. Answers of one request have indices from 0.
pub trait Shape: Send {
    /// Takes what is known once the request is accepted.
    fn accept(&mut self, head: Head);
    /// The first prompt has been read: so many tokens, so many of them from a cache.
    fn begin(&mut self, _prompt: usize, _cached: usize) -> Vec<Frame> {
        Vec::new()
    }
    /// More text of an answer.
    fn token(&mut self, index: usize, event: &TokenEvent) -> Vec<Frame>;
    /// An answer is complete.
    fn finished(&mut self, index: usize, finished: &Finished) -> Vec<Frame>;
    /// All answers are complete.
    fn end(&mut self) -> Vec<Frame>;
    /// The stream ends with an error, given as an error body.
    fn failed(&mut self, error: Value) -> Vec<Frame> {
        vec![Frame::Data(error)]
    }
    /// All answers in one body.
    ///
    /// # Errors
    /// The answers cannot be told, for example a tool call that is none.
    fn whole(&mut self, answers: &[Answer]) -> Result<Value, Failure>;
}

/// The adapters of an answer, with content digests.
pub fn adapters_value(adapters: &[Applied]) -> Value {
    adapters.iter().map(|a| json!({"name": a.name, "digest": a.digest.to_hex(), "scale": a.scale})).collect()
}

/// `usage` in OpenAI's form, summed over the answers; a prompt shared by them counts once.
pub fn usage(timings: &[Timings], prompts: usize) -> Value {
    let several = timings.len().max(1) / prompts.max(1);
    let read = |t: &Timings| t.cache_n + t.prompt_n;
    let prompt: usize = timings.iter().step_by(several.max(1)).map(read).sum();
    let cached: usize = timings.iter().step_by(several.max(1)).map(|t| t.cache_n).sum();
    let completion: usize = timings.iter().map(|t| t.predicted_n).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

/// `timings` with llama-server's names.
pub fn timings(t: &Timings) -> Value {
    let ms = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    let rounded = |r: f64| (r * 1e3).round() / 1e3;
    let each = |d: std::time::Duration, n: usize| if n == 0 { 0.0 } else { rounded(d.as_secs_f64() * 1e3 / n as f64) };
    let mut told = json!({
        "cache_n": t.cache_n,
        "prompt_n": t.prompt_n,
        "prompt_ms": ms(t.prompt),
        "prompt_per_token_ms": each(t.prompt, t.prompt_n),
        "prompt_per_second": rounded(t.prompt_per_second()),
        "predicted_n": t.predicted_n,
        "predicted_ms": ms(t.predicted),
        "predicted_per_token_ms": each(t.predicted, t.predicted_n.saturating_sub(1)),
        "predicted_per_second": rounded(t.predicted_per_second()),
        "queued_ms": ms(t.queued),
    });
    if t.draft_n > 0 {
        told["draft_n"] = t.draft_n.into();
        told["draft_n_accepted"] = t.draft_n_accepted.into();
    }
    told
}

/// OpenAI's `finish_reason`.
pub fn finish_reason(reason: FinishReason, called: bool) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString if called => "tool_calls",
        FinishReason::Stop | FinishReason::StopString | FinishReason::Cancelled => "stop",
        FinishReason::Length | FinishReason::ContextFull | FinishReason::TimeLimit => "length",
    }
}

/// Log-probabilities as llama-server and OpenAI's chat spell them; at most `top` alternatives each.
pub fn logprobs(probabilities: &[TokenProbability], top: usize) -> Value {
    let candidate = |c: &Candidate| {
        json!({
            "id": c.token,
            "token": String::from_utf8_lossy(&c.bytes),
            "bytes": c.bytes,
            "logprob": c.logprob,
        })
    };
    let one = |p: &TokenProbability| {
        let mut object = candidate(&p.chosen);
        object["top_logprobs"] = p.top.iter().take(top).map(candidate).collect();
        object
    };
    probabilities.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spelled_for_their_reader() {
        let value = json!({"a": "b\nc"});
        assert_eq!(Frame::Data(value.clone()).to_text(), "data: {\"a\":\"b\\nc\"}\n\n");
        assert_eq!(Frame::Named("x", value.clone()).to_text(), "event: x\ndata: {\"a\":\"b\\nc\"}\n\n");
        assert_eq!(Frame::Done.to_text(), "data: [DONE]\n\n");
        assert_eq!(Frame::Line(value).to_text(), "{\"a\":\"b\\nc\"}\n");
    }

    #[test]
    fn a_prompt_that_several_answers_share_counts_once() {
        let t = Timings { cache_n: 1, prompt_n: 4, predicted_n: 3, ..Timings::default() };
        let u = usage(&[t, t, t], 1);
        assert_eq!(
            (&u["prompt_tokens"], &u["completion_tokens"], &u["total_tokens"]),
            (&json!(5), &json!(9), &json!(14))
        );
        assert_eq!(usage(&[t, t], 2)["prompt_tokens"], 10);
    }
}
