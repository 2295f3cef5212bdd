//! Ollama's routes, which llama-server dropped.

use axum::extract::{Request as HttpRequest, State as StateOf};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::super::generate::{self, NDJSON, Plan};
use super::super::keys::Grant;
use super::super::naming;
use super::super::reply::{Refusal, Reply, ok};
use super::super::stage::Stage;
use super::super::state::State;
use super::chat::{plan, single};
use super::{Shared, aside, chat as openai, completion, granted, read};
use crate::gguf::ModelFacts;
use crate::library::{Entry, Filter, Page};
use crate::pipeline::Pipeline;
use crate::request::Request;
use crate::wire::{self, OllamaRoute};

/// The version of Ollama whose routes these are; its clients look at it.
const VERSION: &str = "0.6.3";
/// Adapters listed at most.
const LISTED: usize = 1000;

/// POST `/api/chat`.
pub async fn chat(StateOf(state): Shared, request: HttpRequest) -> Response {
    told(answer(state, request, OllamaRoute::Chat).await)
}

/// POST `/api/generate`.
pub async fn generate(StateOf(state): Shared, request: HttpRequest) -> Response {
    told(answer(state, request, OllamaRoute::Generate).await)
}

async fn answer(state: std::sync::Arc<State>, request: HttpRequest, route: OllamaRoute) -> Reply {
    let (body, grant) = read(&state, request).await?;
    // Without anything to answer, Ollama loads the model; ours is.
    let field = if route == OllamaRoute::Chat { "messages" } else { "prompt" };
    let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty) || v == "";
    if body.get(field).is_none_or(empty) {
        state.pipeline()?;
        let model = body.get("model").cloned().unwrap_or(Value::Null);
        return ok(&json!({"model": model, "response": "", "message": {"role": "assistant", "content": ""},
            "done": true, "done_reason": "load"}));
    }
    generate::run(state, move |state, pipeline| understood(state, pipeline, body, &grant, route)).await
}

fn understood(
    state: &State,
    pipeline: &Pipeline,
    body: Map<String, Value>,
    grant: &Grant,
    route: OllamaRoute,
) -> Result<Plan, Refusal> {
    let body = wire::ollama_to_chat(body, route)?;
    if body.contains_key("prompt") {
        let asked = completion::understand(state, pipeline, body, grant)?;
        let shape = Box::new(wire::Ollama::new(route, asked.call.telling.clone()));
        let call = single(asked.call)?;
        let requests =
            asked.inputs.into_iter().take(1).map(|input| Request { input, ..call.request.clone() }).collect();
        return Ok(Plan { requests, shape, telling: call.telling, content_type: NDJSON, model: asked.model });
    }
    let (call, model) = openai::understand(state, pipeline, body, grant)?;
    let shape = Box::new(wire::Ollama::new(route, call.telling.clone()));
    plan(state, single(call)?, shape, NDJSON, model)
}

/// Ollama's errors are `{"error": text}`.
pub fn told(reply: Reply) -> Response {
    match reply {
        Ok(response) => response,
        Err(Refusal { status, body }) => {
            let message = body.pointer("/error/message").cloned().unwrap_or(body);
            Refusal { status, body: json!({"error": message}) }.into_response()
        }
    }
}

fn details(state: &State, base: &ModelFacts) -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": base.architecture, "families": [base.architecture],
        "parameter_size": format!("{:.1}M", base.parameter_count as f64 / 1e6),
        "quantization_level": base.file_type, "base": state.model_name(),
    })
}

/// GET `/api/tags`.
pub async fn tags(StateOf(state): Shared, request: HttpRequest) -> Response {
    let grant = granted(request.extensions());
    let work = move || {
        let known = &state.known()?.base;
        let details = details(&state, known);
        let base = state.model_name();
        let one = |name: String, bytes: u64, digest: String| {
            json!({"name": name, "model": name, "modified_at": "1970-01-01T00:00:00Z", "size": bytes,
                "digest": digest, "details": details})
        };
        let mut models = vec![one(base.clone(), known.weight_bytes, String::new())];
        let adapter = |e: &Entry| one(format!("{base}:{}", e.name), e.bytes, e.digest.to_hex());
        models.extend(listed(&state, &grant)?.iter().map(adapter));
        ok(&json!({"models": models}))
    };
    told(aside(work).await)
}

/// The adapters that a key may see.
pub fn listed(state: &State, grant: &Grant) -> Result<Vec<Entry>, Refusal> {
    let Some(library) = state.library()? else { return Ok(Vec::new()) };
    let all = library.list(&Filter::default(), &Page::first(LISTED));
    let all = all.map_err(|e| crate::shelf::library_failure(&e))?;
    Ok(all.into_iter().filter(|e| grant.allows(e.name.as_str())).collect())
}

/// POST `/api/show`.
pub async fn show(StateOf(state): Shared, request: HttpRequest) -> Response {
    let work = async {
        let (mut body, grant) = read(&state, request).await?;
        aside(move || {
            let pipeline = state.pipeline()?.clone();
            if let Some(name) = body.remove("name") {
                body.entry("model").or_insert(name);
            }
            let mut chosen = Map::new();
            chosen.insert("model".into(), body.remove("model").unwrap_or(Value::Null));
            let (name, _) = naming::resolve(&state, &mut chosen)?;
            let base = state.model_name();
            if let Some(adapter) = name.strip_prefix(&format!("{base}:"))
                && !matches!(adapter, "auto")
                && (!grant.allows(adapter) || !listed_one(&state, adapter)?)
            {
                return Err(naming::unknown(state.library()?.as_deref(), &base, adapter).into());
            }
            let facts = pipeline.base();
            let arch = &facts.architecture;
            let mut info = Map::new();
            info.insert("general.architecture".into(), arch.clone().into());
            info.insert("general.parameter_count".into(), facts.parameter_count.into());
            info.insert(format!("{arch}.context_length"), facts.n_ctx_train.into());
            info.insert(format!("{arch}.embedding_length"), facts.n_embd.into());
            info.insert(format!("{arch}.block_count"), facts.n_layer.into());
            ok(&json!({
                "modelfile": "", "parameters": "", "template": facts.chat_template, "license": "",
                "details": details(&state, facts), "model_info": info, "capabilities": ["completion", "tools"],
                "modified_at": "1970-01-01T00:00:00Z",
            }))
        })
        .await
    };
    told(work.await)
}

fn listed_one(state: &State, name: &str) -> Result<bool, Refusal> {
    let Some(library) = state.library()? else { return Ok(false) };
    let name = crate::library::AdapterName::new(name);
    Ok(name.is_ok_and(|name| library.find(&name).is_ok()))
}

/// GET `/api/ps`.
pub async fn ps(StateOf(state): Shared) -> Response {
    let work = || {
        let known = state.known()?;
        if matches!(state.stages.now(), Stage::Asleep(_)) {
            return ok(&json!({"models": []}));
        }
        let (name, bytes) = (state.model_name(), known.base.weight_bytes);
        let model = json!({"name": name, "model": name, "size": bytes, "size_vram": 0, "digest": "",
            "details": details(&state, &known.base), "expires_at": "9999-12-31T23:59:59Z",
            "context_length": known.facts.context});
        ok(&json!({"models": [model]}))
    };
    told(work())
}

/// GET `/api/version`.
pub async fn version() -> Reply {
    ok(&json!({"version": VERSION}))
}
