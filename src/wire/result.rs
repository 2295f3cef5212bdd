//! One answer to one JSON object.

use serde_json::{Map, Value, json};

use super::shape::adapters_value;
use crate::error::{Code, Failure};
use crate::event::{Candidate, Finished, Timings, TokenProbability};
use crate::pipeline::{Answer, AnswerStage, Applied, Compositions, Weighed};
use crate::router::Route;

/// The result of a request. An answer that ended before its format was complete carries an `error` beside what
/// there is of it.
pub fn result_value(id: Option<&Value>, answer: &Answer, adapters: &[Applied], return_tokens: bool) -> Value {
    let f = &answer.finished;
    let mut object = Map::new();
    if let Some(id) = id {
        object.insert("id".into(), id.clone());
    }
    object.insert("content".into(), answer.text.clone().into());
    object.insert("adapters".into(), adapters_value(adapters));
    object.insert("finish_reason".into(), f.reason.name().into());
    if let Some(text) = &f.stopping_text {
        object.insert("stopping_word".into(), text.clone().into());
    }
    if let Some(complete) = f.format_complete {
        object.insert("format_complete".into(), complete.into());
    }
    if return_tokens {
        object.insert("tokens".into(), answer.tokens.clone().into());
    }
    if !answer.probabilities.is_empty() {
        let probabilities: Vec<Value> = answer.probabilities.iter().map(probability).collect();
        object.insert("completion_probabilities".into(), probabilities.into());
    }
    object.insert("usage".into(), usage(&f.timings));
    object.insert("timings".into(), timings(&f.timings));
    if let Some(failure) = cut(answer) {
        object.insert("error".into(), error_object(&failure));
    }
    object.into()
}

/// A result with how its adapters were chosen.
pub fn with_route(mut result: Value, route: Option<&Route>) -> Value {
    if let (Value::Object(object), Some(route)) = (&mut result, route) {
        object.insert("route".into(), route_value(route));
    }
    result
}

/// A result with what the compositions of its request came to.
pub fn with_compositions(mut result: Value, compositions: &Compositions, finished: &Finished) -> Value {
    if let Value::Object(object) = &mut result {
        tell_compositions(object, compositions, Some(finished));
    }
    result
}

/// Adds what compositions came to; nothing where there is nothing to tell. Where stages begin is known of an answer that has
/// ended; null for one that did not begin.
pub fn tell_compositions(body: &mut Map<String, Value>, compositions: &Compositions, finished: Option<&Finished>) {
    let rounded = |x: f32| (f64::from(x) * 1e4).round() / 1e4;
    let part = |(name, share): &(String, f32)| json!({"name": name, "share": rounded(*share)});
    let weighed = |w: &Weighed| {
        let parts: Vec<Value> = w.parts.iter().map(part).collect();
        json!({"composition": w.composition, "parts": parts, "equal_because": w.equally})
    };
    if !compositions.weighed.is_empty() {
        body.insert("weights".into(), compositions.weighed.iter().map(weighed).collect());
    }
    let stage = |(at, s): (usize, &AnswerStage)| {
        let mut object = Map::new();
        object.insert("adapters".into(), adapters_value(&s.adapters));
        if let Some(marker) = &s.marker {
            object.insert("marker".into(), marker.clone().into());
        }
        if let Some(finished) = finished {
            let from = if at == 0 { Some(0) } else { finished.crossed.get(at - 1).copied().flatten() };
            object.insert("from_token".into(), from.into());
        }
        Value::Object(object)
    };
    if !compositions.stages.is_empty() {
        body.insert("stages".into(), compositions.stages.iter().enumerate().map(stage).collect());
    }
}

/// A decision of the router.
pub fn route_value(route: &Route) -> Value {
    let rounded = |x: f32| (f64::from(x) * 1e4).round() / 1e4;
    let candidates: Vec<Value> = route
        .candidates
        .iter()
        .map(|c| {
            let e = &c.evidence;
            json!({
                "name": c.name, "digest": e.digest.to_hex(), "score": rounded(c.score), "share": rounded(c.share),
                "semantic": rounded(e.semantic), "centroid": rounded(e.centroid), "keyword": rounded(e.keyword),
                "learned": e.learned.map(|log| rounded(log.exp())),
            })
        })
        .collect();
    let adapters: Vec<Value> = route
        .adapters
        .iter()
        .map(|a| json!({"name": a.name, "digest": a.digest.to_hex(), "scale": rounded(a.weight)}))
        .collect();
    json!({
        "strategy": route.strategy.name(),
        "adapters": adapters,
        "confidence": rounded(route.confidence),
        "in_scope": rounded(route.scope),
        "format": route.format,
        "reason": route.reason,
        "candidates": candidates,
    })
}

/// The failure of an answer that ended before its format was complete.
pub fn cut(answer: &Answer) -> Option<Failure> {
    let f = &answer.finished;
    (f.format_complete == Some(false)).then(|| {
        let why = f.reason.name();
        Failure::new(
            Code::FormatCut,
            format!("the answer ended ({why}) before its format was complete; give a larger -n"),
        )
    })
}

/// The result of a refused or failed line.
pub fn error_value(id: &Value, failure: &Failure) -> Value {
    json!({"id": id, "error": error_object(failure)})
}

fn error_object(failure: &Failure) -> Value {
    json!({"code": failure.code.name(), "exit_code": failure.code.exit_code(), "message": failure.message})
}

fn usage(t: &Timings) -> Value {
    let prompt = t.cache_n + t.prompt_n;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": t.predicted_n,
        "total_tokens": prompt + t.predicted_n,
        "prompt_tokens_details": {"cached_tokens": t.cache_n},
    })
}

fn timings(t: &Timings) -> Value {
    let ms = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    let rate = |r: f64| (r * 1e3).round() / 1e3;
    let mut told = json!({
        "cache_n": t.cache_n,
        "prompt_n": t.prompt_n,
        "prompt_ms": ms(t.prompt),
        "prompt_per_second": rate(t.prompt_per_second()),
        "predicted_n": t.predicted_n,
        "predicted_ms": ms(t.predicted),
        "predicted_per_second": rate(t.predicted_per_second()),
        "queued_ms": ms(t.queued),
    });
    if t.draft_n > 0 {
        told["draft_n"] = t.draft_n.into();
        told["draft_n_accepted"] = t.draft_n_accepted.into();
    }
    told
}

fn probability(p: &TokenProbability) -> Value {
    let mut object = candidate(&p.chosen);
    let top: Vec<Value> = p.top.iter().map(|c| candidate(c).into()).collect();
    object.insert("top_logprobs".into(), top.into());
    object.into()
}

fn candidate(c: &Candidate) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".into(), c.token.into());
    object.insert("token".into(), String::from_utf8_lossy(&c.bytes).into_owned().into());
    object.insert("bytes".into(), c.bytes.clone().into());
    object.insert("logprob".into(), json!(c.logprob));
    object
}
