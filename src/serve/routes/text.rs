//! Text to tokens and back, and templates, without an answer.

use axum::extract::{Request as HttpRequest, State as StateOf};
use serde_json::{Map, Value, json};

use super::super::keys::Grant;
use super::super::reply::{Refusal, Reply, ok};
use super::super::state::State;
use super::{Shared, aside, chat, read};
use crate::engine::Token;
use crate::pipeline::Pipeline;
use crate::prompt::Prompt;
use crate::request::Input;
use crate::wire::{self, Problem};

/// The bytes of tokens, control tokens spelled out.
pub fn bytes(pipeline: &Pipeline, tokens: &[Token]) -> Vec<u8> {
    let tokenizer = pipeline.tokenizer();
    let one = |t: &Token| match tokenizer.piece(*t) {
        piece if piece.is_empty() => tokenizer.spelling(*t).into_bytes(),
        piece => piece,
    };
    tokens.iter().flat_map(one).collect()
}

fn flag(body: &Map<String, Value>, name: &str, default: bool) -> Result<bool, Problem> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(Problem::invalid(format!("{name}: must be true or false, not {other}"))),
    }
}

/// POST `/tokenize`.
pub async fn tokenize(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, _) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || {
        let special = flag(&body, "add_special", false)?;
        let parse = flag(&body, "parse_special", true)?;
        let pieces = flag(&body, "with_pieces", false)?;
        let tokens = match body.get("content") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => {
                let prompt = match parse {
                    true => Prompt::raw(text.clone()),
                    false => Prompt::default().followed_by(text.clone()),
                };
                pipeline.tokenizer().tokenize(&prompt, special)
            }
            Some(other) => return Err(Problem::invalid(format!("content: must be a text, not {other}")).into()),
        };
        let piece = |t: &Token| {
            let piece = match String::from_utf8(bytes(&pipeline, &[*t])) {
                Ok(text) => json!(text),
                Err(e) => json!(e.into_bytes()),
            };
            json!({"id": t, "piece": piece})
        };
        let tokens: Value = if pieces { tokens.iter().map(piece).collect() } else { json!(tokens) };
        ok(&json!({"tokens": tokens}))
    })
    .await
}

/// POST `/detokenize`.
pub async fn detokenize(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, _) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || {
        let vocabulary = pipeline.facts().vocabulary;
        let tokens = match body.get("tokens") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                let id =
                    |v: &Value| v.as_u64().and_then(|n| Token::try_from(n).ok()).filter(|n| (*n as usize) < vocabulary);
                let wrong = |v: &Value| Problem::invalid(format!("tokens: {v} is not a token below {vocabulary}"));
                items.iter().map(|v| id(v).ok_or_else(|| wrong(v))).collect::<Result<Vec<_>, _>>()?
            }
            Some(other) => return Err(Problem::invalid(format!("tokens: must be an array, not {other}")).into()),
        };
        ok(&json!({"content": String::from_utf8_lossy(&bytes(&pipeline, &tokens))}))
    })
    .await
}

/// POST `/apply-template`.
pub async fn apply_template(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || {
        let (call, _) = chat::understand(&state, &pipeline, body, &grant)?;
        let Input::Chat { messages, tools, kwargs } = call.request.input else {
            return Err(Problem::invalid("messages: is missing").into());
        };
        ok(&json!({"prompt": pipeline.render(messages, tools, kwargs)?.text()}))
    })
    .await
}

/// POST `/v1/chat/completions/input_tokens`.
pub async fn count_chat(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || counted(count(&state, &pipeline, body, &grant)?)).await
}

/// POST `/v1/responses/input_tokens`.
pub async fn count_responses(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    let pipeline = state.pipeline()?.clone();
    aside(move || {
        let (body, _) = wire::responses_to_chat(body)?;
        counted(count(&state, &pipeline, body, &grant)?)
    })
    .await
}

fn counted(n: usize) -> Reply {
    ok(&json!({"object": "response.input_tokens", "input_tokens": n}))
}

/// How many tokens a chat request would be.
pub fn count(state: &State, pipeline: &Pipeline, body: Map<String, Value>, grant: &Grant) -> Result<usize, Refusal> {
    let (call, _) = chat::understand(state, pipeline, body, grant)?;
    Ok(pipeline.prompt_tokens(call.request.input)?.len())
}
