//! Anthropic's Messages API. Errors have its envelope, which its clients read.

use axum::extract::{Request as HttpRequest, State as StateOf};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::generate::{self, SSE};
use super::super::reply::{Refusal, Reply, ok};
use super::chat::{plan, single, understand};
use super::{Shared, aside, read, text};
use crate::wire;

/// POST `/v1/messages`.
pub async fn messages(StateOf(state): Shared, request: HttpRequest) -> Response {
    let answered = async {
        let (body, grant) = read(&state, request).await?;
        generate::run(state.clone(), move |state, pipeline| {
            let body = wire::messages_to_chat(body)?;
            let (call, model) = understand(state, pipeline, body, &grant)?;
            let shape = Box::new(wire::Messages::new(call.telling.clone()));
            plan(state, single(call)?, shape, SSE, model)
        })
        .await
    };
    enveloped(answered.await)
}

/// POST `/v1/messages/count_tokens`.
pub async fn count(StateOf(state): Shared, request: HttpRequest) -> Response {
    let answered = async {
        let (body, grant) = read(&state, request).await?;
        let pipeline = state.pipeline()?.clone();
        aside(move || {
            let body = wire::messages_to_chat(body)?;
            ok(&json!({"input_tokens": text::count(&state, &pipeline, body, &grant)?}))
        })
        .await
    };
    enveloped(answered.await)
}

fn enveloped(reply: Reply) -> Response {
    match reply {
        Ok(response) => response,
        Err(Refusal { status, body }) => {
            let body = wire::anthropic_error(status, &body);
            Refusal { status, body }.into_response()
        }
    }
}
