//! Streams of conversations, read again and stopped (see [`super::super::conversations`]).

use axum::body::Body;
use axum::extract::{Query, Request as HttpRequest, State as StateOf};
use serde::Deserialize;
use serde_json::Value;

use super::super::generate::{self, SSE};
use super::super::reply::{Reply, ok, typed};
use super::{Shared, granted, read};
use crate::wire::Problem;

/// The query of `/v1/stream`.
#[derive(Debug, Deserialize)]
pub struct Which {
    conv_id: Option<String>,
    from: Option<String>,
}

impl Which {
    fn id(&self) -> Result<&str, Problem> {
        self.conv_id.as_deref().filter(|id| !id.is_empty()).ok_or_else(|| Problem::invalid("conv_id: is missing"))
    }
}

/// GET `/v1/stream?conv_id=ID&from=BYTE`: what was said from there on, and what will be.
pub async fn replay(StateOf(state): Shared, Query(which): Query<Which>, request: HttpRequest) -> Reply {
    let id = which.id()?;
    let found = state.conversations.find(granted(request.extensions()).owner, id);
    let conversation = found
        .ok_or_else(|| Problem::new(404, "not_found_error", "conv_id: there is no such stream, or it has expired"))?;
    let from = which.from.as_deref().filter(|text| !text.is_empty()).map(str::parse::<usize>).transpose();
    let from = from.map_err(|_| Problem::invalid("from: must be a number of bytes"))?.unwrap_or(0);
    let chunks = conversation.read(from);
    let chunks = chunks.ok_or_else(|| Problem::invalid("from: these bytes are no longer kept; begin again"))?;
    Ok(generate::replayed(chunks, SSE))
}

/// DELETE `/v1/stream?conv_id=ID`: stops it, if there is one.
pub async fn stop(StateOf(state): Shared, Query(which): Query<Which>, request: HttpRequest) -> Reply {
    state.conversations.stop(granted(request.extensions()).owner, which.id()?);
    Ok(typed(204, "application/json", Body::empty()))
}

/// POST `/v1/streams/lookup`: which of these conversations there are.
pub async fn look_up(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    let ids = body.get("conversation_ids").and_then(Value::as_array).cloned().unwrap_or_default();
    let ids: Vec<String> = ids.iter().filter_map(Value::as_str).map(String::from).collect();
    ok(&state.conversations.look_up(grant.owner, &ids))
}
