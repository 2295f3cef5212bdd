//! What the router would choose, without an answer.

use std::time::Instant;

use axum::extract::{Request as HttpRequest, State as StateOf};
use serde_json::{Value, json};

use super::super::naming;
use super::super::reply::{Reply, ok};
use super::{Shared, aside, read};
use crate::wire::{self, Problem};

/// POST `/v1/route`: `text`, `prompt` or `messages`, with `metadata` and `route` as in a request for an answer.
pub async fn route(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (mut body, grant) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || {
        if let Some(text) = body.remove("text") {
            body.entry("prompt").or_insert(text);
        }
        if body.get("adapters").is_some_and(|v| !v.is_null() && *v != "auto") {
            return Err(Problem::invalid("adapters: this route chooses them; leave it out").into());
        }
        body.remove("model");
        body.insert("adapters".into(), Value::from("auto"));
        let mut asked = wire::parse_object(body, &state.options.defaults).map_err(|e| e.failure)?;
        naming::permit(&state, &grant, &mut asked.request)?;
        let began = Instant::now();
        let route = pipeline.route(&asked.request)?;
        let took = began.elapsed();
        state.metrics.routed(took);
        ok(&json!({"route": wire::route_value(&route), "took_ms": (took.as_secs_f64() * 1e6).round() / 1e3}))
    })
    .await
}
